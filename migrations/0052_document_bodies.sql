-- A job reads a document's body by itself, as the text that it is: within JSON it stands in a Worker's memory five times while it is read, of which 20 MiB leave room for three.
-- {jobId, lease, documentId} -> the body; '' when the job is somebody else's or the document is gone.

SET LOCAL ROLE astra_owner;
CREATE FUNCTION astra.document_body(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_body text;
BEGIN
  IF EXISTS (SELECT 1 FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid AND j.lease = (v_arg ->> 'lease')::uuid) THEN
    EXECUTE format('SELECT d.body FROM %I.documents d WHERE d.id = $1', astra.memory_schema(p_workspace)) INTO v_body USING (v_arg ->> 'documentId')::uuid;
  END IF;
  RETURN COALESCE(v_body, '');
END
$$;
GRANT EXECUTE ON FUNCTION astra.document_body(text, text) TO astra_memory;
RESET ROLE;

-- Code from before is told it within the JSON, as it was.
DO $$
DECLARE
  v_is text := pg_get_functiondef('astra.document_read(text, text)'::regprocedure);
  v_old text := $old$'body', v_document -> 'body',$old$;
BEGIN
  IF length(v_is) - length(replace(v_is, v_old, '')) <> length(v_old) THEN
    RAISE EXCEPTION 'document_read is not as it was';
  END IF;
  EXECUTE replace(v_is, v_old, $new$'body', CASE WHEN (v_arg ->> 'apart')::boolean IS NOT TRUE THEN v_document -> 'body' END,$new$);
END
$$;
