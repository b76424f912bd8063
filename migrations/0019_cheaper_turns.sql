-- What a turn costs the database, without a change to what any function answers or upholds.
--
-- Much of it was not work but its preparation: each statement sets up a plan's executor (5 to 15 us, more with an aggregate or a join), as often as it runs. So
-- * what is read under one lock is read by one statement, as scalar subqueries and ARRAY(..), which need no aggregate;
-- * a hold's few windows and caps are compared in plpgsql: a simple expression costs a fifth of a microsecond;
-- * `v_done := f(..)` in place of PERFORM, which would be a statement;
-- * hold_finish gives turn_finish's part the document itself, not its text.
--
-- Traps: * functions without a SET of their own (it costs a level of settings and a new look at names) are called by those that have one: they qualify
--          every name that is not pg_catalog's.
--        * `v_done :=` of a function that waits is a statement for what follows: in a VOLATILE function the next one takes its own snapshot.

SET LOCAL ROLE astra_owner;

-- A running turn's row lives for seconds and is read once or twice: its documents are not worth packing and unpacking.
ALTER TABLE public.holds SET (toast_tuple_target = 8160);

-- A hold is looked for by its turn. On a table that is empty when it is planned for, this index looked as good for that as the primary key, and then each look
-- read all of the workspace's holds. Its condition, which is always true, is one that only a query with a bound on expires_at is known to meet.
DROP INDEX public.holds_expiry;
CREATE INDEX holds_expiry ON public.holds (workspace_id, expires_at) WHERE expires_at IS NOT NULL;

-- As in 0012, as one function without others.
CREATE OR REPLACE FUNCTION astra.spans_json(p_now timestamptz, p_zone text) RETURNS jsonb LANGUAGE plpgsql STABLE STRICT AS
$$
DECLARE
  v_hour timestamptz := date_trunc('hour', p_now, 'UTC');
  v_local timestamp := p_now AT TIME ZONE p_zone;
  v_day date := v_local::date;
  v_month date := date_trunc('month', v_local)::date;
BEGIN
  -- A midnight that comes twice belongs to the day before until its second coming.
  IF v_day::timestamp AT TIME ZONE p_zone > p_now THEN
    v_day := v_day - 1;
  END IF;
  IF v_month::timestamp AT TIME ZONE p_zone > p_now THEN
    v_month := (v_month - interval '1 month')::date;
  END IF;
  RETURN jsonb_build_object(
    'hour', jsonb_build_object('period', 'hour', 'startsAt', astra.ts(v_hour), 'endsAt', astra.ts(v_hour + interval '1 hour')),
    'day', jsonb_build_object('period', 'day', 'startsAt', astra.ts(v_day::timestamp AT TIME ZONE p_zone),
                              'endsAt', astra.ts((v_day + 1)::timestamp AT TIME ZONE p_zone)),
    'month', jsonb_build_object('period', 'month', 'startsAt', astra.ts(v_month::timestamp AT TIME ZONE p_zone),
                                'endsAt', astra.ts((v_month + interval '1 month') AT TIME ZONE p_zone)));
END
$$;

-- As in 0012: {sums, recent, waits}. One statement; what is seldom there is looked into only when it is.
CREATE OR REPLACE FUNCTION astra.standing_json(p_workspace text, p_spans text[], p_agent text, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_sums jsonb[];
  v_begun timestamptz[];
  v_waits text[];
  v_recent jsonb := '{"count":0,"first":null}';
  v_waiting jsonb := '[]';
BEGIN
  SELECT ARRAY(SELECT jsonb_build_array(w.span, w.scope, w.cost_used, w.tokens_used, w.cost_held, w.tokens_held)
               FROM public.quota_windows a
               JOIN public.quota_windows w ON w.workspace_id = p_workspace AND w.span = a.span
                                          AND (p_agent IS NULL OR w.scope IN ('workspace', 'agent:' || p_agent))
               WHERE a.workspace_id = p_workspace AND a.scope = 'workspace'
                 AND a.ledger_seq = COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0)
                 AND CASE WHEN p_spans IS NULL THEN a.ends_at > p_now ELSE a.span = ANY (p_spans) END),
         ARRAY(SELECT b.at FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at > p_now - interval '60 seconds'),
         ARRAY(SELECT h.waits FROM public.holds h WHERE h.workspace_id = p_workspace AND h.waits IS NOT NULL)
  INTO v_sums, v_begun, v_waits;
  IF v_begun <> '{}' THEN
    v_recent := jsonb_build_object('count', cardinality(v_begun), 'first', astra.ts((SELECT min(b.at) FROM unnest(v_begun) AS b (at))));
  END IF;
  IF v_waits <> '{}' THEN
    v_waiting := (SELECT jsonb_agg(DISTINCT w.waits) FROM unnest(v_waits) AS w (waits));
  END IF;
  RETURN jsonb_build_object('sums', to_jsonb(v_sums), 'recent', v_recent, 'waits', v_waiting);
END
$$;

-- What the rows call some windows.
CREATE FUNCTION astra.span_ids(p_spans jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
DECLARE
  v_span jsonb;
  v_spans text[] := '{}';
BEGIN
  FOR i IN 0 .. COALESCE(jsonb_array_length(p_spans), 0) - 1 LOOP
    v_span := p_spans -> i;
    v_spans := v_spans || ((v_span ->> 'period') || ':' || (v_span ->> 'startsAt'));
  END LOOP;
  RETURN v_spans;
END
$$;

-- As in 0012: builds what has to be built of a hold's windows; their names. The caller has the lock.
CREATE OR REPLACE FUNCTION astra.windows_of(p_workspace text, p_hold jsonb) RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
  v_spans jsonb := p_hold -> 'spans';
  v_done text;
BEGIN
  FOR i IN 0 .. COALESCE(jsonb_array_length(v_spans), 0) - 1 LOOP
    v_done := astra.windows_ensure(p_workspace, v_spans -> i);
  END LOOP;
  RETURN astra.span_ids(v_spans);
END
$$;

-- Whether all caps of a hold have room for so much more. The rows are those of the caps' windows.
DROP FUNCTION astra.caps_fit(text, jsonb, bigint, bigint);
CREATE FUNCTION astra.caps_fit(p_caps jsonb, p_rows public.quota_windows[], p_cost bigint, p_tokens bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$
DECLARE
  v_cap jsonb;
  v_span text;
  v_scope text;
  v_row public.quota_windows;
  v_cost bigint;
  v_tokens bigint;
BEGIN
  FOR i IN 0 .. COALESCE(jsonb_array_length(p_caps), 0) - 1 LOOP
    v_cap := p_caps -> i;
    v_span := (v_cap #>> '{window,period}') || ':' || (v_cap #>> '{window,startsAt}');
    v_scope := v_cap ->> 'scope';
    v_cost := p_cost;
    v_tokens := p_tokens;
    FOREACH v_row IN ARRAY p_rows LOOP
      IF v_row.span = v_span AND v_row.scope = v_scope THEN
        v_cost := v_row.cost_used + v_row.cost_held + p_cost;
        v_tokens := v_row.tokens_used + v_row.tokens_held + p_tokens;
        EXIT;
      END IF;
    END LOOP;
    IF (CASE WHEN v_cap ->> 'limit' LIKE 'maxTokens%' THEN v_tokens ELSE v_cost END) > (v_cap ->> 'max')::bigint THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;

-- As in 0012.
CREATE OR REPLACE FUNCTION astra.marks_passed(p_windows jsonb, p_cost bigint, p_tokens bigint) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
DECLARE
  v_window jsonb;
  v_max numeric;
  v_used numeric;
  v_before numeric;
  v_mark int;
  v_marks jsonb;
BEGIN
  FOR i IN 0 .. COALESCE(jsonb_array_length(p_windows), 0) - 1 LOOP
    v_window := p_windows -> i;
    v_max := (v_window ->> 'max')::numeric;
    v_used := (v_window ->> 'used')::numeric;
    -- The first mark is half of it.
    IF v_used * 2 >= v_max AND v_max > 0 AND v_window ->> 'startsAt' IS NOT NULL THEN
      v_before := v_used - CASE WHEN v_window ->> 'limit' LIKE 'maxTokens%' THEN p_tokens ELSE p_cost END;
      FOREACH v_mark IN ARRAY '{50,80,100}'::int[] LOOP
        IF v_used * 100 >= v_max * v_mark AND v_before * 100 < v_max * v_mark THEN
          v_marks := COALESCE(v_marks, '[]') || jsonb_build_object('limit', v_window -> 'limit', 'scope', v_window -> 'scope',
            'startsAt', v_window -> 'startsAt', 'mark', v_mark, 'max', v_window -> 'max', 'used', v_window -> 'used');
        END IF;
      END LOOP;
    END IF;
  END LOOP;
  RETURN v_marks;
END
$$;

-- What is used and left of a hold's limits once it is charged so much and holds nothing any more: astra_quota::QuotaView. The rows are those of the windows
-- that it is held in, as they were before.
DROP FUNCTION astra.quota_view(text, jsonb, timestamptz);
CREATE FUNCTION astra.quota_view(p_workspace text, p_hold jsonb, p_rows public.quota_windows[], p_cost bigint, p_held_cost bigint, p_tokens bigint,
  p_held_tokens bigint, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_caps jsonb := p_hold -> 'caps';
  v_cap jsonb;
  v_span text;
  v_scope text;
  v_row public.quota_windows;
  v_limit bigint;
  v_used bigint;
  v_held bigint;
  v_windows jsonb := '[]';
  v_begun record;
BEGIN
  FOR i IN 0 .. COALESCE(jsonb_array_length(v_caps), 0) - 1 LOOP
    v_cap := v_caps -> i;
    v_span := (v_cap #>> '{window,period}') || ':' || (v_cap #>> '{window,startsAt}');
    v_scope := v_cap ->> 'scope';
    v_limit := (v_cap ->> 'max')::bigint;
    v_used := 0;
    v_held := 0;
    FOREACH v_row IN ARRAY p_rows LOOP
      IF v_row.span = v_span AND v_row.scope = v_scope THEN
        IF v_cap ->> 'limit' LIKE 'maxTokens%' THEN
          v_used := v_row.tokens_used + p_tokens;
          v_held := v_row.tokens_held - p_held_tokens;
        ELSE
          v_used := v_row.cost_used + p_cost;
          v_held := v_row.cost_held - p_held_cost;
        END IF;
        EXIT;
      END IF;
    END LOOP;
    v_windows := v_windows || jsonb_build_object('limit', v_cap -> 'limit', 'scope', v_scope, 'max', v_limit, 'used', v_used, 'held', v_held,
      'left', GREATEST(v_limit - v_used - v_held, 0), 'startsAt', v_cap #> '{window,startsAt}', 'resetsAt', v_cap #> '{window,endsAt}');
  END LOOP;
  v_limit := (p_hold ->> 'maxTurnsPerMinute')::bigint;
  IF v_limit IS NOT NULL THEN
    SELECT count(*) AS n, astra.ts(min(b.at) + interval '60 seconds') AS resets INTO v_begun
    FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at > p_now - interval '60 seconds';
    v_windows := v_windows || jsonb_strip_nulls(jsonb_build_object('limit', 'maxTurnsPerMinute', 'scope', 'workspace', 'max', v_limit, 'used', v_begun.n,
      'held', 0, 'left', GREATEST(v_limit - v_begun.n, 0), 'resetsAt', v_begun.resets));
  END IF;
  RETURN jsonb_build_object('windows', v_windows);
END
$$;

-- turn_finish's work, as in 0012 -> {outcome, ledgerSeq}. The answer and the marks that were passed come by themselves, so that the counter need not write them
-- into the document. The caller has set the workspace.
CREATE FUNCTION astra.turn_enter(p_workspace text, p_arg jsonb, p_answer jsonb, p_alerts jsonb) RETURNS jsonb LANGUAGE plpgsql AS
$$
DECLARE
  v_usage jsonb := p_arg -> 'usage';
  v_id uuid := (p_arg ->> 'turnId')::uuid;
  v_session uuid := (p_arg ->> 'sessionId')::uuid;
  v_agent text := p_arg ->> 'agentId';
  v_subject text := p_arg ->> 'subject';
  v_status text := p_arg ->> 'status';
  v_provider text := p_arg ->> 'provider';
  v_model text := p_arg ->> 'model';
  v_price int := (p_arg ->> 'priceVersion')::int;
  v_input bigint := (v_usage ->> 'inputTokens')::bigint;
  v_cached bigint := (v_usage ->> 'cachedInputTokens')::bigint;
  v_output bigint := (v_usage ->> 'outputTokens')::bigint;
  v_reasoning bigint := (v_usage ->> 'reasoningTokens')::bigint;
  v_source text := v_usage ->> 'source';
  v_cost numeric := astra.usd((p_arg ->> 'costNanoUsd')::bigint);
  v_started timestamptz := (p_arg ->> 'startedAt')::timestamptz;
  v_ended timestamptz := (p_arg ->> 'endedAt')::timestamptz;
  v_key text := p_arg ->> 'idempotencyKey';
  v_message text := p_arg ->> 'message';
  v_content text := p_arg ->> 'content';
  v_old public.turns;
  v_seq bigint;
  v_zone text;
  v_month date;
  v_is_new boolean := false;
  v_has_session boolean;
  v_last bigint := 0;
BEGIN
  -- The ledger's next place. The row is locked until the commit, so whoever waited for it sees what its last holder committed.
  UPDATE public.ledger_heads h SET seq = h.seq + 1 WHERE h.workspace_id = p_workspace RETURNING h.seq INTO v_seq;
  IF NOT FOUND THEN
    INSERT INTO public.ledger_heads AS h (workspace_id, seq)
    SELECT p_workspace, COALESCE(max(l.seq), 0) + 1 FROM public.ledger l WHERE l.workspace_id = p_workspace
    ON CONFLICT (workspace_id) DO UPDATE SET seq = h.seq + 1
    RETURNING h.seq INTO v_seq;
  END IF;

  -- The entry. That a turn has one already is found by the index that upholds it, whatever the planner knows of the table.
  INSERT INTO public.ledger (workspace_id, seq, id, kind, turn_id, agent_id, user_id, session_id, provider, model, price_version,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, source, turn_started_at)
  VALUES (p_workspace, v_seq, gen_random_uuid(), 'turn', v_id, v_agent, v_subject, v_session, v_provider, v_model, v_price,
    v_input, v_cached, v_output, v_reasoning, v_cost, v_source, v_started)
  ON CONFLICT (workspace_id, turn_id, kind) DO NOTHING
  RETURNING (SELECT w.time_zone FROM public.workspaces w WHERE w.id = p_workspace) INTO v_zone;
  IF NOT FOUND THEN
    SELECT t.* INTO v_old FROM public.turns t WHERE t.workspace_id = p_workspace AND t.id = v_id;
    IF v_old.status IS DISTINCT FROM 'expired' OR v_status = 'expired' THEN
      UPDATE public.ledger_heads h SET seq = h.seq - 1 WHERE h.workspace_id = p_workspace;
      RETURN jsonb_build_object('outcome', 'duplicate', 'ledgerSeq',
        (SELECT max(l.seq) FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_id));
    END IF;
    -- What is to be added to the entry before (it may be negative). It counts in the turn's month.
    INSERT INTO public.ledger (workspace_id, seq, id, kind, turn_id, corrects, agent_id, user_id, session_id, provider, model, price_version,
      input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, source, turn_started_at)
    SELECT p_workspace, v_seq, gen_random_uuid(), 'correction', v_id, l.id, v_old.agent_id, v_old.user_id, v_old.session_id, v_provider, v_model, v_price,
      v_input - v_old.input_tokens, v_cached - v_old.cached_input_tokens, v_output - v_old.output_tokens,
      v_reasoning - v_old.reasoning_tokens, v_cost - v_old.cost_usd, v_source, v_old.created_at
    FROM public.ledger l
    WHERE l.workspace_id = p_workspace AND l.turn_id = v_id AND l.kind = 'turn';
    SELECT w.time_zone INTO v_zone FROM public.workspaces w WHERE w.id = p_workspace;
  END IF;

  IF v_zone IS NOT NULL THEN
    v_month := astra.month_in(v_started, v_zone);
    -- A key belongs to one turn of a month. The counter sees to it; should it ever not, the turn counts more than its key.
    IF v_key IS NOT NULL THEN
      IF EXISTS (SELECT 1 FROM public.turns t WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key
                   AND t.idempotency_month = v_month AND t.id <> v_id) THEN
        v_key := NULL;
      END IF;
    END IF;

    IF v_old.id IS NULL AND (p_arg ->> 'newSession')::boolean THEN
      INSERT INTO public.sessions (workspace_id, id, agent_id, user_id, created_at, updated_at)
      VALUES (p_workspace, v_session, v_agent, v_subject, v_started, v_ended)
      ON CONFLICT (workspace_id, id) DO NOTHING;
      v_is_new := FOUND;
    END IF;
    v_has_session := v_is_new;
    IF NOT v_is_new THEN
      UPDATE public.sessions s SET updated_at = greatest(s.updated_at, v_ended) WHERE s.workspace_id = p_workspace AND s.id = v_session;
      v_has_session := FOUND;
    END IF;

    -- The user's words and the answer, whichever is not there yet. Of an expired turn the draft is: only the answer is new then.
    IF v_has_session THEN
      IF NOT v_is_new THEN
        v_last := COALESCE((SELECT max(m.seq) FROM public.messages m WHERE m.workspace_id = p_workspace AND m.session_id = v_session), 0);
      END IF;
      IF v_old.id IS NULL THEN
        INSERT INTO public.messages (workspace_id, session_id, seq, turn_id, role, content, created_at)
        SELECT p_workspace, v_session, v_last + n.place, v_id, n.role, n.content, n.at
        FROM (VALUES (1, 'user', v_message, v_started), (1 + (v_message IS NOT NULL)::int, 'assistant', v_content, v_ended)) AS n (place, role, content, at)
        WHERE n.content IS NOT NULL;
      ELSE
        INSERT INTO public.messages (workspace_id, session_id, seq, turn_id, role, content, created_at)
        SELECT p_workspace, v_session, v_last + row_number() OVER (ORDER BY n.ordinal), v_id, n.role, n.content, n.at
        FROM (VALUES (1, 'user', v_message, v_started), (2, 'assistant', v_content, v_ended)) AS n (ordinal, role, content, at)
        WHERE n.content IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM public.messages m WHERE m.workspace_id = p_workspace AND m.session_id = v_session
                            AND m.turn_id = v_id AND m.role = n.role);
      END IF;
    END IF;

    IF v_old.id IS NULL THEN
      INSERT INTO public.turns (workspace_id, id, session_id, agent_id, user_id, status, finish_reason, provider, model, price_version, input_tokens,
        cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, usage_source, idempotency_key, idempotency_month, request_hash, error_code,
        answer, metadata, created_at, ended_at)
      VALUES (p_workspace, v_id, v_session, v_agent, v_subject, v_status, p_arg ->> 'finishReason', v_provider, v_model, v_price, v_input,
        v_cached, v_output, v_reasoning, v_cost, v_source, v_key, v_month, p_arg ->> 'requestHash', p_arg ->> 'errorCode',
        NULLIF(p_answer, 'null'), NULLIF(p_arg -> 'metadata', 'null'), v_started, v_ended);
    ELSE
      UPDATE public.turns t
      SET status = v_status, finish_reason = p_arg ->> 'finishReason', provider = v_provider, model = v_model, price_version = v_price,
          input_tokens = v_input, cached_input_tokens = v_cached, output_tokens = v_output, reasoning_tokens = v_reasoning,
          cost_usd = v_cost, usage_source = v_source, idempotency_key = COALESCE(t.idempotency_key, v_key), error_code = p_arg ->> 'errorCode',
          answer = NULLIF(p_answer, 'null'), metadata = COALESCE(NULLIF(p_arg -> 'metadata', 'null'), t.metadata), ended_at = v_ended
      WHERE t.workspace_id = p_workspace AND t.id = v_id;
    END IF;
    IF p_alerts IS NOT NULL THEN
      PERFORM astra.quota_events_add(p_workspace, p_alerts, v_ended);
    END IF;
  END IF;
  RETURN jsonb_build_object('outcome', CASE WHEN v_old.id IS NULL THEN 'saved' ELSE 'corrected' END, 'ledgerSeq', v_seq);
END
$$;

-- As in 0012.
CREATE OR REPLACE FUNCTION astra.turn_finish(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_done text;
BEGIN
  v_done := set_config('astra.workspace', p_workspace, true);
  RETURN astra.turn_enter(p_workspace, v_arg, v_arg -> 'answer', v_arg -> 'alerts')::text;
END
$$;

-- As in 0012.
CREATE OR REPLACE FUNCTION astra.hold_take(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_hold jsonb := v_arg -> 'hold';
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_agent text := v_hold ->> 'agent';
  v_key text := v_hold #>> '{key,0}';
  v_cost bigint := (v_hold ->> 'cost')::bigint;
  v_tokens bigint := (v_arg ->> 'tokens')::bigint;
  v_per_minute bigint := (v_hold ->> 'maxTurnsPerMinute')::bigint;
  v_spans text[] := astra.span_ids(v_hold -> 'spans');
  v_zone text;
  v_month date;
  v_is_held boolean;
  v_rows public.quota_windows[];
  v_last bigint;
  v_counted bigint[];
  v_fits boolean;
  v_known public.holds;
  v_done text;
BEGIN
  v_done := set_config('astra.workspace', p_workspace, true);
  v_done := astra.counter_lock(p_workspace);
  FOR v_try IN 1 .. 2 LOOP
    SELECT (SELECT s.time_zone FROM public.workspaces s WHERE s.id = p_workspace),
           EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn),
           (SELECT l.seq FROM public.ledger_heads l WHERE l.workspace_id = p_workspace),
           ARRAY(SELECT w FROM public.quota_windows w
                 WHERE w.workspace_id = p_workspace AND w.span = ANY (v_spans) AND w.scope IN ('workspace', 'agent:' || v_agent)),
           ARRAY(SELECT w.ledger_seq FROM public.quota_windows w
                 WHERE w.workspace_id = p_workspace AND w.span = ANY (v_spans) AND w.scope = 'workspace')
    INTO v_zone, v_is_held, v_last, v_rows, v_counted;
    -- Each window is there and has counted the ledger's last entry.
    EXIT WHEN v_try = 2 OR (cardinality(v_counted) = cardinality(v_spans) AND COALESCE(v_last, 0) = ALL (v_counted));
    v_done := astra.windows_of(p_workspace, v_hold);
  END LOOP;

  IF v_is_held THEN
    SELECT h.* INTO v_known FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    RETURN jsonb_build_object('outcome', 'held', 'hold', astra.hold_json(v_known))::text;
  END IF;
  IF v_zone IS NULL THEN
    RETURN '{"outcome":"again"}';
  END IF;
  IF v_key IS NOT NULL THEN
    v_month := astra.month_in((v_hold ->> 'startedAt')::timestamptz, v_zone);
    IF EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.idempotency_key = v_key)
       OR EXISTS (SELECT 1 FROM public.turns t WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key AND t.idempotency_month = v_month) THEN
      RETURN '{"outcome":"again"}';
    END IF;
  END IF;

  -- The limits once more, against what is true until the commit.
  v_fits := astra.caps_fit(v_hold -> 'caps', v_rows, v_cost, v_tokens);
  IF v_per_minute IS NOT NULL THEN
    v_fits := v_fits AND v_per_minute > (SELECT count(*) FROM public.quota_begins b
                                         WHERE b.workspace_id = p_workspace AND b.at > v_now - interval '60 seconds');
  END IF;
  IF NOT v_fits THEN
    RETURN jsonb_build_object('outcome', 'full', 'standings', astra.standing_json(p_workspace, v_spans, v_agent, v_now))::text;
  END IF;

  v_done := astra.windows_hold(p_workspace, v_spans, v_agent, v_cost, v_tokens);
  INSERT INTO public.holds (workspace_id, turn_id, spans, agent_id, subject, idempotency_key, request_hash, cost, tokens, hold, draft, progress, expires_at)
  VALUES (p_workspace, v_turn, v_spans, v_agent, v_hold ->> 'subject', v_key, COALESCE(v_hold #>> '{key,1}', ''), v_cost, v_tokens, v_hold,
          v_arg -> 'draft', v_hold -> 'progress', (v_hold ->> 'expiresAt')::timestamptz);
  IF v_per_minute IS NOT NULL THEN
    DELETE FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at <= v_now - interval '60 seconds';
    INSERT INTO public.quota_begins (workspace_id, at, turn_id) VALUES (p_workspace, v_now, v_turn);
  END IF;
  RETURN '{"outcome":"taken"}';
END
$$;

-- As in 0017.
CREATE OR REPLACE FUNCTION astra.hold_finish(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_cost bigint := (v_arg ->> 'costNanoUsd')::bigint;
  v_tokens bigint := (v_arg #>> '{usage,inputTokens}')::bigint + (v_arg #>> '{usage,outputTokens}')::bigint;
  v_answer jsonb := v_arg -> 'answer';
  v_has_answer boolean := jsonb_typeof(v_answer) = 'object';
  v_hold jsonb;
  v_agent text;
  v_spans text[];
  v_held_cost bigint;
  v_held_tokens bigint;
  v_started timestamptz;
  v_last bigint;
  v_counted bigint[];
  v_rows public.quota_windows[];
  v_quota jsonb;
  v_alerts jsonb;
  v_saved jsonb;
  v_done text;
BEGIN
  v_done := set_config('astra.workspace', p_workspace, true);
  v_done := astra.counter_lock(p_workspace);
  IF (v_arg ->> 'onlyExpired')::boolean THEN
    PERFORM 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn AND h.expires_at <= v_now FOR UPDATE;
    IF NOT FOUND THEN
      RETURN '{"outcome":"alive"}';
    END IF;
  END IF;

  FOR v_try IN 1 .. 2 LOOP
    SELECT h.hold, h.agent_id, h.spans, h.cost, h.tokens, (SELECT l.seq FROM public.ledger_heads l WHERE l.workspace_id = p_workspace),
           ARRAY(SELECT w FROM public.quota_windows w
                 WHERE w.workspace_id = p_workspace AND w.span = ANY (h.spans) AND w.scope IN ('workspace', 'agent:' || h.agent_id)),
           ARRAY(SELECT w.ledger_seq FROM public.quota_windows w
                 WHERE w.workspace_id = p_workspace AND w.span = ANY (h.spans) AND w.scope = 'workspace')
    INTO v_hold, v_agent, v_spans, v_held_cost, v_held_tokens, v_last, v_rows, v_counted
    FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    IF NOT FOUND THEN
      -- A settlement that comes late: the windows are built anew from what it enters. Its limits went with its hold: who wants to know them asks for those of
      -- now.
      v_done := astra.turn_enter(p_workspace, v_arg, v_answer, v_arg -> 'alerts');
      IF NOT v_has_answer THEN
        RETURN jsonb_build_object('outcome', 'finished', 'quota', jsonb_build_object('windows', jsonb_build_array()))::text;
      END IF;
      RETURN '{"outcome":"late"}';
    END IF;
    v_last := COALESCE(v_last, 0);
    -- Before anything is changed: windows that were built half-way through would have counted a half.
    EXIT WHEN v_try = 2 OR (cardinality(v_counted) = cardinality(v_spans) AND v_last = ALL (v_counted));
    v_done := astra.windows_of(p_workspace, v_hold);
  END LOOP;

  v_started := (v_hold ->> 'startedAt')::timestamptz;
  DELETE FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  -- Charged before it is saved, because what is left then is a part of the answer that is saved. What the ledger says of it is looked at below.
  UPDATE public.quota_windows w
  SET cost_held = w.cost_held - (w.span = ANY (v_spans))::int * v_held_cost,
      tokens_held = w.tokens_held - (w.span = ANY (v_spans))::int * v_held_tokens,
      cost_used = w.cost_used + (w.span = ANY (v_spans))::int * v_cost,
      tokens_used = w.tokens_used + (w.span = ANY (v_spans))::int * v_tokens,
      ledger_seq = v_last + 1
  WHERE w.workspace_id = p_workspace AND w.scope IN ('workspace', 'agent:' || v_agent)
    -- A window that the turn began in and is not held in (its limit came later) is left behind: it is built anew, from the ledger.
    AND (w.span = ANY (v_spans) OR v_started >= w.ends_at OR v_started < substr(w.span, strpos(w.span, ':') + 1)::timestamptz)
    AND ((w.scope = 'workspace' AND w.ledger_seq = v_last) OR (w.span = ANY (v_spans) AND w.scope <> 'workspace'));
  v_quota := astra.quota_view(p_workspace, v_hold, v_rows, v_cost, v_held_cost, v_tokens, v_held_tokens, v_now);
  v_alerts := astra.marks_passed(v_quota -> 'windows', v_cost, v_tokens);
  IF v_arg ->> 'finishReason' = 'quota' THEN
    v_alerts := COALESCE(v_alerts, '[]') || COALESCE(astra.marks_used_up(v_quota -> 'windows', v_hold), '[]');
  END IF;
  IF v_has_answer THEN
    v_answer := v_answer || jsonb_build_object('quota', v_quota);
  END IF;

  v_saved := astra.turn_enter(p_workspace, v_arg, v_answer, COALESCE(v_alerts, v_arg -> 'alerts'));
  IF v_saved ->> 'outcome' <> 'saved' OR (v_saved ->> 'ledgerSeq')::bigint <> v_last + 1 OR v_agent <> v_arg ->> 'agentId'
     OR v_started <> (v_arg ->> 'startedAt')::timestamptz THEN
    -- It was charged before, or somebody else entered something: the ledger knows how much.
    DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace;
  END IF;
  RETURN jsonb_build_object('outcome', 'finished', 'quota', v_quota)::text;
END
$$;

-- As in 0012.
CREATE OR REPLACE FUNCTION astra.hold_grow(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_hold jsonb := v_arg -> 'hold';
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_cost bigint := (v_hold ->> 'cost')::bigint;
  v_tokens bigint := (v_arg ->> 'tokens')::bigint;
  v_old public.holds;
  v_rows public.quota_windows[];
  v_done text;
BEGIN
  v_done := set_config('astra.workspace', p_workspace, true);
  v_done := astra.counter_lock(p_workspace);
  SELECT h.* INTO v_old FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_running"}';
  END IF;
  v_done := astra.windows_of(p_workspace, v_old.hold);
  v_rows := ARRAY(SELECT w FROM public.quota_windows w
                  WHERE w.workspace_id = p_workspace AND w.span = ANY (v_old.spans) AND w.scope IN ('workspace', 'agent:' || v_old.agent_id));
  IF NOT astra.caps_fit(v_hold -> 'caps', v_rows, v_cost - v_old.cost, v_tokens - v_old.tokens)
     OR v_old.hold -> 'inputBound' <> v_arg -> 'was' -> 'inputBound' OR v_old.hold -> 'output' <> v_arg -> 'was' -> 'output' THEN
    RETURN jsonb_build_object('outcome', 'grow', 'hold', astra.hold_json(v_old),
      'limits', (SELECT astra.limits_in(p_workspace, w.limits, v_old.hold #>> '{spans,0,startsAt}') FROM public.workspaces w WHERE w.id = p_workspace),
      'standings', astra.standing_json(p_workspace, v_old.spans, v_old.agent_id, (v_arg ->> 'now')::timestamptz))::text;
  END IF;
  v_done := astra.windows_hold(p_workspace, v_old.spans, v_old.agent_id, v_cost - v_old.cost, v_tokens - v_old.tokens);
  UPDATE public.holds h SET cost = v_cost, tokens = v_tokens, hold = v_hold, waits = NULL WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  RETURN '{"outcome": "grown"}';
END
$$;

-- As in 0018. The calls are read once.
CREATE OR REPLACE FUNCTION astra.turns_many(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_calls jsonb := p_arg::jsonb;
  v_call jsonb;
  v_arg text;
  v_answer text;
  v_answers text[] := '{}';
BEGIN
  FOR i IN 0 .. jsonb_array_length(v_calls) - 1 LOOP
    v_call := v_calls -> i;
    v_arg := v_call ->> 1;
    CASE v_call ->> 0
      WHEN 'turn_begin' THEN v_answer := astra.turn_begin(p_workspace, v_arg);
      WHEN 'turn_finish' THEN v_answer := astra.turn_finish(p_workspace, v_arg);
      WHEN 'hold_begin' THEN v_answer := astra.hold_begin(p_workspace, v_arg);
      WHEN 'hold_take' THEN v_answer := astra.hold_take(p_workspace, v_arg);
      WHEN 'hold_extend' THEN v_answer := astra.hold_extend(p_workspace, v_arg);
      WHEN 'hold_grow' THEN v_answer := astra.hold_grow(p_workspace, v_arg);
      WHEN 'hold_wait' THEN v_answer := astra.hold_wait(p_workspace, v_arg);
      WHEN 'hold_finish' THEN v_answer := astra.hold_finish(p_workspace, v_arg);
    END CASE;
    v_answers := v_answers || v_answer;
  END LOOP;
  RETURN concat('[', array_to_string(v_answers, ','), ']');
END
$$;

GRANT EXECUTE ON FUNCTION astra.span_ids(jsonb), astra.caps_fit(jsonb, public.quota_windows[], bigint, bigint),
  astra.quota_view(text, jsonb, public.quota_windows[], bigint, bigint, bigint, bigint, timestamptz), astra.turn_enter(text, jsonb, jsonb, jsonb)
TO astra_quota;
