-- The counter of hosts without Durable Objects: the rules of shared/quota on rows. The decision is made in Rust (astra_quota::plan) from what these
-- functions tell it; what it decided is compared with the limits once more as it is written down, under the lock.
--
-- Nothing here says anything of its own: what is used is the ledger's to say, what is held the holds'. quota_windows are their sums, kept so that a
-- decision need not add them up. A month's windows know the last entry of the ledger that they have counted; when the ledger has gone on without them
-- (another host's counter, an operator's entry, a restored copy), they are built again when they are needed.
--
-- Whoever changes a hold's amounts, a window or the ledger takes the workspace's lock first (counter_lock) and has it until the commit. Whoever waited for
-- it sees in its next statement what the last holder committed: therefore these functions are VOLATILE, and the lock is a statement of its own.
-- Order of locks: counter, hold, windows, then turn_finish's. Signs of life and stops lock only their hold, and nothing after it.
--
-- Each turn runs through hold_begin, hold_take and hold_finish, so they are written for few statements, and their helpers in plpgsql: a function in SQL that
-- is not inlined is planned anew in each transaction.
--
-- Traps: * the clock is the caller's, and there are many callers: a turn is in the month that its own caller says. Clocks that differ by more than a
--          hold's lease end living turns, which their settlement then corrects.
--        * one counter per database: a Durable Object's holds are not here.

SET LOCAL ROLE astra_owner;

CREATE TABLE public.quota_windows (
  workspace_id text NOT NULL,
  month        date NOT NULL,
  agent_id     text NOT NULL,  -- '' is the whole workspace
  ledger_seq   bigint NOT NULL,  -- of the whole workspace's row: the ledger's last entry that the month's windows have counted
  cost_used    bigint NOT NULL,  -- nano-dollars
  cost_held    bigint NOT NULL CHECK (cost_held >= 0),
  tokens_used  bigint NOT NULL,
  tokens_held  bigint NOT NULL CHECK (tokens_held >= 0),
  PRIMARY KEY (workspace_id, month, agent_id)
) WITH (fillfactor = 50);

-- A running turn. The row goes in the transaction that enters the turn in the ledger.
CREATE TABLE public.holds (
  workspace_id    text NOT NULL,
  turn_id         uuid NOT NULL,
  month           date NOT NULL,
  agent_id        text NOT NULL CHECK (agent_id <> ''),
  subject         text NOT NULL,
  idempotency_key text,
  request_hash    text NOT NULL,
  cost            bigint NOT NULL CHECK (cost >= 0),  -- nano-dollars
  tokens          bigint NOT NULL CHECK (tokens >= 0),
  hold            jsonb NOT NULL,  -- as it was decided; what changes without a decision is in the columns after it
  draft           jsonb NOT NULL,
  sequence        bigint NOT NULL DEFAULT 0,
  progress        jsonb NOT NULL,
  stop            boolean NOT NULL DEFAULT false,
  expires_at      timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, turn_id)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX holds_idempotency ON public.holds (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX holds_expiry ON public.holds (workspace_id, expires_at);

-- Turns that began within the last minute, of workspaces with a limit of that.
CREATE TABLE public.quota_begins (
  workspace_id text NOT NULL,
  at           timestamptz NOT NULL,
  turn_id      uuid NOT NULL,
  PRIMARY KEY (workspace_id, at, turn_id)
);

DO $$
DECLARE
  v_table text;
BEGIN
  FOREACH v_table IN ARRAY ARRAY['quota_windows', 'holds', 'quota_begins'] LOOP
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_table);
    EXECUTE format('CREATE POLICY tenant ON public.%I USING (workspace_id = current_setting(''astra.workspace'', true)) '
                   'WITH CHECK (workspace_id = current_setting(''astra.workspace'', true))', v_table);
    EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC', v_table);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON public.%I TO astra_quota', v_table);
  END LOOP;
END
$$;
GRANT UPDATE (ledger_seq, cost_used, cost_held, tokens_used, tokens_held) ON public.quota_windows TO astra_quota;
GRANT UPDATE (cost, tokens, hold, sequence, progress, stop, expires_at) ON public.holds TO astra_quota;
-- Whose holds have expired, for the sweep. Nothing of what is in them.
CREATE POLICY operator_reads ON public.holds FOR SELECT TO astra_operator USING (true);
GRANT SELECT (workspace_id, expires_at) ON public.holds TO astra_operator;

-- Takes the workspace's lock until the commit.
CREATE FUNCTION astra.counter_lock(p_workspace text) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
  PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('astra.quota:' || p_workspace, 0));
END
$$;

-- Builds the windows of a month that has none, or whose windows have not counted the ledger's last entry. The caller has the lock.
CREATE FUNCTION astra.windows_ensure(p_workspace text, p_month date) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
BEGIN
  PERFORM 1 FROM public.quota_windows w
  WHERE w.workspace_id = p_workspace AND w.month = p_month AND w.agent_id = ''
    AND w.ledger_seq = COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);
  IF FOUND THEN
    RETURN;
  END IF;
  -- A month that is over is nobody's to decide.
  DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace AND (w.month = p_month OR w.month < p_month - interval '2 months');
  INSERT INTO public.quota_windows (workspace_id, month, agent_id, ledger_seq, cost_used, tokens_used, cost_held, tokens_held)
  SELECT p_workspace, p_month, CASE WHEN grouping(s.agent_id) = 1 THEN '' ELSE s.agent_id END,
         COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0),
         astra.nano(COALESCE(sum(s.cost_usd), 0)), COALESCE(sum(s.tokens), 0), COALESCE(sum(s.cost_held), 0), COALESCE(sum(s.tokens_held), 0)
  FROM (SELECT l.agent_id, l.cost_usd, l.input_tokens + l.output_tokens AS tokens, 0 AS cost_held, 0 AS tokens_held
        FROM public.ledger l
        WHERE l.workspace_id = p_workspace
          AND l.turn_started_at >= astra.month_start(p_month)
          AND l.turn_started_at < astra.month_start((p_month + interval '1 month')::date)
        UNION ALL
        SELECT h.agent_id, 0, 0, h.cost, h.tokens FROM public.holds h WHERE h.workspace_id = p_workspace AND h.month = p_month) s
  GROUP BY GROUPING SETS ((s.agent_id), ());
END
$$;

-- {standing: astra_quota::Standing of a month and an agent, recent: the turns of the last minute}. NULL when its windows are not there or have not counted the
-- ledger's last entry.
CREATE FUNCTION astra.standing_json(p_workspace text, p_month date, p_agent text, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v record;
BEGIN
  SELECT w.cost_used, w.cost_held, w.tokens_used, w.tokens_held, a.cost_used AS agent_used, a.cost_held AS agent_held, r.n, r.first INTO v
  FROM public.quota_windows w
  LEFT JOIN public.quota_windows a ON a.workspace_id = p_workspace AND a.month = p_month AND a.agent_id = p_agent
  CROSS JOIN LATERAL (SELECT count(*) AS n, min(b.at) AS first
                      FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at > p_now - interval '60 seconds') r
  WHERE w.workspace_id = p_workspace AND w.month = p_month AND w.agent_id = ''
    AND w.ledger_seq = COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  RETURN jsonb_build_object(
    'standing', jsonb_build_object('costUsed', v.cost_used, 'costHeld', v.cost_held, 'tokensUsed', v.tokens_used, 'tokensHeld', v.tokens_held,
                                   'agentCostUsed', COALESCE(v.agent_used, 0), 'agentCostHeld', COALESCE(v.agent_held, 0)),
    'recent', jsonb_build_object('count', v.n, 'first', astra.ts(v.first)));
END
$$;

-- Adds to what is held of a month, by the whole workspace and by an agent. The month has windows.
CREATE FUNCTION astra.windows_hold(p_workspace text, p_month date, p_agent text, p_cost bigint, p_tokens bigint) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
  v_rows bigint;
BEGIN
  UPDATE public.quota_windows w SET cost_held = w.cost_held + p_cost, tokens_held = w.tokens_held + p_tokens
  WHERE w.workspace_id = p_workspace AND w.month = p_month AND w.agent_id IN ('', p_agent);
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  IF v_rows < 2 THEN
    INSERT INTO public.quota_windows (workspace_id, month, agent_id, ledger_seq, cost_used, tokens_used, cost_held, tokens_held)
    VALUES (p_workspace, p_month, p_agent, 0, 0, 0, p_cost, p_tokens);
  END IF;
END
$$;

-- A hold as it is now.
CREATE FUNCTION astra.hold_json(p_hold public.holds) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN p_hold.hold || jsonb_build_object('sequence', p_hold.sequence, 'progress', p_hold.progress, 'stop', p_hold.stop,
                                           'expiresAt', astra.ts(p_hold.expires_at));
END
$$;

-- One window as the API shows it.
CREATE FUNCTION astra.window_json(p_limit text, p_scope text, p_max bigint, p_used bigint, p_held bigint, p_resets_at text)
RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS
$$
BEGIN
  IF p_resets_at IS NULL THEN
    RETURN jsonb_build_object('limit', p_limit, 'scope', p_scope, 'max', p_max, 'used', p_used, 'held', p_held,
                              'left', GREATEST(p_max - p_used - p_held, 0));
  END IF;
  RETURN jsonb_build_object('limit', p_limit, 'scope', p_scope, 'max', p_max, 'used', p_used, 'held', p_held,
                            'left', GREATEST(p_max - p_used - p_held, 0), 'resetsAt', p_resets_at);
END
$$;

-- What is used and left of each limit that is set: astra_quota::QuotaView. agents: [{id, maxCostNanoUsdPerMonth}]
CREATE FUNCTION astra.quota_view(p_workspace text, p_now timestamptz, p_limits jsonb, p_agents jsonb, p_agent_count bigint) RETURNS jsonb LANGUAGE plpgsql
STABLE AS
$$
DECLARE
  v_month date := astra.month_of(p_now);
  v_resets text := astra.ts(astra.month_start((v_month + interval '1 month')::date));
  v_all record;
  v_begun record;
  v_windows jsonb := '[]';
  v_agents jsonb;
BEGIN
  SELECT w.cost_used, w.cost_held, w.tokens_used, w.tokens_held INTO v_all
  FROM public.quota_windows w WHERE w.workspace_id = p_workspace AND w.month = v_month AND w.agent_id = '';
  IF NOT FOUND THEN
    RETURN jsonb_build_object('windows', v_windows);
  END IF;
  IF p_limits ? 'maxTokensPerMonth' THEN
    v_windows := v_windows || astra.window_json('maxTokensPerMonth', 'workspace', (p_limits ->> 'maxTokensPerMonth')::bigint,
                                                v_all.tokens_used, v_all.tokens_held, v_resets);
  END IF;
  IF p_limits ? 'maxCostNanoUsdPerMonth' THEN
    v_windows := v_windows || astra.window_json('maxCostUsdPerMonth', 'workspace', (p_limits ->> 'maxCostNanoUsdPerMonth')::bigint,
                                                v_all.cost_used, v_all.cost_held, v_resets);
  END IF;
  IF jsonb_array_length(p_agents) > 0 THEN
    SELECT jsonb_agg(astra.window_json('maxCostUsdPerMonth', 'agent:' || (e.value ->> 'id'), (e.value ->> 'maxCostNanoUsdPerMonth')::bigint,
                                       COALESCE(w.cost_used, 0), COALESCE(w.cost_held, 0), v_resets) ORDER BY e.ordinality)
    INTO v_agents
    FROM jsonb_array_elements(p_agents) WITH ORDINALITY e
    LEFT JOIN public.quota_windows w ON w.workspace_id = p_workspace AND w.month = v_month AND w.agent_id = e.value ->> 'id';
    v_windows := v_windows || v_agents;
  END IF;
  IF p_limits ? 'maxTurnsPerMinute' THEN
    SELECT count(*) AS n, astra.ts(min(b.at) + interval '60 seconds') AS resets INTO v_begun
    FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at > p_now - interval '60 seconds';
    v_windows := v_windows || astra.window_json('maxTurnsPerMinute', 'workspace', (p_limits ->> 'maxTurnsPerMinute')::bigint,
                                                v_begun.n, 0, v_begun.resets);
  END IF;
  IF p_limits ? 'maxAgents' AND p_agent_count IS NOT NULL THEN
    v_windows := v_windows || astra.window_json('maxAgents', 'workspace', (p_limits ->> 'maxAgents')::bigint, p_agent_count, 0, NULL);
  END IF;
  RETURN jsonb_build_object('windows', v_windows);
END
$$;

-- turn_begin's argument -> expired: holds of this workspace have to be ended first | running {turnId, same}: the key is a running turn's
-- | read {context: turn_begin's document, standings | null}. One snapshot: a key is either a running turn's or in turns, never in neither.
CREATE FUNCTION astra.hold_begin(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_key text := v_arg ->> 'idempotencyKey';
  v_hold record;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.expires_at <= v_now LIMIT 1;
  IF FOUND THEN
    RETURN '{"outcome":"expired"}';
  END IF;
  IF v_key IS NOT NULL THEN
    SELECT h.turn_id, h.request_hash = v_arg ->> 'requestHash' AND h.subject = v_arg ->> 'subject' AS same INTO v_hold
    FROM public.holds h
    WHERE h.workspace_id = p_workspace AND h.idempotency_key = v_key AND h.turn_id <> (v_arg ->> 'turnId')::uuid;
    IF FOUND THEN
      RETURN jsonb_build_object('outcome', 'running', 'turnId', v_hold.turn_id, 'same', v_hold.same)::text;
    END IF;
  END IF;
  -- As text: it is not looked into.
  RETURN concat('{"outcome":"read","context":', astra.turn_begin(p_workspace, p_arg), ',"standings":',
    COALESCE(astra.standing_json(p_workspace, astra.month_of(v_now), v_arg ->> 'agentId', v_now)::text, 'null'), '}');
END
$$;

-- {agentId, month: "YYYY-MM", now} -> standing_json of that month, built if it has to be.
CREATE FUNCTION astra.hold_standing(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_month date := astra.parse_month(v_arg ->> 'month');
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  PERFORM astra.windows_ensure(p_workspace, v_month);
  RETURN astra.standing_json(p_workspace, v_month, v_arg ->> 'agentId', (v_arg ->> 'now')::timestamptz)::text;
END
$$;

-- {turnId, hold, tokens, draft, now} -> taken | held {hold}: the turn has one already | full {standings}: it does not fit any more, nothing was done
-- | again: the key or the workspace is another's matter now, begin anew.
CREATE FUNCTION astra.hold_take(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_hold jsonb := v_arg -> 'hold';
  v_limits jsonb := v_hold -> 'limits';
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_agent text := v_hold ->> 'agent';
  v_key text := v_hold #>> '{key,0}';
  v_month date := astra.month_of((v_hold ->> 'startedAt')::timestamptz);
  v_cost bigint := (v_hold ->> 'cost')::bigint;
  v_tokens bigint := (v_arg ->> 'tokens')::bigint;
  v_per_minute bigint := (v_limits ->> 'maxTurnsPerMinute')::bigint;
  v_known public.holds;
  v record;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  LOOP
    SELECT w.tokens_used + w.tokens_held AS tokens, w.cost_used + w.cost_held AS cost, COALESCE(a.cost_used + a.cost_held, 0) AS agent_cost,
           EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn) AS is_held,
           EXISTS (SELECT 1 FROM public.workspaces s WHERE s.id = p_workspace) AS is_there
    INTO v
    FROM public.quota_windows w
    LEFT JOIN public.quota_windows a ON a.workspace_id = p_workspace AND a.month = v_month AND a.agent_id = v_agent
    WHERE w.workspace_id = p_workspace AND w.month = v_month AND w.agent_id = ''
      AND w.ledger_seq = COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);
    EXIT WHEN FOUND;
    PERFORM astra.windows_ensure(p_workspace, v_month);
  END LOOP;

  IF v.is_held THEN
    SELECT h.* INTO v_known FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    RETURN jsonb_build_object('outcome', 'held', 'hold', astra.hold_json(v_known))::text;
  END IF;
  IF NOT v.is_there
     OR (v_key IS NOT NULL
         AND (EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.idempotency_key = v_key)
              OR EXISTS (SELECT 1 FROM public.turns t WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key
                           AND t.idempotency_month = v_month))) THEN
    RETURN '{"outcome":"again"}';
  END IF;

  -- The limits once more, against what is true until the commit. A limit that is not set is NULL, and so is what it says.
  IF v.tokens + v_tokens > (v_limits ->> 'maxTokensPerMonth')::bigint
     OR v.cost + v_cost > (v_limits ->> 'maxCostNanoUsdPerMonth')::bigint
     OR v.agent_cost + v_cost > (v_hold ->> 'agentMaxCost')::bigint
     OR (v_per_minute IS NOT NULL
         AND v_per_minute <= (SELECT count(*) FROM public.quota_begins b
                              WHERE b.workspace_id = p_workspace AND b.at > v_now - interval '60 seconds')) THEN
    RETURN jsonb_build_object('outcome', 'full', 'standings', astra.standing_json(p_workspace, v_month, v_agent, v_now))::text;
  END IF;

  PERFORM astra.windows_hold(p_workspace, v_month, v_agent, v_cost, v_tokens);
  INSERT INTO public.holds (workspace_id, turn_id, month, agent_id, subject, idempotency_key, request_hash, cost, tokens, hold, draft, progress, expires_at)
  VALUES (p_workspace, v_turn, v_month, v_agent, v_hold ->> 'subject', v_key, COALESCE(v_hold #>> '{key,1}', ''), v_cost, v_tokens, v_hold,
          v_arg -> 'draft', v_hold -> 'progress', (v_hold ->> 'expiresAt')::timestamptz);
  IF v_per_minute IS NOT NULL THEN
    DELETE FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at <= v_now - interval '60 seconds';
    INSERT INTO public.quota_begins (workspace_id, at, turn_id) VALUES (p_workspace, v_now, v_turn);
  END IF;
  RETURN '{"outcome":"taken"}';
END
$$;

-- {turnId, sequence, progress, inputBound, now} -> not_running | ok {extended} | grow {hold, standings | null}: it has to cover more than it does.
CREATE FUNCTION astra.hold_extend(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_hold public.holds;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  UPDATE public.holds h
  SET sequence = (v_arg ->> 'sequence')::bigint, progress = v_arg -> 'progress',
      expires_at = GREATEST(h.expires_at, v_now + (h.hold ->> 'leaseMillis')::bigint * interval '1 millisecond')
  WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn AND h.sequence < (v_arg ->> 'sequence')::bigint
  RETURNING h.* INTO v_hold;
  IF NOT FOUND THEN
    SELECT h.* INTO v_hold FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    IF NOT FOUND THEN
      RETURN '{"outcome":"not_running"}';
    END IF;
  END IF;
  IF (v_arg ->> 'inputBound')::numeric > (v_hold.hold ->> 'inputBound')::numeric THEN
    RETURN jsonb_build_object('outcome', 'grow', 'hold', astra.hold_json(v_hold),
                              'standings', astra.standing_json(p_workspace, v_hold.month, v_hold.agent_id, v_now))::text;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'extended',
    jsonb_build_object('stop', v_hold.stop, 'covered', true, 'maxOutput', v_hold.hold -> 'maxOutput'))::text;
END
$$;

-- {turnId, was: hold, hold, tokens, now} -> not_running | ok {extended} | grow {hold, standings}: it was changed, or does not fit any more.
CREATE FUNCTION astra.hold_grow(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_hold jsonb := v_arg -> 'hold';
  v_limits jsonb := v_hold -> 'limits';
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_cost bigint := (v_hold ->> 'cost')::bigint;
  v_tokens bigint := (v_arg ->> 'tokens')::bigint;
  v_old public.holds;
  v_fits boolean;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  SELECT h.* INTO v_old FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_running"}';
  END IF;
  PERFORM astra.windows_ensure(p_workspace, v_old.month);
  SELECT COALESCE(w.tokens_used + w.tokens_held - v_old.tokens + v_tokens <= (v_limits ->> 'maxTokensPerMonth')::bigint, true)
         AND COALESCE(w.cost_used + w.cost_held - v_old.cost + v_cost <= (v_limits ->> 'maxCostNanoUsdPerMonth')::bigint, true)
         AND COALESCE(a.cost_used + a.cost_held - v_old.cost + v_cost <= (v_hold ->> 'agentMaxCost')::bigint, true)
  INTO STRICT v_fits
  FROM public.quota_windows w
  LEFT JOIN public.quota_windows a ON a.workspace_id = p_workspace AND a.month = v_old.month AND a.agent_id = v_old.agent_id
  WHERE w.workspace_id = p_workspace AND w.month = v_old.month AND w.agent_id = '';
  IF NOT v_fits OR v_old.hold -> 'inputBound' <> v_arg -> 'was' -> 'inputBound' OR v_old.hold -> 'maxOutput' <> v_arg -> 'was' -> 'maxOutput' THEN
    RETURN jsonb_build_object('outcome', 'grow', 'hold', astra.hold_json(v_old),
      'standings', astra.standing_json(p_workspace, v_old.month, v_old.agent_id, (v_arg ->> 'now')::timestamptz))::text;
  END IF;
  PERFORM astra.windows_hold(p_workspace, v_old.month, v_old.agent_id, v_cost - v_old.cost, v_tokens - v_old.tokens);
  UPDATE public.holds h SET cost = v_cost, tokens = v_tokens, hold = v_hold WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  RETURN jsonb_build_object('outcome', 'ok', 'extended',
    jsonb_build_object('stop', v_old.stop, 'covered', true, 'maxOutput', v_hold -> 'maxOutput'))::text;
END
$$;

-- {turnId, subject | null} -> stopping | not_running
CREATE FUNCTION astra.hold_stop(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  UPDATE public.holds h SET stop = true
  WHERE h.workspace_id = p_workspace AND h.turn_id = (v_arg ->> 'turnId')::uuid
    AND (v_arg ->> 'subject' IS NULL OR h.subject = v_arg ->> 'subject');
  RETURN CASE WHEN FOUND THEN '{"outcome":"stopping"}' ELSE '{"outcome":"not_running"}' END;
END
$$;

-- turn_finish's argument with {now, onlyExpired} -> finished {quota} | alive: it was to be ended as expired and is not.
-- The hold, what is used of the windows, and the turn's record change together or not at all.
CREATE FUNCTION astra.hold_finish(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_agent text := v_arg ->> 'agentId';
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_month date := astra.month_of((v_arg ->> 'startedAt')::timestamptz);
  v_cost bigint := (v_arg ->> 'costNanoUsd')::bigint;
  v_tokens bigint := (v_arg #>> '{usage,inputTokens}')::bigint + (v_arg #>> '{usage,outputTokens}')::bigint;
  v_has_answer boolean := jsonb_typeof(v_arg -> 'answer') = 'object';
  v_hold public.holds;
  v_last bigint;
  v_quota jsonb;
  v_saved jsonb;
  v_status jsonb;
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
  PERFORM astra.windows_ensure(p_workspace, astra.month_of(v_now));
  SELECT COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0) INTO v_last;
  DELETE FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn RETURNING h.* INTO v_hold;

  IF v_hold.turn_id IS NOT NULL THEN
    -- Charged before it is saved, because what is left then is a part of the answer that is saved. What the ledger says of it is looked at below.
    UPDATE public.quota_windows w
    SET cost_held = w.cost_held - (w.month = v_hold.month)::int * v_hold.cost,
        tokens_held = w.tokens_held - (w.month = v_hold.month)::int * v_hold.tokens,
        cost_used = w.cost_used + (w.month = v_hold.month)::int * v_cost,
        tokens_used = w.tokens_used + (w.month = v_hold.month)::int * v_tokens,
        ledger_seq = v_last + 1
    WHERE w.workspace_id = p_workspace
      AND ((w.agent_id = '' AND w.ledger_seq = v_last) OR (w.month = v_hold.month AND w.agent_id = v_hold.agent_id));
    v_quota := astra.quota_view(p_workspace, v_now, v_hold.hold -> 'limits',
      CASE WHEN v_hold.hold ->> 'agentMaxCost' IS NULL THEN '[]'
           ELSE jsonb_build_array(jsonb_build_object('id', v_hold.agent_id, 'maxCostNanoUsdPerMonth', v_hold.hold -> 'agentMaxCost')) END, NULL);
    IF v_has_answer THEN
      v_arg := jsonb_set(v_arg, '{answer,quota}', v_quota);
    END IF;
  END IF;

  v_saved := astra.turn_finish(p_workspace, v_arg::text)::jsonb;
  IF v_hold.turn_id IS NOT NULL THEN
    IF v_saved ->> 'outcome' <> 'saved' OR (v_saved ->> 'ledgerSeq')::bigint <> v_last + 1 OR v_hold.month <> v_month OR v_hold.agent_id <> v_agent THEN
      -- It was charged before, or somebody else entered something: the ledger knows how much.
      DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace;
    END IF;
    RETURN jsonb_build_object('outcome', 'finished', 'quota', v_quota)::text;
  END IF;

  -- A settlement that comes late: rare, so the windows are built anew from what it has entered.
  -- Its limits went with its hold: those of now.
  IF NOT v_has_answer THEN
    RETURN jsonb_build_object('outcome', 'finished', 'quota', jsonb_build_object('windows', jsonb_build_array()))::text;
  END IF;
  v_status := astra.quota_status(p_workspace, '{"needSpent":false}')::jsonb;
  IF v_status ->> 'outcome' = 'ok' THEN
    PERFORM astra.windows_ensure(p_workspace, astra.month_of(v_now));
    v_quota := astra.quota_view(p_workspace, v_now, v_status -> 'limits',
      COALESCE((SELECT jsonb_agg(e.value) FROM jsonb_array_elements(v_status -> 'agents') e WHERE e.value ->> 'id' = v_agent), '[]'), NULL);
    IF v_saved ->> 'outcome' <> 'duplicate' THEN
      UPDATE public.turns t SET answer = t.answer || jsonb_build_object('quota', v_quota)
      WHERE t.workspace_id = p_workspace AND t.id = v_turn AND jsonb_typeof(t.answer) = 'object';
    END IF;
  END IF;
  RETURN jsonb_build_object('outcome', 'finished', 'quota', COALESCE(v_quota, jsonb_build_object('windows', jsonb_build_array())))::text;
END
$$;

-- {now} -> not_found | expired | ok {quota}
CREATE FUNCTION astra.hold_status(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_now timestamptz := (p_arg::jsonb ->> 'now')::timestamptz;
  v_status jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  v_status := astra.quota_status(p_workspace, '{"needSpent":false}')::jsonb;
  IF v_status ->> 'outcome' <> 'ok' THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  PERFORM 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.expires_at <= v_now LIMIT 1;
  IF FOUND THEN
    RETURN '{"outcome":"expired"}';
  END IF;
  -- Locked only when there is something to build.
  IF astra.standing_json(p_workspace, astra.month_of(v_now), '', v_now) IS NULL THEN
    PERFORM astra.counter_lock(p_workspace);
    PERFORM astra.windows_ensure(p_workspace, astra.month_of(v_now));
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'quota', astra.quota_view(p_workspace, v_now, v_status -> 'limits', v_status -> 'agents',
    (v_status ->> 'agentCount')::bigint))::text;
END
$$;

-- {now, limit?} -> data [{hold, draft}] of turns of which nothing was heard in time
CREATE FUNCTION astra.holds_expired(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_data jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  SELECT COALESCE(jsonb_agg(jsonb_build_object('hold', astra.hold_json(h), 'draft', h.draft)), '[]') INTO v_data
  FROM (SELECT * FROM public.holds o WHERE o.workspace_id = p_workspace AND o.expires_at <= (v_arg ->> 'now')::timestamptz
        ORDER BY o.expires_at, o.turn_id LIMIT astra.page_limit(v_arg ->> 'limit')) h;
  RETURN jsonb_build_object('data', v_data)::text;
END
$$;

-- Everything of a workspace that is deleted.
CREATE FUNCTION astra.holds_forget(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  DELETE FROM public.holds h WHERE h.workspace_id = p_workspace;
  DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace;
  DELETE FROM public.quota_begins b WHERE b.workspace_id = p_workspace;
  RETURN '{"outcome":"forgotten"}';
END
$$;

GRANT EXECUTE ON FUNCTION astra.counter_lock(text), astra.windows_ensure(text, date), astra.standing_json(text, date, text, timestamptz),
  astra.windows_hold(text, date, text, bigint, bigint), astra.hold_json(public.holds),
  astra.window_json(text, text, bigint, bigint, bigint, text), astra.quota_view(text, timestamptz, jsonb, jsonb, bigint),
  astra.hold_begin(text, text), astra.hold_standing(text, text), astra.hold_take(text, text), astra.hold_extend(text, text),
  astra.hold_grow(text, text), astra.hold_stop(text, text), astra.hold_finish(text, text), astra.hold_status(text, text),
  astra.holds_expired(text, text), astra.holds_forget(text, text)
TO astra_quota;

-- Owned by astra_operator, whose policy sees every workspace; it may create in astra only while this file runs.
GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;

-- {now, after?, limit?} -> data [workspace], next: which workspaces have holds that expired. It only reads: each is then ended through the tenant's own
-- door, one transaction per turn, so that nothing here can write to a workspace that is not named.
CREATE FUNCTION astra.op_holds_expired(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_data jsonb;
  v_next text;
BEGIN
  SELECT COALESCE(jsonb_agg(p.workspace_id ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.workspace_id) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT d.workspace_id, row_number() OVER (ORDER BY d.workspace_id) AS n
        FROM (SELECT DISTINCT h.workspace_id FROM public.holds h
              WHERE h.expires_at <= (v_arg ->> 'now')::timestamptz AND (v_arg ->> 'after' IS NULL OR h.workspace_id > v_arg ->> 'after')
              ORDER BY h.workspace_id LIMIT v_limit + 1) d) p;
  RETURN jsonb_build_object('data', v_data, 'next', v_next)::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.op_holds_expired(text) TO astra_quota;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;
