-- What the invoke-turn function shows of past conversations.
--
-- userId is an owner filter: with it, only that member's sessions, messages and turns exist. Trap: leaving it out shows the whole workspace's, which
-- is right for an admin only; it is the caller who decides, by the token, and never the client.

SET LOCAL ROLE astra_owner;

-- {userId?, after?, limit?} -> ok | not_found, data [{id, agentId, userId, createdAt, updatedAt}] newest first (ids are UUIDv7), next
CREATE FUNCTION astra.sessions_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_user text := v_arg ->> 'userId';
  v_after uuid := (v_arg ->> 'after')::uuid;
  v_data jsonb;
  v_next text;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN jsonb_build_object('outcome', 'not_found', 'data', jsonb_build_array(), 'next', NULL)::text;
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('id', p.id, 'agentId', p.agent_id, 'userId', p.user_id, 'createdAt', astra.ts(p.created_at),
                                               'updatedAt', astra.ts(p.updated_at)) ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.id::text) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT s.*, row_number() OVER (ORDER BY s.id DESC) AS n
        FROM public.sessions s
        WHERE s.workspace_id = p_workspace AND (v_user IS NULL OR s.user_id = v_user) AND (v_after IS NULL OR s.id < v_after)
        ORDER BY s.id DESC LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {sessionId, userId?} -> ok | not_found, session
CREATE FUNCTION astra.session_get(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_session jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  SELECT jsonb_build_object('id', s.id, 'agentId', s.agent_id, 'userId', s.user_id, 'createdAt', astra.ts(s.created_at), 'updatedAt', astra.ts(s.updated_at))
  INTO v_session
  FROM public.sessions s
  WHERE s.workspace_id = p_workspace AND s.id = (v_arg ->> 'sessionId')::uuid AND (v_arg ->> 'userId' IS NULL OR s.user_id = v_arg ->> 'userId');
  RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'ok' ELSE 'not_found' END, 'session', v_session)::text;
END
$$;

-- {sessionId, userId?, after?, limit?} -> ok | not_found, data [{seq, turnId, role, content, createdAt}] oldest first, next (a seq, as text)
CREATE FUNCTION astra.messages_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_session uuid := (v_arg ->> 'sessionId')::uuid;
  v_after bigint := COALESCE((v_arg ->> 'after')::bigint, 0);
  v_data jsonb;
  v_next text;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.sessions s WHERE s.workspace_id = p_workspace AND s.id = v_session
                   AND (v_arg ->> 'userId' IS NULL OR s.user_id = v_arg ->> 'userId')) THEN
    RETURN jsonb_build_object('outcome', 'not_found', 'data', jsonb_build_array(), 'next', NULL)::text;
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('seq', p.seq, 'turnId', p.turn_id, 'role', p.role, 'content', p.content, 'createdAt', astra.ts(p.created_at))
                    ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.seq) FILTER (WHERE p.n = v_limit) END::text
  INTO v_data, v_next
  FROM (SELECT m.*, row_number() OVER (ORDER BY m.seq) AS n
        FROM public.messages m
        WHERE m.workspace_id = p_workspace AND m.session_id = v_session AND m.seq > v_after
        ORDER BY m.seq LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {sessionId, userId?} -> ok | not_found. Messages go with it; its turns stay, they are the bill, but forget the caller's metadata and citations.
CREATE FUNCTION astra.session_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_session uuid := (v_arg ->> 'sessionId')::uuid;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  DELETE FROM public.sessions s
  WHERE s.workspace_id = p_workspace AND s.id = v_session AND (v_arg ->> 'userId' IS NULL OR s.user_id = v_arg ->> 'userId');
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  UPDATE public.turns t SET metadata = NULL, answer = t.answer - 'citations' WHERE t.workspace_id = p_workspace AND t.session_id = v_session;
  RETURN jsonb_build_object('outcome', 'ok')::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.sessions_list(text, text), astra.session_get(text, text), astra.messages_list(text, text),
  astra.session_delete(text, text)
TO astra_invoke;
