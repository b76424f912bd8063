-- A workspace's place in its ledger, in a row of its own.
--
-- turn_finish looked for the last entry in the ledger itself. On a table that nobody has analysed yet, several indexes begin with the workspace
-- and look alike to the planner: it took one that reads every entry of the workspace, for each turn anew. Now the place is one row, which is locked in
-- place of an advisory lock, and a turn that was entered before is found by the unique index, which no plan can miss.

SET LOCAL ROLE astra_owner;

-- Stays when the workspace goes, as its ledger does. A workspace that has none yet gets it with its next turn.
CREATE TABLE public.ledger_heads (
  workspace_id text PRIMARY KEY,
  seq          bigint NOT NULL CHECK (seq >= 0)
) WITH (fillfactor = 50);
ALTER TABLE public.ledger_heads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON public.ledger_heads USING (workspace_id = current_setting('astra.workspace', true))
  WITH CHECK (workspace_id = current_setting('astra.workspace', true));
REVOKE ALL ON public.ledger_heads FROM PUBLIC;
GRANT SELECT, INSERT ON public.ledger_heads TO astra_quota;
GRANT UPDATE (seq) ON public.ledger_heads TO astra_quota;

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

  IF EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
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

  RETURN jsonb_build_object('outcome', CASE WHEN v_old.id IS NULL THEN 'saved' ELSE 'corrected' END, 'ledgerSeq', v_seq)::text;
END
$$;
