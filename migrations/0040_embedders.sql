-- Whose embeddings a workspace's memory is of, and how its memories fade.
--
-- A workspace has one embedder at a time: `local` (nothing is set), or a provider's model with its number of dimensions. Another one is set by the operator and made true by a job (kind
-- `reembed`): all that is there is embedded once more, beside what is searched, which is searched until the last of it is done; then the one takes the other's place in one
-- transaction. So no search compares vectors of two embedders.
--
-- `generation` says which: it counts the embedders that were in force. Who embeds says for which one; what was made for another is not written (outcome `stale`) and not searched by.
-- Local vectors are local ones whenever they were made, and say none.
--
-- Traps: * columns and indexes are changed as the tables' owner, in functions that insist on the caller's own tenant and, but for the first, on its job. They wait five seconds for a
--          table, not longer: who writes or searches meanwhile would wait behind them.
--        * the column that is filled gets its index before, when the table is a large one: it grows with the rows, and no statement has to make it whole.
--        * a statement that waits for the change has seen, by its snapshot, the settings of before, and finds the columns of after. So who searches or writes takes its lock first and reads
--          the settings then, which takes a function that is VOLATILE.
--        * a column that was taken away counts as one of the 1,600 that a table may ever have.

CREATE FUNCTION pg_temp.amend(p_function regprocedure, p_old text, p_new text) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
  v_is text := pg_get_functiondef(p_function);
BEGIN
  IF (length(v_is) - length(replace(v_is, p_old, ''))) <> length(p_old) THEN
    RAISE EXCEPTION '% is not as it was: %', p_function, p_old;
  END IF;
  EXECUTE replace(v_is, p_old, p_new);
END
$$;

SET LOCAL ROLE astra_owner;

DO $$
DECLARE
  v_kinds text[] := ARRAY(SELECT k.found[1] FROM regexp_matches(
    (SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.conrelid = 'public.jobs'::regclass AND c.conname = 'jobs_kind_check'), '''([a-z-]+)''', 'g') k(found));
BEGIN
  IF NOT v_kinds @> '{ingest,index}' THEN
    RAISE EXCEPTION 'jobs_kind_check is not as it was';
  END IF;
  EXECUTE format('ALTER TABLE public.jobs DROP CONSTRAINT jobs_kind_check, ADD CONSTRAINT jobs_kind_check CHECK (kind IN (%s))',
                 (SELECT string_agg(quote_literal(k.kind), ', ') FROM unnest(v_kinds || '{reembed}') k(kind)));
END
$$;

CREATE TABLE public.memory_settings (
  workspace_id  text PRIMARY KEY REFERENCES public.workspaces (id) ON DELETE CASCADE,
  embedder      jsonb,  -- {provider, model, dimensions, endpoint}; NULL: local
  generation    int NOT NULL DEFAULT 0,
  next_embedder jsonb,  -- what all is being embedded with, in the same form; provider local has no model
  fade          jsonb,  -- {weight, halfLifeDays}; NULL: nothing fades
  updated_at    timestamptz NOT NULL
);
SELECT astra.wall('public.memory_settings');
GRANT SELECT, INSERT ON public.memory_settings TO astra_memory;
GRANT UPDATE (embedder, generation, next_embedder, fade, updated_at) ON public.memory_settings TO astra_memory;
GRANT SELECT ON public.memory_settings TO astra_quota_inside;

-- {provider, model, dimensions, endpoint, generation}
CREATE FUNCTION astra.embedder_of(p_workspace text) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN COALESCE((SELECT COALESCE(s.embedder, '{"provider":"local","dimensions":384}') || jsonb_build_object('generation', s.generation)
                   FROM public.memory_settings s WHERE s.workspace_id = p_workspace), '{"provider":"local","dimensions":384,"generation":0}');
END
$$;

-- Whether vectors made for this generation (NULL: local ones) are those that the workspace's memory is of.
CREATE FUNCTION astra.embedder_fits(p_embedder jsonb, p_generation int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN CASE WHEN p_generation IS NULL THEN p_embedder ->> 'provider' = 'local' ELSE (p_embedder ->> 'generation')::int = p_generation END;
END
$$;

-- Which search a turn goes without: a message is embedded locally, and where that is not the embedder only its words are looked for.
CREATE FUNCTION astra.legs_left_out(p_workspace text, p_asked boolean) RETURNS json LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN CASE WHEN p_asked AND NOT astra.embedder_fits(astra.embedder_of(p_workspace), NULL) THEN '["vector"]' ELSE '[]' END;
END
$$;
GRANT EXECUTE ON FUNCTION astra.legs_left_out(text, boolean) TO astra_quota_inside;

-- {} -> ok {embedder, next, fade, left} | not_found: left is how many are to be embedded once more
CREATE FUNCTION astra.memory_settings_get(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_settings public.memory_settings;
  v_left bigint := 0;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  SELECT s.* INTO v_settings FROM public.memory_settings s WHERE s.workspace_id = p_workspace;
  IF v_settings.next_embedder IS NOT NULL THEN
    BEGIN
      EXECUTE format('SELECT (SELECT count(*) FROM %1$I.memories m WHERE m.embedding_next IS NULL) + (SELECT count(*) FROM %1$I.chunks c WHERE c.embedding_next IS NULL)', v_schema)
      INTO v_left;
    EXCEPTION WHEN undefined_column THEN
      -- The one takes the other's place this very moment: nothing is left.
      v_left := 0;
    END;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'embedder', astra.embedder_of(p_workspace), 'next', v_settings.next_embedder, 'fade', v_settings.fade, 'left', v_left)::text;
END
$$;

-- {fade | null, now} -> ok | not_found
CREATE FUNCTION astra.memory_fade_set(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_fade jsonb := NULLIF(p_arg::jsonb -> 'fade', 'null');
  v_now timestamptz := (p_arg::jsonb ->> 'now')::timestamptz;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  INSERT INTO public.memory_settings AS s (workspace_id, fade, updated_at) VALUES (p_workspace, v_fade, v_now)
  ON CONFLICT (workspace_id) DO UPDATE SET fade = excluded.fade, updated_at = excluded.updated_at;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {embedder: {provider, model, dimensions, endpoint}, jobId, now} -> ok | not_found: from now on all is embedded once more. The embedder in force again: nothing is, any more.
CREATE FUNCTION astra.embedder_set(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET lock_timeout = '5s' AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_wanted jsonb := jsonb_strip_nulls(v_arg -> 'embedder');
  v_next jsonb;
  v_table text;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace THEN
    RAISE EXCEPTION 'no such workspace for this tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  INSERT INTO public.memory_settings (workspace_id, updated_at) VALUES (p_workspace, v_now) ON CONFLICT (workspace_id) DO NOTHING;
  SELECT s.next_embedder INTO v_next FROM public.memory_settings s WHERE s.workspace_id = p_workspace FOR UPDATE;
  IF v_wanted = v_next THEN
    RETURN '{"outcome":"ok"}';
  END IF;
  v_next := CASE WHEN v_wanted <> astra.embedder_of(p_workspace) - 'generation' THEN v_wanted END;
  UPDATE public.memory_settings s SET next_embedder = v_next, updated_at = v_now WHERE s.workspace_id = p_workspace;
  DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.kind = 'reembed';
  FOREACH v_table IN ARRAY ARRAY['memories', 'chunks'] LOOP
    EXECUTE format('ALTER TABLE %I.%I DROP COLUMN IF EXISTS embedding_next', v_schema, v_table);
    IF v_next IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I.%I ADD COLUMN embedding_next %I.vector(%s)', v_schema, v_table, astra.vector_schema(), (v_next ->> 'dimensions')::int);
      -- A page has room for 1,536 numbers and what stands beside them.
      IF (v_next ->> 'dimensions')::int <= 1536 THEN
        EXECUTE format('ALTER TABLE %I.%I ALTER COLUMN embedding_next SET STORAGE PLAIN', v_schema, v_table);
      END IF;
      EXECUTE format('CREATE INDEX %I ON %I.%I (id) WHERE embedding_next IS NULL', v_table || '_left', v_schema, v_table);
      IF to_regclass(format('%I.%I', v_schema, v_table || '_embedding')) IS NOT NULL THEN
        EXECUTE format('CREATE INDEX %I ON %I.%I USING hnsw (embedding_next %I.vector_cosine_ops)', v_table || '_embedding_next', v_schema, v_table, astra.vector_schema());
      END IF;
    END IF;
  END LOOP;
  IF v_next IS NOT NULL THEN
    INSERT INTO public.jobs (workspace_id, id, kind, ordering, arg, run_at, created_at)
    VALUES (p_workspace, (v_arg ->> 'jobId')::uuid, 'reembed', 'embedder', '{}', v_now, v_now);
  END IF;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {jobId, lease, limit} -> ok {embedder, rows: [{table, id, text}]} | lost: those that are to be embedded once more
CREATE FUNCTION astra.reembed_read(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_next jsonb;
  v_rows jsonb;
BEGIN
  IF NOT astra.job_held(p_workspace, (v_arg ->> 'jobId')::uuid, (v_arg ->> 'lease')::uuid) THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  SELECT s.next_embedder INTO v_next FROM public.memory_settings s WHERE s.workspace_id = p_workspace;
  EXECUTE format($sql$
    SELECT COALESCE(jsonb_agg(jsonb_build_object('table', r.kind, 'id', r.id, 'text', r.text)), '[]') FROM (
      SELECT l.* FROM (
        (SELECT 'memories' AS kind, m.id, m.content AS text FROM %1$I.memories m WHERE m.embedding_next IS NULL ORDER BY m.id LIMIT $1)
        UNION ALL
        (SELECT 'chunks', c.id, CASE WHEN c.heading = '' THEN '' ELSE c.heading || E'\n\n' END || c.content FROM %1$I.chunks c WHERE c.embedding_next IS NULL ORDER BY c.id LIMIT $1)) l
      LIMIT $1) r$sql$, astra.memory_schema(p_workspace)) INTO v_rows USING (v_arg ->> 'limit')::int;
  RETURN jsonb_build_object('outcome', 'ok', 'embedder', v_next || '{"generation":0}', 'rows', v_rows)::text;
END
$$;

-- {jobId, lease, embedder, rows: [{table, id, embedding}], leasedUntil} -> ok | lost
CREATE FUNCTION astra.reembed_write(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_table text;
BEGIN
  IF NOT astra.job_held(p_workspace, (v_arg ->> 'jobId')::uuid, (v_arg ->> 'lease')::uuid) THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  FOREACH v_table IN ARRAY ARRAY['memories', 'chunks'] LOOP
    EXECUTE format('UPDATE %1$I.%2$I t SET embedding_next = r.embedding::%3$I.vector FROM jsonb_to_recordset($1) AS r ("table" text, id uuid, embedding text) WHERE r."table" = %2$L AND t.id = r.id',
                   astra.memory_schema(p_workspace), v_table, astra.vector_schema()) USING v_arg -> 'rows';
  END LOOP;
  -- It goes on: what it has done counts for it.
  UPDATE public.jobs j SET leased_until = (v_arg ->> 'leasedUntil')::timestamptz, attempts = 1 WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {jobId, lease, now} -> done | ok (somebody has written more meanwhile) | lost: the new vectors take the others' place, and the job is gone
CREATE FUNCTION astra.reembed_switch(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET lock_timeout = '5s' AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_arg jsonb := p_arg::jsonb;
  v_table text;
  v_is_left boolean;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace THEN
    RAISE EXCEPTION 'no such workspace for this tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF NOT astra.job_held(p_workspace, (v_arg ->> 'jobId')::uuid, (v_arg ->> 'lease')::uuid) THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  EXECUTE format('LOCK TABLE %1$I.memories, %1$I.chunks IN ACCESS EXCLUSIVE MODE', v_schema);
  EXECUTE format('SELECT EXISTS (SELECT 1 FROM %1$I.memories m WHERE m.embedding_next IS NULL) OR EXISTS (SELECT 1 FROM %1$I.chunks c WHERE c.embedding_next IS NULL)', v_schema)
  INTO v_is_left;
  IF v_is_left THEN
    RETURN '{"outcome":"ok"}';
  END IF;
  FOREACH v_table IN ARRAY ARRAY['memories', 'chunks'] LOOP
    -- The indexes on it go with it.
    EXECUTE format('ALTER TABLE %I.%I DROP COLUMN embedding', v_schema, v_table);
    EXECUTE format('DROP INDEX %I.%I', v_schema, v_table || '_left');
    EXECUTE format('ALTER TABLE %I.%I RENAME COLUMN embedding_next TO embedding', v_schema, v_table);
    EXECUTE format('ALTER INDEX IF EXISTS %I.%I RENAME TO %I', v_schema, v_table || '_embedding_next', v_table || '_embedding');
  END LOOP;
  UPDATE public.memory_settings s SET embedder = CASE WHEN s.next_embedder ->> 'provider' <> 'local' THEN s.next_embedder END, next_embedder = NULL, generation = s.generation + 1,
    updated_at = (v_arg ->> 'now')::timestamptz
  WHERE s.workspace_id = p_workspace;
  DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid;
  RETURN '{"outcome":"done"}';
END
$$;

-- What is written says for which embedder it was embedded.
SELECT pg_temp.amend('astra.memory_write(text, text)',
$old$  UPDATE public.quotas q SET has_memories$old$,
$new$  EXECUTE format('LOCK TABLE %I.memories IN ROW EXCLUSIVE MODE', v_schema);
  IF NOT astra.embedder_fits(astra.embedder_of(p_workspace), (v_arg ->> 'generation')::int) THEN
    RETURN jsonb_build_object('outcome', 'stale', 'embedder', astra.embedder_of(p_workspace))::text;
  END IF;
  UPDATE public.quotas q SET has_memories$new$);
-- (The smoke test's note, which is read back by its id.)
SELECT pg_temp.amend('astra.memory_put(text, text)',
$old$v_arg ->> 'content', v_arg ->> 'embedding',$old$,
$new$v_arg ->> 'content', CASE WHEN astra.embedder_of(p_workspace) ->> 'provider' = 'local' THEN v_arg ->> 'embedding' END,$new$);
SELECT pg_temp.amend('astra.document_read(text, text)',
$old$'body', v_document -> 'body',$old$, $new$'body', v_document -> 'body', 'createdBy', v_document -> 'created_by',
    'embedder', astra.embedder_of(p_workspace),$new$);
SELECT pg_temp.amend('astra.document_chunks(text, text)',
$old$  EXECUTE format($sql$
    INSERT INTO %1$I.chunks$old$,
$new$  IF NOT astra.embedder_fits(astra.embedder_of(p_workspace), (v_arg ->> 'generation')::int) THEN
    RETURN '{"outcome":"stale"}';
  END IF;
  EXECUTE format($sql$
    INSERT INTO %1$I.chunks$new$);

-- (0033.) Any embedder's vectors; and what was extracted for another one is not stored: the job is tried again.
DO $$
DECLARE
  v_near text := pg_get_functiondef('astra.extract_near(text, text)'::regprocedure);
BEGIN
  IF (length(v_near) - length(replace(v_near, '.vector(384)', ''))) <> 2 * length('.vector(384)') THEN
    RAISE EXCEPTION 'astra.extract_near is not as it was';
  END IF;
  EXECUTE replace(v_near, '.vector(384)', '.vector');
END
$$;
SELECT pg_temp.amend('astra.extract_store(text, text)',
$old$  v_session := (v_job.arg ->> 'sessionId')::uuid;$old$,
$new$  IF NOT astra.embedder_fits(astra.embedder_of(p_workspace), (v_arg ->> 'generation')::int) THEN
    RETURN '{"outcome":"stale"}';
  END IF;
  v_session := (v_job.arg ->> 'sessionId')::uuid;$new$);

-- A piece's text: what was embedded once in the workspace is not embedded again (a new version of a document is mostly the old one).
SELECT pg_temp.amend('astra.memory_build(text)',
$old$  EXECUTE format('CREATE INDEX IF NOT EXISTS chunks_tsv ON$old$,
$new$  EXECUTE format('ALTER TABLE %I.chunks ADD COLUMN IF NOT EXISTS hash text GENERATED ALWAYS AS (md5(heading || E''\n\n'' || content)) STORED', v_schema);
  EXECUTE format('CREATE INDEX IF NOT EXISTS chunks_hash ON %I.chunks (hash)', v_schema);
  EXECUTE format('CREATE INDEX IF NOT EXISTS chunks_tsv ON$new$);
DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT substr(n.nspname, 5) AS workspace FROM pg_namespace n WHERE n.nspname LIKE 'mem\_%' AND n.nspowner = 'astra_owner'::regrole LOOP
    PERFORM astra.memory_build(v.workspace);
  END LOOP;
END
$$;

-- {generation, pieces: [{heading, content}]} -> ok {known: [vector | null]} | not_found {known: []}: those that the workspace's embedder has embedded before. None if it is another embedder by now.
CREATE FUNCTION astra.pieces_known(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_known jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","known":[]}';
  END IF;
  EXECUTE format($sql$
    SELECT jsonb_agg(CASE WHEN $2 THEN (SELECT c.embedding::text FROM %1$I.chunks c
                                        WHERE c.hash = md5((p.value ->> 'heading') || E'\n\n' || (p.value ->> 'content')) ORDER BY c.id LIMIT 1) END ORDER BY p.n)
    FROM jsonb_array_elements($1) WITH ORDINALITY p(value, n)$sql$, astra.memory_schema(p_workspace))
  INTO v_known USING v_arg -> 'pieces', astra.embedder_fits(astra.embedder_of(p_workspace), (v_arg ->> 'generation')::int);
  RETURN jsonb_build_object('outcome', 'ok', 'known', COALESCE(v_known, '[]'))::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.pieces_known(text, text) TO astra_memory;

-- A search by vectors of another embedder is one by words, and says which embedder it would have to be.
SELECT pg_temp.amend('astra.memory_search(text, text)',
$old$  v_arg jsonb := p_arg::jsonb;
BEGIN$old$,
$new$  v_arg jsonb := p_arg::jsonb;
  v_embedder jsonb;
  v_fits boolean;
BEGIN$new$);
ALTER FUNCTION astra.memory_search(text, text) VOLATILE;
SELECT pg_temp.amend('astra.memory_search(text, text)',
$old$  RETURN (jsonb_build_object('outcome', 'ok') || astra.recall($old$,
$new$  EXECUTE format('LOCK TABLE %1$I.memories, %1$I.chunks IN ACCESS SHARE MODE', astra.memory_schema(p_workspace));
  v_embedder := astra.embedder_of(p_workspace);
  v_fits := astra.embedder_fits(v_embedder, (v_arg ->> 'generation')::int);
  RETURN (jsonb_build_object('outcome', 'ok', 'embedder', CASE WHEN NOT v_fits THEN v_embedder END,
                             'fade', (SELECT s.fade FROM public.memory_settings s WHERE s.workspace_id = p_workspace)) || astra.recall($new$);
SELECT pg_temp.amend('astra.memory_search(text, text)',
$old$    v_arg ->> 'embedding', v_arg ->> 'query'$old$,
$new$    CASE WHEN v_fits THEN v_arg ->> 'embedding' END, v_arg ->> 'query'$new$);

-- A turn's message is embedded locally: where that is not the embedder, it is told what its words find. Faded by age, what is pinned (and documents) is not.
ALTER FUNCTION astra.recall_for_turn(text, text, text, text, integer) VOLATILE;
SELECT pg_temp.amend('astra.recall_for_turn(text, text, text, text, integer)',
$old$  v_recalled jsonb := astra.recall(p_workspace, p_subject, '{memories,documents}', p_embedding, p_message, 50);
BEGIN$old$,
$new$  v_fits boolean;
  v_recalled jsonb;
  v_fade jsonb;
BEGIN
  EXECUTE format('LOCK TABLE %1$I.memories, %1$I.chunks IN ACCESS SHARE MODE', astra.memory_schema(p_workspace));
  v_fits := p_embedding IS NOT NULL AND astra.embedder_fits(astra.embedder_of(p_workspace), NULL);
  v_recalled := astra.recall(p_workspace, p_subject, '{memories,documents}', CASE WHEN v_fits THEN p_embedding END, p_message, 50);
  v_fade := (SELECT s.fade FROM public.memory_settings s WHERE s.workspace_id = p_workspace);$new$);
SELECT pg_temp.amend('astra.recall_for_turn(text, text, text, text, integer)',
$old$(SELECT (COALESCE(61 / (60.0 + v.place), 0) + COALESCE(61 / (60.0 + k.place), 0)) / 2 AS score) r$old$,
$new$(SELECT (COALESCE(61 / (60.0 + v.place), 0) + COALESCE(61 / (60.0 + k.place), 0)) / CASE WHEN v_fits THEN 2 ELSE 1 END
            * CASE WHEN v_fade IS NULL OR (f.value ->> 'pinned')::boolean THEN 1 ELSE
                (1 - (v_fade ->> 'weight')::float8 * (1 - 0.5::float8 ^ (greatest(extract(epoch FROM now() - (f.value ->> 'updatedAt')::timestamptz), 0)::float8 / 86400
                  / (v_fade ->> 'halfLifeDays')::float8)))::numeric END AS score) r$new$);

GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$'history', v_history, 'memories', v_memories)::text;$old$,
$new$'history', v_history, 'memories', v_memories,
      'leftOut', astra.legs_left_out(p_workspace, v_ws.has_memories))::text;$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$    'memories', v_memories,
    'agentCount'$old$,
$new$    'memories', v_memories,
    'leftOut', astra.legs_left_out(p_workspace, v_ws.has_memories AND v_arg ->> 'embedding' IS NOT NULL),
    'agentCount'$new$);
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;

GRANT EXECUTE ON FUNCTION astra.embedder_of(text), astra.embedder_fits(jsonb, int) TO astra_memory, astra_quota_inside, astra_provision, astra_invoke;
GRANT SELECT ON public.memory_settings TO astra_provision, astra_invoke;
GRANT EXECUTE ON FUNCTION astra.memory_settings_get(text, text), astra.memory_fade_set(text, text), astra.embedder_set(text, text), astra.reembed_read(text, text),
  astra.reembed_write(text, text), astra.reembed_switch(text, text) TO astra_memory;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
