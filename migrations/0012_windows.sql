-- Windows of any length, in the workspace's time zone; holds that grow as the output comes; marks of limits that were passed.
--
-- A window is an hour, a day or a month. Where it begins and ends is said here (spans_json), because the database knows the time zones; the counters take it
-- as it is said. A turn is counted in the windows that its beginning lies in.
--
-- For the counter on rows all that 0011 says goes on to hold, with "month" read as "window". quota_windows are sums, so the table is made anew: a window that
-- has no row, or has not counted the ledger's last entry, is built when it is needed.

SET LOCAL ROLE astra_owner;

ALTER TABLE public.workspaces ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC';
COMMENT ON COLUMN public.workspaces.time_zone IS 'An IANA name. Days and months of limits are its; hours are UTC''s.';
COMMENT ON COLUMN public.workspaces.limits IS 'maxAgents, maxTurnsPerMinute, max{Tokens,CostNanoUsd}Per{Hour,Day,Month}: all optional integers.';
GRANT UPDATE (time_zone) ON public.workspaces TO astra_provision;

DROP FUNCTION astra.windows_ensure(text, date), astra.standing_json(text, date, text, timestamptz), astra.windows_hold(text, date, text, bigint, bigint),
  astra.window_json(text, text, bigint, bigint, bigint, text), astra.quota_view(text, timestamptz, jsonb, jsonb, bigint), astra.spent_json(text, date);
DROP TABLE public.quota_windows;
CREATE TABLE public.quota_windows (
  workspace_id text NOT NULL,
  span         text NOT NULL,  -- 'month:2026-11-01T00:00:00.000Z': its length and its first moment
  scope        text NOT NULL,  -- 'workspace', or 'agent:' and the agent's id
  ends_at      timestamptz NOT NULL,
  ledger_seq   bigint NOT NULL,  -- of the row of scope 'workspace': the ledger's last entry that the window has counted
  cost_used    bigint NOT NULL,  -- nano-dollars
  cost_held    bigint NOT NULL CHECK (cost_held >= 0),
  tokens_used  bigint NOT NULL,
  tokens_held  bigint NOT NULL CHECK (tokens_held >= 0),
  PRIMARY KEY (workspace_id, span, scope)
) WITH (fillfactor = 50);

-- Holds that run while this is applied: they hold all that they may use, so their limits need not be known again.
ALTER TABLE public.holds ADD COLUMN spans text[], ADD COLUMN waits text;
UPDATE public.holds h
SET spans = ARRAY['month:' || astra.ts(astra.month_start(h.month))],
    hold = h.hold || jsonb_build_object('output', h.hold -> 'maxOutput', 'caps', '[]'::jsonb, 'spans', jsonb_build_array(jsonb_build_object(
      'period', 'month', 'startsAt', astra.ts(astra.month_start(h.month)), 'endsAt', astra.ts(astra.month_start((h.month + interval '1 month')::date)))));
ALTER TABLE public.holds ALTER COLUMN spans SET NOT NULL, DROP COLUMN month;
COMMENT ON COLUMN public.holds.waits IS 'The scope whose limit the turn stands still for, until others give something back.';
CREATE INDEX holds_waiting ON public.holds (workspace_id) WHERE waits IS NOT NULL;

-- Marks of limits that were passed: each once for a window.
CREATE TABLE public.quota_events (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  starts_at    timestamptz NOT NULL,  -- the window's first moment
  limit_name   text NOT NULL,
  scope        text NOT NULL,
  mark         int NOT NULL CHECK (mark IN (50, 80, 100)),  -- percent
  max          bigint NOT NULL,  -- nano-dollars or tokens
  used         bigint NOT NULL,
  at           timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, starts_at, limit_name, scope, mark)
);

DO $$
DECLARE
  v_table text;
BEGIN
  FOREACH v_table IN ARRAY ARRAY['quota_windows', 'quota_events'] LOOP
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_table);
    EXECUTE format('CREATE POLICY tenant ON public.%I USING (workspace_id = current_setting(''astra.workspace'', true)) '
                   'WITH CHECK (workspace_id = current_setting(''astra.workspace'', true))', v_table);
    EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC', v_table);
  END LOOP;
END
$$;
GRANT SELECT, INSERT, DELETE ON public.quota_windows TO astra_quota;
GRANT UPDATE (ledger_seq, cost_used, cost_held, tokens_used, tokens_held) ON public.quota_windows TO astra_quota;
GRANT UPDATE (waits) ON public.holds TO astra_quota;
GRANT SELECT, INSERT ON public.quota_events TO astra_quota;
GRANT SELECT ON public.quota_events TO astra_billing;

-- One window: astra_quota::Span.
CREATE FUNCTION astra.span_json(p_period text, p_starts timestamptz, p_ends timestamptz) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
BEGIN
  RETURN jsonb_build_object('period', p_period, 'startsAt', astra.ts(p_starts), 'endsAt', astra.ts(p_ends));
END
$$;

-- The first moment of a date in a time zone. Where midnight is left out it is the moment after; where it comes twice, the second.
CREATE FUNCTION astra.day_start(p_date date, p_zone text) RETURNS timestamptz LANGUAGE plpgsql STABLE STRICT AS
$$
BEGIN
  RETURN p_date::timestamp AT TIME ZONE p_zone;
END
$$;

-- The month of a moment in a time zone, by its first date. A midnight that comes twice belongs to the day before until its second coming.
CREATE FUNCTION astra.month_in(p_time timestamptz, p_zone text) RETURNS date LANGUAGE plpgsql STABLE STRICT AS
$$
DECLARE
  v_month date := date_trunc('month', p_time AT TIME ZONE p_zone)::date;
BEGIN
  IF astra.day_start(v_month, p_zone) > p_time THEN
    v_month := (v_month - interval '1 month')::date;
  END IF;
  RETURN v_month;
END
$$;

-- The windows of a moment: astra_quota::Spans. They meet without gap or overlap.
CREATE FUNCTION astra.spans_json(p_now timestamptz, p_zone text) RETURNS jsonb LANGUAGE plpgsql STABLE STRICT AS
$$
DECLARE
  v_hour timestamptz := date_trunc('hour', p_now, 'UTC');
  v_day date := (p_now AT TIME ZONE p_zone)::date;
  v_month date := astra.month_in(p_now, p_zone);
BEGIN
  IF astra.day_start(v_day, p_zone) > p_now THEN
    v_day := v_day - 1;
  END IF;
  RETURN jsonb_build_object(
    'hour', astra.span_json('hour', v_hour, v_hour + interval '1 hour'),
    'day', astra.span_json('day', astra.day_start(v_day, p_zone), astra.day_start(v_day + 1, p_zone)),
    'month', astra.span_json('month', astra.day_start(v_month, p_zone), astra.day_start((v_month + interval '1 month')::date, p_zone)));
END
$$;

-- What the rows call a window.
CREATE FUNCTION astra.span_id(p_span jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
BEGIN
  RETURN (p_span ->> 'period') || ':' || (p_span ->> 'startsAt');
END
$$;

-- {windows: [span]} -> {data: [{total: {cost, tokens}, byAgent: {id: {cost, tokens}}}]}: what the ledger says of each.
CREATE FUNCTION astra.quota_spent(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_span jsonb;
  v_spent jsonb;
  v_data jsonb := '[]';
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  FOR v_span IN SELECT e.value FROM jsonb_array_elements(p_arg::jsonb -> 'windows') WITH ORDINALITY e ORDER BY e.ordinality LOOP
    SELECT jsonb_build_object('total', jsonb_build_object('cost', astra.nano(COALESCE(sum(s.cost), 0)), 'tokens', COALESCE(sum(s.tokens), 0)::bigint),
      'byAgent', COALESCE(jsonb_object_agg(s.agent_id, jsonb_build_object('cost', astra.nano(s.cost), 'tokens', s.tokens::bigint)), '{}'))
    INTO v_spent
    FROM (SELECT l.agent_id, sum(l.cost_usd) AS cost, sum(l.input_tokens + l.output_tokens) AS tokens
          FROM public.ledger l
          WHERE l.workspace_id = p_workspace AND l.turn_started_at >= (v_span ->> 'startsAt')::timestamptz
            AND l.turn_started_at < (v_span ->> 'endsAt')::timestamptz
          GROUP BY l.agent_id) s;
    v_data := v_data || v_spent;
  END LOOP;
  RETURN jsonb_build_object('data', v_data)::text;
END
$$;

-- What an agent may use: astra_kernel::Allowance.
CREATE FUNCTION astra.agent_allowance(p_definition jsonb, p_limits jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_budget jsonb := NULLIF(p_definition -> 'budget', 'null');
BEGIN
  IF v_budget IS NULL THEN
    RETURN '{}';
  END IF;
  RETURN jsonb_strip_nulls(jsonb_build_object(
    'maxTokensPerHour', v_budget -> 'maxTokensPerHour', 'maxTokensPerDay', v_budget -> 'maxTokensPerDay', 'maxTokensPerMonth', v_budget -> 'maxTokensPerMonth',
    'maxCostNanoUsdPerHour', v_budget #> '{maxCostUsdPerHour,nano}', 'maxCostNanoUsdPerDay', v_budget #> '{maxCostUsdPerDay,nano}',
    'maxCostNanoUsdPerMonth', astra.agent_budget(p_definition, p_limits)));
END
$$;

-- [{limit, scope, startsAt, mark, max, used}] -> quota_events; those that are there already are left.
CREATE FUNCTION astra.quota_events_add(p_workspace text, p_alerts jsonb, p_at timestamptz) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
  INSERT INTO public.quota_events (workspace_id, starts_at, limit_name, scope, mark, max, used, at)
  SELECT p_workspace, a."startsAt", a."limit", a.scope, a.mark, a.max, a.used, p_at
  FROM jsonb_to_recordset(p_alerts) AS a ("startsAt" timestamptz, "limit" text, scope text, mark int, max bigint, used bigint)
  ON CONFLICT DO NOTHING;
END
$$;

-- {now} -> ok | not_found, limits, agents [{id, allowance}] that have limits of their own, agentCount, spans
CREATE OR REPLACE FUNCTION astra.quota_status(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_ws record;
  v_spans jsonb;
  v_limits jsonb;
  v_agents jsonb;
  v_count bigint;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  SELECT w.limits, w.time_zone INTO v_ws FROM public.workspaces w WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  v_spans := astra.spans_json((p_arg::jsonb ->> 'now')::timestamptz, v_ws.time_zone);
  v_limits := astra.limits_in(p_workspace, v_ws.limits, v_spans #>> '{month,startsAt}');
  SELECT COALESCE(jsonb_agg(jsonb_build_object('id', b.id, 'allowance', b.allowance) ORDER BY b.id COLLATE "C") FILTER (WHERE b.allowance <> '{}'), '[]'),
         count(*)
  INTO v_agents, v_count
  FROM (SELECT a.id, astra.agent_allowance(a.definition, v_limits) AS allowance FROM astra.effective_agents(p_workspace) a) b;
  RETURN jsonb_build_object('outcome', 'ok', 'limits', v_limits, 'agents', v_agents, 'agentCount', v_count,
    'spans', v_spans)::text;
END
$$;

-- As in 0006, with the windows of the moment and all of the agent's limits. What was spent is quota_spent's to say.
CREATE OR REPLACE FUNCTION astra.turn_begin(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_agent_id text := v_arg ->> 'agentId';
  v_subject text := v_arg ->> 'subject';
  v_key text := v_arg ->> 'idempotencyKey';
  v_session uuid := (v_arg ->> 'sessionId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_new_session boolean := v_session IS NULL;
  v_ws record;
  v_turn record;
  v_price record;
  v_definition jsonb;
  v_spans jsonb;
  v_limits jsonb;
  v_allowance jsonb;
  v_model jsonb;
  v_provider text;
  v_secret jsonb;
  v_history jsonb := '[]';
  v_memories jsonb := '[]';
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);

  -- The workspace and the agent: its own first, else its plan's.
  SELECT w.display_name, w.plan, w.owner_id, w.limits, w.status, w.time_zone, q.has_memories, a.definition AS own,
         CASE WHEN a.id IS NULL THEN
           (SELECT e.value FROM public.plans p CROSS JOIN LATERAL jsonb_array_elements(p.template -> 'agents') e
            WHERE p.plan = w.plan AND e.value ->> 'id' = v_agent_id LIMIT 1) END AS templated,
         (SELECT count(*) FROM public.agents o WHERE o.workspace_id = p_workspace)
         + (SELECT count(*) FROM public.plans p CROSS JOIN LATERAL jsonb_array_elements(p.template -> 'agents') e
            WHERE p.plan = w.plan
              AND NOT EXISTS (SELECT 1 FROM public.agents o WHERE o.workspace_id = p_workspace AND o.id = e.value ->> 'id')) AS agent_count
  INTO v_ws
  FROM public.workspaces w
  LEFT JOIN public.quotas q ON q.workspace_id = p_workspace
  LEFT JOIN public.agents a ON a.workspace_id = p_workspace AND a.id = v_agent_id
  WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'workspace_unknown')::text;
  END IF;
  IF v_ws.status <> 'active' THEN
    RETURN jsonb_build_object('outcome', 'workspace_inactive')::text;
  END IF;

  -- A key that a finished turn of this month holds. Turns that still run are the counter's to find. Somebody else's key is as good as reused.
  IF v_key IS NOT NULL THEN
    SELECT t.id, t.session_id, t.user_id, t.request_hash, t.status, t.finish_reason, t.error_code, t.answer INTO v_turn
    FROM public.turns t
    WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key AND t.idempotency_month = astra.month_in(v_now, v_ws.time_zone);
    IF FOUND THEN
      IF v_turn.request_hash <> v_arg ->> 'requestHash' OR v_turn.user_id <> v_subject THEN
        RETURN jsonb_build_object('outcome', 'key_reused')::text;
      END IF;
      RETURN jsonb_build_object('outcome', 'replay',
        'replay', COALESCE(v_turn.answer, '{}') || jsonb_build_object('content',
          (SELECT m.content FROM public.messages m
           WHERE m.workspace_id = p_workspace AND m.session_id = v_turn.session_id AND m.turn_id = v_turn.id AND m.role = 'assistant' LIMIT 1)),
        'replayTurn', jsonb_build_object('turnId', v_turn.id, 'sessionId', v_turn.session_id, 'status', v_turn.status,
          'finishReason', v_turn.finish_reason, 'errorCode', v_turn.error_code))::text;
    END IF;
  END IF;

  v_definition := COALESCE(v_ws.own, v_ws.templated);
  IF v_definition IS NULL THEN
    RETURN jsonb_build_object('outcome', 'agent_denied')::text;
  END IF;

  -- A conversation belongs to the member who began it. No row for the session, no row from this statement.
  IF v_new_session THEN
    v_session := (v_arg ->> 'newSessionId')::uuid;
  ELSE
    SELECT COALESCE((SELECT jsonb_agg(jsonb_build_object('role', h.role, 'content', h.content) ORDER BY h.seq)
                     FROM (SELECT m.seq, m.role, m.content FROM public.messages m
                           WHERE m.workspace_id = p_workspace AND m.session_id = s.id
                           ORDER BY m.seq DESC LIMIT (v_arg ->> 'historyLimit')::int) h), '[]')
    INTO v_history
    FROM public.sessions s
    WHERE s.workspace_id = p_workspace AND s.id = v_session AND s.user_id = v_subject;
    IF NOT FOUND THEN
      RETURN jsonb_build_object('outcome', 'session_unknown')::text;
    END IF;
  END IF;

  v_spans := astra.spans_json(v_now, v_ws.time_zone);
  v_limits := astra.limits_in(p_workspace, v_ws.limits, v_spans #>> '{month,startsAt}');
  v_allowance := astra.agent_allowance(v_definition, v_limits);

  -- The agent's model if there is a key for it (the workspace's or the host's) or it needs none; else the host's default. The secret that comes back
  -- is that of the provider which was chosen.
  v_model := NULLIF(v_definition -> 'model', 'null');
  FOR v_try IN 1 .. 2 LOOP
    v_provider := v_model ->> 'provider';
    v_secret := NULL;
    IF v_provider IN ('openai', 'anthropic') THEN
      SELECT jsonb_build_object('name', s.name, 'keyId', s.key_id, 'nonce', translate(encode(s.nonce, 'base64'), E'\n', ''),
                                'ciphertext', translate(encode(s.ciphertext, 'base64'), E'\n', ''))
      INTO v_secret
      FROM public.secrets s
      WHERE s.workspace_id = p_workspace AND s.name = CASE v_provider WHEN 'openai' THEN 'OPENAI_API_KEY' ELSE 'ANTHROPIC_API_KEY' END;
    END IF;
    EXIT WHEN v_provider IS NOT NULL
      AND (v_try = 2 OR v_provider = 'local' OR v_secret IS NOT NULL OR COALESCE((v_arg -> 'hostProviders') ? v_provider, false));
    v_model := NULLIF(v_arg -> 'defaultModel', 'null');
    IF v_try = 2 OR v_model IS NULL THEN
      RETURN jsonb_build_object('outcome', 'model_unavailable')::text;
    END IF;
  END LOOP;

  SELECT p.version, p.input_nano_per_mtok, p.cached_input_nano_per_mtok, p.output_nano_per_mtok, p.holds_maximum INTO v_price
  FROM public.prices p
  WHERE p.provider = v_provider AND p.valid_from <= v_now
    AND (p.model = v_model ->> 'modelId' OR (right(p.model, 1) = '*' AND starts_with(v_model ->> 'modelId', left(p.model, -1))))
  ORDER BY (p.model = v_model ->> 'modelId') DESC, length(p.model) DESC, p.valid_from DESC, p.version DESC
  LIMIT 1;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'model_unpriced', 'model',
      jsonb_build_object('provider', v_provider, 'modelId', v_model ->> 'modelId'))::text;
  END IF;

  -- Nearest memories, exact. A zero vector has no direction: its distance is NaN, which sorts last and must not become a score of 1.
  -- What belongs to one member is for that member only.
  IF v_ws.has_memories AND v_arg ->> 'embedding' IS NOT NULL THEN
    EXECUTE format($sql$
      SELECT COALESCE(jsonb_agg(jsonb_build_object('id', n.id, 'kind', n.kind, 'content', n.content,
               'score', CASE WHEN n.distance = 'NaN' THEN 0 ELSE greatest(0, least(1, 1 - n.distance)) END) ORDER BY n.distance, n.id), '[]')
      FROM (SELECT m.id, m.kind, m.content, m.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector(384) AS distance
            FROM %1$I.memories m
            WHERE m.embedding IS NOT NULL AND (m.user_id IS NULL OR m.user_id = $2)
            ORDER BY 4, m.id LIMIT $3) n$sql$, astra.memory_schema(p_workspace), astra.vector_schema())
    INTO v_memories USING v_arg ->> 'embedding', v_subject, (v_arg ->> 'topK')::int;
  END IF;

  -- json, not jsonb: it is only written down.
  RETURN json_build_object(
    'outcome', 'ok',
    'workspace', json_build_object('id', p_workspace, 'displayName', v_ws.display_name, 'plan', v_ws.plan, 'ownerId', v_ws.owner_id, 'limits', v_ws.limits),
    'agent', json_build_object('id', v_agent_id, 'source', CASE WHEN v_ws.own IS NULL THEN 'template' ELSE 'own' END, 'definition', v_definition,
                                'allowance', v_allowance, 'maxTokensPerTurn', (v_definition #>> '{budget,maxTokensPerTurn}')::bigint),
    'model', json_build_object('provider', v_provider, 'modelId', v_model ->> 'modelId', 'endpoint', v_model ->> 'endpoint'),
    'price', json_build_object('version', v_price.version, 'inputNanoPerMtok', v_price.input_nano_per_mtok,
                                'cachedInputNanoPerMtok', v_price.cached_input_nano_per_mtok, 'outputNanoPerMtok', v_price.output_nano_per_mtok,
                                'holdsMaximum', v_price.holds_maximum),
    'secret', v_secret,
    'sessionId', v_session,
    'newSession', v_new_session,
    'history', v_history,
    'memories', v_memories,
    'agentCount', v_ws.agent_count,
    'now', v_arg -> 'now',
    'spans', v_spans,
    'limits', v_limits,
    'carryDue', v_limits ? 'carryDue',
    'replay', NULL)::text;
END
$$;

-- As in 0010: a key's month is the workspace's, and marks that were passed are entered.
CREATE OR REPLACE FUNCTION astra.turn_finish(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_usage jsonb := v_arg -> 'usage';
  v_id uuid := (v_arg ->> 'turnId')::uuid;
  v_session uuid := (v_arg ->> 'sessionId')::uuid;
  v_agent text := v_arg ->> 'agentId';
  v_subject text := v_arg ->> 'subject';
  v_status text := v_arg ->> 'status';
  v_provider text := v_arg ->> 'provider';
  v_model text := v_arg ->> 'model';
  v_price int := (v_arg ->> 'priceVersion')::int;
  v_input bigint := (v_usage ->> 'inputTokens')::bigint;
  v_cached bigint := (v_usage ->> 'cachedInputTokens')::bigint;
  v_output bigint := (v_usage ->> 'outputTokens')::bigint;
  v_reasoning bigint := (v_usage ->> 'reasoningTokens')::bigint;
  v_source text := v_usage ->> 'source';
  v_cost numeric := astra.usd((v_arg ->> 'costNanoUsd')::bigint);
  v_started timestamptz := (v_arg ->> 'startedAt')::timestamptz;
  v_ended timestamptz := (v_arg ->> 'endedAt')::timestamptz;
  v_key text := v_arg ->> 'idempotencyKey';
  v_content text := v_arg ->> 'content';
  v_old public.turns;
  v_seq bigint;
  v_has_session boolean;
  v_month date;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);

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
  ON CONFLICT (workspace_id, turn_id, kind) DO NOTHING;
  IF NOT FOUND THEN
    SELECT t.* INTO v_old FROM public.turns t WHERE t.workspace_id = p_workspace AND t.id = v_id;
    IF v_old.status IS DISTINCT FROM 'expired' OR v_status = 'expired' THEN
      UPDATE public.ledger_heads h SET seq = h.seq - 1 WHERE h.workspace_id = p_workspace;
      RETURN jsonb_build_object('outcome', 'duplicate', 'ledgerSeq',
        (SELECT max(l.seq) FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_id))::text;
    END IF;
    -- What is to be added to the entry before (it may be negative). It counts in the turn's month.
    INSERT INTO public.ledger (workspace_id, seq, id, kind, turn_id, corrects, agent_id, user_id, session_id, provider, model, price_version,
      input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, source, turn_started_at)
    SELECT p_workspace, v_seq, gen_random_uuid(), 'correction', v_id, l.id, v_old.agent_id, v_old.user_id, v_old.session_id, v_provider, v_model, v_price,
      v_input - v_old.input_tokens, v_cached - v_old.cached_input_tokens, v_output - v_old.output_tokens,
      v_reasoning - v_old.reasoning_tokens, v_cost - v_old.cost_usd, v_source, v_old.created_at
    FROM public.ledger l
    WHERE l.workspace_id = p_workspace AND l.turn_id = v_id AND l.kind = 'turn';
  END IF;

  SELECT astra.month_in(v_started, w.time_zone) INTO v_month FROM public.workspaces w WHERE w.id = p_workspace;
  IF FOUND THEN
    -- A key belongs to one turn of a month. The counter sees to it; should it ever not, the turn counts more than its key.
    IF v_key IS NOT NULL AND EXISTS (SELECT 1 FROM public.turns t WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key
                                       AND t.idempotency_month = v_month AND t.id <> v_id) THEN
      v_key := NULL;
    END IF;

    IF v_old.id IS NULL AND (v_arg ->> 'newSession')::boolean THEN
      INSERT INTO public.sessions AS s (workspace_id, id, agent_id, user_id, created_at, updated_at)
      VALUES (p_workspace, v_session, v_agent, v_subject, v_started, v_ended)
      ON CONFLICT (workspace_id, id) DO UPDATE SET updated_at = greatest(s.updated_at, excluded.updated_at);
      v_has_session := true;
    ELSE
      UPDATE public.sessions s SET updated_at = greatest(s.updated_at, v_ended) WHERE s.workspace_id = p_workspace AND s.id = v_session;
      v_has_session := FOUND;
    END IF;

    -- The user's words and the answer, whichever is not there yet. Of an expired turn the draft is: only the answer is new then.
    IF v_has_session THEN
      INSERT INTO public.messages (workspace_id, session_id, seq, turn_id, role, content, created_at)
      SELECT p_workspace, v_session, b.seq + row_number() OVER (ORDER BY n.ordinal), v_id, n.role, n.content, n.at
      FROM (VALUES (1, 'user', v_arg ->> 'message', v_started), (2, 'assistant', v_content, v_ended)) AS n (ordinal, role, content, at)
      CROSS JOIN (SELECT COALESCE(max(m.seq), 0) AS seq FROM public.messages m
                  WHERE m.workspace_id = p_workspace AND m.session_id = v_session) b
      WHERE n.content IS NOT NULL
        AND (v_old.id IS NULL OR NOT EXISTS (SELECT 1 FROM public.messages m WHERE m.workspace_id = p_workspace AND m.session_id = v_session
                                               AND m.turn_id = v_id AND m.role = n.role));
    END IF;

    IF v_old.id IS NULL THEN
      INSERT INTO public.turns (workspace_id, id, session_id, agent_id, user_id, status, finish_reason, provider, model, price_version, input_tokens,
        cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, usage_source, idempotency_key, idempotency_month, request_hash, error_code,
        answer, metadata, created_at, ended_at)
      VALUES (p_workspace, v_id, v_session, v_agent, v_subject, v_status, v_arg ->> 'finishReason', v_provider, v_model, v_price, v_input,
        v_cached, v_output, v_reasoning, v_cost, v_source, v_key, v_month, v_arg ->> 'requestHash', v_arg ->> 'errorCode',
        NULLIF(v_arg -> 'answer', 'null'), NULLIF(v_arg -> 'metadata', 'null'), v_started, v_ended);
    ELSE
      UPDATE public.turns t
      SET status = v_status, finish_reason = v_arg ->> 'finishReason', provider = v_provider, model = v_model, price_version = v_price,
          input_tokens = v_input, cached_input_tokens = v_cached, output_tokens = v_output, reasoning_tokens = v_reasoning,
          cost_usd = v_cost, usage_source = v_source, idempotency_key = COALESCE(t.idempotency_key, v_key), error_code = v_arg ->> 'errorCode',
          answer = NULLIF(v_arg -> 'answer', 'null'), metadata = COALESCE(NULLIF(v_arg -> 'metadata', 'null'), t.metadata), ended_at = v_ended
      WHERE t.workspace_id = p_workspace AND t.id = v_id;
    END IF;
    IF v_arg ? 'alerts' THEN
      PERFORM astra.quota_events_add(p_workspace, v_arg -> 'alerts', v_ended);
    END IF;
  END IF;
  RETURN jsonb_build_object('outcome', CASE WHEN v_old.id IS NULL THEN 'saved' ELSE 'corrected' END, 'ledgerSeq', v_seq)::text;
END
$$;

-- Builds a window that is not there, or has not counted the ledger's last entry. The caller has the lock.
CREATE FUNCTION astra.windows_ensure(p_workspace text, p_span jsonb) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_span text := astra.span_id(p_span);
  v_starts timestamptz := (p_span ->> 'startsAt')::timestamptz;
  v_ends timestamptz := (p_span ->> 'endsAt')::timestamptz;
BEGIN
  PERFORM 1 FROM public.quota_windows w
  WHERE w.workspace_id = p_workspace AND w.span = v_span AND w.scope = 'workspace'
    AND w.ledger_seq = COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);
  IF FOUND THEN
    RETURN;
  END IF;
  -- A window that has been over for a day is nobody's to decide.
  DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace AND (w.span = v_span OR w.ends_at < v_starts - interval '1 day');
  INSERT INTO public.quota_windows (workspace_id, span, scope, ends_at, ledger_seq, cost_used, tokens_used, cost_held, tokens_held)
  SELECT p_workspace, v_span, CASE WHEN grouping(s.agent_id) = 1 THEN 'workspace' ELSE 'agent:' || s.agent_id END, v_ends,
         COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0),
         astra.nano(COALESCE(sum(s.cost_usd), 0)), COALESCE(sum(s.tokens), 0), COALESCE(sum(s.cost_held), 0), COALESCE(sum(s.tokens_held), 0)
  FROM (SELECT l.agent_id, l.cost_usd, l.input_tokens + l.output_tokens AS tokens, 0 AS cost_held, 0 AS tokens_held
        FROM public.ledger l
        WHERE l.workspace_id = p_workspace AND l.turn_started_at >= v_starts AND l.turn_started_at < v_ends
        UNION ALL
        SELECT h.agent_id, 0, 0, h.cost, h.tokens FROM public.holds h WHERE h.workspace_id = p_workspace AND v_span = ANY (h.spans)) s
  GROUP BY GROUPING SETS ((s.agent_id), ());
END
$$;

-- {sums: [[span, scope, cost used, tokens used, cost held, tokens held]], recent: the turns of the last minute, waits: [scope]} of the windows that have counted the
-- ledger's last entry: those that are named, or those that are not over; of one agent, or of all. A window without a row of scope 'workspace' has to be built.
CREATE FUNCTION astra.standing_json(p_workspace text, p_spans text[], p_agent text, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_seq bigint := COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);
  v_sums jsonb;
  v_recent record;
  v_waits jsonb;
BEGIN
  SELECT COALESCE(jsonb_agg(jsonb_build_array(w.span, w.scope, w.cost_used, w.tokens_used, w.cost_held, w.tokens_held)), '[]') INTO v_sums
  FROM public.quota_windows a
  JOIN public.quota_windows w ON w.workspace_id = p_workspace AND w.span = a.span AND (p_agent IS NULL OR w.scope IN ('workspace', 'agent:' || p_agent))
  WHERE a.workspace_id = p_workspace AND a.scope = 'workspace' AND a.ledger_seq = v_seq
    AND CASE WHEN p_spans IS NULL THEN a.ends_at > p_now ELSE a.span = ANY (p_spans) END;
  SELECT count(*) AS n, min(b.at) AS first INTO v_recent
  FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at > p_now - interval '60 seconds';
  SELECT COALESCE(jsonb_agg(DISTINCT h.waits), '[]') INTO v_waits FROM public.holds h WHERE h.workspace_id = p_workspace AND h.waits IS NOT NULL;
  RETURN jsonb_build_object('sums', v_sums, 'recent', jsonb_build_object('count', v_recent.n, 'first', astra.ts(v_recent.first)), 'waits', v_waits);
END
$$;

-- Adds to what is held of some windows, by the whole workspace and by an agent. The windows are there.
CREATE FUNCTION astra.windows_hold(p_workspace text, p_spans text[], p_agent text, p_cost bigint, p_tokens bigint) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
  v_rows bigint;
BEGIN
  UPDATE public.quota_windows w SET cost_held = w.cost_held + p_cost, tokens_held = w.tokens_held + p_tokens
  WHERE w.workspace_id = p_workspace AND w.span = ANY (p_spans) AND w.scope IN ('workspace', 'agent:' || p_agent);
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  IF v_rows < 2 * cardinality(p_spans) THEN
    INSERT INTO public.quota_windows (workspace_id, span, scope, ends_at, ledger_seq, cost_used, tokens_used, cost_held, tokens_held)
    SELECT p_workspace, w.span, 'agent:' || p_agent, w.ends_at, 0, 0, 0, p_cost, p_tokens
    FROM public.quota_windows w WHERE w.workspace_id = p_workspace AND w.span = ANY (p_spans) AND w.scope = 'workspace'
    ON CONFLICT DO NOTHING;
  END IF;
END
$$;

-- Whether all caps of a hold have room for so much more. The windows are there.
CREATE FUNCTION astra.caps_fit(p_workspace text, p_caps jsonb, p_cost bigint, p_tokens bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN COALESCE((
    SELECT bool_and(CASE WHEN c."limit" LIKE 'maxTokens%' THEN COALESCE(w.tokens_used + w.tokens_held, 0) + p_tokens
                         ELSE COALESCE(w.cost_used + w.cost_held, 0) + p_cost END <= c.max)
    FROM jsonb_to_recordset(p_caps) AS c ("limit" text, scope text, "window" jsonb, max bigint)
    LEFT JOIN public.quota_windows w ON w.workspace_id = p_workspace AND w.span = astra.span_id(c."window") AND w.scope = c.scope), true);
END
$$;

-- Builds what has to be built of a hold's windows; their names. The caller has the lock.
CREATE FUNCTION astra.windows_of(p_workspace text, p_hold jsonb) RETURNS text[] LANGUAGE plpgsql AS
$$
DECLARE
  v_span jsonb;
  v_spans text[] := '{}';
BEGIN
  FOR v_span IN SELECT e.value FROM jsonb_array_elements(p_hold -> 'spans') e LOOP
    PERFORM astra.windows_ensure(p_workspace, v_span);
    v_spans := v_spans || astra.span_id(v_span);
  END LOOP;
  RETURN v_spans;
END
$$;

-- A hold as it is now.
CREATE OR REPLACE FUNCTION astra.hold_json(p_hold public.holds) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN p_hold.hold || jsonb_build_object('sequence', p_hold.sequence, 'progress', p_hold.progress, 'stop', p_hold.stop, 'waits', p_hold.waits,
                                           'expiresAt', astra.ts(p_hold.expires_at));
END
$$;

-- What is used and left of a hold's limits: astra_quota::QuotaView.
CREATE FUNCTION astra.quota_view(p_workspace text, p_hold jsonb, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_windows jsonb;
  v_begun record;
  v_max bigint := (p_hold ->> 'maxTurnsPerMinute')::bigint;
BEGIN
  SELECT COALESCE(jsonb_agg(jsonb_build_object('limit', c."limit", 'scope', c.scope, 'max', c.max, 'used', c.used, 'held', c.held,
           'left', GREATEST(c.max - c.used - c.held, 0), 'startsAt', c."window" -> 'startsAt', 'resetsAt', c."window" -> 'endsAt') ORDER BY c.n), '[]')
  INTO v_windows
  FROM (SELECT r.*, COALESCE(CASE WHEN r."limit" LIKE 'maxTokens%' THEN w.tokens_used ELSE w.cost_used END, 0) AS used,
               COALESCE(CASE WHEN r."limit" LIKE 'maxTokens%' THEN w.tokens_held ELSE w.cost_held END, 0) AS held
        FROM ROWS FROM (jsonb_to_recordset(p_hold -> 'caps') AS ("limit" text, scope text, "window" jsonb, max bigint))
             WITH ORDINALITY AS r ("limit", scope, "window", max, n)
        LEFT JOIN public.quota_windows w ON w.workspace_id = p_workspace AND w.span = astra.span_id(r."window") AND w.scope = r.scope) c;
  IF v_max IS NOT NULL THEN
    SELECT count(*) AS n, astra.ts(min(b.at) + interval '60 seconds') AS resets INTO v_begun
    FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at > p_now - interval '60 seconds';
    v_windows := v_windows || jsonb_strip_nulls(jsonb_build_object('limit', 'maxTurnsPerMinute', 'scope', 'workspace', 'max', v_max, 'used', v_begun.n,
      'held', 0, 'left', GREATEST(v_max - v_begun.n, 0), 'resetsAt', v_begun.resets));
  END IF;
  RETURN jsonb_build_object('windows', v_windows);
END
$$;

-- Which marks a charge has passed, of what quota_view shows after it: astra_quota::Alert.
CREATE FUNCTION astra.marks_passed(p_windows jsonb, p_cost bigint, p_tokens bigint) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
BEGIN
  RETURN (
    SELECT jsonb_agg(jsonb_build_object('limit', w."limit", 'scope', w.scope, 'startsAt', w."startsAt", 'mark', m.mark, 'max', w.max, 'used', w.used))
    FROM jsonb_to_recordset(p_windows) AS w ("limit" text, scope text, max bigint, used bigint, "startsAt" text)
    CROSS JOIN (VALUES (50), (80), (100)) AS m (mark)
    WHERE w."startsAt" IS NOT NULL AND w.max > 0 AND w.used::numeric * 100 >= w.max::numeric * m.mark
      AND (w.used - CASE WHEN w."limit" LIKE 'maxTokens%' THEN p_tokens ELSE p_cost END)::numeric * 100 < w.max::numeric * m.mark);
END
$$;

-- As in 0011.
CREATE OR REPLACE FUNCTION astra.hold_begin(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE
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
    astra.standing_json(p_workspace, NULL, v_arg ->> 'agentId', v_now)::text, '}');
END
$$;

-- {windows: [span], agentId | null, now} -> standing_json of them, built if they have to be.
CREATE OR REPLACE FUNCTION astra.hold_standing(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_spans text[];
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  -- A statement of its own: the next one sees what it has built.
  v_spans := astra.windows_of(p_workspace, jsonb_build_object('spans', v_arg -> 'windows'));
  RETURN astra.standing_json(p_workspace, v_spans, v_arg ->> 'agentId', (v_arg ->> 'now')::timestamptz)::text;
END
$$;

-- As in 0011.
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
  v_spans text[];
  v_cost bigint := (v_hold ->> 'cost')::bigint;
  v_tokens bigint := (v_arg ->> 'tokens')::bigint;
  v_per_minute bigint := (v_hold ->> 'maxTurnsPerMinute')::bigint;
  v_known public.holds;
  v record;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  v_spans := astra.windows_of(p_workspace, v_hold);
  SELECT EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn) AS is_held,
         (SELECT astra.month_in((v_hold ->> 'startedAt')::timestamptz, s.time_zone) FROM public.workspaces s WHERE s.id = p_workspace) AS month
  INTO v;

  IF v.is_held THEN
    SELECT h.* INTO v_known FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    RETURN jsonb_build_object('outcome', 'held', 'hold', astra.hold_json(v_known))::text;
  END IF;
  IF v.month IS NULL
     OR (v_key IS NOT NULL
         AND (EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.idempotency_key = v_key)
              OR EXISTS (SELECT 1 FROM public.turns t WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key
                           AND t.idempotency_month = v.month))) THEN
    RETURN '{"outcome":"again"}';
  END IF;

  -- The limits once more, against what is true until the commit.
  IF NOT astra.caps_fit(p_workspace, v_hold -> 'caps', v_cost, v_tokens)
     OR (v_per_minute IS NOT NULL
         AND v_per_minute <= (SELECT count(*) FROM public.quota_begins b
                              WHERE b.workspace_id = p_workspace AND b.at > v_now - interval '60 seconds')) THEN
    RETURN jsonb_build_object('outcome', 'full', 'standings', astra.standing_json(p_workspace, v_spans, v_agent, v_now))::text;
  END IF;

  PERFORM astra.windows_hold(p_workspace, v_spans, v_agent, v_cost, v_tokens);
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

-- {turnId, sequence, progress, inputBound, output, now} -> not_running | ok {extended} | grow {hold, limits, standings}: it has to cover more than it does.
CREATE OR REPLACE FUNCTION astra.hold_extend(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_hold public.holds;
  v_covers boolean;
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
  v_covers := (v_arg ->> 'inputBound')::numeric <= (v_hold.hold ->> 'inputBound')::numeric
    AND LEAST((v_arg ->> 'output')::numeric, (v_hold.hold ->> 'maxOutput')::numeric) <= (v_hold.hold ->> 'output')::numeric;
  -- What comes late changes nothing.
  IF (v_arg ->> 'sequence')::bigint >= v_hold.sequence THEN
    IF NOT v_covers THEN
      RETURN jsonb_build_object('outcome', 'grow', 'hold', astra.hold_json(v_hold),
        'limits', (SELECT astra.limits_in(p_workspace, w.limits, v_hold.hold #>> '{spans,0,startsAt}') FROM public.workspaces w WHERE w.id = p_workspace),
        'standings', astra.standing_json(p_workspace, v_hold.spans, v_hold.agent_id, v_now))::text;
    END IF;
    IF v_hold.waits IS NOT NULL THEN
      UPDATE public.holds h SET waits = NULL WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    END IF;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'extended', jsonb_build_object('stop', v_hold.stop, 'covered', v_covers, 'wait', false,
    'output', v_hold.hold -> 'output', 'maxOutput', v_hold.hold -> 'maxOutput'))::text;
END
$$;

-- {turnId, was: hold, hold, tokens, now} -> not_running | grown | grow {hold, limits, standings}: it was changed, or does not fit any more.
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
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM astra.counter_lock(p_workspace);
  SELECT h.* INTO v_old FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_running"}';
  END IF;
  PERFORM astra.windows_of(p_workspace, v_old.hold);
  IF NOT astra.caps_fit(p_workspace, v_hold -> 'caps', v_cost - v_old.cost, v_tokens - v_old.tokens)
     OR v_old.hold -> 'inputBound' <> v_arg -> 'was' -> 'inputBound' OR v_old.hold -> 'output' <> v_arg -> 'was' -> 'output' THEN
    RETURN jsonb_build_object('outcome', 'grow', 'hold', astra.hold_json(v_old),
      'limits', (SELECT astra.limits_in(p_workspace, w.limits, v_old.hold #>> '{spans,0,startsAt}') FROM public.workspaces w WHERE w.id = p_workspace),
      'standings', astra.standing_json(p_workspace, v_old.spans, v_old.agent_id, (v_arg ->> 'now')::timestamptz))::text;
  END IF;
  PERFORM astra.windows_hold(p_workspace, v_old.spans, v_old.agent_id, v_cost - v_old.cost, v_tokens - v_old.tokens);
  UPDATE public.holds h SET cost = v_cost, tokens = v_tokens, hold = v_hold, waits = NULL WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  RETURN jsonb_build_object('outcome', 'grown')::text;
END
$$;

-- {turnId, scope, window | null} -> not_running | wait {wait}: whether others will give back some of what the turn lacks (those that go on, when they end; and of
-- those that wait, all that began later, because the last that began is the first that does not wait any longer). It is written down that it waits, or does not.
CREATE FUNCTION astra.hold_wait(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
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
  UPDATE public.holds h SET waits = CASE WHEN v_wait THEN v_scope END WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_running"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'wait', 'wait', v_wait)::text;
END
$$;

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

-- {now} -> not_found | expired | ok {limits, agents, agentCount, spans, standings}
CREATE OR REPLACE FUNCTION astra.hold_status(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_now timestamptz := (p_arg::jsonb ->> 'now')::timestamptz;
  v_status jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  v_status := astra.quota_status(p_workspace, p_arg)::jsonb;
  IF v_status ->> 'outcome' <> 'ok' THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  PERFORM 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.expires_at <= v_now LIMIT 1;
  IF FOUND THEN
    RETURN '{"outcome":"expired"}';
  END IF;
  RETURN (v_status || jsonb_build_object('standings', astra.standing_json(p_workspace, NULL, NULL, v_now)))::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.span_json(text, timestamptz, timestamptz), astra.day_start(date, text), astra.month_in(timestamptz, text),
  astra.spans_json(timestamptz, text), astra.span_id(jsonb), astra.quota_spent(text, text), astra.agent_allowance(jsonb, jsonb),
  astra.quota_events_add(text, jsonb, timestamptz), astra.windows_ensure(text, jsonb), astra.standing_json(text, text[], text, timestamptz),
  astra.windows_hold(text, text[], text, bigint, bigint), astra.caps_fit(text, jsonb, bigint, bigint), astra.windows_of(text, jsonb),
  astra.quota_view(text, jsonb, timestamptz), astra.marks_passed(jsonb, bigint, bigint), astra.hold_wait(text, text)
TO astra_quota;

-- Workspaces have a time zone.
CREATE OR REPLACE FUNCTION astra.workspace_json(p_row public.workspaces) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
$$
  SELECT pg_catalog.jsonb_build_object('id', p_row.id, 'displayName', p_row.display_name, 'plan', p_row.plan, 'ownerId', p_row.owner_id,
    'limits', p_row.limits, 'timeZone', p_row.time_zone, 'status', p_row.status, 'createdAt', astra.ts(p_row.created_at), 'updatedAt', astra.ts(p_row.updated_at))
$$;

-- Whether there is such a time zone. Only names: what Postgres takes besides ('+3', 'FOO8') is not an IANA name.
CREATE FUNCTION astra.is_time_zone(p_zone text) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN p_zone = 'UTC' OR EXISTS (SELECT 1 FROM pg_timezone_names z WHERE z.name = p_zone);
END
$$;
GRANT EXECUTE ON FUNCTION astra.is_time_zone(text) TO astra_provision;

-- {displayName, plan, ownerId, limits, timeZone?, body, now} -> created | same | conflict, workspace | time_zone_unknown
CREATE OR REPLACE FUNCTION astra.workspace_create(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  -- "canonical json text": a string that holds JSON; a plain JSON value is taken too.
  v_body jsonb := CASE jsonb_typeof(v_arg -> 'body') WHEN 'string' THEN (v_arg ->> 'body')::jsonb ELSE v_arg -> 'body' END;
  v_schema text := astra.memory_schema(p_workspace);
  v_row public.workspaces;
  v_created boolean;
  v_zone text := COALESCE(v_arg ->> 'timeZone', 'UTC');
BEGIN
  IF NOT astra.is_time_zone(v_zone) THEN
    RETURN '{"outcome":"time_zone_unknown"}';
  END IF;
  PERFORM set_config('astra.workspace', p_workspace, true);
  INSERT INTO public.workspaces (id, display_name, plan, owner_id, limits, time_zone, status, create_body, created_at, updated_at)
  VALUES (p_workspace, v_arg ->> 'displayName', v_arg ->> 'plan', v_arg ->> 'ownerId',
          jsonb_strip_nulls(COALESCE(NULLIF(v_arg -> 'limits', 'null'), '{}')), v_zone, 'active', v_body, v_now, v_now)
  ON CONFLICT (id) DO NOTHING
  RETURNING * INTO v_row;
  v_created := FOUND;

  IF NOT v_created THEN
    SELECT w.* INTO v_row FROM public.workspaces w WHERE w.id = p_workspace;
    IF NOT FOUND THEN
      -- It was deleted between the two statements. The caller tries again.
      RAISE EXCEPTION 'the workspace was deleted meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    IF v_row.create_body <> v_body OR v_row.status = 'deleting' THEN
      RETURN jsonb_build_object('outcome', 'conflict', 'workspace', NULL)::text;
    END IF;
  END IF;

  -- All in this one transaction; looked at again when the workspace is there already, so that a retry mends whatever is missing.
  IF v_created OR to_regclass(format('%I.memories', v_schema)) IS NULL THEN
    PERFORM astra.create_memory_schema(p_workspace);
  END IF;
  INSERT INTO public.quotas (workspace_id, created_at) VALUES (p_workspace, v_now) ON CONFLICT (workspace_id) DO NOTHING;
  IF v_created THEN
    INSERT INTO public.members (workspace_id, user_id, role, created_at) VALUES (p_workspace, v_row.owner_id, 'owner', v_now);
  END IF;
  RETURN jsonb_build_object('outcome', CASE WHEN v_created THEN 'created' ELSE 'same' END, 'workspace', astra.workspace_json(v_row))::text;
END
$$;

-- {displayName?, plan?, limits?, timeZone?, now} -> ok | not_found, workspace | time_zone_unknown. limits are merged, a null removes one. Usage is not touched.
CREATE OR REPLACE FUNCTION astra.workspace_patch(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_row public.workspaces;
BEGIN
  IF v_arg ->> 'timeZone' IS NOT NULL AND NOT astra.is_time_zone(v_arg ->> 'timeZone') THEN
    RETURN '{"outcome":"time_zone_unknown"}';
  END IF;
  PERFORM set_config('astra.workspace', p_workspace, true);
  UPDATE public.workspaces w
  SET display_name = COALESCE(v_arg ->> 'displayName', w.display_name),
      plan = COALESCE(v_arg ->> 'plan', w.plan),
      limits = jsonb_strip_nulls(w.limits || COALESCE(NULLIF(v_arg -> 'limits', 'null'), '{}')),
      time_zone = COALESCE(v_arg ->> 'timeZone', w.time_zone),
      updated_at = (v_arg ->> 'now')::timestamptz
  WHERE w.id = p_workspace AND w.status <> 'deleting'
  RETURNING w.* INTO v_row;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found', 'workspace', NULL)::text;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'workspace', astra.workspace_json(v_row))::text;
END
$$;
