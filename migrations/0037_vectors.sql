-- Nearest vectors without comparing all: HNSW (pgvector) on the embeddings of a workspace's memories and of its chunks, each in its own schema, so that what one workspace holds is
-- in nobody else's index, counts or times. While a table is small all of its vectors are compared; from astra.index_from() on, whoever writes the row that makes it so many enqueues a
-- job (kind `index`), which makes the index. What is written after that is indexed as it is written.
--
-- Scans are iterative: what the index gives and the caller may not see (another member's own memories, a version of a document that is not searched) is left out and the scan goes on,
-- where a plain one would end with less, or nothing. These settings are of the transaction and of no session: a pooler's next client does not have them.
--
-- Traps: * the index is made inside of a job's one statement, which ends after the role's statement_timeout and holds up the writers of that one table meanwhile: at some thousand
--          vectors it takes some seconds. A table that has grown far beyond that without an index (loaded by hand) is the operator's: CREATE INDEX CONCURRENTLY, the same definition.
--        * pgvector keeps a vector out of its row unless told otherwise, and comparing all of them then reads each from elsewhere: the columns are STORAGE PLAIN.
--        * a zero vector has no direction and is in no index.

CREATE FUNCTION pg_temp.amend(p_function regprocedure, p_times int, p_old text, p_new text) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
  v_is text := pg_get_functiondef(p_function);
BEGIN
  IF (length(v_is) - length(replace(v_is, p_old, ''))) <> p_times * length(p_old) THEN
    RAISE EXCEPTION '% is not as it was: %', p_function, p_old;
  END IF;
  EXECUTE replace(v_is, p_old, p_new);
END
$$;

-- As whom the search by words reads (see there). Nobody logs in as it.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_recall') THEN
    BEGIN
      CREATE ROLE astra_recall NOINHERIT NOCREATEDB NOCREATEROLE NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_recall'
             AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolcanlogin)) THEN
    RAISE EXCEPTION 'role astra_recall exists with other rights than astra gives it';
  END IF;
  IF NOT pg_has_role(current_user, 'astra_recall', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
    GRANT astra_recall TO CURRENT_USER;
  END IF;
END
$$;

SET LOCAL ROLE astra_owner;
GRANT USAGE ON SCHEMA astra TO astra_recall;
GRANT EXECUTE ON FUNCTION astra.tenant(), astra.memory_schema(text) TO astra_recall;

-- The kinds of jobs that there are, and those that are new.
DO $$
DECLARE
  v_kinds text[] := ARRAY(SELECT k.found[1] FROM regexp_matches(
    (SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.conrelid = 'public.jobs'::regclass AND c.conname = 'jobs_kind_check'), '''([a-z-]+)''', 'g') k(found));
BEGIN
  IF NOT v_kinds @> '{ingest}' THEN
    RAISE EXCEPTION 'jobs_kind_check is not as it was';
  END IF;
  EXECUTE format('ALTER TABLE public.jobs DROP CONSTRAINT jobs_kind_check, ADD CONSTRAINT jobs_kind_check CHECK (kind IN (%s))',
                 (SELECT string_agg(quote_literal(k.kind), ', ') FROM unnest(v_kinds || '{index}') k(kind)));
END
$$;

-- From how many rows on a table's vectors are indexed.
CREATE FUNCTION astra.index_from() RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT 2000 $$;

-- Enqueues the making of an index when a table (memories or chunks) has become large enough and has none. Called by whoever writes to it. One that is dead stays the operator's.
CREATE FUNCTION astra.index_when_large(p_workspace text, p_table text, p_now timestamptz) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_is_large boolean;
BEGIN
  IF to_regclass(format('%I.%I', v_schema, p_table || '_embedding')) IS NOT NULL THEN
    RETURN;
  END IF;
  EXECUTE format('SELECT count(*) = astra.index_from() FROM (SELECT FROM %I.%I LIMIT astra.index_from()) l', v_schema, p_table) INTO v_is_large;
  IF v_is_large THEN
    INSERT INTO public.jobs (workspace_id, id, kind, ordering, arg, run_at, created_at)
    SELECT p_workspace, gen_random_uuid(), 'index', 'index of ' || p_table, jsonb_build_object('table', p_table), p_now, p_now
    WHERE NOT EXISTS (SELECT 1 FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.ordering = 'index of ' || p_table);
  END IF;
END
$$;

-- {jobId, lease, table} -> done | lost: makes the index; the job is gone with it. It runs as the tables' owner, for the caller's own workspace and job only.
CREATE FUNCTION astra.index_build(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET lock_timeout = '5s' SET maintenance_work_mem = '256MB' AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_table text := v_arg ->> 'table';
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace OR v_table NOT IN ('memories', 'chunks') THEN
    RAISE EXCEPTION 'no such index for this tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF NOT astra.job_held(p_workspace, (v_arg ->> 'jobId')::uuid, (v_arg ->> 'lease')::uuid) THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %I.%I USING hnsw (embedding %I.vector_cosine_ops)', v_table || '_embedding', astra.memory_schema(p_workspace), v_table,
                 astra.vector_schema());
  DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid;
  RETURN '{"outcome":"done"}';
END
$$;

-- Those who write say so.
SELECT pg_temp.amend('astra.memory_write(text, text)', 1,
$old$  RETURN jsonb_build_object('outcome', CASE WHEN v_memory ->> 'id'$old$,
$new$  PERFORM astra.index_when_large(p_workspace, 'memories', (v_arg ->> 'now')::timestamptz);
  RETURN jsonb_build_object('outcome', CASE WHEN v_memory ->> 'id'$new$);
SELECT pg_temp.amend('astra.document_chunks(text, text)', 1,
$old$  IF v_slug IS NOT NULL AND v_count < (v_arg ->> 'total')::int THEN$old$,
$new$  PERFORM astra.index_when_large(p_workspace, 'chunks', v_now);
  IF v_slug IS NOT NULL AND v_count < (v_arg ->> 'total')::int THEN$new$);

-- Vectors in their rows, of workspaces to come and of those that are there (as far as they are written from now on).
SELECT pg_temp.amend('astra.memory_build(text)', 1,
$old$  PERFORM astra.memory_wall(p_workspace, t.name)$old$,
$new$  EXECUTE format('ALTER TABLE %I.memories ALTER COLUMN embedding SET STORAGE PLAIN', v_schema);
  EXECUTE format('ALTER TABLE %I.chunks ALTER COLUMN embedding SET STORAGE PLAIN', v_schema);
  -- Else what was written last is in a list that every search reads from its beginning to its end, until a vacuum.
  EXECUTE format('ALTER INDEX %I.memories_tsv SET (fastupdate = off)', v_schema);
  EXECUTE format('ALTER INDEX %I.chunks_tsv SET (fastupdate = off)', v_schema);
  EXECUTE format('CREATE INDEX IF NOT EXISTS documents_unsearched ON %I.documents (id) WHERE NOT is_current AND status <> ''ready''', v_schema);

  PERFORM astra.memory_wall(p_workspace, t.name)$new$);
SELECT pg_temp.amend('astra.memory_build(text)', 1,
$old$  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', v_schema);$old$,
$new$  EXECUTE format('DROP POLICY IF EXISTS words ON %I.memories', v_schema);
  EXECUTE format('DROP POLICY IF EXISTS words ON %I.chunks', v_schema);
  EXECUTE format('CREATE POLICY words ON %I.memories FOR SELECT TO astra_recall USING (true)', v_schema);
  EXECUTE format('CREATE POLICY words ON %I.chunks FOR SELECT TO astra_recall USING (true)', v_schema);
  EXECUTE format('GRANT SELECT (id, tsv, user_id) ON %I.memories TO astra_recall', v_schema);
  EXECUTE format('GRANT SELECT (id, tsv, document_id) ON %I.chunks TO astra_recall', v_schema);
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO astra_recall', v_schema);
  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', v_schema);$new$);
DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT substr(n.nspname, 5) AS workspace FROM pg_namespace n WHERE n.nspname LIKE 'mem\_%' AND n.nspowner = 'astra_owner'::regrole LOOP
    PERFORM astra.memory_build(v.workspace);
  END LOOP;
END
$$;

-- What is below replaces recall as 0030 made it.
DO $$
BEGIN
  IF (SELECT md5(p.prosrc) FROM pg_proc p WHERE p.oid = 'astra.recall(text, text, text[], text, text, integer)'::regprocedure) <> '23c697f95968a113f260a1b83326d115' THEN
    RAISE EXCEPTION 'astra.recall is not as it was';
  END IF;
END
$$;

-- The search by words: ids and where they are from, best first. It is of a role of its own, whose policy on the two tables is no condition: behind a condition no index of words is used
-- (@@ is not leakproof, so that each row would be read). What that role may read is ids, words, and whose they are; what is done with the ids is done behind the walls. Who calls it
-- has verified the workspace: astra_quota_inside, and recall_words_own.
--
-- BM25 (Robertson, Zaragoza 2009; k1 = 1.2, b = 0.75), which Postgres's own ranks are not: they do not know that a rare word says more than a frequent one. How rare a word is, is
-- counted among what this member may see: nobody's own memories are in anybody else's counts. Of a word that many have the first 1,000 rows are taken, and it weighs what one in half
-- of them does: it says next to nothing, and reading all that have it is what would make a search slow. Rows are read for those only that have the most of what is rare.
GRANT CREATE ON SCHEMA astra TO astra_recall;
SET LOCAL ROLE astra_recall;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE FUNCTION astra.recall_words(p_workspace text, p_subject text, p_what text[], p_unsearched uuid[], p_words text[], p_limit int, OUT ids uuid[], OUT sources text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  -- Of a small table the planner would read each row for each word.
  PERFORM set_config('enable_seqscan', 'off', true);
  EXECUTE format($sql$
    WITH words AS (SELECT w.word, (quote_literal(replace(w.word, '\', '')))::tsquery AS query FROM unnest($5) w(word)),
    hits AS (
      SELECT h.id, h.source, w.word FROM words w CROSS JOIN LATERAL (
        (SELECT m.id, 'memory' AS source FROM %1$I.memories m
         WHERE $2 @> '{memories}' AND m.tsv @@ w.query AND (m.user_id IS NULL OR m.user_id = $1) LIMIT 1001)
        UNION ALL
        (SELECT c.id, 'document' FROM %1$I.chunks c WHERE $2 @> '{documents}' AND c.tsv @@ w.query AND c.document_id <> ALL ($3) LIMIT 1001)) h),
    weights AS (
      SELECT h.word, CASE WHEN count(*) > 1000 THEN ln(2::float8) ELSE ln(1 + (s.n - count(*) + 0.5::float8) / (count(*) + 0.5::float8)) END AS weight
      FROM hits h CROSS JOIN (SELECT count(DISTINCT a.id) AS n FROM hits a) s GROUP BY h.word, s.n),
    likely AS (
      SELECT h.id, h.source FROM hits h JOIN weights w ON w.word = h.word GROUP BY h.id, h.source ORDER BY sum(w.weight) DESC, h.id LIMIT 2 * $4),
    matches AS (
      SELECT m.id, l.source, m.tsv FROM likely l JOIN %1$I.memories m ON m.id = l.id WHERE l.source = 'memory'
      UNION ALL
      SELECT c.id, l.source, c.tsv FROM likely l JOIN %1$I.chunks c ON c.id = l.id WHERE l.source = 'document'),
    ranked AS (
      SELECT m.id, m.source,
             sum(w.weight * 2.2 * cardinality(u.positions) / (cardinality(u.positions) + 1.2 * (0.25 + 0.75 * length(m.tsv) / s.words))) AS rank
      FROM matches m CROSS JOIN (SELECT avg(length(a.tsv))::float8 AS words FROM matches a) s CROSS JOIN LATERAL unnest(m.tsv) u(lexeme, positions, weights)
      JOIN weights w ON w.word = u.lexeme
      GROUP BY m.id, m.source ORDER BY 3 DESC, m.id LIMIT $4)
    SELECT COALESCE(array_agg(r.id ORDER BY r.rank DESC, r.id), '{}'), COALESCE(array_agg(r.source ORDER BY r.rank DESC, r.id), '{}') FROM ranked r$sql$,
    astra.memory_schema(p_workspace))
  INTO ids, sources USING p_subject, p_what, p_unsearched, p_limit, p_words;
  PERFORM set_config('enable_seqscan', 'on', true);
END
$$;

-- The same for the proof's own workspace.
CREATE FUNCTION astra.recall_words_own(p_workspace text, p_subject text, p_what text[], p_unsearched uuid[], p_words text[], p_limit int, OUT ids uuid[], OUT sources text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace THEN
    RAISE EXCEPTION 'not this tenant''s memory' USING ERRCODE = 'insufficient_privilege';
  END IF;
  SELECT w.ids, w.sources INTO ids, sources FROM astra.recall_words(p_workspace, p_subject, p_what, p_unsearched, p_words, p_limit) w;
END
$$;
GRANT EXECUTE ON FUNCTION astra.recall_words(text, text, text[], uuid[], text[], integer) TO astra_quota_inside;
GRANT EXECUTE ON FUNCTION astra.recall_words_own(text, text, text[], uuid[], text[], integer) TO astra_memory;
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_recall;

-- What a workspace knows about a text, for one of its members (NULL: nobody's own memories): {found: [{id, near, words, ..}], vector: [id], keyword: [id]}, each leg in its order,
-- best first; near is the cosine, words the share of the text's words that it has. Without an embedding there is no vector leg.
-- p_what: memories, documents, or both. The caller has verified the workspace.
--
-- The vectors' leg is a statement of its own: by the index wherever there is one, for which sorting is priced out. (By its estimates the planner would compare all: it takes a wall's
-- condition for one that keeps half a percent of the rows.) What an index gives may be out of order by a little (relaxed_order) and is put in order. At equal distances at the end it
-- is anybody's guess: distance alone is what an index knows.
--
-- Chunks are not joined with their documents before the best are found, or no plan would use the index: those of versions that are not searched are few, the ones that are being split
-- (document_chunks takes away a version's chunks in the transaction that puts another in its place).
CREATE OR REPLACE FUNCTION astra.recall(p_workspace text, p_subject text, p_what text[], p_embedding text, p_query text, p_limit int) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  -- As much of a text as a search has; more words cost time and say little.
  v_words text[] := (tsvector_to_array(to_tsvector('pg_catalog.simple'::regconfig, left(p_query, 2000))))[1:64];
  v_unsearched uuid[];
  v_near uuid[] := '{}';
  v_near_from text[] := '{}';
  v_said uuid[];
  v_said_from text[];
  v_result jsonb;
BEGIN
  EXECUTE format('SELECT COALESCE(array_agg(d.id), ''{}'') FROM %I.documents d WHERE NOT d.is_current AND d.status <> ''ready''', v_schema) INTO v_unsearched;
  IF p_embedding IS NOT NULL THEN
    PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '100', true), set_config('enable_sort', 'off', true);
    -- A zero vector has no direction: its distance is NaN, which sorts last.
    EXECUTE format($sql$
      SELECT array_agg(l.id ORDER BY l.distance, l.id), array_agg(l.source ORDER BY l.distance, l.id) FROM (
        (SELECT m.id, 'memory' AS source, m.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector AS distance FROM %1$I.memories m
         WHERE $2 @> '{memories}' AND m.embedding IS NOT NULL AND (m.user_id IS NULL OR m.user_id = $3) ORDER BY 3 LIMIT $4)
        UNION ALL
        (SELECT c.id, 'document', c.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector FROM %1$I.chunks c
         WHERE $2 @> '{documents}' AND c.document_id <> ALL ($5) ORDER BY 3 LIMIT $4)) l$sql$, v_schema, astra.vector_schema())
    INTO v_near, v_near_from USING p_embedding, p_what, p_subject, p_limit, v_unsearched;
    PERFORM set_config('enable_sort', 'on', true);
  END IF;
  IF current_user = 'astra_quota_inside' THEN
    SELECT w.ids, w.sources INTO v_said, v_said_from FROM astra.recall_words(p_workspace, p_subject, p_what, v_unsearched, v_words, p_limit) w;
  ELSE
    SELECT w.ids, w.sources INTO v_said, v_said_from FROM astra.recall_words_own(p_workspace, p_subject, p_what, v_unsearched, v_words, p_limit) w;
  END IF;
  EXECUTE format($sql$
    WITH vector AS (SELECT v.id, v.source, v.place FROM unnest($3, $4) WITH ORDINALITY v(id, source, place)),
    keyword AS (SELECT k.id, k.source, k.place FROM unnest($5, $6) WITH ORDINALITY k(id, source, place)),
    words AS (SELECT w.word, (quote_literal(replace(w.word, '\', '')))::tsquery AS query FROM unnest($2) w(word)),
    found AS (SELECT v.id, v.source FROM vector v UNION SELECT k.id, k.source FROM keyword k)
    SELECT jsonb_build_object(
      'vector', (SELECT COALESCE(jsonb_agg(v.id ORDER BY v.place), '[]') FROM vector v),
      'keyword', (SELECT COALESCE(jsonb_agg(k.id ORDER BY k.place), '[]') FROM keyword k),
      'found', COALESCE((
        SELECT jsonb_agg(f.doc ORDER BY f.doc ->> 'id') FROM (
          SELECT jsonb_build_object('id', m.id, 'source', 'memory', 'kind', m.kind, 'content', m.content, 'pinned', m.pinned, 'updatedAt', astra.ts(m.updated_at),
                   'near', 1 - (m.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector),
                   'words', (SELECT count(*) FROM words w WHERE m.tsv @@ w.query) / greatest(cardinality($2), 1)::numeric) AS doc
          FROM found x JOIN %1$I.memories m ON m.id = x.id WHERE x.source = 'memory' AND (m.user_id IS NULL OR m.user_id = $7)
          UNION ALL
          SELECT jsonb_build_object('id', c.id, 'source', 'document', 'content', c.content, 'heading', c.heading, 'position', c.position, 'documentId', d.id,
                   'slug', d.slug, 'title', d.title, 'version', d.version, 'pinned', true, 'updatedAt', astra.ts(d.created_at),
                   'near', 1 - (c.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector),
                   'words', (SELECT count(*) FROM words w WHERE c.tsv @@ w.query) / greatest(cardinality($2), 1)::numeric)
          FROM found x JOIN %1$I.chunks c ON c.id = x.id JOIN %1$I.documents d ON d.id = c.document_id WHERE x.source = 'document') f), '[]'))$sql$,
    v_schema, astra.vector_schema())
  INTO v_result USING p_embedding, v_words, v_near[1:p_limit], v_near_from[1:p_limit], v_said, v_said_from, p_subject;
  RETURN v_result;
END
$$;
DROP FUNCTION astra.any_word(text);

GRANT EXECUTE ON FUNCTION astra.index_from(), astra.index_when_large(text, text, timestamptz), astra.index_build(text, text) TO astra_memory;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, int, text, text);
