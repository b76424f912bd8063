-- Grants: a workspace lets another one use one of its agents. The agent's definition is the granter's; the session, the memory and the cost are the receiver's.
--
-- A grant is two rows: the granter's (public.grants), which says whether it is in force, and the receiver's (public.received_grants), which its turns look into. Both are
-- written by functions of astra_crossing: the only role whose policies cross workspaces, on these two tables and, to read, on workspaces and agents. Nobody logs in as it, its
-- functions take the granting workspace from the proof, and what they let through is one agent at a time.
--
-- Within the receiver the agent is GRANTER/AGENT: in its counter, its ledger and its answers. So what a grant may cost in a month (maxCostUsdPerMonth) is a limit of that
-- agent in the receiver's own counter, in the same atomic decision as all others; a grant that is revoked and given again goes on with what was used.
--
-- Traps: * granted comes before the template's agents, but a granted agent never takes the place of one of these unless somebody of the receiver has accepted that: else
--          whoever grants could answer for another workspace's assistant.
--        * what a turn read before a revocation is compared again under the counter's lock (hold_take), and whoever revokes takes that lock when it tells running turns to
--          stop (holds_withdraw): no turn begins after that, and none goes on past its next sign of life.
--        * whether a receiving workspace exists is nobody else's business: a grant to one that does not exist is made all the same.

DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_crossing') THEN
    BEGIN
      CREATE ROLE astra_crossing NOINHERIT NOCREATEDB NOCREATEROLE NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_crossing'
             AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolcanlogin)) THEN
    RAISE EXCEPTION 'role astra_crossing exists with other rights than astra gives it';
  END IF;
  IF NOT pg_has_role(current_user, 'astra_crossing', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
    GRANT astra_crossing TO CURRENT_USER;
  END IF;
END
$$;
GRANT USAGE ON SCHEMA public TO astra_crossing;
SET LOCAL ROLE astra_owner;
GRANT USAGE, CREATE ON SCHEMA astra TO astra_crossing;
GRANT EXECUTE ON FUNCTION astra.tenant(), astra.ts(timestamptz) TO astra_crossing;

CREATE TABLE public.grants (
  workspace_id           text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,  -- the granter
  id                     uuid NOT NULL,
  receiving_workspace_id text NOT NULL,
  agent_id               text NOT NULL,
  readonly               boolean NOT NULL,
  payer                  text NOT NULL CHECK (payer = 'receiver'),
  max_cost               bigint CHECK (max_cost >= 0),  -- nano-dollars a month
  allow                  text[] NOT NULL,
  created_by             text NOT NULL,
  created_at             timestamptz NOT NULL,
  expires_at             timestamptz,
  revoked_at             timestamptz,
  PRIMARY KEY (workspace_id, id),
  CHECK (workspace_id <> receiving_workspace_id)
);

CREATE TABLE public.received_grants (
  workspace_id          text NOT NULL,  -- the receiver, whether or not it exists
  id                    uuid NOT NULL,
  granting_workspace_id text NOT NULL,
  agent_id              text NOT NULL,
  readonly              boolean NOT NULL,
  payer                 text NOT NULL,
  max_cost              bigint,
  allow                 text[] NOT NULL,
  created_at            timestamptz NOT NULL,
  expires_at            timestamptz,
  revoked_at            timestamptz,
  accepted_at           timestamptz,  -- somebody here has agreed that it takes the place of a template's agent
  PRIMARY KEY (workspace_id, id)
);
CREATE INDEX received_grants_in_force ON public.received_grants (workspace_id, agent_id) WHERE revoked_at IS NULL;

SELECT astra.wall('public.grants'), astra.wall('public.received_grants');
CREATE POLICY crossing ON public.grants TO astra_crossing USING (true) WITH CHECK (true);
CREATE POLICY crossing ON public.received_grants TO astra_crossing USING (true) WITH CHECK (true);
CREATE POLICY crossing ON public.workspaces FOR SELECT TO astra_crossing USING (true);
CREATE POLICY crossing ON public.agents FOR SELECT TO astra_crossing USING (true);
GRANT SELECT, INSERT ON public.grants, public.received_grants TO astra_crossing;
GRANT UPDATE (revoked_at) ON public.grants, public.received_grants TO astra_crossing;
GRANT SELECT (id, display_name, plan, owner_id, limits, status) ON public.workspaces TO astra_crossing;
GRANT SELECT (workspace_id, id, definition) ON public.agents TO astra_crossing;
GRANT SELECT ON public.plans TO astra_crossing;
GRANT SELECT ON public.grants TO astra_grants;
GRANT SELECT ON public.received_grants TO astra_grants, astra_quota_inside;
GRANT UPDATE (accepted_at) ON public.received_grants TO astra_grants;

CREATE FUNCTION astra.grant_json(p public.grants) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN jsonb_build_object('id', p.id, 'grantingWorkspaceId', p.workspace_id, 'receivingWorkspaceId', p.receiving_workspace_id, 'agentId', p.agent_id,
    'readonly', p.readonly, 'payer', p.payer, 'maxCostNanoUsdPerMonth', p.max_cost, 'allow', p.allow, 'createdBy', p.created_by,
    'createdAt', astra.ts(p.created_at), 'expiresAt', astra.ts(p.expires_at), 'revokedAt', astra.ts(p.revoked_at));
END
$$;
CREATE FUNCTION astra.received_grant_json(p public.received_grants) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN jsonb_build_object('id', p.id, 'grantingWorkspaceId', p.granting_workspace_id, 'receivingWorkspaceId', p.workspace_id, 'agentId', p.agent_id,
    'readonly', p.readonly, 'payer', p.payer, 'maxCostNanoUsdPerMonth', p.max_cost, 'allow', p.allow,
    'createdAt', astra.ts(p.created_at), 'expiresAt', astra.ts(p.expires_at), 'revokedAt', astra.ts(p.revoked_at), 'acceptedAt', astra.ts(p.accepted_at));
END
$$;

-- {direction: given | received, after?, limit?} -> ok | not_found, data [grant], next: in the order that they were made
CREATE FUNCTION astra.grants_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_after uuid := (v_arg ->> 'after')::uuid;
  v_data jsonb;
  v_next text;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  -- Their ids are UUIDv7: in the order of time.
  SELECT COALESCE(jsonb_agg(p.doc ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.id::text) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT l.id, l.doc, row_number() OVER (ORDER BY l.id) AS n
        FROM (SELECT g.id, astra.grant_json(g) AS doc FROM public.grants g WHERE g.workspace_id = p_workspace AND v_arg ->> 'direction' = 'given'
              UNION ALL
              SELECT r.id, astra.received_grant_json(r) FROM public.received_grants r WHERE r.workspace_id = p_workspace AND v_arg ->> 'direction' = 'received') l
        WHERE v_after IS NULL OR l.id > v_after
        ORDER BY l.id LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {id, now} -> ok | not_found, grant: it may stand in for a template's agent of the same id from now on
CREATE FUNCTION astra.grant_accept(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_grant public.received_grants;
BEGIN
  UPDATE public.received_grants r SET accepted_at = COALESCE(r.accepted_at, (p_arg::jsonb ->> 'now')::timestamptz)
  WHERE r.workspace_id = p_workspace AND r.id = (p_arg::jsonb ->> 'id')::uuid AND r.revoked_at IS NULL
  RETURNING r.* INTO v_grant;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'grant', astra.received_grant_json(v_grant))::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.grant_json(public.grants) TO astra_grants, astra_crossing;
GRANT EXECUTE ON FUNCTION astra.received_grant_json(public.received_grants), astra.grants_list(text, text), astra.grant_accept(text, text) TO astra_grants;

SET LOCAL ROLE astra_crossing;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- {id, receivingWorkspaceId, agentId, readonly, maxCostNanoUsdPerMonth | null, allow, expiresAt | null, createdBy, now}
-- -> ok {grant} | not_found: no such workspace, or no such agent of its own or of its plan: what was granted to it cannot be passed on
CREATE FUNCTION astra.grant_give(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_workspace text := astra.tenant();
  v_agent text := v_arg ->> 'agentId';
  v_grant public.grants;
BEGIN
  IF NOT EXISTS (
    SELECT 1 FROM public.workspaces w
    WHERE w.id = v_workspace AND w.status = 'active'
      AND (EXISTS (SELECT 1 FROM public.agents a WHERE a.workspace_id = v_workspace AND a.id = v_agent)
           OR EXISTS (SELECT 1 FROM public.plans p CROSS JOIN LATERAL jsonb_array_elements(p.template -> 'agents') e
                      WHERE p.plan = w.plan AND e.value ->> 'id' = v_agent))) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  INSERT INTO public.grants (workspace_id, id, receiving_workspace_id, agent_id, readonly, payer, max_cost, allow, created_by, created_at, expires_at)
  VALUES (v_workspace, (v_arg ->> 'id')::uuid, v_arg ->> 'receivingWorkspaceId', v_agent, (v_arg ->> 'readonly')::boolean, 'receiver',
          (v_arg ->> 'maxCostNanoUsdPerMonth')::bigint, ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'allow')), v_arg ->> 'createdBy',
          (v_arg ->> 'now')::timestamptz, (v_arg ->> 'expiresAt')::timestamptz)
  RETURNING * INTO v_grant;
  INSERT INTO public.received_grants (workspace_id, id, granting_workspace_id, agent_id, readonly, payer, max_cost, allow, created_at, expires_at)
  VALUES (v_grant.receiving_workspace_id, v_grant.id, v_workspace, v_agent, v_grant.readonly, v_grant.payer, v_grant.max_cost, v_grant.allow, v_grant.created_at,
          v_grant.expires_at);
  RETURN jsonb_build_object('outcome', 'ok', 'grant', astra.grant_json(v_grant))::text;
END
$$;

-- {id, now} -> ok {receivingWorkspaceId, agentId: GRANTER/AGENT} | not_found. The granter revokes it, or the receiver gives it back. Twice is once.
CREATE FUNCTION astra.grant_revoke(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_id uuid := (p_arg::jsonb ->> 'id')::uuid;
  v_now timestamptz := (p_arg::jsonb ->> 'now')::timestamptz;
  v_workspace text := astra.tenant();
  v record;
BEGIN
  SELECT g.workspace_id, g.receiving_workspace_id, g.agent_id INTO v FROM public.grants g WHERE g.workspace_id = v_workspace AND g.id = v_id;
  IF NOT FOUND THEN
    SELECT r.granting_workspace_id AS workspace_id, r.workspace_id AS receiving_workspace_id, r.agent_id INTO v
    FROM public.received_grants r WHERE r.workspace_id = v_workspace AND r.id = v_id;
    IF NOT FOUND THEN
      RETURN '{"outcome":"not_found"}';
    END IF;
  END IF;
  UPDATE public.grants g SET revoked_at = COALESCE(g.revoked_at, v_now) WHERE g.workspace_id = v.workspace_id AND g.id = v_id;
  UPDATE public.received_grants r SET revoked_at = COALESCE(r.revoked_at, v_now) WHERE r.workspace_id = v.receiving_workspace_id AND r.id = v_id;
  RETURN jsonb_build_object('outcome', 'ok', 'receivingWorkspaceId', v.receiving_workspace_id, 'agentId', v.workspace_id || '/' || v.agent_id)::text;
END
$$;

-- The agent that is granted to a workspace under a name (AGENT, or GRANTER/AGENT) and in force; NULL if there is none. Of several the oldest. For turn_begin, which has
-- verified the workspace.
CREATE FUNCTION astra.granted_agent(p_workspace text, p_agent text, p_now timestamptz, p_only_accepted boolean) RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN (
    SELECT jsonb_build_object('id', g.workspace_id || '/' || g.agent_id, 'definition', COALESCE(a.definition, t.value), 'readonly', g.readonly,
             'allowance', jsonb_strip_nulls(jsonb_build_object('maxCostNanoUsdPerMonth', g.max_cost)), 'until', astra.ts(g.expires_at),
             'workspace', jsonb_build_object('id', w.id, 'displayName', w.display_name, 'plan', w.plan, 'ownerId', w.owner_id, 'limits', w.limits))
    FROM public.received_grants r
    JOIN public.grants g ON g.workspace_id = r.granting_workspace_id AND g.id = r.id
    JOIN public.workspaces w ON w.id = g.workspace_id AND w.status = 'active'
    LEFT JOIN public.agents a ON a.workspace_id = g.workspace_id AND a.id = g.agent_id
    LEFT JOIN LATERAL (SELECT e.value FROM public.plans p CROSS JOIN LATERAL jsonb_array_elements(p.template -> 'agents') e
                       WHERE p.plan = w.plan AND e.value ->> 'id' = g.agent_id LIMIT 1) t ON a.id IS NULL
    WHERE r.workspace_id = p_workspace AND p_workspace = current_setting('astra.workspace', true)
      AND g.receiving_workspace_id = p_workspace AND g.revoked_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > p_now)
      AND (p_agent = g.workspace_id || '/' || g.agent_id OR (p_agent = g.agent_id AND (NOT p_only_accepted OR r.accepted_at IS NOT NULL)))
      AND COALESCE(a.definition, t.value) IS NOT NULL
    ORDER BY g.created_at, g.id LIMIT 1);
END
$$;

-- A workspace that is deleted has granted nothing.
CREATE FUNCTION astra.grants_end() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  UPDATE public.received_grants r SET revoked_at = COALESCE(r.revoked_at, now()) WHERE r.workspace_id = OLD.receiving_workspace_id AND r.id = OLD.id;
  RETURN NULL;
END
$$;

GRANT EXECUTE ON FUNCTION astra.grant_give(text, text), astra.grant_revoke(text, text) TO astra_grants;
GRANT EXECUTE ON FUNCTION astra.granted_agent(text, text, timestamptz, boolean) TO astra_quota_inside;
-- Nor received: what comes under its name later begins without.
CREATE FUNCTION astra.received_grants_end() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  UPDATE public.grants g SET revoked_at = COALESCE(g.revoked_at, now())
  FROM public.received_grants r WHERE r.workspace_id = OLD.id AND g.workspace_id = r.granting_workspace_id AND g.id = r.id;
  UPDATE public.received_grants r SET revoked_at = COALESCE(r.revoked_at, now()) WHERE r.workspace_id = OLD.id;
  RETURN NULL;
END
$$;

GRANT EXECUTE ON FUNCTION astra.grants_end(), astra.received_grants_end() TO astra_owner, astra_provision;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_crossing;
CREATE TRIGGER grants_end AFTER DELETE ON public.grants FOR EACH ROW EXECUTE FUNCTION astra.grants_end();
CREATE TRIGGER received_grants_end AFTER DELETE ON public.workspaces FOR EACH ROW EXECUTE FUNCTION astra.received_grants_end();

GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;

-- {agentId: GRANTER/AGENT} -> withdrawn: its running turns are told to stop. Under the counter's lock: a turn that was beginning has begun, or finds no grant.
CREATE FUNCTION astra.holds_withdraw(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  PERFORM astra.counter_lock(p_workspace);
  UPDATE public.holds h SET stop = true WHERE h.workspace_id = p_workspace AND h.agent_id = p_arg::jsonb ->> 'agentId';
  RETURN '{"outcome":"withdrawn"}';
END
$$;
GRANT EXECUTE ON FUNCTION astra.holds_withdraw(text, text) TO astra_quota;

-- As in 0021, with grants.
CREATE OR REPLACE FUNCTION astra.turn_begin(p_workspace text, p_arg text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_agent_id text := v_arg ->> 'agentId';
  v_subject text := v_arg ->> 'subject';
  v_key text := v_arg ->> 'idempotencyKey';
  v_session uuid := (v_arg ->> 'sessionId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_token text := v_arg ->> 'tokenId';
  v_new_session boolean := v_session IS NULL;
  v_ws record;
  v_turn record;
  v_price record;
  v_definition jsonb;
  v_granted jsonb;
  v_spans jsonb;
  v_limits jsonb;
  v_allowance jsonb;
  v_model jsonb;
  v_provider text;
  v_secret jsonb;
  v_history jsonb := '[]';
  v_memories jsonb := '[]';
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);

  -- The workspace and the agent: its own first, else its plan's.
  SELECT w.display_name, w.plan, w.owner_id, w.limits, w.status, w.time_zone, q.has_memories, w.restrictions, a.definition AS own,
         m.role, r.allow, r.deny, (SELECT p.template #> ARRAY['roles', m.role] FROM public.plans p WHERE p.plan = w.plan) AS role_template,
         EXISTS (SELECT 1 FROM public.received_grants g WHERE g.workspace_id = p_workspace AND g.revoked_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > v_now)
                   AND v_agent_id IN (g.agent_id, g.granting_workspace_id || '/' || g.agent_id)) AS has_grant,
         EXISTS (SELECT 1 FROM public.revoked_tokens t WHERE t.workspace_id = p_workspace AND t.jti = v_token) AS revoked,
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
  LEFT JOIN public.members m ON m.workspace_id = p_workspace AND m.user_id = v_subject
  LEFT JOIN public.roles r ON r.workspace_id = p_workspace AND r.name = m.role
  WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'workspace_unknown')::text;
  END IF;
  -- Who asks: a member whose token is good still, or the operator, who has no token of a workspace.
  IF v_token IS NOT NULL AND v_ws.role IS NULL THEN
    RETURN '{"outcome":"no_member"}';
  ELSIF v_ws.revoked THEN
    RETURN '{"outcome":"token_revoked"}';
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
        'access', CASE WHEN v_token IS NOT NULL THEN astra.access_json(v_ws.role, v_ws.allow, v_ws.deny, v_ws.role_template) END,
        'replay', COALESCE(v_turn.answer, '{}') || jsonb_build_object('content',
          (SELECT m.content FROM public.messages m
           WHERE m.workspace_id = p_workspace AND m.session_id = v_turn.session_id AND m.turn_id = v_turn.id AND m.role = 'assistant' LIMIT 1)),
        'replayTurn', jsonb_build_object('turnId', v_turn.id, 'sessionId', v_turn.session_id, 'status', v_turn.status,
          'finishReason', v_turn.finish_reason, 'errorCode', v_turn.error_code))::text;
    END IF;
  END IF;

  -- Granted by another workspace: before the template's, but in the place of one of these only when somebody here has agreed to it.
  IF v_ws.own IS NULL AND v_ws.has_grant THEN
    v_granted := astra.granted_agent(p_workspace, v_agent_id, v_now, v_ws.templated IS NOT NULL);
    v_agent_id := COALESCE(v_granted ->> 'id', v_agent_id);
  END IF;
  v_definition := COALESCE(v_ws.own, v_granted -> 'definition', v_ws.templated);
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
  -- What a granted agent may cost here is the grant's to say; its own budget is its workspace's.
  v_allowance := COALESCE(v_granted -> 'allowance', astra.agent_allowance(v_definition, v_limits));

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

  -- Providers and models that the workspace is held to.
  IF NOT astra.model_is_allowed(v_ws.restrictions, v_provider, v_model ->> 'modelId') THEN
    RETURN jsonb_build_object('outcome', 'model_forbidden', 'model',
      jsonb_build_object('provider', v_provider, 'modelId', v_model ->> 'modelId'))::text;
  END IF;

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
    'access', CASE WHEN v_token IS NOT NULL THEN astra.access_json(v_ws.role, v_ws.allow, v_ws.deny, v_ws.role_template) END,
    -- The one that the agent's template speaks of: a granted one is as its own workspace defined it.
    'workspace', CASE WHEN v_granted IS NOT NULL THEN (v_granted -> 'workspace')::json ELSE json_build_object('id', p_workspace, 'displayName', v_ws.display_name, 'plan', v_ws.plan, 'ownerId', v_ws.owner_id, 'limits', v_ws.limits) END,
    'agent', json_build_object('id', v_agent_id, 'source', CASE WHEN v_ws.own IS NOT NULL THEN 'own' WHEN v_granted IS NOT NULL THEN 'granted' ELSE 'template' END, 'until', v_granted -> 'until', 'definition', v_definition,
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
$function$;

-- As in 0012, with what grants may cost.
CREATE OR REPLACE FUNCTION astra.quota_status(p_workspace text, p_arg text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
  v_ws record;
  v_spans jsonb;
  v_limits jsonb;
  v_agents jsonb;
  v_count bigint;
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  SELECT w.limits, w.time_zone INTO v_ws FROM public.workspaces w WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  v_spans := astra.spans_json((p_arg::jsonb ->> 'now')::timestamptz, v_ws.time_zone);
  v_limits := astra.limits_in(p_workspace, v_ws.limits, v_spans #>> '{month,startsAt}');
  SELECT COALESCE(jsonb_agg(jsonb_build_object('id', b.id, 'allowance', b.allowance) ORDER BY b.id COLLATE "C") FILTER (WHERE b.allowance <> '{}'), '[]'),
         count(*) FILTER (WHERE NOT b.granted)
  INTO v_agents, v_count
  FROM (SELECT a.id, astra.agent_allowance(a.definition, v_limits) AS allowance, false AS granted FROM astra.effective_agents(p_workspace) a
        UNION ALL
        SELECT g.granting_workspace_id || '/' || g.agent_id, jsonb_build_object('maxCostNanoUsdPerMonth', min(g.max_cost)), true
        FROM public.received_grants g
        WHERE g.workspace_id = p_workspace AND g.revoked_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > (p_arg::jsonb ->> 'now')::timestamptz)
        GROUP BY 1 HAVING min(g.max_cost) IS NOT NULL) b;
  RETURN jsonb_build_object('outcome', 'ok', 'limits', v_limits, 'agents', v_agents, 'agentCount', v_count,
    'spans', v_spans)::text;
END
$function$;

-- As in 0019, with a look at the grant.
CREATE OR REPLACE FUNCTION astra.hold_take(p_workspace text, p_arg text)
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
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
  v_done := set_config('astra.workspace', astra.tenant(), true);
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

  -- A grant once more: whoever revokes it waits for this lock before its turns are told to stop.
  IF strpos(v_agent, '/') > 0
     AND NOT EXISTS (SELECT 1 FROM public.received_grants g
                     WHERE g.workspace_id = p_workspace AND g.granting_workspace_id || '/' || g.agent_id = v_agent AND g.revoked_at IS NULL
                       AND (g.expires_at IS NULL OR g.expires_at > v_now)) THEN
    RETURN '{"outcome":"again"}';
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
$function$;

-- As in 0012, with a grant's end.
CREATE OR REPLACE FUNCTION astra.hold_extend(p_workspace text, p_arg text)
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_hold public.holds;
  v_covers boolean;
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  UPDATE public.holds h
  SET sequence = (v_arg ->> 'sequence')::bigint, progress = v_arg -> 'progress',
      -- A grant that has expired by now.
      stop = h.stop OR COALESCE((h.hold ->> 'until')::timestamptz <= v_now, false),
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
$function$;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;
