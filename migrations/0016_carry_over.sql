-- A budget that is not used up is carried over into the next month, where the plan says so: once, and for that month only.
--
-- What is carried is written down when the month before is over and none of its turns runs any more, so that it cannot change after it has been spent. It is what was
-- left of the limit of now; of what had been carried into that month, nothing (that is used first).

SET LOCAL ROLE astra_owner;

-- Operator-global, as plans are; a row of its own, because a plan's template may come later.
CREATE TABLE public.plan_settings (
  plan       text PRIMARY KEY,
  carry_over boolean NOT NULL,
  updated_at timestamptz NOT NULL
);
REVOKE ALL ON public.plan_settings FROM PUBLIC;
GRANT SELECT ON public.plan_settings TO astra_quota;
GRANT SELECT, INSERT, UPDATE ON public.plan_settings TO astra_operator;

CREATE TABLE public.quota_carries (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  month_start  timestamptz NOT NULL,  -- of the month that it is carried into
  cost         bigint NOT NULL CHECK (cost >= 0),  -- nano-dollars
  tokens       bigint NOT NULL CHECK (tokens >= 0),
  PRIMARY KEY (workspace_id, month_start)
);
ALTER TABLE public.quota_carries ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.quota_carries USING (workspace_id = current_setting('astra.workspace', true))
  WITH CHECK (workspace_id = current_setting('astra.workspace', true));
REVOKE ALL ON public.quota_carries FROM PUBLIC;
GRANT SELECT, INSERT ON public.quota_carries TO astra_quota;

-- A workspace's limits in a month: with what was carried into it. "carryDue" is in them while that is not known yet.
CREATE FUNCTION astra.limits_in(p_workspace text, p_limits jsonb, p_month_start text) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_carry record;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w JOIN public.plan_settings s ON s.plan = w.plan AND s.carry_over WHERE w.id = p_workspace) THEN
    RETURN p_limits;
  END IF;
  SELECT c.cost, c.tokens INTO v_carry FROM public.quota_carries c WHERE c.workspace_id = p_workspace AND c.month_start = p_month_start::timestamptz;
  IF NOT FOUND THEN
    RETURN p_limits || '{"carryDue":true}';
  END IF;
  RETURN p_limits || jsonb_strip_nulls(jsonb_build_object(
    'maxTokensPerMonth', (p_limits ->> 'maxTokensPerMonth')::bigint + v_carry.tokens,
    'maxCostNanoUsdPerMonth', (p_limits ->> 'maxCostNanoUsdPerMonth')::bigint + v_carry.cost));
END
$$;

-- {now} -> carried | not_yet: turns of the month before still run. The caller has nothing of that month that is not in the ledger.
CREATE FUNCTION astra.quota_carry(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_ws record;
  v_start timestamptz;
  v_before timestamptz;
  v_used record;
  v_had record;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  SELECT w.limits, w.time_zone, w.created_at INTO v_ws FROM public.workspaces w WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_yet"}';
  END IF;
  v_start := (astra.spans_json((p_arg::jsonb ->> 'now')::timestamptz, v_ws.time_zone) #>> '{month,startsAt}')::timestamptz;
  v_before := (astra.spans_json(v_start - interval '1 millisecond', v_ws.time_zone) #>> '{month,startsAt}')::timestamptz;
  IF EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND (h.hold ->> 'startedAt')::timestamptz < v_start) THEN
    RETURN '{"outcome":"not_yet"}';
  END IF;
  SELECT astra.nano(COALESCE(sum(l.cost_usd), 0)) AS cost, COALESCE(sum(l.input_tokens + l.output_tokens), 0)::bigint AS tokens INTO v_used
  FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_started_at >= v_before AND l.turn_started_at < v_start;
  SELECT COALESCE(max(c.cost), 0) AS cost, COALESCE(max(c.tokens), 0) AS tokens INTO v_had
  FROM public.quota_carries c WHERE c.workspace_id = p_workspace AND c.month_start = v_before;
  -- A workspace that was made in this month had no budget before.
  INSERT INTO public.quota_carries (workspace_id, month_start, cost, tokens)
  SELECT p_workspace, v_start,
    COALESCE(GREATEST((v_ws.limits ->> 'maxCostNanoUsdPerMonth')::bigint - GREATEST(v_used.cost - v_had.cost, 0), 0) * (v_ws.created_at < v_start)::int, 0),
    COALESCE(GREATEST((v_ws.limits ->> 'maxTokensPerMonth')::bigint - GREATEST(v_used.tokens - v_had.tokens, 0), 0) * (v_ws.created_at < v_start)::int, 0)
  ON CONFLICT DO NOTHING;
  RETURN '{"outcome":"carried"}';
END
$$;
GRANT EXECUTE ON FUNCTION astra.limits_in(text, jsonb, text), astra.quota_carry(text, text) TO astra_quota;

GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;

-- {plan, carryOver, now} -> ok
CREATE FUNCTION astra.op_plan_settings_put(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  INSERT INTO public.plan_settings AS s (plan, carry_over, updated_at)
  VALUES (v_arg ->> 'plan', (v_arg ->> 'carryOver')::boolean, (v_arg ->> 'now')::timestamptz)
  ON CONFLICT (plan) DO UPDATE SET carry_over = excluded.carry_over, updated_at = excluded.updated_at;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {plan} -> ok | not_found, carryOver, templateVersion | null
CREATE FUNCTION astra.op_plan_settings_get(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_plan text := p_arg::jsonb ->> 'plan';
  v_carry_over boolean := (SELECT s.carry_over FROM public.plan_settings s WHERE s.plan = v_plan);
  v_version int := (SELECT p.version FROM public.plans p WHERE p.plan = v_plan);
BEGIN
  RETURN jsonb_build_object('outcome', CASE WHEN v_carry_over IS NULL AND v_version IS NULL THEN 'not_found' ELSE 'ok' END,
                            'carryOver', COALESCE(v_carry_over, false), 'templateVersion', v_version)::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.op_plan_settings_put(text), astra.op_plan_settings_get(text) TO astra_provision;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;
