-- Grants that their granter pays for (payer = 'granter').
--
-- The session, what is said in it and the key are the receiver's, as with every grant. The budget that holds and pays, the price, the provider's key and the grant's own limit are
-- the granter's: its counter holds the turn as AGENT@RECEIVER, and its ledger has the entry. So a turn is two rows of turns: the granter's with the tokens and the cost, without a word
-- of what was said or by whom; the receiver's with zeros, which answers who asks again. Sums over turns, over the ledger and over the counters agree in both workspaces.
--
-- turn_begin of the receiver reads what is the receiver's, holds nothing, and answers `payer`. With that the granter's counter is asked (`guest`), which is a turn of its own from then
-- on. What the turn did is entered in the granter's transaction (turn_enter), and the receiver's rows in the same one (guest_enter).
--
-- Traps: * whoever holds a proof of the granter could name any workspace as its guest. So what is asked for is looked up (guest_grant, as astra_crossing): a grant that this very
--          granter has given to that workspace and pays for; and a ticket, a MAC over the turn with the key of proofs, which only turn_begin with the receiver's proof makes. What the
--          receiver has not asked for is not entered there. (A proof's second word is a workspace and its third a number; a ticket's text begins with ["guest", so neither is the other.)
--        * astra_quota_inside's policies go by astra.workspace. guest_begin and guest_enter set it to the receiver that guest_grant has found, and back to the proof's.
--        * a grant has to be in force when a turn begins and is held, and need not be any more when it ends: what was used is paid for and what was said is kept.
--        * a key is looked for at the receiver's, under the granter's lock: at the granter's it is RECEIVER, a line feed and the key, which no key of its own can be.
--        * who waits for a conversation of the receiver's waits with the granter's lock had. Two workspaces that wait for each other so are parted by Postgres (40P01), and send again.
--
-- Long functions are amended where they change, and say so when they are not as they were expected to be.

CREATE FUNCTION pg_temp.amend(p_function regprocedure, p_old text, p_new text) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
  v_is text := pg_get_functiondef(p_function);
BEGIN
  IF (length(v_is) - length(replace(v_is, p_old, ''))) <> length(p_old) THEN
    RAISE EXCEPTION '% is not as it was: %', p_function, p_old;
  END IF;
  EXECUTE replace(v_is, p_old, p_new);
END
$$;

SET LOCAL ROLE astra_owner;
ALTER TABLE public.grants DROP CONSTRAINT grants_payer_check;
ALTER TABLE public.grants ADD CONSTRAINT grants_payer_check CHECK (payer IN ('receiver', 'granter'));
ALTER TABLE public.ledger ADD COLUMN grant_id uuid;
COMMENT ON COLUMN public.ledger.grant_id IS 'By which grant another workspace, user_id, has used this one''s agent; NULL: it was its own turn.';
COMMENT ON COLUMN public.turns.user_id IS 'Who asked: a member, or the workspace that this one pays for. (Its members are its own business.)';
GRANT SELECT ON public.grants TO astra_quota_inside;
GRANT SELECT (workspace_id, granting_workspace_id, payer, expires_at, revoked_at) ON public.received_grants TO astra_invoke;

-- A grant's log says who pays.
DROP TRIGGER audit ON public.grants;
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON public.grants
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('id', 'grant.give', 'grant.change', '', 'receiving_workspace_id', 'agent_id', 'readonly', 'payer', 'max_cost', 'allow', 'expires_at',
                                                'revoked_at');

-- {now} -> data: the workspaces that pay for some of this one's turns. A running one is looked for with them.
CREATE FUNCTION astra.payers(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN jsonb_build_object('data', ARRAY(
    SELECT DISTINCT r.granting_workspace_id FROM public.received_grants r
    WHERE r.workspace_id = p_workspace AND r.payer = 'granter' AND r.revoked_at IS NULL
      AND (r.expires_at IS NULL OR r.expires_at > (p_arg::jsonb ->> 'now')::timestamptz)
    ORDER BY 1 LIMIT 100))::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.payers(text, text) TO astra_invoke;

-- What shows that a receiver has asked for a turn: of {turnId, sessionId, newSession, subject, idempotencyKey, requestHash, guest: {grantId}}, a record's fields. NULL without such a key.
-- As astra_owner, who alone may read the keys. It reads the table: these turns are few, and keys that were changed hold at once.
CREATE FUNCTION astra.guest_ticket(p_receiver text, p_kid text, p_record jsonb) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_key astra.tenant_keys;
BEGIN
  SELECT k.* INTO v_key FROM astra.tenant_keys k WHERE k.kid = p_kid;
  RETURN p_kid || ' ' || encode(sha256(v_key.outer_pad || sha256(v_key.inner_pad || convert_to(jsonb_build_array('guest', p_receiver, p_record #> '{guest,grantId}',
    p_record -> 'turnId', p_record -> 'sessionId', p_record -> 'newSession', p_record -> 'subject', p_record ->> 'idempotencyKey', p_record -> 'requestHash')::text, 'UTF8'))), 'hex');
END
$$;
GRANT EXECUTE ON FUNCTION astra.guest_ticket(text, text, jsonb) TO astra_crossing, astra_quota_inside;

GRANT CREATE ON SCHEMA astra TO astra_crossing, astra_quota_inside;
SET LOCAL ROLE astra_crossing;

-- The grant of a guest's record: given by the proof's workspace, which pays, to the one that has asked for that turn. In force at p_now; without p_now it may have ended.
CREATE FUNCTION astra.guest_grant(p_record jsonb, p_now timestamptz) RETURNS public.received_grants LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_grant public.received_grants;
  v_ticket text := p_record #>> '{guest,ticket}';
BEGIN
  SELECT r.* INTO v_grant FROM public.received_grants r
  WHERE r.workspace_id = p_record #>> '{guest,workspace}' AND r.id = (p_record #>> '{guest,grantId}')::uuid
    AND r.granting_workspace_id = astra.tenant() AND r.payer = 'granter'
    AND astra.guest_ticket(r.workspace_id, split_part(v_ticket, ' ', 1), p_record) = v_ticket
    AND (p_now IS NULL OR (r.revoked_at IS NULL AND (r.expires_at IS NULL OR r.expires_at > p_now)));
  RETURN v_grant;
END
$$;
GRANT EXECUTE ON FUNCTION astra.guest_grant(jsonb, timestamptz) TO astra_quota_inside;

-- Who pays.
SELECT pg_temp.amend('astra.granted_agent(text, text, timestamptz, boolean)',
$old$'readonly', g.readonly,$old$,
$new$'readonly', g.readonly,
             'payer', g.payer, 'grantId', g.id, 'granter', g.workspace_id, 'countedAs', g.agent_id || '@' || g.receiving_workspace_id,$new$);
-- Code from before says nothing of it.
SELECT pg_temp.amend('astra.grant_give(text, text)',
$old$(v_arg ->> 'readonly')::boolean, 'receiver',$old$,
$new$(v_arg ->> 'readonly')::boolean, COALESCE(v_arg ->> 'payer', 'receiver'),$new$);
SELECT pg_temp.amend('astra.grant_revoke(text, text)',
$old$SELECT g.workspace_id, g.receiving_workspace_id, g.agent_id INTO v$old$,
$new$SELECT g.workspace_id, g.receiving_workspace_id, g.agent_id, g.payer INTO v$new$);
SELECT pg_temp.amend('astra.grant_revoke(text, text)',
$old$r.workspace_id AS receiving_workspace_id, r.agent_id INTO v$old$,
$new$r.workspace_id AS receiving_workspace_id, r.agent_id, r.payer INTO v$new$);
SELECT pg_temp.amend('astra.grant_revoke(text, text)',
$old$  RETURN jsonb_build_object('outcome', 'ok', 'receivingWorkspaceId', v.receiving_workspace_id, 'agentId', v.workspace_id || '/' || v.agent_id)::text;$old$,
$new$  -- Whose counter holds its turns, and under which name.
  IF v.payer = 'granter' THEN
    RETURN jsonb_build_object('outcome', 'ok', 'countedBy', v.workspace_id, 'agentId', v.agent_id || '@' || v.receiving_workspace_id)::text;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'countedBy', v.receiving_workspace_id, 'agentId', v.workspace_id || '/' || v.agent_id)::text;$new$);

SET LOCAL ROLE astra_quota_inside;

-- What a guest's turn begins with: {id, allowance, until, restrictions (of the receiver), taken: whether the receiver has a turn under that key}. NULL: there is no such grant in
-- force, no such workspace any more, or nobody there has asked. p_record has the fields that guest_ticket wants.
CREATE FUNCTION astra.guest_begin(p_record jsonb, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_grant public.received_grants := astra.guest_grant(p_record, p_now);
  v_ws record;
  v_done text;
BEGIN
  IF v_grant.id IS NULL THEN
    RETURN NULL;
  END IF;
  v_done := set_config('astra.workspace', v_grant.workspace_id, true);
  SELECT w.restrictions, EXISTS (SELECT 1 FROM public.turns t
                                 WHERE t.workspace_id = v_grant.workspace_id AND t.idempotency_month = astra.month_in(p_now, w.time_zone)
                                   AND t.idempotency_key = substr(p_record ->> 'idempotencyKey', length(v_grant.workspace_id) + 2)) AS taken
  INTO v_ws FROM public.workspaces w WHERE w.id = v_grant.workspace_id AND w.status = 'active';
  v_done := set_config('astra.workspace', astra.tenant(), true);
  IF v_ws.taken IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN jsonb_build_object('id', v_grant.agent_id || '@' || v_grant.workspace_id, 'until', astra.ts(v_grant.expires_at), 'restrictions', v_ws.restrictions, 'taken', v_ws.taken,
    'allowance', jsonb_strip_nulls(jsonb_build_object('maxCostNanoUsdPerMonth', v_grant.max_cost)));
END
$$;

-- The receiver's side of a guest's turn that has ended, in the transaction of the granter's entry: the conversation, and its row of turns, which costs nothing there. Nothing at all
-- without a grant and a ticket, and of a turn that is there already only what was not known when it was taken for dead.
CREATE FUNCTION astra.guest_enter(p_record jsonb, p_answer jsonb) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
  v_grant public.received_grants := astra.guest_grant(p_record, NULL);
  v_workspace text := v_grant.workspace_id;
  v_agent text := v_grant.granting_workspace_id || '/' || v_grant.agent_id;
  v_id uuid := (p_record ->> 'turnId')::uuid;
  v_session uuid := (p_record ->> 'sessionId')::uuid;
  v_subject text := p_record ->> 'subject';
  v_status text := p_record ->> 'status';
  v_started timestamptz := (p_record ->> 'startedAt')::timestamptz;
  v_ended timestamptz := (p_record ->> 'endedAt')::timestamptz;
  v_key text := substr(p_record ->> 'idempotencyKey', length(v_workspace) + 2);
  v_zone text;
  v_was text;
  v_last bigint;
  v_done text;
BEGIN
  IF v_grant.id IS NULL THEN
    RETURN 'nothing';
  END IF;
  v_done := set_config('astra.workspace', v_workspace, true);
  SELECT w.time_zone, (SELECT t.status FROM public.turns t WHERE t.workspace_id = v_workspace AND t.id = v_id) INTO v_zone, v_was
  FROM public.workspaces w WHERE w.id = v_workspace;
  IF v_zone IS NOT NULL AND (v_was IS NULL OR (v_was = 'expired' AND v_status <> 'expired')) THEN
    IF v_was IS NULL AND (p_record ->> 'newSession')::boolean THEN
      INSERT INTO public.sessions (workspace_id, id, agent_id, user_id, created_at, updated_at)
      VALUES (v_workspace, v_session, v_agent, v_subject, v_started, v_ended)
      ON CONFLICT (workspace_id, id) DO NOTHING;
    END IF;
    -- Locked until the commit: who else adds to the conversation waits, and counts its messages after that.
    UPDATE public.sessions s SET updated_at = greatest(s.updated_at, v_ended) WHERE s.workspace_id = v_workspace AND s.id = v_session AND s.user_id = v_subject;
    IF FOUND THEN
      v_last := COALESCE((SELECT max(m.seq) FROM public.messages m WHERE m.workspace_id = v_workspace AND m.session_id = v_session), 0);
      INSERT INTO public.messages (workspace_id, session_id, seq, turn_id, role, content, created_at)
      SELECT v_workspace, v_session, v_last + row_number() OVER (ORDER BY n.ordinal), v_id, n.role, n.content, n.at
      FROM (VALUES (1, 'user', p_record ->> 'message', v_started), (2, 'assistant', p_record ->> 'content', v_ended)) AS n (ordinal, role, content, at)
      WHERE n.content IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM public.messages m WHERE m.workspace_id = v_workspace AND m.session_id = v_session AND m.turn_id = v_id AND m.role = n.role);
    END IF;
    IF v_was IS NULL THEN
      -- A key belongs to one turn of a month: should another have it after all, the turn counts more than its key.
      FOREACH v_key IN ARRAY ARRAY[v_key, NULL] LOOP
        INSERT INTO public.turns (workspace_id, id, session_id, agent_id, user_id, status, finish_reason, provider, model, price_version, input_tokens,
          cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, usage_source, idempotency_key, idempotency_month, request_hash, error_code,
          answer, metadata, created_at, ended_at)
        VALUES (v_workspace, v_id, v_session, v_agent, v_subject, v_status, p_record ->> 'finishReason', p_record ->> 'provider', p_record ->> 'model',
          (p_record ->> 'priceVersion')::int, 0, 0, 0, 0, 0, p_record #>> '{usage,source}', v_key, astra.month_in(v_started, v_zone), p_record ->> 'requestHash',
          p_record ->> 'errorCode', NULLIF(p_answer, 'null'), NULLIF(p_record -> 'metadata', 'null'), v_started, v_ended)
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
      END LOOP;
    ELSE
      UPDATE public.turns t
      SET status = v_status, finish_reason = p_record ->> 'finishReason', usage_source = p_record #>> '{usage,source}', error_code = p_record ->> 'errorCode',
          answer = NULLIF(p_answer, 'null'), ended_at = v_ended
      WHERE t.workspace_id = v_workspace AND t.id = v_id;
    END IF;
  END IF;
  v_done := set_config('astra.workspace', astra.tenant(), true);
  RETURN 'entered';
END
$$;

-- turn_begin, for both sides.
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  v_agent_id text := v_arg ->> 'agentId';$old$,
$new$  v_guest jsonb := NULLIF(v_arg -> 'guest', 'null');
  -- A guest asks for AGENT@RECEIVER.
  v_agent_id text := CASE WHEN v_guest IS NULL THEN v_arg ->> 'agentId' ELSE split_part(v_arg ->> 'agentId', '@', 1) END;
  v_is_paid boolean := false;$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  IF v_ws.own IS NULL AND v_ws.has_grant THEN$old$,
$new$  IF v_guest IS NOT NULL THEN
    -- Another workspace's turn, which this one pays: by a grant in force of this very agent, and once for its key.
    v_granted := astra.guest_begin(v_arg || jsonb_build_object('sessionId', v_arg -> 'newSessionId', 'newSession', v_guest -> 'newSession'), v_now);
    IF v_granted ->> 'id' IS DISTINCT FROM v_arg ->> 'agentId' THEN
      RETURN '{"outcome":"agent_denied"}';
    ELSIF (v_granted ->> 'taken')::boolean THEN
      RETURN '{"outcome":"key_taken"}';
    END IF;
  ELSIF v_ws.own IS NULL AND v_ws.has_grant THEN$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$    v_agent_id := COALESCE(v_granted ->> 'id', v_agent_id);$old$,
$new$    v_agent_id := COALESCE(v_granted ->> 'id', v_agent_id);
    v_is_paid := COALESCE(v_granted ->> 'payer' = 'granter', false);$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  FOR v_try IN 1 .. 2 LOOP$old$,
$new$  -- What another workspace pays for is that one's to say: model, key, restrictions, price.
  FOR v_try IN 1 .. CASE WHEN v_is_paid THEN 0 ELSE 2 END LOOP$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  IF NOT astra.model_is_allowed(v_ws.restrictions, v_provider, v_model ->> 'modelId') THEN$old$,
$new$  IF NOT v_is_paid AND NOT (astra.model_is_allowed(v_ws.restrictions, v_provider, v_model ->> 'modelId')
                            AND astra.model_is_allowed(COALESCE(v_granted -> 'restrictions', '{}'), v_provider, v_model ->> 'modelId')) THEN$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'model_unpriced', 'model',$old$,
$new$  IF NOT FOUND AND NOT v_is_paid THEN
    RETURN jsonb_build_object('outcome', 'model_unpriced', 'model',$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  -- json, not jsonb: it is only written down.
  RETURN json_build_object($old$,
$new$  -- Whom to ask, what is the receiver's, and that it was asked for here.
  IF v_is_paid THEN
    RETURN json_build_object('outcome', 'payer',
      'access', CASE WHEN v_token IS NOT NULL THEN astra.access_json(v_ws.role, v_ws.allow, v_ws.deny, v_ws.role_template) END,
      'granter', v_granted -> 'granter', 'grantId', v_granted -> 'grantId', 'agentId', v_agent_id, 'countedAs', v_granted -> 'countedAs',
      'ticket', astra.guest_ticket(p_workspace, split_part(current_setting('astra.proof'), ' ', 4),
        v_arg || jsonb_build_object('sessionId', v_session, 'newSession', v_new_session, 'guest', v_granted, 'idempotencyKey', p_workspace || E'\n' || v_key)),
      'sessionId', v_session, 'newSession', v_new_session, 'history', v_history, 'memories', v_memories)::text;
  END IF;

  -- json, not jsonb: it is only written down.
  RETURN json_build_object($new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$'workspace', CASE WHEN v_granted IS NOT NULL THEN$old$,
$new$'workspace', CASE WHEN v_granted ? 'workspace' THEN$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$    'agent', json_build_object('id', v_agent_id,$old$,
$new$    'agent', json_build_object('id', COALESCE(v_granted ->> 'id', v_agent_id),$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$    'newSession', v_new_session,
    'history', v_history,
    'memories', v_memories,
    'agentCount'$old$,
$new$    'newSession', COALESCE((v_guest ->> 'newSession')::boolean, v_new_session),
    'history', v_history,
    'memories', v_memories,
    'agentCount'$new$);

-- The limits of what this workspace pays for, whoever uses it, and of nothing that another one pays for.
SELECT pg_temp.amend('astra.quota_status(text, text)',
$old$        GROUP BY 1 HAVING min(g.max_cost) IS NOT NULL) b;$old$,
$new$          AND g.payer = 'receiver'
        GROUP BY 1 HAVING min(g.max_cost) IS NOT NULL
        UNION ALL
        SELECT g.agent_id || '@' || g.receiving_workspace_id, jsonb_build_object('maxCostNanoUsdPerMonth', min(g.max_cost)), true
        FROM public.grants g
        WHERE g.workspace_id = p_workspace AND g.revoked_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > (p_arg::jsonb ->> 'now')::timestamptz)
          AND g.payer = 'granter'
        GROUP BY 1 HAVING min(g.max_cost) IS NOT NULL) b;$new$);

-- A guest's grant and key once more, under the lock.
SELECT pg_temp.amend('astra.hold_take(text, text)',
$old$  v_known public.holds;$old$,
$new$  v_known public.holds;
  v_record jsonb := v_arg #> '{draft,record}';
  v_granted jsonb;$new$);
SELECT pg_temp.amend('astra.hold_take(text, text)',
$old$  -- The limits once more, against what is true until the commit.$old$,
$new$  IF jsonb_typeof(v_record -> 'guest') = 'object' THEN
    v_granted := astra.guest_begin(v_record, v_now);
    IF v_granted ->> 'id' IS DISTINCT FROM v_agent OR (v_granted ->> 'taken')::boolean THEN
      RETURN '{"outcome":"again"}';
    END IF;
  END IF;

  -- The limits once more, against what is true until the commit.$new$);

-- A guest's turn is stopped by its own workspace, and by nobody else.
SELECT pg_temp.amend('astra.hold_stop(text, text)',
$old$    AND (v_arg ->> 'subject' IS NULL OR h.subject = v_arg ->> 'subject');$old$,
$new$    AND (v_arg ->> 'subject' IS NULL OR h.subject = v_arg ->> 'subject') AND h.hold ->> 'guest' IS NOT DISTINCT FROM v_arg ->> 'guest';$new$);

-- What is left of this workspace's limits is not another's to read.
SELECT pg_temp.amend('astra.hold_finish(text, text)',
$old$  IF v_has_answer THEN
    v_answer := v_answer$old$,
$new$  IF v_has_answer AND NULLIF(v_arg -> 'guest', 'null') IS NULL THEN
    v_answer := v_answer$new$);

SET LOCAL ROLE astra_owner;

-- turn_enter: of a guest's turn this workspace gets the figures, and the receiver what was said.
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$  v_last bigint := 0;
BEGIN$old$,
$new$  v_last bigint := 0;
  v_record jsonb := p_arg;
  v_said jsonb := p_answer;
  v_guest jsonb := NULLIF(p_arg -> 'guest', 'null');
  v_done text;
BEGIN
  IF v_guest IS NOT NULL THEN
    p_arg := (p_arg - 'metadata') || '{"newSession":false,"requestHash":""}';
    p_answer := NULL;
    v_subject := v_guest ->> 'workspace';
    v_key := NULL;
    v_message := NULL;
    v_content := NULL;
  END IF;
$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$kind, turn_id, agent_id, user_id,$old$,
$new$kind, turn_id, grant_id, agent_id, user_id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$'turn', v_id, v_agent, v_subject,$old$,
$new$'turn', v_id, (v_guest ->> 'grantId')::uuid, v_agent, v_subject,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$kind, turn_id, corrects, agent_id,$old$,
$new$kind, turn_id, corrects, grant_id, agent_id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$'correction', v_id, l.id, v_old.agent_id,$old$,
$new$'correction', v_id, l.id, l.grant_id, v_old.agent_id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$    IF NOT v_is_new THEN
      UPDATE public.sessions$old$,
$new$    IF NOT v_is_new AND v_guest IS NULL THEN
      UPDATE public.sessions$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$  RETURN jsonb_build_object('outcome', CASE WHEN v_old.id IS NULL THEN 'saved' ELSE 'corrected' END, 'ledgerSeq', v_seq);$old$,
$new$  IF v_guest IS NOT NULL THEN
    v_done := astra.guest_enter(v_record, v_said);
  END IF;
  RETURN jsonb_build_object('outcome', CASE WHEN v_old.id IS NULL THEN 'saved' ELSE 'corrected' END, 'ledgerSeq', v_seq);$new$);

REVOKE CREATE ON SCHEMA astra FROM astra_crossing, astra_quota_inside;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
