-- Which workspaces have jobs that are due is asked again and again, and cost the more the more jobs there were: all of them were read. Now each workspace that has some is found by one
-- look into an index, and since when it waits by another.

SET LOCAL ROLE astra_owner;
DROP INDEX public.jobs_due;
CREATE INDEX jobs_waiting ON public.jobs (workspace_id, run_at) WHERE dead_at IS NULL;

DO $$
BEGIN
  IF (SELECT md5(p.prosrc) FROM pg_proc p WHERE p.oid = 'astra.op_jobs_due(text)'::regprocedure) <> 'e144cf3bfb0807061bc1d44d0786f6d0' THEN
    RAISE EXCEPTION 'astra.op_jobs_due is not as it was';
  END IF;
END
$$;

GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;
CREATE OR REPLACE FUNCTION astra.op_jobs_due(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
BEGIN
  RETURN (
    WITH RECURSIVE waiting AS (
      (SELECT j.workspace_id FROM public.jobs j WHERE j.dead_at IS NULL ORDER BY j.workspace_id LIMIT 1)
      UNION ALL
      SELECT (SELECT j.workspace_id FROM public.jobs j WHERE j.dead_at IS NULL AND j.workspace_id > w.workspace_id ORDER BY j.workspace_id LIMIT 1)
      FROM waiting w WHERE w.workspace_id IS NOT NULL),
    due AS (
      SELECT w.workspace_id, f.run_at FROM waiting w CROSS JOIN LATERAL (
        SELECT j.run_at FROM public.jobs j
        WHERE j.workspace_id = w.workspace_id AND j.dead_at IS NULL AND j.run_at <= v_now AND (j.leased_until IS NULL OR j.leased_until <= v_now) ORDER BY j.run_at LIMIT 1) f
      ORDER BY f.run_at, w.workspace_id LIMIT (v_arg ->> 'limit')::int)
    SELECT jsonb_build_object('outcome', 'ok', 'workspaces', COALESCE(jsonb_agg(d.workspace_id ORDER BY d.run_at, d.workspace_id), '[]')) FROM due d)::text;
END
$$;
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;
RESET ROLE;
