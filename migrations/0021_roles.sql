-- Who may do what, now: roles of a workspace's own or of its plan's template, members, revoked tokens. A token says who somebody is; what they may do is read here, in the
-- same snapshot as the data that they ask for where it matters (turn_begin), else right before it (access).
--
-- A role's rules take the place of its defaults, which are the code's (astra_kernel::permission): what is not listed is not allowed, and deny beats allow. Whether rules allow
-- something is decided there, too: here they are only kept.

DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_grants') THEN
    BEGIN
      CREATE ROLE astra_grants NOINHERIT NOCREATEDB NOCREATEROLE LOGIN;
      ALTER ROLE astra_grants SET statement_timeout = '15s';
      ALTER ROLE astra_grants SET idle_in_transaction_session_timeout = '15s';
      ALTER ROLE astra_grants SET jit = off;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_grants'
             AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR NOT rolcanlogin)) THEN
    RAISE EXCEPTION 'role astra_grants exists with other rights than astra gives it';
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member WHERE r.rolname = 'astra_grants') THEN
    RAISE EXCEPTION 'role astra_grants is a member of another role, it must not be';
  END IF;
END
$$;
GRANT USAGE ON SCHEMA public TO astra_grants;
SET LOCAL ROLE astra_owner;
GRANT USAGE ON SCHEMA astra TO astra_grants;
GRANT EXECUTE ON FUNCTION astra.enter(text), astra.tenant(), astra.ts(timestamptz), astra.page_limit(text), astra.workspace_json(public.workspaces),
  astra.workspace_get(text, text) TO astra_grants;

DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT p.schemaname, p.tablename FROM pg_policies p WHERE p.policyname = 'tenant' AND p.schemaname = 'public' LOOP
    EXECUTE format('ALTER POLICY tenant ON %I.%I TO astra_owner, astra_provision, astra_invoke, astra_quota, astra_billing, astra_grants', v.schemaname, v.tablename);
  END LOOP;
END
$$;

-- The policies of a table of workspaces' rows, and no right to anybody yet. For the migrations that make one.
CREATE FUNCTION astra.wall(p_table regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', p_table);
  EXECUTE format('CREATE POLICY tenant ON %s TO astra_owner, astra_provision, astra_invoke, astra_quota, astra_billing, astra_grants '
                 'USING (workspace_id = (SELECT astra.tenant())) WITH CHECK (workspace_id = (SELECT astra.tenant()))', p_table);
  EXECUTE format('CREATE POLICY inside ON %s TO astra_quota_inside USING (workspace_id = (SELECT current_setting(''astra.workspace'', true))) '
                 'WITH CHECK (workspace_id = (SELECT current_setting(''astra.workspace'', true)))', p_table);
  EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', p_table);
END
$$;

CREATE TABLE public.roles (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  name         text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,31}$' AND name <> 'operator'),
  allow        text[] NOT NULL,
  deny         text[] NOT NULL,
  updated_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, name)
);
COMMENT ON TABLE public.roles IS 'Roles that a workspace has defined, also in place of the four that each has. Entries are permissions or families of them (memory:*).';

-- No foreign key: a token is revoked for a workspace that may have gone and come again under its name.
CREATE TABLE public.revoked_tokens (
  workspace_id text NOT NULL,
  jti          text NOT NULL,
  revoked_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, jti)
);

SELECT astra.wall('public.roles'), astra.wall('public.revoked_tokens');

ALTER TABLE public.workspaces ADD COLUMN restrictions jsonb NOT NULL DEFAULT '{}' CONSTRAINT workspaces_restrictions_form CHECK (jsonb_typeof(restrictions) = 'object');
COMMENT ON COLUMN public.workspaces.restrictions IS 'allowedProviders: [provider], allowedModels: [provider/model, with * at the end for all that begin so]; absent: all.';

GRANT SELECT ON public.members, public.roles, public.revoked_tokens TO astra_provision, astra_invoke, astra_billing, astra_grants, astra_quota_inside;
GRANT SELECT ON public.workspaces, public.plans TO astra_grants;
GRANT INSERT, DELETE ON public.roles TO astra_grants;
GRANT UPDATE (allow, deny, updated_at) ON public.roles TO astra_grants;
GRANT INSERT, DELETE ON public.revoked_tokens TO astra_provision;
GRANT UPDATE (restrictions) ON public.workspaces TO astra_provision;

-- {role, rules: {allow, deny} | null, source}: astra_kernel::Access.
CREATE FUNCTION astra.access_json(p_role text, p_allow text[], p_deny text[], p_template jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
BEGIN
  RETURN jsonb_build_object('role', p_role,
    'rules', CASE WHEN p_allow IS NOT NULL THEN jsonb_build_object('allow', p_allow, 'deny', p_deny) ELSE p_template END,
    'source', CASE WHEN p_allow IS NOT NULL THEN 'workspace' WHEN p_template IS NOT NULL THEN 'template' ELSE 'default' END);
END
$$;

CREATE FUNCTION astra.model_is_allowed(p_restrictions jsonb, p_provider text, p_model text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
BEGIN
  IF p_restrictions = '{}' THEN
    RETURN true;
  END IF;
  RETURN (NOT p_restrictions ? 'allowedProviders' OR p_restrictions -> 'allowedProviders' ? p_provider)
    AND (NOT p_restrictions ? 'allowedModels' OR EXISTS (
      SELECT 1 FROM jsonb_array_elements_text(p_restrictions -> 'allowedModels') e
      WHERE e.value = p_provider || '/' || p_model OR (right(e.value, 1) = '*' AND starts_with(p_provider || '/' || p_model, left(e.value, -1)))));
END
$$;

-- {subject, tokenId} -> ok | no_member | token_revoked, access {role, rules, source}. A workspace that does not exist has no members.
CREATE FUNCTION astra.access(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v record;
BEGIN
  SELECT m.role, r.allow, r.deny, (SELECT p.template #> ARRAY['roles', m.role] FROM public.plans p WHERE p.plan = w.plan) AS template,
         EXISTS (SELECT 1 FROM public.revoked_tokens t WHERE t.workspace_id = p_workspace AND t.jti = v_arg ->> 'tokenId') AS revoked
  INTO v
  FROM public.members m
  JOIN public.workspaces w ON w.id = p_workspace
  LEFT JOIN public.roles r ON r.workspace_id = p_workspace AND r.name = m.role
  WHERE m.workspace_id = p_workspace AND m.user_id = v_arg ->> 'subject';
  IF NOT FOUND THEN
    RETURN '{"outcome":"no_member"}';
  ELSIF v.revoked THEN
    RETURN '{"outcome":"token_revoked"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'access', astra.access_json(v.role, v.allow, v.deny, v.template))::text;
END
$$;

-- {role} -> ok | not_found (workspace, or a role that is none), access: what the role may do
CREATE FUNCTION astra.role_get(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_role text := p_arg::jsonb ->> 'role';
  v record;
BEGIN
  SELECT r.allow, r.deny, (SELECT p.template #> ARRAY['roles', v_role] FROM public.plans p WHERE p.plan = w.plan) AS template INTO v
  FROM public.workspaces w LEFT JOIN public.roles r ON r.workspace_id = p_workspace AND r.name = v_role
  WHERE w.id = p_workspace;
  IF NOT FOUND OR (v.allow IS NULL AND v.template IS NULL AND v_role NOT IN ('owner', 'admin', 'member', 'viewer')) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'access', astra.access_json(v_role, v.allow, v.deny, v.template))::text;
END
$$;

-- {} -> ok | not_found, data [access]: the four that each workspace has, its template's, its own
CREATE FUNCTION astra.roles_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_roles jsonb;
  v_data jsonb;
BEGIN
  SELECT COALESCE(p.template -> 'roles', '{}') INTO v_roles
  FROM public.workspaces w LEFT JOIN public.plans p ON p.plan = w.plan WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  SELECT jsonb_agg(astra.access_json(n.name, r.allow, r.deny, v_roles -> n.name) ORDER BY n.name COLLATE "C") INTO v_data
  FROM (SELECT unnest(ARRAY['owner', 'admin', 'member', 'viewer']) AS name
        UNION SELECT jsonb_object_keys(v_roles)
        UNION SELECT o.name FROM public.roles o WHERE o.workspace_id = p_workspace) n
  LEFT JOIN public.roles r ON r.workspace_id = p_workspace AND r.name = n.name;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data)::text;
END
$$;

-- {role, allow, deny, now} -> ok | not_found
CREATE FUNCTION astra.role_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status <> 'deleting') THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  INSERT INTO public.roles AS r (workspace_id, name, allow, deny, updated_at)
  VALUES (p_workspace, v_arg ->> 'role', ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'allow')), ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'deny')),
          (v_arg ->> 'now')::timestamptz)
  ON CONFLICT (workspace_id, name) DO UPDATE SET allow = excluded.allow, deny = excluded.deny, updated_at = excluded.updated_at;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {role} -> ok | not_found | in_use: members have it, and nothing else says what it may do
CREATE FUNCTION astra.role_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_role text := p_arg::jsonb ->> 'role';
BEGIN
  IF v_role NOT IN ('owner', 'admin', 'member', 'viewer')
     AND EXISTS (SELECT 1 FROM public.members m WHERE m.workspace_id = p_workspace AND m.role = v_role)
     AND NOT EXISTS (SELECT 1 FROM public.workspaces w JOIN public.plans p ON p.plan = w.plan WHERE w.id = p_workspace AND p.template -> 'roles' ? v_role) THEN
    RETURN '{"outcome":"in_use"}';
  END IF;
  DELETE FROM public.roles r WHERE r.workspace_id = p_workspace AND r.name = v_role;
  RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'ok' ELSE 'not_found' END)::text;
END
$$;

-- {jti, now} -> ok. A token lives a year at most: what was revoked before that is forgotten.
CREATE FUNCTION astra.token_revoke(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_now timestamptz := (p_arg::jsonb ->> 'now')::timestamptz;
BEGIN
  DELETE FROM public.revoked_tokens t WHERE t.workspace_id = p_workspace AND t.revoked_at < v_now - interval '366 days';
  INSERT INTO public.revoked_tokens (workspace_id, jti, revoked_at) VALUES (p_workspace, p_arg::jsonb ->> 'jti', v_now) ON CONFLICT DO NOTHING;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {userId, role, now} -> ok | not_found, member: who is one already keeps their role
CREATE FUNCTION astra.member_add(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_member public.members;
BEGIN
  PERFORM 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status <> 'deleting' FOR KEY SHARE;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  INSERT INTO public.members (workspace_id, user_id, role, created_at)
  VALUES (p_workspace, v_arg ->> 'userId', v_arg ->> 'role', (v_arg ->> 'now')::timestamptz) ON CONFLICT DO NOTHING;
  SELECT m.* INTO v_member FROM public.members m WHERE m.workspace_id = p_workspace AND m.user_id = v_arg ->> 'userId';
  RETURN jsonb_build_object('outcome', 'ok', 'member',
    jsonb_build_object('userId', v_member.user_id, 'role', v_member.role, 'createdAt', astra.ts(v_member.created_at)))::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.access_json(text, text[], text[], jsonb) TO astra_provision, astra_invoke, astra_billing, astra_grants, astra_quota_inside;
GRANT EXECUTE ON FUNCTION astra.access(text, text) TO astra_provision, astra_invoke, astra_billing, astra_grants;
GRANT EXECUTE ON FUNCTION astra.role_get(text, text) TO astra_provision, astra_grants;
GRANT EXECUTE ON FUNCTION astra.roles_list(text, text), astra.role_put(text, text), astra.role_delete(text, text) TO astra_grants;
GRANT EXECUTE ON FUNCTION astra.token_revoke(text, text), astra.member_add(text, text) TO astra_provision;
GRANT EXECUTE ON FUNCTION astra.model_is_allowed(jsonb, text, text) TO astra_quota_inside;

-- As in 0012, with restrictions in it.
CREATE OR REPLACE FUNCTION astra.workspace_json(p_row public.workspaces) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
$$
  SELECT pg_catalog.jsonb_build_object('id', p_row.id, 'displayName', p_row.display_name, 'plan', p_row.plan, 'ownerId', p_row.owner_id,
    'limits', p_row.limits, 'restrictions', p_row.restrictions, 'timeZone', p_row.time_zone, 'status', p_row.status,
    'createdAt', astra.ts(p_row.created_at), 'updatedAt', astra.ts(p_row.updated_at))
$$;

-- As in 0012, with restrictions: the whole of them takes the place of those before.
CREATE OR REPLACE FUNCTION astra.workspace_patch(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_row public.workspaces;
BEGIN
  IF v_arg ->> 'timeZone' IS NOT NULL AND NOT astra.is_time_zone(v_arg ->> 'timeZone') THEN
    RETURN '{"outcome":"time_zone_unknown"}';
  END IF;
  UPDATE public.workspaces w
  SET display_name = COALESCE(v_arg ->> 'displayName', w.display_name),
      plan = COALESCE(v_arg ->> 'plan', w.plan),
      limits = jsonb_strip_nulls(w.limits || COALESCE(NULLIF(v_arg -> 'limits', 'null'), '{}')),
      restrictions = COALESCE(jsonb_strip_nulls(NULLIF(v_arg -> 'restrictions', 'null')), w.restrictions),
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

-- As in 0012 (and 0020), with who asks: tokenId | null (the operator). no_member | token_revoked | model_forbidden {model}; access in an ok document.
SET LOCAL ROLE astra_owner;
GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;
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
$function$;
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;
