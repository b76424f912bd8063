-- A document's body is kept in parts, as it was sent: a function holds a megabyte of it and not 20, when it is uploaded, split or exported. What lists documents reads no body.
-- What is behind an upload that was cut off is no document: nobody sees it, and the next upload in parts removes what is older than an hour.
--
-- Traps: * code from before sends a body whole and reads it whole: both go on.
--        * tables of a workspace's memory have row security that is forced on their owner, too: what moves bodies has it not forced for so long.

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

SELECT pg_temp.amend('astra.memory_build(text)', E'      body       text NOT NULL,\n', '');
SELECT pg_temp.amend('astra.memory_build(text)',
$old$  PERFORM astra.memory_wall(p_workspace, t.name) FROM unnest(ARRAY['memories', 'documents', 'chunks']) t(name);$old$,
$new$  -- Of a version's body the parts, one after the other. uploaded_at: of those whose document is not there yet.
  EXECUTE format($sql$
    CREATE TABLE IF NOT EXISTS %1$I.bodies (
      id          uuid NOT NULL,  -- the version's
      part        int NOT NULL,   -- from 0
      body        text NOT NULL,
      uploaded_at timestamptz,
      PRIMARY KEY (id, part)
    )$sql$, v_schema);
  EXECUTE format('CREATE INDEX IF NOT EXISTS bodies_uploaded ON %I.bodies (uploaded_at) WHERE uploaded_at IS NOT NULL', v_schema);

  PERFORM astra.memory_wall(p_workspace, t.name) FROM unnest(ARRAY['memories', 'documents', 'chunks', 'bodies']) t(name);
  EXECUTE format('REVOKE ALL ON %I.bodies FROM astra_quota_inside', v_schema);$new$);

DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT n.nspname AS name, substr(n.nspname, 5) AS workspace FROM pg_namespace n WHERE n.nspname LIKE 'mem\_%' AND n.nspowner = 'astra_owner'::regrole LOOP
    PERFORM astra.memory_build(v.workspace);
    IF EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = format('%I.documents', v.name)::regclass AND a.attname = 'body' AND NOT a.attisdropped) THEN
      EXECUTE format('ALTER TABLE %I.documents NO FORCE ROW LEVEL SECURITY', v.name);
      EXECUTE format('ALTER TABLE %I.bodies NO FORCE ROW LEVEL SECURITY', v.name);
      EXECUTE format($sql$INSERT INTO %1$I.bodies (id, part, body)
                     SELECT d.id, n, substr(d.body, n * 262144 + 1, 262144) FROM %1$I.documents d, generate_series(0, (length(d.body) - 1) / 262144) n$sql$, v.name);
      EXECUTE format('ALTER TABLE %I.documents DROP COLUMN body, FORCE ROW LEVEL SECURITY', v.name);
      EXECUTE format('ALTER TABLE %I.bodies FORCE ROW LEVEL SECURITY', v.name);
    END IF;
  END LOOP;
END
$$;

-- {documentId, part, body, now} -> ok | not_found: a part of a document that is not there yet. Sent again it is the same.
CREATE FUNCTION astra.document_part(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  IF (v_arg ->> 'part')::int = 0 THEN
    EXECUTE format('DELETE FROM %I.bodies b WHERE b.uploaded_at < $1', v_schema) USING v_now - interval '1 hour';
  END IF;
  EXECUTE format('INSERT INTO %I.bodies (id, part, body, uploaded_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING', v_schema)
  USING (v_arg ->> 'documentId')::uuid, (v_arg ->> 'part')::int, v_arg ->> 'body', v_now;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {id, slug, title, mediaType, tags, hash, bytes, parts?, body, createdBy, jobId, now} -> created | known {document} | late | not_found. `body` is the last part, or all of it; `parts`:
-- how many came before it by document_part. Late: they are there no more. What is the newest version's own content makes no other one.
CREATE OR REPLACE FUNCTION astra.document_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_arg jsonb := p_arg::jsonb;
  v_id uuid := (v_arg ->> 'id')::uuid;
  v_parts int := COALESCE((v_arg ->> 'parts')::int, 0);
  v_there int;
  v_last jsonb;
  v_new jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  -- Two uploads under one slug come one after the other.
  PERFORM pg_advisory_xact_lock(hashtextextended('astra.document:' || p_workspace || ':' || (v_arg ->> 'slug'), 0));
  EXECUTE format('SELECT to_jsonb(d) FROM %I.documents d WHERE d.slug = $1 ORDER BY d.version DESC LIMIT 1', v_schema) INTO v_last USING v_arg ->> 'slug';
  IF v_last ->> 'hash' = v_arg ->> 'hash' AND v_last ->> 'status' <> 'failed' THEN
    -- Not those of a document that is there: this may be the same upload once more.
    EXECUTE format('DELETE FROM %I.bodies b WHERE b.id = $1 AND b.uploaded_at IS NOT NULL', v_schema) USING v_id;
    EXECUTE format('UPDATE %I.documents d SET title = $2, tags = $3 WHERE d.id = $1 RETURNING to_jsonb(d)', v_schema) INTO v_last
    USING (v_last ->> 'id')::uuid, v_arg ->> 'title', ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'tags'));
    RETURN jsonb_build_object('outcome', 'known', 'document', astra.document_json(v_last))::text;
  END IF;
  EXECUTE format('UPDATE %I.bodies b SET uploaded_at = NULL WHERE b.id = $1 AND b.uploaded_at IS NOT NULL', v_schema) USING v_id;
  GET DIAGNOSTICS v_there = ROW_COUNT;
  IF v_there <> v_parts THEN
    -- What is left of it is of no use. (Of a document that is there no part has been touched.)
    IF v_there > 0 THEN
      EXECUTE format('DELETE FROM %I.bodies b WHERE b.id = $1', v_schema) USING v_id;
    END IF;
    RETURN '{"outcome":"late"}';
  END IF;
  EXECUTE format('INSERT INTO %I.bodies (id, part, body) VALUES ($1, $2, $3)', v_schema) USING v_id, v_parts, v_arg ->> 'body';
  EXECUTE format($sql$
    INSERT INTO %I.documents AS d (id, slug, version, title, media_type, tags, hash, bytes, status, created_by, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', $9, $10) RETURNING to_jsonb(d)$sql$, v_schema)
  INTO v_new
  USING v_id, v_arg ->> 'slug', COALESCE((v_last ->> 'version')::int, 0) + 1, v_arg ->> 'title', v_arg ->> 'mediaType',
        ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'tags')), v_arg ->> 'hash', (v_arg ->> 'bytes')::int, v_arg ->> 'createdBy', (v_arg ->> 'now')::timestamptz;
  INSERT INTO public.jobs (workspace_id, id, kind, ordering, arg, run_at, created_at)
  VALUES (p_workspace, (v_arg ->> 'jobId')::uuid, 'ingest', 'document ' || (v_arg ->> 'slug'), jsonb_build_object('documentId', v_arg -> 'id'),
          (v_arg ->> 'now')::timestamptz, (v_arg ->> 'now')::timestamptz);
  RETURN jsonb_build_object('outcome', 'created', 'document', astra.document_json(v_new))::text;
END
$$;

-- {jobId, lease, documentId, part?} -> that part of the body (all of it for code from before); '' when the job is somebody else's, the document is gone or has no such part.
CREATE OR REPLACE FUNCTION astra.document_body(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_body text;
BEGIN
  IF EXISTS (SELECT 1 FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid AND j.lease = (v_arg ->> 'lease')::uuid) THEN
    EXECUTE format('SELECT string_agg(b.body, '''' ORDER BY b.part) FROM %I.bodies b WHERE b.id = $1 AND ($2 IS NULL OR b.part = $2)', astra.memory_schema(p_workspace))
    INTO v_body USING (v_arg ->> 'documentId')::uuid, (v_arg ->> 'part')::int;
  END IF;
  RETURN COALESCE(v_body, '');
END
$$;
SELECT pg_temp.amend('astra.document_read(text, text)',
$old$'body', CASE WHEN (v_arg ->> 'apart')::boolean IS NOT TRUE THEN v_document -> 'body' END,$old$,
$new$'body', CASE WHEN (v_arg ->> 'apart')::boolean IS NOT TRUE THEN astra.document_body(p_workspace, p_arg) END, 'parts', v_parts,$new$);
SELECT pg_temp.amend('astra.document_read(text, text)', $old$  v_document jsonb;$old$, $new$  v_document jsonb;
  v_parts bigint;$new$);
SELECT pg_temp.amend('astra.document_read(text, text)', $old$  RETURN jsonb_build_object('outcome', 'ok',$old$,
$new$  EXECUTE format('SELECT count(*) FROM %I.bodies b WHERE b.id = $1', astra.memory_schema(p_workspace)) INTO v_parts USING (v_arg ->> 'documentId')::uuid;
  RETURN jsonb_build_object('outcome', 'ok',$new$);
SELECT pg_temp.amend('astra.document_remove(text, text)',
$old$  EXECUTE format('DELETE FROM %I.documents d WHERE d.slug = $1', v_schema) USING v_slug;$old$,
$new$  EXECUTE format('DELETE FROM %1$I.bodies b USING %1$I.documents d WHERE b.id = d.id AND d.slug = $1', v_schema) USING v_slug;
  EXECUTE format('DELETE FROM %I.documents d WHERE d.slug = $1', v_schema) USING v_slug;$new$);

-- Bodies are exported part by part, after all documents; and a page ends where it is large.
SELECT pg_temp.amend('astra.workspace_export(text, text)', $old$'document'];$old$, $new$'document', 'documentPart'];$new$);
SELECT pg_temp.amend('astra.workspace_export(text, text)',
$old$    END CASE;$old$,
$new$      WHEN 'documentPart' THEN
        OPEN v_rows FOR EXECUTE format('SELECT b.id || '' '' || b.part AS key,
            jsonb_build_object(''document_id'', b.id, ''part'', b.part, ''body'', b.body) AS doc FROM %I.bodies b
          WHERE b.uploaded_at IS NULL AND ($1 IS NULL OR (b.id, b.part) > (split_part($1, '' '', 1)::uuid, split_part($1, '' '', 2)::int))
          ORDER BY b.id, b.part LIMIT $2', v_schema) USING v_key, v_left;
    END CASE;$new$);
SELECT pg_temp.amend('astra.workspace_export(text, text)', $old$      v_left := v_left - 1;$old$,
$new$      -- A line may have a megabyte, and a function has room for a few.
      v_left := CASE WHEN octet_length(v_lines) > 2000000 THEN 0 ELSE v_left - 1 END;$new$);
SELECT pg_temp.amend('astra.workspace_export(text, text)', $old$      EXIT WHEN NOT FOUND;$old$, $new$      EXIT WHEN NOT FOUND OR v_left = 0;$new$);

GRANT EXECUTE ON FUNCTION astra.document_part(text, text) TO astra_memory;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
