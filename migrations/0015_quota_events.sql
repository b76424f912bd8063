-- Marks of limits that were passed, for who asks; and the counters compared with the ledger.

SET LOCAL ROLE astra_owner;

-- {after?, limit?} -> ok | not_found, data [{limit, scope, startsAt, mark, max, used, at}] latest first, next (opaque)
CREATE FUNCTION astra.quota_events_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_after bigint := (v_arg ->> 'after')::bigint;
  v_data jsonb;
  v_next text;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  -- The cursor counts from the first event on: what comes meanwhile moves no page.
  SELECT COALESCE(jsonb_agg(jsonb_build_object('limit', p.limit_name, 'scope', p.scope, 'startsAt', astra.ts(p.starts_at), 'mark', p.mark, 'max', p.max,
                                               'used', p.used, 'at', astra.ts(p.at)) ORDER BY p.place DESC) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN (min(p.place) FILTER (WHERE p.n = v_limit))::text END
  INTO v_data, v_next
  FROM (SELECT o.*, row_number() OVER (ORDER BY o.place DESC) AS n
        FROM (SELECT e.*, row_number() OVER (ORDER BY e.at, e.limit_name, e.scope, e.starts_at, e.mark) AS place
              FROM public.quota_events e WHERE e.workspace_id = p_workspace) o
        WHERE v_after IS NULL OR o.place < v_after
        ORDER BY o.place DESC LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.quota_events_list(text, text) TO astra_billing;

-- {} -> {data: [{window, scope, counter: {cost, tokens}, ledger: {cost, tokens}}]}: each window that is kept, against the ledger. One that differs is forgotten, so that
-- it is built again when it is needed. (It cannot differ unless somebody wrote to the windows or, past this file's functions, to the ledger.)
CREATE FUNCTION astra.hold_reconcile(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_data jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  WITH compared AS (
    SELECT w.span, w.scope, w.cost_used, w.tokens_used, astra.nano(l.cost) AS cost, l.tokens
    FROM public.quota_windows w
    CROSS JOIN LATERAL (
      SELECT COALESCE(sum(e.cost_usd), 0) AS cost, COALESCE(sum(e.input_tokens + e.output_tokens), 0)::bigint AS tokens
      FROM public.ledger e
      WHERE e.workspace_id = p_workspace AND e.turn_started_at >= substring(w.span FROM position(':' IN w.span) + 1)::timestamptz AND e.turn_started_at < w.ends_at
        AND (w.scope = 'workspace' OR w.scope = 'agent:' || e.agent_id)) l
    WHERE w.workspace_id = p_workspace)
  SELECT COALESCE(jsonb_agg(jsonb_build_object('window', c.span, 'scope', c.scope,
           'counter', jsonb_build_object('cost', c.cost_used, 'tokens', c.tokens_used), 'ledger', jsonb_build_object('cost', c.cost, 'tokens', c.tokens))
           ORDER BY c.span, c.scope), '[]')
  INTO v_data FROM compared c;
  IF EXISTS (SELECT 1 FROM jsonb_array_elements(v_data) d WHERE d.value -> 'counter' <> d.value -> 'ledger') THEN
    DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace;
  END IF;
  RETURN jsonb_build_object('data', v_data)::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.hold_reconcile(text, text) TO astra_quota;

SET LOCAL ROLE astra_operator;
GRANT EXECUTE ON FUNCTION astra.op_workspaces_list(text) TO astra_billing;
