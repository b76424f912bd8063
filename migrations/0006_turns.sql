-- A turn's two calls: turn_begin reads all that it needs, turn_finish writes all that it did. And what a month has cost.
--
-- turn_begin is STABLE on purpose: all its statements see the one snapshot of the calling statement, so limits, agent, price and secret belong
-- together. (set_config is allowed in a STABLE function.) Its plans are generic: it runs thousands of times on each pooled connection.
--
-- turn_finish is VOLATILE on purpose: after its lock was waited for, its next statement must see what the lock's last holder committed.
-- The lock is an advisory one per workspace, held until the commit: it gives the ledger its gapless seq. Whatever state the
-- database is in, a turn that was acknowledged must get in: a deleted session loses the messages and a deleted workspace all but the ledger
-- entry, never the entry itself; an idempotency key that another turn holds is dropped, never the turn.

SET LOCAL ROLE astra_owner;

-- The ledger of a month (of the turn's start, UTC): {costNanoUsd, tokens, byAgent: {id: {costNanoUsd, tokens}}}
CREATE FUNCTION astra.spent_json(p_workspace text, p_month date) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT jsonb_build_object('costNanoUsd', astra.nano(COALESCE(sum(s.cost), 0)), 'tokens', COALESCE(sum(s.tokens), 0)::bigint,
    'byAgent', COALESCE(jsonb_object_agg(s.agent_id, jsonb_build_object('costNanoUsd', astra.nano(s.cost), 'tokens', s.tokens::bigint)), '{}'))
  FROM (SELECT l.agent_id, sum(l.cost_usd) AS cost, sum(l.input_tokens + l.output_tokens) AS tokens
        FROM public.ledger l
        WHERE l.workspace_id = p_workspace
          AND l.turn_started_at >= astra.month_start(p_month)
          AND l.turn_started_at < astra.month_start((p_month + interval '1 month')::date)
        GROUP BY l.agent_id) s
$$;

-- An agent's monthly budget: an amount of its own, or a reference to one of the workspace's limits. Anything else is a fault, not "no limit".
CREATE FUNCTION astra.agent_budget(p_definition jsonb, p_limits jsonb) RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_budget jsonb := NULLIF(p_definition #> '{budget,maxCostUsdPerMonth}', 'null');
BEGIN
  IF v_budget IS NULL THEN
    RETURN NULL;
  ELSIF v_budget ? 'nano' THEN
    RETURN (v_budget ->> 'nano')::bigint;
  ELSIF v_budget ? 'ref' THEN
    RETURN (p_limits ->> (v_budget ->> 'ref'))::bigint;
  END IF;
  RAISE EXCEPTION 'the agent''s budget is neither an amount nor a reference' USING ERRCODE = 'data_exception';
END
$$;

-- {month: "YYYY-MM", needSpent} -> ok | not_found, limits, agents [{id, maxCostNanoUsdPerMonth}] that have a budget, agentCount, spent
CREATE FUNCTION astra.quota_status(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limits jsonb;
  v_agents jsonb;
  v_count bigint;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  SELECT w.limits INTO v_limits FROM public.workspaces w WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('id', b.id, 'maxCostNanoUsdPerMonth', b.budget) ORDER BY b.id COLLATE "C") FILTER (WHERE b.budget IS NOT NULL), '[]'),
         count(*)
  INTO v_agents, v_count
  FROM (SELECT a.id, astra.agent_budget(a.definition, v_limits) AS budget FROM astra.effective_agents(p_workspace) a) b;
  RETURN jsonb_build_object('outcome', 'ok', 'limits', v_limits, 'agents', v_agents, 'agentCount', v_count,
    'spent', CASE WHEN COALESCE((v_arg ->> 'needSpent')::boolean, false)
                  THEN astra.spent_json(p_workspace, astra.parse_month(v_arg ->> 'month')) END)::text;
END
$$;

CREATE FUNCTION astra.turn_begin(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE
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
  v_agent_max bigint;
  v_model jsonb;
  v_provider text;
  v_secret jsonb;
  v_history jsonb := '[]';
  v_memories jsonb := '[]';
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);

  -- The workspace and the agent: its own first, else its plan's.
  SELECT w.display_name, w.plan, w.owner_id, w.limits, w.status, q.has_memories, a.definition AS own,
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
    WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key AND t.idempotency_month = astra.month_of(v_now);
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

  v_agent_max := astra.agent_budget(v_definition, v_ws.limits);

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
                                'maxCostNanoUsdPerMonth', v_agent_max, 'maxTokensPerTurn', (v_definition #>> '{budget,maxTokensPerTurn}')::bigint),
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
    'spent', CASE WHEN COALESCE((v_arg ->> 'needSpent')::boolean, false) THEN astra.spent_json(p_workspace, astra.month_of(v_now)) END,
    'replay', NULL)::text;
END
$$;

CREATE FUNCTION astra.turn_finish(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
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
  v_entry record;
  v_seq bigint;
  v_has_session boolean;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM pg_advisory_xact_lock(hashtextextended('astra.finish:' || p_workspace, 0));

  -- Where the ledger is, and what it says of this turn.
  SELECT (SELECT COALESCE(max(l.seq), 0) + 1 FROM public.ledger l WHERE l.workspace_id = p_workspace) AS next_seq,
         e.id, e.last_seq, EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) AS known
  INTO v_entry
  FROM (SELECT (array_agg(l.id) FILTER (WHERE l.kind = 'turn'))[1] AS id, max(l.seq) AS last_seq
        FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_id) e;
  v_seq := v_entry.next_seq;

  IF v_entry.id IS NOT NULL THEN
    SELECT t.* INTO v_old FROM public.turns t WHERE t.workspace_id = p_workspace AND t.id = v_id;
    IF v_old.status IS DISTINCT FROM 'expired' OR v_status = 'expired' THEN
      RETURN jsonb_build_object('outcome', 'duplicate', 'ledgerSeq', v_entry.last_seq)::text;
    END IF;
  END IF;

  IF v_entry.known THEN
    -- A key belongs to one turn of a month. The counter sees to it; should it ever not, the turn counts more than its key.
    IF v_key IS NOT NULL AND EXISTS (SELECT 1 FROM public.turns t WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key
                                       AND t.idempotency_month = astra.month_of(v_started) AND t.id <> v_id) THEN
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
        v_cached, v_output, v_reasoning, v_cost, v_source, v_key, astra.month_of(v_started), v_arg ->> 'requestHash', v_arg ->> 'errorCode',
        NULLIF(v_arg -> 'answer', 'null'), NULLIF(v_arg -> 'metadata', 'null'), v_started, v_ended);
    ELSE
      UPDATE public.turns t
      SET status = v_status, finish_reason = v_arg ->> 'finishReason', provider = v_provider, model = v_model, price_version = v_price,
          input_tokens = v_input, cached_input_tokens = v_cached, output_tokens = v_output, reasoning_tokens = v_reasoning,
          cost_usd = v_cost, usage_source = v_source, idempotency_key = COALESCE(t.idempotency_key, v_key), error_code = v_arg ->> 'errorCode',
          answer = NULLIF(v_arg -> 'answer', 'null'), metadata = COALESCE(NULLIF(v_arg -> 'metadata', 'null'), t.metadata), ended_at = v_ended
      WHERE t.workspace_id = p_workspace AND t.id = v_id;
    END IF;
  END IF;

  -- The entry: the whole turn, or for a correction what is to be added to the entry before (it may be negative). It counts in the turn's month.
  INSERT INTO public.ledger (workspace_id, seq, id, kind, turn_id, corrects, agent_id, user_id, session_id, provider, model, price_version,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, source, turn_started_at)
  VALUES (p_workspace, v_seq, gen_random_uuid(), CASE WHEN v_old.id IS NULL THEN 'turn' ELSE 'correction' END, v_id, v_entry.id,
    COALESCE(v_old.agent_id, v_agent), COALESCE(v_old.user_id, v_subject), COALESCE(v_old.session_id, v_session), v_provider, v_model, v_price,
    v_input - COALESCE(v_old.input_tokens, 0), v_cached - COALESCE(v_old.cached_input_tokens, 0), v_output - COALESCE(v_old.output_tokens, 0),
    v_reasoning - COALESCE(v_old.reasoning_tokens, 0), v_cost - COALESCE(v_old.cost_usd, 0), v_source, COALESCE(v_old.created_at, v_started));

  RETURN jsonb_build_object('outcome', CASE WHEN v_old.id IS NULL THEN 'saved' ELSE 'corrected' END, 'ledgerSeq', v_seq)::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.spent_json(text, date), astra.agent_budget(jsonb, jsonb), astra.quota_status(text, text), astra.turn_begin(text, text), astra.turn_finish(text, text) TO astra_quota;
