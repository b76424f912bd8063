-- A workspace's end, and all of it to take along.
--
-- Erased: everything that the workspace owns. What stays is the bill's record: the ledger, without who asked. The ledger is append-only for everybody else; the one column
-- that names a person may be blanked by astra_eraser's function, for a workspace that is being deleted.

DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_eraser') THEN
    BEGIN
      CREATE ROLE astra_eraser NOINHERIT NOCREATEDB NOCREATEROLE NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_eraser'
             AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolcanlogin)) THEN
    RAISE EXCEPTION 'role astra_eraser exists with other rights than astra gives it';
  END IF;
  IF NOT pg_has_role(current_user, 'astra_eraser', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
    GRANT astra_eraser TO CURRENT_USER;
  END IF;
END
$$;
GRANT USAGE ON SCHEMA public TO astra_eraser;
SET LOCAL ROLE astra_owner;
GRANT USAGE, CREATE ON SCHEMA astra TO astra_eraser;
GRANT EXECUTE ON FUNCTION astra.tenant() TO astra_eraser;
CREATE POLICY eraser ON public.ledger TO astra_eraser USING (workspace_id = (SELECT astra.tenant())) WITH CHECK (workspace_id = (SELECT astra.tenant()));
CREATE POLICY eraser ON public.workspaces FOR SELECT TO astra_eraser USING (id = (SELECT astra.tenant()));
GRANT SELECT (workspace_id, user_id) ON public.ledger TO astra_eraser;
GRANT UPDATE (user_id) ON public.ledger TO astra_eraser;
GRANT SELECT (id, status) ON public.workspaces TO astra_eraser;

-- As in 0002; astra_eraser, who has the right to that one column, gets through.
CREATE OR REPLACE FUNCTION astra.ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF NOT (TG_OP = 'UPDATE' AND current_user = 'astra_eraser') AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = current_user AND r.rolsuper) THEN
    RAISE EXCEPTION 'the ledger is append-only: a correction is a new entry' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NULL;
END
$$;
GRANT EXECUTE ON FUNCTION astra.ledger_is_append_only() TO astra_eraser;

SET LOCAL ROLE astra_eraser;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Of a workspace that is being deleted: whoever asked is forgotten. How many entries stay.
CREATE FUNCTION astra.ledger_forget(p_workspace text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_count bigint;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'deleting') THEN
    RAISE EXCEPTION 'this workspace is not being deleted' USING ERRCODE = 'insufficient_privilege';
  END IF;
  UPDATE public.ledger l SET user_id = '' WHERE l.workspace_id = p_workspace;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$$;
GRANT EXECUTE ON FUNCTION astra.ledger_forget(text) TO astra_owner;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_eraser;

-- {members, agents, ..: how many of each}: what is removed with a workspace, and what stays. As astra_owner, because nobody else may see all of it.
CREATE FUNCTION astra.workspace_erase(p_workspace text) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_removed jsonb;
  v_memories bigint := 0;
  v_kept bigint;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace THEN
    RAISE EXCEPTION 'no such workspace for this tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF to_regclass(format('%I.memories', astra.memory_schema(p_workspace))) IS NOT NULL THEN
    EXECUTE format('SELECT count(*) FROM %I.memories', astra.memory_schema(p_workspace)) INTO v_memories;
  END IF;
  v_removed := jsonb_build_object(
    'members', (SELECT count(*) FROM public.members m WHERE m.workspace_id = p_workspace),
    'roles', (SELECT count(*) FROM public.roles r WHERE r.workspace_id = p_workspace),
    'agents', (SELECT count(*) FROM public.agents a WHERE a.workspace_id = p_workspace),
    'secrets', (SELECT count(*) FROM public.secrets s WHERE s.workspace_id = p_workspace),
    'sessions', (SELECT count(*) FROM public.sessions s WHERE s.workspace_id = p_workspace),
    'messages', (SELECT count(*) FROM public.messages m WHERE m.workspace_id = p_workspace),
    'turns', (SELECT count(*) FROM public.turns t WHERE t.workspace_id = p_workspace),
    'memories', v_memories,
    'grants', (SELECT count(*) FROM public.grants g WHERE g.workspace_id = p_workspace));
  PERFORM astra.drop_memory_schema(p_workspace);
  DELETE FROM public.quota_events e WHERE e.workspace_id = p_workspace;
  DELETE FROM public.revoked_tokens t WHERE t.workspace_id = p_workspace;
  v_kept := astra.ledger_forget(p_workspace);
  DELETE FROM public.workspaces w WHERE w.id = p_workspace;
  RETURN jsonb_build_object('removed', v_removed, 'kept', jsonb_build_object('ledgerEntries', v_kept));
END
$$;
GRANT EXECUTE ON FUNCTION astra.workspace_erase(text) TO astra_provision;

-- {} -> ok {removed, kept} | not_found. As in 0005; it says what it did. (Holds and windows are the counter's to forget.)
CREATE OR REPLACE FUNCTION astra.workspace_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('astra.finish:' || p_workspace, 0));
  UPDATE public.workspaces w SET status = 'deleting' WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  RETURN (jsonb_build_object('outcome', 'ok') || astra.workspace_erase(p_workspace))::text;
END
$$;

-- {after?: "SECTION KEY", limit?} -> ok | not_found, lines: JSON lines {type, ..}, each with its line feed; next: where the next page begins.
-- In sections, each in the order of its primary key, so that a page costs as much as it holds. No secret's value, and no embedding: both are made from what is here or are
-- the deployment's. As astra_owner, because nobody else may see all of it; the proof says whose it is.
CREATE FUNCTION astra.workspace_export(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_left int := astra.page_limit(v_arg ->> 'limit');
  v_section int := COALESCE(split_part(v_arg ->> 'after', ' ', 1)::int, 1);
  v_key text := NULLIF(substr(v_arg ->> 'after', length(split_part(v_arg ->> 'after', ' ', 1)) + 2), '');
  v_kinds text[] := ARRAY['workspace', 'member', 'role', 'agent', 'secret', 'session', 'message', 'turn', 'ledgerEntry', 'grant', 'receivedGrant', 'memory'];
  v_lines text := '';
  v_schema text := astra.memory_schema(p_workspace);
  v_rows refcursor;
  v record;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace OR NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  WHILE v_section <= cardinality(v_kinds) LOOP
    CASE v_kinds[v_section]
      WHEN 'workspace' THEN
        OPEN v_rows FOR SELECT '-' AS key, astra.workspace_json(w) AS doc FROM public.workspaces w WHERE w.id = p_workspace AND v_key IS NULL LIMIT v_left;
      WHEN 'member' THEN
        OPEN v_rows FOR SELECT m.user_id AS key, to_jsonb(m) - 'workspace_id' AS doc FROM public.members m
          WHERE m.workspace_id = p_workspace AND (v_key IS NULL OR m.user_id > v_key) ORDER BY m.user_id LIMIT v_left;
      WHEN 'role' THEN
        OPEN v_rows FOR SELECT r.name AS key, to_jsonb(r) - 'workspace_id' AS doc FROM public.roles r
          WHERE r.workspace_id = p_workspace AND (v_key IS NULL OR r.name > v_key) ORDER BY r.name LIMIT v_left;
      WHEN 'agent' THEN
        -- Where models run is the deployment's own business.
        OPEN v_rows FOR SELECT a.id AS key, jsonb_set(to_jsonb(a) - 'workspace_id', '{definition}', a.definition #- '{model,endpoint}') AS doc FROM public.agents a
          WHERE a.workspace_id = p_workspace AND (v_key IS NULL OR a.id > v_key) ORDER BY a.id LIMIT v_left;
      WHEN 'secret' THEN
        OPEN v_rows FOR SELECT s.name AS key, jsonb_build_object('name', s.name, 'created_at', s.created_at, 'updated_at', s.updated_at) AS doc FROM public.secrets s
          WHERE s.workspace_id = p_workspace AND (v_key IS NULL OR s.name > v_key) ORDER BY s.name LIMIT v_left;
      WHEN 'session' THEN
        OPEN v_rows FOR SELECT s.id::text AS key, to_jsonb(s) - 'workspace_id' AS doc FROM public.sessions s
          WHERE s.workspace_id = p_workspace AND (v_key IS NULL OR s.id > v_key::uuid) ORDER BY s.id LIMIT v_left;
      WHEN 'message' THEN
        OPEN v_rows FOR SELECT m.session_id || ' ' || m.seq AS key, to_jsonb(m) - 'workspace_id' AS doc FROM public.messages m
          WHERE m.workspace_id = p_workspace
            AND (v_key IS NULL OR (m.session_id, m.seq) > (split_part(v_key, ' ', 1)::uuid, split_part(v_key, ' ', 2)::bigint))
          ORDER BY m.session_id, m.seq LIMIT v_left;
      WHEN 'turn' THEN
        OPEN v_rows FOR SELECT t.id::text AS key, to_jsonb(t) - 'workspace_id' AS doc FROM public.turns t
          WHERE t.workspace_id = p_workspace AND (v_key IS NULL OR t.id > v_key::uuid) ORDER BY t.id LIMIT v_left;
      WHEN 'ledgerEntry' THEN
        OPEN v_rows FOR SELECT l.seq::text AS key, to_jsonb(l) - 'workspace_id' AS doc FROM public.ledger l
          WHERE l.workspace_id = p_workspace AND (v_key IS NULL OR l.seq > v_key::bigint) ORDER BY l.seq LIMIT v_left;
      WHEN 'grant' THEN
        OPEN v_rows FOR SELECT g.id::text AS key, to_jsonb(g) - 'workspace_id' AS doc FROM public.grants g
          WHERE g.workspace_id = p_workspace AND (v_key IS NULL OR g.id > v_key::uuid) ORDER BY g.id LIMIT v_left;
      WHEN 'receivedGrant' THEN
        OPEN v_rows FOR SELECT g.id::text AS key, to_jsonb(g) - 'workspace_id' AS doc FROM public.received_grants g
          WHERE g.workspace_id = p_workspace AND (v_key IS NULL OR g.id > v_key::uuid) ORDER BY g.id LIMIT v_left;
      WHEN 'memory' THEN
        OPEN v_rows FOR EXECUTE format('SELECT m.id::text AS key, to_jsonb(m) - ''embedding'' - ''tsv'' AS doc FROM %I.memories m
          WHERE $1 IS NULL OR m.id > $1 ORDER BY m.id LIMIT $2', v_schema) USING v_key::uuid, v_left;
    END CASE;
    LOOP
      FETCH v_rows INTO v;
      EXIT WHEN NOT FOUND;
      v_key := v.key;
      v_left := v_left - 1;
      v_lines := v_lines || (jsonb_build_object('type', v_kinds[v_section]) || v.doc)::text || E'\n';
    END LOOP;
    CLOSE v_rows;
    IF v_left = 0 THEN
      RETURN jsonb_build_object('outcome', 'ok', 'lines', v_lines, 'next', v_section || ' ' || v_key)::text;
    END IF;
    v_section := v_section + 1;
    v_key := NULL;
  END LOOP;
  RETURN jsonb_build_object('outcome', 'ok', 'lines', v_lines, 'next', NULL)::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.workspace_export(text, text) TO astra_provision;
