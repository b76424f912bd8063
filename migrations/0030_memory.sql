-- Memory and knowledge: memories, documents and their chunks in the workspace's own schema; the function memory's role; jobs, which do what needs no answer.
--
-- A document is kept as it was sent and split by a job. A version is searched from the moment when all of its chunks are there, and the one before until then: no search finds
-- half a document, and none finds two versions of one.
--
-- Jobs are at-least-once in and exactly-once in effect: whoever takes one has it for a while (a lease); what a job does and its end are one transaction, which asks for the lease.
-- Those of one order (a document, a session) run one after the other. A job that fails too often is dead: it stays, and is listed and tried again by the operator.
--
-- Traps: * memory tables are in a schema for each workspace: what changes them is astra.memory_build, which this migration runs for all that are there.
--        * what belongs to one member (user_id) is for that member alone, whoever asks: recall and the lists compare it.
--        * no foreign key from a job to what it is about: a job whose document is gone finds nothing and ends.

DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_memory') THEN
    BEGIN
      CREATE ROLE astra_memory NOINHERIT NOCREATEDB NOCREATEROLE LOGIN;
      ALTER ROLE astra_memory SET statement_timeout = '15s';
      ALTER ROLE astra_memory SET idle_in_transaction_session_timeout = '15s';
      ALTER ROLE astra_memory SET jit = off;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_memory'
             AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR NOT rolcanlogin)) THEN
    RAISE EXCEPTION 'role astra_memory exists with other rights than astra gives it';
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member WHERE r.rolname = 'astra_memory') THEN
    RAISE EXCEPTION 'role astra_memory is a member of another role, it must not be';
  END IF;
END
$$;
GRANT USAGE ON SCHEMA public TO astra_memory;
SET LOCAL ROLE astra_owner;
GRANT USAGE ON SCHEMA astra TO astra_memory;
GRANT EXECUTE ON FUNCTION astra.enter(text), astra.tenant(), astra.ts(timestamptz), astra.page_limit(text), astra.workspace_json(public.workspaces),
  astra.workspace_get(text, text), astra.access(text, text), astra.access_json(text, text[], text[], jsonb), astra.memory_schema(text), astra.vector_schema() TO astra_memory;
GRANT EXECUTE ON FUNCTION astra.audit_add(text, text) TO astra_memory;
GRANT SELECT ON public.workspaces, public.plans, public.members, public.roles, public.revoked_tokens, public.quotas TO astra_memory;
GRANT UPDATE (has_memories) ON public.quotas TO astra_memory;

DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT p.schemaname, p.tablename FROM pg_policies p WHERE p.policyname = 'tenant' AND p.schemaname = 'public' LOOP
    EXECUTE format('ALTER POLICY tenant ON %I.%I TO astra_owner, astra_provision, astra_invoke, astra_quota, astra_billing, astra_grants, astra_memory',
                   v.schemaname, v.tablename);
  END LOOP;
END
$$;

-- As in 0021, with the new role.
CREATE OR REPLACE FUNCTION astra.wall(p_table regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', p_table);
  EXECUTE format('CREATE POLICY tenant ON %s TO astra_owner, astra_provision, astra_invoke, astra_quota, astra_billing, astra_grants, astra_memory '
                 'USING (workspace_id = (SELECT astra.tenant())) WITH CHECK (workspace_id = (SELECT astra.tenant()))', p_table);
  EXECUTE format('CREATE POLICY inside ON %s TO astra_quota_inside USING (workspace_id = (SELECT current_setting(''astra.workspace'', true))) '
                 'WITH CHECK (workspace_id = (SELECT current_setting(''astra.workspace'', true)))', p_table);
  EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', p_table);
END
$$;

-- What is to be done without anybody waiting for it.
CREATE TABLE public.jobs (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  id           uuid NOT NULL,  -- a UUIDv7: they are taken in this order
  kind         text NOT NULL CHECK (kind IN ('ingest')),
  ordering     text NOT NULL,  -- those that have it in common run one after the other
  arg          jsonb NOT NULL,
  attempts     int NOT NULL DEFAULT 0,
  run_at       timestamptz NOT NULL,  -- not before
  lease        uuid,  -- who has it
  leased_until timestamptz,
  error        text,  -- why it failed last: ours, no text of the workspace's
  dead_at      timestamptz,
  created_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, id)
);
CREATE INDEX jobs_due ON public.jobs (run_at) WHERE dead_at IS NULL;
CREATE INDEX jobs_ordering ON public.jobs (workspace_id, ordering, id) WHERE dead_at IS NULL;
SELECT astra.wall('public.jobs');
GRANT SELECT, INSERT, DELETE ON public.jobs TO astra_memory;
GRANT UPDATE (arg, attempts, run_at, lease, leased_until, error, dead_at) ON public.jobs TO astra_memory;
-- Which workspaces have something to do, and nothing more.
CREATE POLICY operator_reads ON public.jobs FOR SELECT TO astra_operator USING (true);
GRANT SELECT (workspace_id, id, run_at, leased_until, dead_at) ON public.jobs TO astra_operator;

-- One table's walls in a memory schema.
CREATE FUNCTION astra.memory_wall(p_workspace text, p_table text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
BEGIN
  EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_schema, p_table);
  EXECUTE format('DROP POLICY IF EXISTS tenant ON %I.%I', v_schema, p_table);
  EXECUTE format('DROP POLICY IF EXISTS inside ON %I.%I', v_schema, p_table);
  EXECUTE format($sql$CREATE POLICY tenant ON %1$I.%2$I TO astra_owner, astra_provision, astra_invoke, astra_billing, astra_memory
                 USING ((SELECT astra.tenant()) = %3$L) WITH CHECK ((SELECT astra.tenant()) = %3$L)$sql$, v_schema, p_table, p_workspace);
  EXECUTE format($sql$CREATE POLICY inside ON %1$I.%2$I TO astra_quota_inside USING ((SELECT current_setting('astra.workspace', true)) = %3$L)
                 WITH CHECK ((SELECT current_setting('astra.workspace', true)) = %3$L)$sql$, v_schema, p_table, p_workspace);
  EXECUTE format('REVOKE ALL ON %I.%I FROM PUBLIC', v_schema, p_table);
  EXECUTE format('GRANT SELECT ON %I.%I TO astra_quota_inside', v_schema, p_table);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.%I TO astra_memory', v_schema, p_table);
END
$$;

-- All tables of a memory schema that is there, as they are now. Runs twice without harm.
CREATE FUNCTION astra.memory_build(p_workspace text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
BEGIN
  EXECUTE format($sql$
    CREATE TABLE IF NOT EXISTS %1$I.memories (
      id         uuid PRIMARY KEY,
      kind       text NOT NULL CHECK (kind IN ('fact', 'preference', 'decision', 'note')),
      content    text NOT NULL,
      embedding  %2$I.vector(384),
      -- 'simple' because a workspace writes in any language: no stemming is better than the wrong one.
      tsv        tsvector GENERATED ALWAYS AS (to_tsvector('pg_catalog.simple'::regconfig, content)) STORED,
      user_id    text,
      session_id uuid,
      turn_id    uuid,
      created_at timestamptz NOT NULL,
      updated_at timestamptz NOT NULL
    )$sql$, v_schema, astra.vector_schema());
  EXECUTE format($sql$
    ALTER TABLE %1$I.memories
      ADD COLUMN IF NOT EXISTS pinned boolean NOT NULL DEFAULT false,
      -- Of its content: the same, for the same people, is stored once.
      ADD COLUMN IF NOT EXISTS hash text$sql$, v_schema);
  EXECUTE format('CREATE INDEX IF NOT EXISTS memories_tsv ON %I.memories USING gin (tsv)', v_schema);
  EXECUTE format('CREATE UNIQUE INDEX IF NOT EXISTS memories_hash ON %I.memories (hash, (user_id IS NULL), COALESCE(user_id, ''''))', v_schema);

  EXECUTE format($sql$
    CREATE TABLE IF NOT EXISTS %1$I.documents (
      id         uuid PRIMARY KEY,
      slug       text NOT NULL,
      version    int NOT NULL,
      title      text NOT NULL,
      media_type text NOT NULL,
      tags       text[] NOT NULL,
      hash       text NOT NULL,
      bytes      int NOT NULL,
      body       text NOT NULL,
      status     text NOT NULL CHECK (status IN ('pending', 'ready', 'failed')),
      error      text,
      chunks     int NOT NULL DEFAULT 0,  -- how many are there
      total      int,                     -- of how many
      is_current boolean NOT NULL DEFAULT false,
      created_by text NOT NULL,
      created_at timestamptz NOT NULL,
      ready_at   timestamptz,
      UNIQUE (slug, version)
    )$sql$, v_schema);
  EXECUTE format('CREATE UNIQUE INDEX IF NOT EXISTS documents_current ON %I.documents (slug) WHERE is_current', v_schema);

  EXECUTE format($sql$
    CREATE TABLE IF NOT EXISTS %1$I.chunks (
      id          uuid PRIMARY KEY,
      document_id uuid NOT NULL REFERENCES %1$I.documents (id) ON DELETE CASCADE,
      position    int NOT NULL,
      heading     text NOT NULL,
      content     text NOT NULL,
      embedding   %2$I.vector(384) NOT NULL,
      tsv         tsvector GENERATED ALWAYS AS (to_tsvector('pg_catalog.simple'::regconfig, heading || ' ' || content)) STORED,
      UNIQUE (document_id, position)
    )$sql$, v_schema, astra.vector_schema());
  EXECUTE format('CREATE INDEX IF NOT EXISTS chunks_tsv ON %I.chunks USING gin (tsv)', v_schema);

  PERFORM astra.memory_wall(p_workspace, t.name) FROM unnest(ARRAY['memories', 'documents', 'chunks']) t(name);
  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', v_schema);
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO astra_quota_inside, astra_provision, astra_invoke, astra_memory', v_schema);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.memories TO astra_provision, astra_invoke', v_schema);
END
$$;

-- As in 0020, with the tables made elsewhere.
CREATE OR REPLACE FUNCTION astra.create_memory_schema(p_workspace text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_owner text;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace OR NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RAISE EXCEPTION 'no such workspace for this tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', v_schema);
  SELECT r.rolname INTO v_owner FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = v_schema;
  IF v_owner IS DISTINCT FROM 'astra_owner' THEN
    RAISE EXCEPTION 'the schema of this workspace''s memory belongs to somebody else' USING ERRCODE = 'duplicate_schema';
  END IF;
  PERFORM astra.memory_build(p_workspace);
END
$$;

-- Those that are there.
DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT substr(n.nspname, 5) AS workspace FROM pg_namespace n WHERE n.nspname LIKE 'mem\_%' AND n.nspowner = 'astra_owner'::regrole LOOP
    PERFORM astra.memory_build(v.workspace);
  END LOOP;
END
$$;

-- Every word of a text, any of which will do; NULL when it has none.
CREATE FUNCTION astra.any_word(p_text text) RETURNS tsquery LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_all tsquery := plainto_tsquery('pg_catalog.simple'::regconfig, p_text);
BEGIN
  RETURN CASE WHEN numnode(v_all) = 0 THEN NULL ELSE replace(v_all::text, ' & ', ' | ')::tsquery END;
END
$$;

-- What a workspace knows about a text, for one of its members (NULL: nobody's own memories): {found: [{id, near, words, ..}], vector: [id], keyword: [id]}, each leg in its order,
-- best first; near is the cosine, words the share of the text's words that it has.
-- p_what: memories, documents, or both. The caller has verified the workspace. Exact: every vector is compared.
--
-- The words' leg is BM25 (Robertson, Zaragoza 2009; k1 = 1.2, b = 0.75), which Postgres's own ranks are not: they do not know that a rare word says more than a frequent one. How
-- rare a word is, is counted among what matches and this member may see: nobody's own memories are in anybody else's counts.
CREATE FUNCTION astra.recall(p_workspace text, p_subject text, p_what text[], p_embedding text, p_query text, p_limit int) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  -- As much of a text as a search has; more words cost time and say little.
  v_text text := left(p_query, 2000);
  v_query tsquery := astra.any_word(v_text);
  v_words text[] := (tsvector_to_array(to_tsvector('pg_catalog.simple'::regconfig, v_text)))[1:64];
  v_result jsonb;
BEGIN
  -- A zero vector has no direction: its distance is NaN, which sorts last.
  EXECUTE format($sql$
    WITH vector AS (
      SELECT l.id, l.source, row_number() OVER (ORDER BY l.distance, l.id) AS place FROM (
        (SELECT m.id, 'memory' AS source, m.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector(384) AS distance FROM %1$I.memories m
         WHERE $2 @> '{memories}' AND m.embedding IS NOT NULL AND (m.user_id IS NULL OR m.user_id = $3) ORDER BY 3, 1 LIMIT $5)
        UNION ALL
        (SELECT c.id, 'document', c.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector(384) FROM %1$I.chunks c JOIN %1$I.documents d ON d.id = c.document_id
         WHERE $2 @> '{documents}' AND d.is_current ORDER BY 3, 1 LIMIT $5)) l
      ORDER BY l.distance, l.id LIMIT $5),
    words AS (SELECT w.word, (quote_literal(replace(w.word, '\', '')))::tsquery AS query FROM unnest($6) w(word)),
    matches AS (
      SELECT m.id, 'memory' AS source, m.tsv FROM %1$I.memories m
      WHERE $2 @> '{memories}' AND m.tsv @@ $4 AND (m.user_id IS NULL OR m.user_id = $3)
      UNION ALL
      SELECT c.id, 'document', c.tsv FROM %1$I.chunks c JOIN %1$I.documents d ON d.id = c.document_id
      WHERE $2 @> '{documents}' AND c.tsv @@ $4 AND d.is_current),
    sizes AS (SELECT count(*) AS n, avg(length(m.tsv)) AS words FROM matches m),
    hits AS (SELECT m.id, w.word FROM matches m JOIN words w ON m.tsv @@ w.query),
    weights AS (SELECT h.word, ln(1 + (s.n - count(*) + 0.5) / (count(*) + 0.5)) AS weight FROM hits h CROSS JOIN sizes s GROUP BY h.word, s.n),
    -- How often a word stands in a text is looked up for those only that have the most of what is rare.
    likely AS (
      SELECT h.id FROM hits h JOIN weights w ON w.word = h.word GROUP BY h.id ORDER BY sum(w.weight) DESC, h.id LIMIT 4 * $5),
    keyword AS (
      SELECT r.id, r.source, row_number() OVER (ORDER BY r.rank DESC, r.id) AS place FROM (
        SELECT m.id, m.source,
               sum(w.weight * 2.2 * cardinality(u.positions) / (cardinality(u.positions) + 1.2 * (0.25 + 0.75 * length(m.tsv) / s.words))) AS rank
        FROM likely l JOIN matches m ON m.id = l.id CROSS JOIN sizes s CROSS JOIN LATERAL unnest(m.tsv) u(lexeme, positions, weights)
        JOIN weights w ON w.word = u.lexeme
        GROUP BY m.id, m.source) r
      ORDER BY r.rank DESC, r.id LIMIT $5),
    found AS (SELECT v.id, v.source FROM vector v UNION SELECT k.id, k.source FROM keyword k)
    SELECT jsonb_build_object(
      'vector', (SELECT COALESCE(jsonb_agg(v.id ORDER BY v.place), '[]') FROM vector v),
      'keyword', (SELECT COALESCE(jsonb_agg(k.id ORDER BY k.place), '[]') FROM keyword k),
      'found', COALESCE((
        SELECT jsonb_agg(f.doc ORDER BY f.doc ->> 'id') FROM (
          SELECT jsonb_build_object('id', m.id, 'source', 'memory', 'kind', m.kind, 'content', m.content, 'pinned', m.pinned, 'updatedAt', astra.ts(m.updated_at),
                   'near', 1 - (m.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector(384)),
                   'words', (SELECT count(*) FROM words w WHERE m.tsv @@ w.query) / greatest(cardinality($6), 1)::numeric) AS doc
          FROM found x JOIN %1$I.memories m ON m.id = x.id WHERE x.source = 'memory'
          UNION ALL
          SELECT jsonb_build_object('id', c.id, 'source', 'document', 'content', c.content, 'heading', c.heading, 'position', c.position, 'documentId', d.id,
                   'slug', d.slug, 'title', d.title, 'version', d.version, 'pinned', true, 'updatedAt', astra.ts(d.created_at),
                   'near', 1 - (c.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector(384)),
                   'words', (SELECT count(*) FROM words w WHERE c.tsv @@ w.query) / greatest(cardinality($6), 1)::numeric)
          FROM found x JOIN %1$I.chunks c ON c.id = x.id JOIN %1$I.documents d ON d.id = c.document_id WHERE x.source = 'document') f), '[]'))$sql$,
    astra.memory_schema(p_workspace), astra.vector_schema())
  INTO v_result USING p_embedding, p_what, p_subject, v_query, p_limit, v_words;
  RETURN v_result;
END
$$;

-- What a turn is told: both legs fused by reciprocal rank (k = 60; score 0 to 1, and 1 is first in both), without what is neither near nor has half of the message's words: the best of
-- nothing is nothing. [{content, score, ..}], best first; of a document with its source before it.
CREATE FUNCTION astra.recall_for_turn(p_workspace text, p_subject text, p_embedding text, p_message text, p_limit int) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_recalled jsonb := astra.recall(p_workspace, p_subject, '{memories,documents}', p_embedding, p_message, 50);
BEGIN
  RETURN (
    SELECT COALESCE(jsonb_agg(t.doc ORDER BY t.score DESC, t.id), '[]')
    FROM (SELECT f.value ->> 'id' AS id, r.score,
            f.value || jsonb_build_object('score', r.score, 'content', CASE WHEN f.value ->> 'source' = 'document' THEN
              format('[%s, version %s%s] ', f.value ->> 'title', f.value ->> 'version', COALESCE(': ' || NULLIF(f.value ->> 'heading', ''), '')) ELSE '' END || (f.value ->> 'content')) AS doc
          FROM jsonb_array_elements(v_recalled -> 'found') f
          LEFT JOIN jsonb_array_elements_text(v_recalled -> 'vector') WITH ORDINALITY v(id, place) ON v.id = f.value ->> 'id'
          LEFT JOIN jsonb_array_elements_text(v_recalled -> 'keyword') WITH ORDINALITY k(id, place) ON k.id = f.value ->> 'id'
          CROSS JOIN LATERAL (SELECT (COALESCE(61 / (60.0 + v.place), 0) + COALESCE(61 / (60.0 + k.place), 0)) / 2 AS score) r
          WHERE COALESCE(NULLIF((f.value ->> 'near')::float8, 'NaN'), 0) >= 0.1 OR (f.value ->> 'words')::float8 >= 0.5
          ORDER BY r.score DESC, 1 LIMIT p_limit) t);
END
$$;

-- {id, kind, content, embedding, hash, userId?, pinned, now} -> created | known {memory} | not_found. The same content for the same people is one memory.
CREATE FUNCTION astra.memory_write(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_arg jsonb := p_arg::jsonb;
  v_memory jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  UPDATE public.quotas q SET has_memories = true WHERE q.workspace_id = p_workspace AND NOT q.has_memories;
  EXECUTE format($sql$
    INSERT INTO %1$I.memories AS m (id, kind, content, embedding, hash, user_id, pinned, created_at, updated_at)
    VALUES ($1, $2, $3, $4::%2$I.vector, $5, $6, $7, $8, $8)
    -- Known: it is as young as now.
    ON CONFLICT (hash, (user_id IS NULL), COALESCE(user_id, '')) DO UPDATE SET kind = excluded.kind, pinned = excluded.pinned, updated_at = excluded.updated_at
    RETURNING astra.memory_json(m.id, m.kind, m.content, m.user_id, m.pinned, m.created_at, m.updated_at)$sql$, v_schema, astra.vector_schema())
  INTO v_memory
  USING (v_arg ->> 'id')::uuid, v_arg ->> 'kind', v_arg ->> 'content', v_arg ->> 'embedding', v_arg ->> 'hash', v_arg ->> 'userId',
        (v_arg ->> 'pinned')::boolean, (v_arg ->> 'now')::timestamptz;
  RETURN jsonb_build_object('outcome', CASE WHEN v_memory ->> 'id' = v_arg ->> 'id' THEN 'created' ELSE 'known' END, 'memory', v_memory)::text;
END
$$;

CREATE FUNCTION astra.memory_json(p_id uuid, p_kind text, p_content text, p_user text, p_pinned boolean, p_created timestamptz, p_updated timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE AS
$$
BEGIN
  RETURN jsonb_build_object('id', p_id, 'kind', p_kind, 'content', p_content, 'userId', p_user, 'pinned', p_pinned, 'createdAt', astra.ts(p_created),
    'updatedAt', astra.ts(p_updated));
END
$$;

-- {subject, id?, kind?, after?, limit?} -> ok {data: [memory], next} | not_found: the workspace's and the subject's own, in the order that they were made
CREATE FUNCTION astra.memory_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_answer jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  EXECUTE format($sql$
    SELECT jsonb_build_object('outcome', 'ok', 'data', COALESCE(jsonb_agg(p.doc ORDER BY p.n) FILTER (WHERE p.n <= $5), '[]'),
                              'next', CASE WHEN count(*) > $5 THEN max(p.id::text) FILTER (WHERE p.n = $5) END)
    FROM (SELECT m.id, astra.memory_json(m.id, m.kind, m.content, m.user_id, m.pinned, m.created_at, m.updated_at) AS doc, row_number() OVER (ORDER BY m.id) AS n
          FROM %I.memories m
          WHERE (m.user_id IS NULL OR m.user_id = $1) AND ($2 IS NULL OR m.id = $2) AND ($3 IS NULL OR m.kind = $3) AND ($4 IS NULL OR m.id > $4)
          ORDER BY m.id LIMIT $5 + 1) p$sql$, astra.memory_schema(p_workspace))
  INTO v_answer USING v_arg ->> 'subject', (v_arg ->> 'id')::uuid, v_arg ->> 'kind', (v_arg ->> 'after')::uuid, v_limit;
  RETURN v_answer::text;
END
$$;

-- {subject, id} -> ok | not_found: the workspace's, or the subject's own
CREATE FUNCTION astra.memory_remove(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_rows bigint;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  EXECUTE format('DELETE FROM %I.memories m WHERE m.id = $1 AND (m.user_id IS NULL OR m.user_id = $2)', astra.memory_schema(p_workspace))
  USING (p_arg::jsonb ->> 'id')::uuid, p_arg::jsonb ->> 'subject';
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  RETURN jsonb_build_object('outcome', CASE WHEN v_rows > 0 THEN 'ok' ELSE 'not_found' END)::text;
END
$$;

-- {userId} -> ok {removed: {memories}} | not_found: all that is one member's own
CREATE FUNCTION astra.memory_forget(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_rows bigint;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  EXECUTE format('DELETE FROM %I.memories m WHERE m.user_id = $1', astra.memory_schema(p_workspace)) USING p_arg::jsonb ->> 'userId';
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  RETURN jsonb_build_object('outcome', 'ok', 'removed', jsonb_build_object('memories', v_rows))::text;
END
$$;

-- {subject, what: [memories | documents], embedding, query, limit} -> ok {found, vector, keyword} | not_found
CREATE FUNCTION astra.memory_search(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  RETURN (jsonb_build_object('outcome', 'ok') || astra.recall(p_workspace, v_arg ->> 'subject', ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'what')),
    v_arg ->> 'embedding', v_arg ->> 'query', (v_arg ->> 'limit')::int))::text;
END
$$;

-- {} -> ok {memories, documents, chunks, pending, jobs {waiting, dead, oldest}} | not_found
CREATE FUNCTION astra.memory_status(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_counts jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  EXECUTE format($sql$
    SELECT jsonb_build_object('memories', (SELECT count(*) FROM %1$I.memories), 'documents', (SELECT count(DISTINCT d.slug) FROM %1$I.documents d),
      'chunks', (SELECT count(*) FROM %1$I.chunks c JOIN %1$I.documents d ON d.id = c.document_id WHERE d.is_current),
      'pending', (SELECT count(*) FROM %1$I.documents d WHERE d.status = 'pending'))$sql$, astra.memory_schema(p_workspace)) INTO v_counts;
  RETURN (jsonb_build_object('outcome', 'ok') || v_counts || (
    SELECT jsonb_build_object('jobs', jsonb_build_object('waiting', count(*) FILTER (WHERE j.dead_at IS NULL), 'dead', count(*) FILTER (WHERE j.dead_at IS NOT NULL),
                              'oldest', astra.ts(min(j.created_at) FILTER (WHERE j.dead_at IS NULL))))
    FROM public.jobs j WHERE j.workspace_id = p_workspace))::text;
END
$$;

-- One version of a document, without its body. Of a table that each workspace has its own of: so by its columns.
CREATE FUNCTION astra.document_json(p jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS
$$
BEGIN
  RETURN jsonb_build_object('id', p -> 'id', 'slug', p -> 'slug', 'version', p -> 'version', 'title', p -> 'title', 'mediaType', p -> 'media_type', 'tags', p -> 'tags',
    'bytes', p -> 'bytes', 'status', p -> 'status', 'error', p -> 'error', 'chunks', p -> 'chunks', 'totalChunks', p -> 'total', 'isCurrent', p -> 'is_current',
    'createdBy', p -> 'created_by', 'createdAt', astra.ts((p ->> 'created_at')::timestamptz), 'readyAt', astra.ts((p ->> 'ready_at')::timestamptz));
END
$$;

-- {id, slug, title, mediaType, tags, hash, bytes, body, createdBy, jobId, now} -> created | known {document} | not_found. What is the newest version's own content makes no other one.
CREATE FUNCTION astra.document_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_arg jsonb := p_arg::jsonb;
  v_last jsonb;
  v_new jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  -- Two uploads under one slug come one after the other.
  PERFORM pg_advisory_xact_lock(hashtextextended('astra.document:' || p_workspace || ':' || (v_arg ->> 'slug'), 0));
  EXECUTE format('SELECT to_jsonb(d) - ''body'' FROM %I.documents d WHERE d.slug = $1 ORDER BY d.version DESC LIMIT 1', v_schema) INTO v_last USING v_arg ->> 'slug';
  IF v_last ->> 'hash' = v_arg ->> 'hash' AND v_last ->> 'status' <> 'failed' THEN
    EXECUTE format('UPDATE %I.documents d SET title = $2, tags = $3 WHERE d.id = $1 RETURNING to_jsonb(d) - ''body''', v_schema) INTO v_last
    USING (v_last ->> 'id')::uuid, v_arg ->> 'title', ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'tags'));
    RETURN jsonb_build_object('outcome', 'known', 'document', astra.document_json(v_last))::text;
  END IF;
  EXECUTE format($sql$
    INSERT INTO %I.documents AS d (id, slug, version, title, media_type, tags, hash, bytes, body, status, created_by, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $10, $11) RETURNING to_jsonb(d) - 'body'$sql$, v_schema)
  INTO v_new
  USING (v_arg ->> 'id')::uuid, v_arg ->> 'slug', COALESCE((v_last ->> 'version')::int, 0) + 1, v_arg ->> 'title', v_arg ->> 'mediaType',
        ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'tags')), v_arg ->> 'hash', (v_arg ->> 'bytes')::int, v_arg ->> 'body', v_arg ->> 'createdBy',
        (v_arg ->> 'now')::timestamptz;
  INSERT INTO public.jobs (workspace_id, id, kind, ordering, arg, run_at, created_at)
  VALUES (p_workspace, (v_arg ->> 'jobId')::uuid, 'ingest', 'document ' || (v_arg ->> 'slug'), jsonb_build_object('documentId', v_arg -> 'id'),
          (v_arg ->> 'now')::timestamptz, (v_arg ->> 'now')::timestamptz);
  RETURN jsonb_build_object('outcome', 'created', 'document', astra.document_json(v_new))::text;
END
$$;

-- {slug?, version?, tag?, after?, limit?} -> ok {data: [document], next} | not_found. Without a slug the newest version of each, in the order of slugs; with one its versions
-- (or one of them), newest first.
CREATE FUNCTION astra.document_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_answer jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  IF v_arg ->> 'slug' IS NOT NULL THEN
    EXECUTE format($sql$
      SELECT jsonb_build_object('outcome', 'ok', 'data', COALESCE(jsonb_agg(astra.document_json(to_jsonb(d) - 'body') ORDER BY d.version DESC), '[]'), 'next', NULL)
      FROM (SELECT * FROM %I.documents d WHERE d.slug = $1 AND ($2 IS NULL OR d.version = $2) ORDER BY d.version DESC LIMIT $3) d$sql$,
      astra.memory_schema(p_workspace))
    INTO v_answer USING v_arg ->> 'slug', (v_arg ->> 'version')::int, v_limit;
  ELSE
    EXECUTE format($sql$
      SELECT jsonb_build_object('outcome', 'ok', 'data', COALESCE(jsonb_agg(p.doc ORDER BY p.n) FILTER (WHERE p.n <= $3), '[]'),
                                'next', CASE WHEN count(*) > $3 THEN max(p.slug) FILTER (WHERE p.n = $3) END)
      FROM (SELECT l.slug, astra.document_json(to_jsonb(l) - 'body') AS doc, row_number() OVER (ORDER BY l.slug COLLATE "C") AS n
            FROM (SELECT DISTINCT ON (d.slug COLLATE "C") d.* FROM %I.documents d
                  WHERE ($1 IS NULL OR d.slug COLLATE "C" > $1) ORDER BY d.slug COLLATE "C", d.version DESC) l
            WHERE $2 IS NULL OR $2 = ANY (l.tags)
            ORDER BY l.slug COLLATE "C" LIMIT $3 + 1) p$sql$, astra.memory_schema(p_workspace))
    INTO v_answer USING v_arg ->> 'after', v_arg ->> 'tag', v_limit;
  END IF;
  RETURN v_answer::text;
END
$$;

-- {slug} -> ok {removed: {documents, chunks}} | not_found: all of its versions, and what was to be done about them
CREATE FUNCTION astra.document_remove(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_slug text := p_arg::jsonb ->> 'slug';
  v_chunks bigint;
  v_versions bigint;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('astra.document:' || p_workspace || ':' || v_slug, 0));
  DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.ordering = 'document ' || v_slug;
  EXECUTE format('SELECT count(*) FROM %1$I.chunks c JOIN %1$I.documents d ON d.id = c.document_id WHERE d.slug = $1', v_schema) INTO v_chunks USING v_slug;
  EXECUTE format('DELETE FROM %I.documents d WHERE d.slug = $1', v_schema) USING v_slug;
  GET DIAGNOSTICS v_versions = ROW_COUNT;
  IF v_versions = 0 THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'removed', jsonb_build_object('versions', v_versions, 'chunks', v_chunks))::text;
END
$$;

-- Jobs -------------------------------------------------------------------------------------------------------------------------------------------------

-- {lease, now, seconds, attempts} -> ok {job: {id, kind, arg, attempts} | null}: the oldest that is due and of whose order none is before it. One that was tried too often is dead.
CREATE FUNCTION astra.job_take(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_job public.jobs;
BEGIN
  -- Whoever had it and came to nothing has told no error: the process was killed.
  UPDATE public.jobs j SET dead_at = v_now, error = COALESCE(j.error, 'Each process that took it ended before it was done.'), lease = NULL, leased_until = NULL
  WHERE j.workspace_id = p_workspace AND j.dead_at IS NULL AND j.attempts >= (v_arg ->> 'attempts')::int AND (j.leased_until IS NULL OR j.leased_until <= v_now);

  SELECT j.* INTO v_job FROM public.jobs j
  WHERE j.workspace_id = p_workspace AND j.dead_at IS NULL AND j.run_at <= v_now AND (j.leased_until IS NULL OR j.leased_until <= v_now)
    AND NOT EXISTS (SELECT 1 FROM public.jobs e WHERE e.workspace_id = p_workspace AND e.ordering = j.ordering AND e.id < j.id AND e.dead_at IS NULL)
  ORDER BY j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN '{"outcome":"ok","job":null}';
  END IF;
  UPDATE public.jobs j SET lease = (v_arg ->> 'lease')::uuid, leased_until = v_now + (v_arg ->> 'seconds')::int * interval '1 second', attempts = j.attempts + 1
  WHERE j.workspace_id = p_workspace AND j.id = v_job.id;
  RETURN jsonb_build_object('outcome', 'ok', 'job', jsonb_build_object('id', v_job.id, 'kind', v_job.kind, 'arg', v_job.arg, 'attempts', v_job.attempts + 1))::text;
END
$$;

-- Whether somebody still has the job, whose row is locked from then on. The first statement of what a job does.
CREATE FUNCTION astra.job_held(p_workspace text, p_job uuid, p_lease uuid) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM 1 FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = p_job AND j.lease = p_lease AND j.dead_at IS NULL FOR UPDATE;
  RETURN FOUND;
END
$$;

-- {id, lease, error, runAt | null} -> ok | lost: it failed, and is tried again at that time, or never
CREATE FUNCTION astra.job_fail(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_again timestamptz := (v_arg ->> 'runAt')::timestamptz;
  v_job public.jobs;
BEGIN
  IF NOT astra.job_held(p_workspace, (v_arg ->> 'id')::uuid, (v_arg ->> 'lease')::uuid) THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  UPDATE public.jobs j SET error = v_arg ->> 'error', run_at = COALESCE(v_again, j.run_at), dead_at = CASE WHEN v_again IS NULL THEN v_now END, lease = NULL,
    leased_until = NULL
  WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'id')::uuid RETURNING j.* INTO v_job;
  IF v_again IS NULL AND v_job.kind = 'ingest' THEN
    EXECUTE format('UPDATE %I.documents d SET status = ''failed'', error = $2 WHERE d.id = $1 AND d.status = ''pending''', astra.memory_schema(p_workspace))
    USING (v_job.arg ->> 'documentId')::uuid, v_arg ->> 'error';
  END IF;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {state: waiting | dead, after?, limit?} -> ok {data: [job], next} | not_found
CREATE FUNCTION astra.job_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_answer jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  SELECT jsonb_build_object('outcome', 'ok', 'data', COALESCE(jsonb_agg(p.doc ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
                            'next', CASE WHEN count(*) > v_limit THEN max(p.id::text) FILTER (WHERE p.n = v_limit) END)
  INTO v_answer
  FROM (SELECT j.id, row_number() OVER (ORDER BY j.id) AS n,
               jsonb_build_object('id', j.id, 'kind', j.kind, 'about', j.ordering, 'attempts', j.attempts, 'error', j.error, 'createdAt', astra.ts(j.created_at),
                 'runAt', astra.ts(j.run_at), 'deadAt', astra.ts(j.dead_at)) AS doc
        FROM public.jobs j
        WHERE j.workspace_id = p_workspace AND (j.dead_at IS NOT NULL) = (v_arg ->> 'state' = 'dead') AND (v_arg ->> 'after' IS NULL OR j.id > (v_arg ->> 'after')::uuid)
        ORDER BY j.id LIMIT v_limit + 1) p;
  RETURN v_answer::text;
END
$$;

-- {id, now} -> ok | not_found: a dead job is tried again from the beginning
CREATE FUNCTION astra.job_replay(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_job public.jobs;
BEGIN
  UPDATE public.jobs j SET dead_at = NULL, attempts = 0, error = NULL, run_at = (p_arg::jsonb ->> 'now')::timestamptz
  WHERE j.workspace_id = p_workspace AND j.id = (p_arg::jsonb ->> 'id')::uuid AND j.dead_at IS NOT NULL RETURNING j.* INTO v_job;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  IF v_job.kind = 'ingest' THEN
    EXECUTE format('UPDATE %I.documents d SET status = ''pending'', error = NULL WHERE d.id = $1 AND d.status = ''failed''', astra.memory_schema(p_workspace))
    USING (v_job.arg ->> 'documentId')::uuid;
  END IF;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {jobId, lease, documentId, from, characters} -> ok {document, text, next | null} | lost | gone: what a job reads of a document, a piece of its body at a time
CREATE FUNCTION astra.document_read(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_document jsonb;
BEGIN
  IF NOT astra.job_held(p_workspace, (v_arg ->> 'jobId')::uuid, (v_arg ->> 'lease')::uuid) THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  EXECUTE format('SELECT to_jsonb(d) FROM %I.documents d WHERE d.id = $1', astra.memory_schema(p_workspace)) INTO v_document USING (v_arg ->> 'documentId')::uuid;
  IF v_document IS NULL THEN
    DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid;
    RETURN '{"outcome":"gone"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'mediaType', v_document -> 'media_type', 'body', v_document -> 'body', 'chunks', v_document -> 'chunks')::text;
END
$$;

-- {jobId, lease, documentId, total, chunks: [{id, position, heading, content, embedding}], leasedUntil, now} -> ok | done | lost. With the last of them the document is ready, the
-- version before is searched no more, and the job is gone.
CREATE FUNCTION astra.document_chunks(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_document uuid := (v_arg ->> 'documentId')::uuid;
  v_slug text;
  v_count int;
  v_is_late boolean;
BEGIN
  IF NOT astra.job_held(p_workspace, (v_arg ->> 'jobId')::uuid, (v_arg ->> 'lease')::uuid) THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  EXECUTE format($sql$
    INSERT INTO %1$I.chunks (id, document_id, position, heading, content, embedding)
    SELECT c.id, $1, c.position, c.heading, c.content, c.embedding::%2$I.vector
    FROM jsonb_to_recordset($2) AS c (id uuid, position int, heading text, content text, embedding text)
    WHERE EXISTS (SELECT 1 FROM %1$I.documents d WHERE d.id = $1)
    ON CONFLICT (document_id, position) DO NOTHING$sql$, v_schema, astra.vector_schema()) USING v_document, v_arg -> 'chunks';
  EXECUTE format('UPDATE %1$I.documents d SET chunks = (SELECT count(*) FROM %1$I.chunks c WHERE c.document_id = $1), total = $2 WHERE d.id = $1 RETURNING d.slug, d.chunks',
                 v_schema) INTO v_slug, v_count USING v_document, (v_arg ->> 'total')::int;
  IF v_slug IS NOT NULL AND v_count < (v_arg ->> 'total')::int THEN
    -- It goes on: what it has done counts for it.
    UPDATE public.jobs j SET leased_until = (v_arg ->> 'leasedUntil')::timestamptz, attempts = 1 WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid;
    RETURN '{"outcome":"ok"}';
  END IF;
  -- An old version whose job was dead and is tried again after a newer one is ready has come too late: it takes nobody's place.
  EXECUTE format('SELECT EXISTS (SELECT 1 FROM %1$I.documents o JOIN %1$I.documents n ON n.slug = o.slug AND n.is_current AND n.version > o.version WHERE o.id = $1)', v_schema)
  INTO v_is_late USING v_document;
  EXECUTE format('DELETE FROM %1$I.chunks c USING %1$I.documents d WHERE d.id = c.document_id AND d.slug = $1 AND CASE WHEN $3 THEN d.id = $2 ELSE d.is_current AND d.id <> $2 END', v_schema)
  USING v_slug, v_document, v_is_late;
  EXECUTE format('UPDATE %I.documents d SET is_current = false WHERE d.slug = $1 AND d.is_current AND d.id <> $2 AND NOT $3', v_schema) USING v_slug, v_document, v_is_late;
  EXECUTE format('UPDATE %I.documents d SET is_current = NOT $3, status = ''ready'', error = NULL, ready_at = $2 WHERE d.id = $1', v_schema)
  USING v_document, v_now, v_is_late;
  UPDATE public.quotas q SET has_memories = true WHERE q.workspace_id = p_workspace AND NOT q.has_memories;
  DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid;
  RETURN '{"outcome":"done"}';
END
$$;

-- A turn's memories are what both searches found, documents too.
GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;
DO $$
DECLARE
  v_old text := pg_get_functiondef('astra.turn_begin(text, text)'::regprocedure);
  v_new text := regexp_replace(v_old, '-- Nearest memories, exact\..*USING v_arg ->> ''embedding'', v_subject, \(v_arg ->> ''topK''\)::int;',
    $new$-- What is known about the message: by meaning and by words. What belongs to one member is for that member only.
  IF v_ws.has_memories AND v_arg ->> 'embedding' IS NOT NULL THEN
    v_memories := astra.recall_for_turn(p_workspace, v_subject, v_arg ->> 'embedding', v_arg ->> 'message', (v_arg ->> 'topK')::int);$new$);
BEGIN
  IF v_new = v_old OR v_new NOT LIKE '%recall_for_turn(%' OR v_new LIKE '%FROM \%1$I.memories%' THEN
    RAISE EXCEPTION 'turn_begin is not as it was expected';
  END IF;
  EXECUTE v_new;
END
$$;
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;

-- A workspace's end and its export, with documents. (Pieces and jobs are made from these.)
DO $$
DECLARE
  v_erase text := pg_get_functiondef('astra.workspace_erase(text)'::regprocedure);
  v_export text := pg_get_functiondef('astra.workspace_export(text, text)'::regprocedure);
  v_new text;
BEGIN
  v_new := replace(replace(replace(v_erase,
    'v_memories bigint := 0;', 'v_memories bigint := 0;' || E'\n  v_documents bigint := 0;'),
    'SELECT count(*) FROM %I.memories'', astra.memory_schema(p_workspace)) INTO v_memories;',
    'SELECT count(*) FROM %I.memories'', astra.memory_schema(p_workspace)) INTO v_memories;'
      || E'\n    EXECUTE format(''SELECT count(*) FROM %I.documents'', astra.memory_schema(p_workspace)) INTO v_documents;'),
    '''memories'', v_memories,', '''memories'', v_memories,' || E'\n    ''documents'', v_documents,');
  IF (length(v_new) - length(replace(v_new, 'v_documents', ''))) / length('v_documents') <> 3 THEN
    RAISE EXCEPTION 'workspace_erase is not as it was expected';
  END IF;
  EXECUTE v_new;
  v_new := replace(replace(v_export,
    '''receivedGrant'', ''memory''];', '''receivedGrant'', ''memory'', ''document''];'),
    'USING v_key::uuid, v_left;' || E'\n    END CASE;',
    'USING v_key::uuid, v_left;' || E'\n      WHEN ''document'' THEN'
      || E'\n        OPEN v_rows FOR EXECUTE format(''SELECT d.id::text AS key, to_jsonb(d) AS doc FROM %I.documents d'
      || E'\n          WHERE $1 IS NULL OR d.id > $1 ORDER BY d.id LIMIT $2'', v_schema) USING v_key::uuid, v_left;' || E'\n    END CASE;');
  IF (length(v_new) - length(replace(v_new, '''document''', ''))) / length('''document''') <> 2 THEN
    RAISE EXCEPTION 'workspace_export is not as it was expected';
  END IF;
  EXECUTE v_new;
END
$$;

GRANT EXECUTE ON FUNCTION astra.any_word(text), astra.recall(text, text, text[], text, text, int) TO astra_memory, astra_quota_inside;
GRANT EXECUTE ON FUNCTION astra.recall_for_turn(text, text, text, text, int) TO astra_quota_inside;
GRANT EXECUTE ON FUNCTION astra.memory_write(text, text), astra.memory_json(uuid, text, text, text, boolean, timestamptz, timestamptz), astra.memory_list(text, text),
  astra.memory_remove(text, text), astra.memory_forget(text, text), astra.memory_search(text, text), astra.memory_status(text, text), astra.document_json(jsonb),
  astra.document_put(text, text), astra.document_list(text, text), astra.document_remove(text, text), astra.document_read(text, text), astra.document_chunks(text, text),
  astra.job_take(text, text), astra.job_held(text, uuid, uuid), astra.job_fail(text, text), astra.job_list(text, text), astra.job_replay(text, text) TO astra_memory;

GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;

-- {now, limit} -> ok {workspaces: [id]}: those with a job that is due, the one that waits longest first. It names workspaces, nothing else; a job is then taken through its
-- workspace's own door, one at a time for each, so that no workspace's many jobs delay another's few.
CREATE FUNCTION astra.op_jobs_due(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
BEGIN
  RETURN (SELECT jsonb_build_object('outcome', 'ok', 'workspaces', COALESCE(jsonb_agg(w.workspace_id ORDER BY w.since, w.workspace_id), '[]'))
          FROM (SELECT j.workspace_id, min(j.run_at) AS since FROM public.jobs j
                WHERE j.dead_at IS NULL AND j.run_at <= v_now AND (j.leased_until IS NULL OR j.leased_until <= v_now)
                GROUP BY j.workspace_id ORDER BY 2, 1 LIMIT (v_arg ->> 'limit')::int) w)::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.op_jobs_due(text) TO astra_memory;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;
