-- What the provision function calls: workspaces, members, secrets, plans, agents.
--
-- Every tenant function is SECURITY INVOKER and sets the tenant first: row security decides what it sees, not its WHERE clauses alone.
-- Expected outcomes are values ("outcome"), only faults raise. Insert first, then look: `INSERT .. ON CONFLICT DO NOTHING` waits for
-- a concurrent one to commit, and the next statement of a volatile function sees it.

SET LOCAL ROLE astra_owner;

CREATE FUNCTION astra.workspace_json(p_row public.workspaces) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
$$
  SELECT pg_catalog.jsonb_build_object('id', p_row.id, 'displayName', p_row.display_name, 'plan', p_row.plan, 'ownerId', p_row.owner_id,
    'limits', p_row.limits, 'status', p_row.status, 'createdAt', astra.ts(p_row.created_at), 'updatedAt', astra.ts(p_row.updated_at))
$$;

-- {displayName, plan, ownerId, limits, body, now} -> created | same | conflict, workspace
CREATE FUNCTION astra.workspace_create(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  -- "canonical json text": a string that holds JSON; a plain JSON value is taken too.
  v_body jsonb := CASE jsonb_typeof(v_arg -> 'body') WHEN 'string' THEN (v_arg ->> 'body')::jsonb ELSE v_arg -> 'body' END;
  v_schema text := astra.memory_schema(p_workspace);
  v_row public.workspaces;
  v_created boolean;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  INSERT INTO public.workspaces (id, display_name, plan, owner_id, limits, status, create_body, created_at, updated_at)
  VALUES (p_workspace, v_arg ->> 'displayName', v_arg ->> 'plan', v_arg ->> 'ownerId',
          jsonb_strip_nulls(COALESCE(NULLIF(v_arg -> 'limits', 'null'), '{}')), 'active', v_body, v_now, v_now)
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

-- {} -> ok | not_found, workspace
CREATE FUNCTION astra.workspace_get(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_row public.workspaces;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  SELECT w.* INTO v_row FROM public.workspaces w WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found', 'workspace', NULL)::text;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'workspace', astra.workspace_json(v_row))::text;
END
$$;

-- {displayName?, plan?, limits?, now} -> ok | not_found, workspace. limits are merged, a null removes one. Usage is not touched.
CREATE FUNCTION astra.workspace_patch(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_row public.workspaces;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  UPDATE public.workspaces w
  SET display_name = COALESCE(v_arg ->> 'displayName', w.display_name),
      plan = COALESCE(v_arg ->> 'plan', w.plan),
      limits = jsonb_strip_nulls(w.limits || COALESCE(NULLIF(v_arg -> 'limits', 'null'), '{}')),
      updated_at = (v_arg ->> 'now')::timestamptz
  WHERE w.id = p_workspace AND w.status <> 'deleting'
  RETURNING w.* INTO v_row;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found', 'workspace', NULL)::text;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'workspace', astra.workspace_json(v_row))::text;
END
$$;

-- {} -> ok | not_found. The memory schema and all rows go (by ON DELETE CASCADE); the ledger stays, it holds no text.
-- The advisory lock is the one that turn_finish takes: a turn that ends meanwhile is either whole before the deletion or finds the workspace gone.
CREATE FUNCTION astra.workspace_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM pg_advisory_xact_lock(hashtextextended('astra.finish:' || p_workspace, 0));
  UPDATE public.workspaces w SET status = 'deleting' WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  PERFORM astra.drop_memory_schema(p_workspace);
  DELETE FROM public.workspaces w WHERE w.id = p_workspace;
  RETURN jsonb_build_object('outcome', 'ok')::text;
END
$$;

-- {userId, role, byOwner, now} -> ok | not_found | last_owner | owners_only. The workspace's row is locked so that two owners cannot leave at the same moment.
CREATE FUNCTION astra.member_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_user text := v_arg ->> 'userId';
  v_role text := v_arg ->> 'role';
  v_is_owner boolean;
  v_member public.members;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status <> 'deleting' FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  v_is_owner := EXISTS (SELECT 1 FROM public.members m WHERE m.workspace_id = p_workspace AND m.user_id = v_user AND m.role = 'owner');
  -- Who is an owner is for owners (and the operator) to say.
  IF v_is_owner <> (v_role = 'owner') AND NOT COALESCE((v_arg ->> 'byOwner')::boolean, false) THEN
    RETURN jsonb_build_object('outcome', 'owners_only')::text;
  END IF;
  IF v_role <> 'owner' AND v_is_owner
     AND NOT EXISTS (SELECT 1 FROM public.members m WHERE m.workspace_id = p_workspace AND m.user_id <> v_user AND m.role = 'owner') THEN
    RETURN jsonb_build_object('outcome', 'last_owner')::text;
  END IF;
  INSERT INTO public.members AS m (workspace_id, user_id, role, created_at)
  VALUES (p_workspace, v_user, v_role, (v_arg ->> 'now')::timestamptz)
  ON CONFLICT (workspace_id, user_id) DO UPDATE SET role = excluded.role
  RETURNING m.* INTO v_member;
  RETURN jsonb_build_object('outcome', 'ok', 'member',
    jsonb_build_object('userId', v_member.user_id, 'role', v_member.role, 'createdAt', astra.ts(v_member.created_at)))::text;
END
$$;

-- {after?, limit?} -> ok | not_found, data [{userId, role, createdAt}], next
CREATE FUNCTION astra.members_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_data jsonb;
  v_next text;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN jsonb_build_object('outcome', 'not_found', 'data', jsonb_build_array(), 'next', NULL)::text;
  END IF;
  -- One row more than asked for says whether there is a next page.
  SELECT COALESCE(jsonb_agg(jsonb_build_object('userId', p.user_id, 'role', p.role, 'createdAt', astra.ts(p.created_at)) ORDER BY p.user_id COLLATE "C")
                    FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.user_id) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT m.user_id, m.role, m.created_at, row_number() OVER (ORDER BY m.user_id COLLATE "C") AS n
        FROM public.members m
        WHERE m.workspace_id = p_workspace AND (v_arg ->> 'after' IS NULL OR m.user_id COLLATE "C" > (v_arg ->> 'after'))
        ORDER BY m.user_id COLLATE "C" LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {userId, byOwner} -> ok | not_found | last_owner | owners_only
CREATE FUNCTION astra.member_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_user text := v_arg ->> 'userId';
  v_role text;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  PERFORM 1 FROM public.workspaces w WHERE w.id = p_workspace FOR NO KEY UPDATE;
  SELECT m.role INTO v_role FROM public.members m WHERE m.workspace_id = p_workspace AND m.user_id = v_user;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  IF v_role = 'owner' AND NOT COALESCE((v_arg ->> 'byOwner')::boolean, false) THEN
    RETURN jsonb_build_object('outcome', 'owners_only')::text;
  END IF;
  IF v_role = 'owner'
     AND NOT EXISTS (SELECT 1 FROM public.members m WHERE m.workspace_id = p_workspace AND m.user_id <> v_user AND m.role = 'owner') THEN
    RETURN jsonb_build_object('outcome', 'last_owner')::text;
  END IF;
  DELETE FROM public.members m WHERE m.workspace_id = p_workspace AND m.user_id = v_user;
  RETURN jsonb_build_object('outcome', 'ok')::text;
END
$$;

-- {name, keyId, nonce, ciphertext (base64), now} -> ok | not_found. `excluded` would need the right to read what is written: variables do not.
CREATE FUNCTION astra.secret_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_key text := v_arg ->> 'keyId';
  v_nonce bytea := decode(v_arg ->> 'nonce', 'base64');
  v_ciphertext bytea := decode(v_arg ->> 'ciphertext', 'base64');
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status <> 'deleting') THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  INSERT INTO public.secrets AS s (workspace_id, name, key_id, nonce, ciphertext, created_at, updated_at)
  VALUES (p_workspace, v_arg ->> 'name', v_key, v_nonce, v_ciphertext, v_now, v_now)
  ON CONFLICT (workspace_id, name) DO UPDATE SET key_id = v_key, nonce = v_nonce, ciphertext = v_ciphertext, updated_at = v_now;
  RETURN jsonb_build_object('outcome', 'ok')::text;
END
$$;

-- {name} -> ok | not_found, secret {name, createdAt, updatedAt}: never the value
CREATE FUNCTION astra.secret_get(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_secret jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  SELECT jsonb_build_object('name', s.name, 'createdAt', astra.ts(s.created_at), 'updatedAt', astra.ts(s.updated_at)) INTO v_secret
  FROM public.secrets s WHERE s.workspace_id = p_workspace AND s.name = p_arg::jsonb ->> 'name';
  RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'ok' ELSE 'not_found' END, 'secret', v_secret)::text;
END
$$;

-- {name} -> ok | not_found
CREATE FUNCTION astra.secret_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  DELETE FROM public.secrets s WHERE s.workspace_id = p_workspace AND s.name = p_arg::jsonb ->> 'name';
  RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'ok' ELSE 'not_found' END)::text;
END
$$;

-- {after?, limit?} -> ok | not_found, data [{name, createdAt, updatedAt}], next
CREATE FUNCTION astra.secrets_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_data jsonb;
  v_next text;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN jsonb_build_object('outcome', 'not_found', 'data', jsonb_build_array(), 'next', NULL)::text;
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('name', p.name, 'createdAt', astra.ts(p.created_at), 'updatedAt', astra.ts(p.updated_at))
                    ORDER BY p.name COLLATE "C") FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.name) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT s.name, s.created_at, s.updated_at, row_number() OVER (ORDER BY s.name COLLATE "C") AS n
        FROM public.secrets s
        WHERE s.workspace_id = p_workspace AND (v_arg ->> 'after' IS NULL OR s.name COLLATE "C" > (v_arg ->> 'after'))
        ORDER BY s.name COLLATE "C" LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- The agents that a workspace has in effect: its own, and those of its plan's template that it has not replaced by one of the same id.
CREATE FUNCTION astra.effective_agents(p_workspace text)
RETURNS TABLE (id text, source text, definition jsonb, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT a.id, 'own', a.definition, a.created_at, a.updated_at FROM public.agents a WHERE a.workspace_id = p_workspace
  UNION ALL
  SELECT e.value ->> 'id', 'template', e.value, p.updated_at, p.updated_at
  FROM public.workspaces w
  JOIN public.plans p ON p.plan = w.plan
  CROSS JOIN LATERAL jsonb_array_elements(p.template -> 'agents') e
  WHERE w.id = p_workspace
    AND NOT EXISTS (SELECT 1 FROM public.agents o WHERE o.workspace_id = p_workspace AND o.id = e.value ->> 'id')
$$;

-- {} -> ok | not_found, data [{id, source: own|template, definition, createdAt, updatedAt}]
CREATE FUNCTION astra.agents_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_data jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN jsonb_build_object('outcome', 'not_found', 'data', jsonb_build_array())::text;
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('id', a.id, 'source', a.source, 'definition', a.definition,
                                               'createdAt', astra.ts(a.created_at), 'updatedAt', astra.ts(a.updated_at)) ORDER BY a.id COLLATE "C"), '[]')
  INTO v_data FROM astra.effective_agents(p_workspace) a;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data)::text;
END
$$;

-- {id, definition, now} -> ok | limit | not_found. The workspace's row is locked so that two at once cannot pass maxAgents together.
CREATE FUNCTION astra.agent_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_id text := v_arg ->> 'id';
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_max bigint;
  v_count bigint;
  v_known boolean;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  SELECT (w.limits ->> 'maxAgents')::bigint INTO v_max
  FROM public.workspaces w WHERE w.id = p_workspace AND w.status <> 'deleting' FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  SELECT count(*), COALESCE(bool_or(a.id = v_id), false) INTO v_count, v_known FROM astra.effective_agents(p_workspace) a;
  IF NOT v_known AND v_max IS NOT NULL AND v_count >= v_max THEN
    RETURN jsonb_build_object('outcome', 'limit', 'limit', 'maxAgents', 'max', v_max, 'used', v_count)::text;
  END IF;
  INSERT INTO public.agents AS a (workspace_id, id, definition, created_at, updated_at)
  VALUES (p_workspace, v_id, v_arg -> 'definition', v_now, v_now)
  ON CONFLICT (workspace_id, id) DO UPDATE SET definition = excluded.definition, updated_at = excluded.updated_at;
  RETURN jsonb_build_object('outcome', 'ok')::text;
END
$$;

-- {id} -> ok | not_found. Own agents only; if it stood in for a template's agent, that one is in effect again.
CREATE FUNCTION astra.agent_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  DELETE FROM public.agents a WHERE a.workspace_id = p_workspace AND a.id = p_arg::jsonb ->> 'id';
  RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'ok' ELSE 'not_found' END)::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.workspace_json(public.workspaces) TO astra_operator, astra_provision, astra_quota, astra_billing;
GRANT EXECUTE ON FUNCTION astra.workspace_get(text, text) TO astra_provision, astra_quota, astra_billing;
GRANT EXECUTE ON FUNCTION astra.effective_agents(text) TO astra_provision, astra_quota;
GRANT EXECUTE ON FUNCTION astra.workspace_create(text, text), astra.workspace_patch(text, text), astra.workspace_delete(text, text),
  astra.member_put(text, text), astra.members_list(text, text), astra.member_delete(text, text),
  astra.secret_put(text, text), astra.secret_get(text, text), astra.secret_delete(text, text), astra.secrets_list(text, text),
  astra.agents_list(text, text), astra.agent_put(text, text), astra.agent_delete(text, text)
TO astra_provision;

-- Operator-wide. Owned by astra_operator, whose policies see every workspace; it may create in astra only while this file runs.
GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;

-- {after?, limit?} -> data [workspace], next
CREATE FUNCTION astra.op_workspaces_list(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_data jsonb;
  v_next text;
BEGIN
  SELECT COALESCE(jsonb_agg(p.doc ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.id) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT w.id, astra.workspace_json(w) AS doc, row_number() OVER (ORDER BY w.id) AS n
        FROM public.workspaces w
        WHERE v_arg ->> 'after' IS NULL OR w.id > v_arg ->> 'after'
        ORDER BY w.id LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {plan, template, sourceYaml, now} -> version. The same bytes again: the same version.
CREATE FUNCTION astra.op_plan_put(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_version int;
BEGIN
  INSERT INTO public.plans AS p (plan, version, template, source_yaml, updated_at)
  VALUES (v_arg ->> 'plan', 1, v_arg -> 'template', v_arg ->> 'sourceYaml', (v_arg ->> 'now')::timestamptz)
  ON CONFLICT (plan) DO UPDATE
    SET version = p.version + 1, template = excluded.template, source_yaml = excluded.source_yaml, updated_at = excluded.updated_at
    WHERE (p.source_yaml, p.template) IS DISTINCT FROM (excluded.source_yaml, excluded.template)
  RETURNING p.version INTO v_version;
  IF NOT FOUND THEN
    SELECT p.version INTO v_version FROM public.plans p WHERE p.plan = v_arg ->> 'plan';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'version', v_version)::text;
END
$$;

-- {plan} -> ok | not_found, plan, version, template, sourceYaml, updatedAt
CREATE FUNCTION astra.op_plan_get(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_doc jsonb;
BEGIN
  SELECT jsonb_build_object('outcome', 'ok', 'plan', p.plan, 'version', p.version, 'template', p.template, 'sourceYaml', p.source_yaml,
                            'updatedAt', astra.ts(p.updated_at))
  INTO v_doc FROM public.plans p WHERE p.plan = p_arg::jsonb ->> 'plan';
  RETURN COALESCE(v_doc, jsonb_build_object('outcome', 'not_found'))::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.op_workspaces_list(text), astra.op_plan_put(text), astra.op_plan_get(text) TO astra_provision;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;
