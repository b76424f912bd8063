-- What a turn stands still for is one limit of one window, not a scope.

SET LOCAL ROLE astra_owner;

COMMENT ON COLUMN public.holds.waits IS 'The limit that the turn stands still for, until others give something back: scope, window and limit with blanks between (astra_quota::Waits). '
  'The scope alone: any limit of it, as it was written before.';

-- {turnId, scope, window | null, waits?} -> not_running | wait {wait}: as in 0012; waits is what is written down. (Code from before sends none: the scope.)
CREATE OR REPLACE FUNCTION astra.hold_wait(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_scope text := v_arg ->> 'scope';
  v_span text := astra.span_id(NULLIF(v_arg -> 'window', 'null'));
  v_wait boolean;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  v_wait := EXISTS (
    SELECT 1 FROM public.holds h
    WHERE h.workspace_id = p_workspace AND h.turn_id <> v_turn AND v_span = ANY (h.spans)
      AND (v_scope = 'workspace' OR v_scope = 'agent:' || h.agent_id) AND (h.waits IS NULL OR h.turn_id > v_turn));
  UPDATE public.holds h SET waits = CASE WHEN v_wait THEN COALESCE(v_arg ->> 'waits', v_scope) END WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_running"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'wait', 'wait', v_wait)::text;
END
$$;
