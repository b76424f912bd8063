-- A workspace's memory: a schema of its own, mem_<id>, made and dropped here and nowhere else.
--
-- These are the only functions that build SQL from a name. The name is checked by a regular expression first and quoted by %I after. They run as
-- astra_owner (SECURITY DEFINER) because no app role may create anything; so they insist that the caller has set that very workspace as its tenant.
-- The policies name the workspace as a literal: even a table reached by a wrong path shows nothing to another tenant.
--
-- Traps: * CREATE SCHEMA IF NOT EXISTS would take a schema of somebody else's for ours: its owner is checked.
--        * a new column or index for memories needs a migration that walks all schemas mem_*, not only a change here.

SET LOCAL ROLE astra_owner;

CREATE FUNCTION astra.memory_schema(p_workspace text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
BEGIN
  IF p_workspace IS NULL OR p_workspace !~ '^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$' THEN
    RAISE EXCEPTION 'not a workspace id' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN 'mem_' || p_workspace;
END
$$;
COMMENT ON FUNCTION astra.memory_schema IS 'The unquoted name: use it with %I only.';

-- pgvector lives in public here and in extensions elsewhere.
CREATE FUNCTION astra.vector_schema() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector' $$;

CREATE FUNCTION astra.create_memory_schema(p_workspace text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_owner text;
BEGIN
  IF current_setting('astra.workspace', true) IS DISTINCT FROM p_workspace
     OR NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RAISE EXCEPTION 'no such workspace for this tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;

  EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', v_schema);
  SELECT r.rolname INTO v_owner FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = v_schema;
  IF v_owner IS DISTINCT FROM 'astra_owner' THEN
    RAISE EXCEPTION 'the schema of this workspace''s memory belongs to somebody else' USING ERRCODE = 'duplicate_schema';
  END IF;

  EXECUTE format($sql$
    CREATE TABLE IF NOT EXISTS %1$I.memories (
      id         uuid PRIMARY KEY,
      kind       text NOT NULL CHECK (kind IN ('fact', 'preference', 'decision', 'note')),
      content    text NOT NULL,
      embedding  %2$I.vector(384),
      -- 'simple' because a workspace writes in any language: no stemming is better than the wrong one.
      tsv        tsvector GENERATED ALWAYS AS (to_tsvector('pg_catalog.simple'::regconfig, content)) STORED,
      user_id    text,
      session_id uuid,
      turn_id    uuid,
      created_at timestamptz NOT NULL,
      updated_at timestamptz NOT NULL
    )$sql$, v_schema, astra.vector_schema());
  EXECUTE format('CREATE INDEX IF NOT EXISTS memories_tsv ON %I.memories USING gin (tsv)', v_schema);
  EXECUTE format('ALTER TABLE %I.memories ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_schema);
  IF NOT EXISTS (SELECT 1 FROM pg_policies p WHERE p.schemaname = v_schema AND p.tablename = 'memories' AND p.policyname = 'tenant') THEN
    EXECUTE format('CREATE POLICY tenant ON %1$I.memories USING (current_setting(''astra.workspace'', true) = %2$L) '
                   'WITH CHECK (current_setting(''astra.workspace'', true) = %2$L)', v_schema, p_workspace);
  END IF;

  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', v_schema);
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO astra_quota, astra_provision, astra_invoke', v_schema);
  EXECUTE format('GRANT SELECT ON %I.memories TO astra_quota', v_schema);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.memories TO astra_provision, astra_invoke', v_schema);
END
$$;

-- Only inside workspace_delete, which first marks the workspace as deleting.
CREATE FUNCTION astra.drop_memory_schema(p_workspace text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
BEGIN
  IF current_setting('astra.workspace', true) IS DISTINCT FROM p_workspace
     OR NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'deleting') THEN
    RAISE EXCEPTION 'this workspace is not being deleted' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF EXISTS (SELECT 1 FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = v_schema AND r.rolname = 'astra_owner') THEN
    EXECUTE format('DROP SCHEMA %I CASCADE', v_schema);
  END IF;
END
$$;

-- {id, kind, content, embedding?, userId?, sessionId?, turnId?, now} -> ok | not_found. The same id again replaces it.
CREATE FUNCTION astra.memory_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_arg jsonb := p_arg::jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  UPDATE public.quotas q SET has_memories = true WHERE q.workspace_id = p_workspace AND NOT q.has_memories;
  EXECUTE format($sql$
    INSERT INTO %1$I.memories AS m (id, kind, content, embedding, user_id, session_id, turn_id, created_at, updated_at)
    VALUES ($1, $2, $3, $4::%2$I.vector, $5, $6, $7, $8, $8)
    ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, content = excluded.content, embedding = excluded.embedding, user_id = excluded.user_id,
      session_id = excluded.session_id, turn_id = excluded.turn_id, updated_at = excluded.updated_at$sql$, v_schema, astra.vector_schema())
  USING (v_arg ->> 'id')::uuid, v_arg ->> 'kind', v_arg ->> 'content', v_arg ->> 'embedding', v_arg ->> 'userId',
        (v_arg ->> 'sessionId')::uuid, (v_arg ->> 'turnId')::uuid, COALESCE((v_arg ->> 'now')::timestamptz, now());
  RETURN jsonb_build_object('outcome', 'ok')::text;
END
$$;

-- {id} -> ok | not_found
CREATE FUNCTION astra.memory_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_rows bigint;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  EXECUTE format('DELETE FROM %I.memories m WHERE m.id = $1', v_schema) USING (p_arg::jsonb ->> 'id')::uuid;
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  RETURN jsonb_build_object('outcome', CASE WHEN v_rows > 0 THEN 'ok' ELSE 'not_found' END)::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.memory_schema(text), astra.vector_schema() TO astra_provision, astra_invoke, astra_quota;
GRANT EXECUTE ON FUNCTION astra.create_memory_schema(text), astra.drop_memory_schema(text) TO astra_provision;
GRANT EXECUTE ON FUNCTION astra.memory_put(text, text), astra.memory_delete(text, text) TO astra_provision, astra_invoke;
