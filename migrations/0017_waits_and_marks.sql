-- What a turn stands still for is one limit of one window, not a scope. A limit's last mark is told by whatever finds it used up; a correction tells the marks that it
-- passes.

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

-- {alerts: [{limit, scope, startsAt, mark, max, used}], now} -> ok: marks that belong to no turn's record. Those that are there already are left.
CREATE FUNCTION astra.quota_mark(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.quota_events_add(p_workspace, v_arg -> 'alerts', (v_arg ->> 'now')::timestamptz);
  RETURN '{"outcome":"ok"}';
END
$$;

-- Which limits of what quota_view shows do not pay for another turn with a hold's prompt, also if nobody held anything: astra_quota::alert::used_up.
CREATE FUNCTION astra.marks_used_up(p_windows jsonb, p_hold jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
DECLARE
  v_input numeric := (p_hold ->> 'inputBound')::numeric;
  v_price jsonb := p_hold -> 'price';
  v_cost numeric := ceil((v_input * GREATEST((v_price ->> 'inputNanoPerMtok')::numeric, (v_price ->> 'cachedInputNanoPerMtok')::numeric)
                          + (v_price ->> 'outputNanoPerMtok')::numeric) / 1000000);
BEGIN
  RETURN (
    SELECT jsonb_agg(jsonb_build_object('limit', w."limit", 'scope', w.scope, 'startsAt', w."startsAt", 'mark', 100, 'max', w.max, 'used', w.used))
    FROM jsonb_to_recordset(p_windows) AS w ("limit" text, scope text, max bigint, used bigint, "startsAt" text)
    WHERE w."startsAt" IS NOT NULL AND w.max > 0 AND w.used::numeric * 100 >= w.max::numeric * 90
      AND w.max::numeric - w.used < CASE WHEN w."limit" LIKE 'maxTokens%' THEN v_input + 1 ELSE v_cost END);
END
$$;

-- As in 0012; a turn that a limit has ended tells which are used up.
-- turn_finish's argument with {now, onlyExpired} -> finished {quota} | late: it had no hold any more | alive: it was to be ended as expired and is not.
-- The hold, what is used of the windows, and the turn's record change together or not at all.
CREATE OR REPLACE FUNCTION astra.hold_finish(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_agent text := v_arg ->> 'agentId';
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_cost bigint := (v_arg ->> 'costNanoUsd')::bigint;
  v_tokens bigint := (v_arg #>> '{usage,inputTokens}')::bigint + (v_arg #>> '{usage,outputTokens}')::bigint;
  v_has_answer boolean := jsonb_typeof(v_arg -> 'answer') = 'object';
  v_started timestamptz;
  v_hold public.holds;
  v_last bigint;
  v_quota jsonb;
  v_saved jsonb;
  v_alerts jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  IF COALESCE((v_arg ->> 'onlyExpired')::boolean, false) THEN
    PERFORM 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn AND h.expires_at <= v_now FOR UPDATE;
    IF NOT FOUND THEN
      RETURN '{"outcome":"alive"}';
    END IF;
  END IF;
  -- Before anything is changed: windows that were built half-way through would have counted a half.
  SELECT h.* INTO v_hold FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  IF FOUND THEN
    PERFORM astra.windows_of(p_workspace, v_hold.hold);
  END IF;
  SELECT COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0) INTO v_last;
  IF v_hold.turn_id IS NOT NULL THEN
    DELETE FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    v_started := (v_hold.hold ->> 'startedAt')::timestamptz;
    -- Charged before it is saved, because what is left then is a part of the answer that is saved. What the ledger says of it is looked at below.
    UPDATE public.quota_windows w
    SET cost_held = w.cost_held - (w.span = ANY (v_hold.spans))::int * v_hold.cost,
        tokens_held = w.tokens_held - (w.span = ANY (v_hold.spans))::int * v_hold.tokens,
        cost_used = w.cost_used + (w.span = ANY (v_hold.spans))::int * v_cost,
        tokens_used = w.tokens_used + (w.span = ANY (v_hold.spans))::int * v_tokens,
        ledger_seq = v_last + 1
    WHERE w.workspace_id = p_workspace
      -- A window that the turn began in and is not held in (its limit came later) is left behind: it is built anew, from the ledger.
      AND (w.span = ANY (v_hold.spans) OR v_started >= w.ends_at OR v_started < substr(w.span, strpos(w.span, ':') + 1)::timestamptz)
      AND ((w.scope = 'workspace' AND w.ledger_seq = v_last) OR (w.span = ANY (v_hold.spans) AND w.scope = 'agent:' || v_hold.agent_id));
    v_quota := astra.quota_view(p_workspace, v_hold.hold, v_now);
    v_alerts := astra.marks_passed(v_quota -> 'windows', v_cost, v_tokens);
    IF v_arg ->> 'finishReason' = 'quota' THEN
      v_alerts := COALESCE(v_alerts, '[]') || COALESCE(astra.marks_used_up(v_quota -> 'windows', v_hold.hold), '[]');
    END IF;
    IF v_alerts IS NOT NULL THEN
      v_arg := jsonb_set(v_arg, '{alerts}', v_alerts);
    END IF;
    IF v_has_answer THEN
      v_arg := jsonb_set(v_arg, '{answer,quota}', v_quota);
    END IF;
  END IF;

  v_saved := astra.turn_finish(p_workspace, v_arg::text)::jsonb;
  IF v_hold.turn_id IS NOT NULL THEN
    IF v_saved ->> 'outcome' <> 'saved' OR (v_saved ->> 'ledgerSeq')::bigint <> v_last + 1 OR v_hold.agent_id <> v_agent
       OR v_started <> (v_arg ->> 'startedAt')::timestamptz THEN
      -- It was charged before, or somebody else entered something: the ledger knows how much.
      DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace;
    END IF;
    RETURN jsonb_build_object('outcome', 'finished', 'quota', v_quota)::text;
  END IF;

  -- A settlement that comes late: the windows are built anew from what it has entered. Its limits went with its hold: who wants to know them asks for those
  -- of now.
  IF NOT v_has_answer THEN
    RETURN jsonb_build_object('outcome', 'finished', 'quota', jsonb_build_object('windows', jsonb_build_array()))::text;
  END IF;
  RETURN '{"outcome":"late"}';
END
$$;

-- A correction counts in the windows that its turn began in; the limits are those of now. A trigger, so that whoever enters one tells the marks that it passes.
CREATE FUNCTION astra.ledger_correction_marks() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_ws record;
  v_spans jsonb;
  v_limits jsonb;
  v_windows jsonb;
  v_alerts jsonb;
BEGIN
  SELECT w.limits, w.time_zone INTO v_ws FROM public.workspaces w WHERE w.id = NEW.workspace_id;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  v_spans := astra.spans_json(NEW.turn_started_at, v_ws.time_zone);
  v_limits := astra.limits_in(NEW.workspace_id, v_ws.limits, v_spans #>> '{month,startsAt}');
  SELECT jsonb_agg(jsonb_build_object('limit', replace(c.name, 'NanoUsd', 'Usd'), 'scope', c.scope, 'startsAt', s.span -> 'startsAt', 'max', c.max,
                                      'used', CASE WHEN c.name LIKE 'maxTokens%' THEN u.tokens ELSE astra.nano(u.cost) END))
  INTO v_windows
  FROM (SELECT 'workspace' AS scope, l.key AS name, l.value AS max FROM jsonb_each(v_limits) l
        UNION ALL
        SELECT 'agent:' || a.id, l.key, l.value
        FROM astra.effective_agents(NEW.workspace_id) a CROSS JOIN LATERAL jsonb_each(astra.agent_allowance(a.definition, v_limits)) l
        WHERE a.id = NEW.agent_id) c
  CROSS JOIN LATERAL (SELECT v_spans -> lower(substring(c.name FROM 'Per(Hour|Day|Month)$')) AS span) s
  CROSS JOIN LATERAL (
    SELECT COALESCE(sum(e.cost_usd), 0) AS cost, COALESCE(sum(e.input_tokens + e.output_tokens), 0)::bigint AS tokens
    FROM public.ledger e
    WHERE e.workspace_id = NEW.workspace_id AND (c.scope = 'workspace' OR e.agent_id = NEW.agent_id)
      AND e.turn_started_at >= (s.span ->> 'startsAt')::timestamptz AND e.turn_started_at < (s.span ->> 'endsAt')::timestamptz) u
  WHERE c.name ~ '^max(Tokens|CostNanoUsd)Per(Hour|Day|Month)$';
  v_alerts := astra.marks_passed(v_windows, astra.nano(NEW.cost_usd), NEW.input_tokens + NEW.output_tokens);
  IF v_alerts IS NOT NULL THEN
    PERFORM astra.quota_events_add(NEW.workspace_id, v_alerts, NEW.created_at);
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER ledger_correction_marks AFTER INSERT ON public.ledger
  FOR EACH ROW WHEN (NEW.kind = 'correction') EXECUTE FUNCTION astra.ledger_correction_marks();

GRANT EXECUTE ON FUNCTION astra.quota_mark(text, text), astra.marks_used_up(jsonb, jsonb), astra.ledger_correction_marks() TO astra_quota;
