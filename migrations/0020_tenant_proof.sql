-- The tenant of a statement is proved, not said.
--
-- Until here the tenant was the setting astra.workspace, which anybody who can run SQL can set. Now each call begins with a proof that the function made with a key
-- that no app role can read (astra_kernel::proof): astra.enter keeps it for the transaction, and every policy asks astra.tenant(), which verifies it. SQL that
-- somebody smuggles into a statement can therefore neither become another tenant nor speak as another caller. All it could do is use the proof that is there.
--
-- Traps: * astra.tenant() stands in policies as a subquery, so that a statement verifies once and not once for each row.
--        * a proof that does not verify is an error, not an empty answer: else keys that differ would look like workspaces that do not exist.
--        * a transaction without a proof sees nothing: the setting is NULL before it was ever set on a connection, and '' after.
--        * an expired proof is refused by the database's clock; a function's clock may be behind it by five minutes.
--
-- The keys are written by tools/migrate from TENANT_KEYS: what HMAC-SHA256 (RFC 2104) makes of a key before it sees a message, the two padded blocks.

SET LOCAL ROLE astra_owner;

CREATE TABLE astra.tenant_keys (
  kid       text PRIMARY KEY,
  inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
  outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64)
);
REVOKE ALL ON astra.tenant_keys FROM PUBLIC;
COMMENT ON TABLE astra.tenant_keys IS 'Only astra_owner, as whom nobody logs in, may read them.';

-- The proof: MAC WORKSPACE EXPIRES KID ACTOR. Keeps it for this transaction; the workspace that it names. What it is worth is seen when a row is asked for.
CREATE FUNCTION astra.enter(p_proof text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
  PERFORM pg_catalog.set_config('astra.proof', p_proof, true);
  RETURN pg_catalog.split_part(p_proof, ' ', 2);
END
$$;

-- The keys as constants: a session reads them once, when it plans astra.tenant(), which is IMMUTABLE's meaning. Whoever changes the keys changes astra.tenant() in the
-- same transaction (ALTER FUNCTION astra.tenant() COST .. does), so that each session plans it anew; tools/migrate does both. Reading the table each time would
-- cost half as much again as verifying.
CREATE FUNCTION astra.tenant_kids() RETURNS text[] LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$ BEGIN RETURN (SELECT array_agg(k.kid ORDER BY k.kid) FROM astra.tenant_keys k); END $$;
CREATE FUNCTION astra.tenant_inners() RETURNS bytea[] LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$ BEGIN RETURN (SELECT array_agg(k.inner_pad ORDER BY k.kid) FROM astra.tenant_keys k); END $$;
CREATE FUNCTION astra.tenant_outers() RETURNS bytea[] LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$ BEGIN RETURN (SELECT array_agg(k.outer_pad ORDER BY k.kid) FROM astra.tenant_keys k); END $$;

-- The workspace of the transaction's proof; NULL without one. STABLE: the proof of a statement does not change while it runs. It runs for each statement of a turn, some
-- thirty times: no SET clause, all names in full.
CREATE FUNCTION astra.tenant() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED AS
$$
DECLARE
  v_proof text := pg_catalog.current_setting('astra.proof', true);
  v_key int;
BEGIN
  IF v_proof IS NULL OR v_proof OPERATOR(pg_catalog.=) '' THEN
    RETURN NULL;
  END IF;
  v_key := pg_catalog.array_position(astra.tenant_kids(), pg_catalog.split_part(v_proof, ' ', 4));
  IF pg_catalog.sha256((astra.tenant_outers())[v_key] OPERATOR(pg_catalog.||) pg_catalog.sha256((astra.tenant_inners())[v_key]
       OPERATOR(pg_catalog.||) pg_catalog.convert_to(pg_catalog.substr(v_proof, 66), 'UTF8')))
     IS DISTINCT FROM pg_catalog.decode(pg_catalog.left(v_proof, 64), 'hex') THEN
    RAISE EXCEPTION 'the proof of a tenant does not verify: TENANT_KEYS of the function are not those that astra-migrate was given'
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF pg_catalog.split_part(v_proof, ' ', 3)::bigint OPERATOR(pg_catalog.<) EXTRACT(epoch FROM pg_catalog.now()) THEN
    RAISE EXCEPTION 'the proof of a tenant has expired: the function''s clock is behind the database''s' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN pg_catalog.split_part(v_proof, ' ', 2);
END
$$;

-- Who asks, as JSON; NULL when nobody does. Only after astra.tenant() has verified the proof in this statement.
CREATE FUNCTION astra.actor() RETURNS text LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS
$$
DECLARE
  v_proof text := pg_catalog.current_setting('astra.proof', true);
BEGIN
  -- After the fourth blank.
  RETURN NULLIF(substr(v_proof, length(concat_ws(' ', split_part(v_proof, ' ', 1), split_part(v_proof, ' ', 2), split_part(v_proof, ' ', 3),
                                                 split_part(v_proof, ' ', 4))) + 2), '');
END
$$;

GRANT EXECUTE ON FUNCTION astra.enter(text), astra.tenant() TO astra_provision, astra_invoke, astra_quota, astra_billing;

-- A turn's calls run some thirty statements, and a proof takes some microseconds: so they verify it once. Their functions are SECURITY DEFINER and belong to
-- astra_quota_inside, as whom nobody logs in; they put the verified workspace into astra.workspace, and only that role's policies go by it. astra_quota itself keeps no
-- right to any table: whatever SQL it is made to run, all that it can do is call them.
RESET ROLE;
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_quota_inside') THEN
    BEGIN
      CREATE ROLE astra_quota_inside NOINHERIT NOCREATEDB NOCREATEROLE NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_quota_inside'
             AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolcanlogin)) THEN
    RAISE EXCEPTION 'role astra_quota_inside exists with other rights than astra gives it';
  END IF;
  IF NOT pg_has_role(current_user, 'astra_quota_inside', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
    GRANT astra_quota_inside TO CURRENT_USER;
  END IF;
END
$$;
-- The functions' owner hands them over.
DO $$
BEGIN
  IF NOT pg_has_role('astra_owner', 'astra_quota_inside', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
    GRANT astra_quota_inside TO astra_owner;
  END IF;
END
$$;
GRANT USAGE ON SCHEMA public TO astra_quota_inside;
SET LOCAL ROLE astra_owner;
REVOKE EXECUTE ON FUNCTION astra.workspace_get(text, text) FROM astra_quota;
GRANT USAGE, CREATE ON SCHEMA astra TO astra_quota_inside;

-- What astra_quota may do with tables, astra_quota_inside may from now on, and astra_quota not any more; it keeps the right to execute.
DO $$
DECLARE
  v record;
  v_columns text;
BEGIN
  FOR v IN
    SELECT c.oid::regclass AS name, a.privilege_type AS what, NULL AS col
    FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE a.grantee = 'astra_quota'::regrole AND c.relkind IN ('r', 'p')
    UNION ALL
    SELECT t.attrelid::regclass, a.privilege_type, t.attname
    FROM pg_attribute t CROSS JOIN LATERAL aclexplode(t.attacl) a WHERE a.grantee = 'astra_quota'::regrole
  LOOP
    v_columns := CASE WHEN v.col IS NULL THEN '' ELSE format('(%I)', v.col) END;
    EXECUTE format('GRANT %s %s ON %s TO astra_quota_inside', v.what, v_columns, v.name);
    EXECUTE format('REVOKE %s %s ON %s FROM astra_quota', v.what, v_columns, v.name);
  END LOOP;
  FOR v IN SELECT p.oid::regprocedure AS name FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a
           WHERE a.grantee = 'astra_quota'::regrole AND p.pronamespace = 'astra'::regnamespace AND p.proowner = 'astra_owner'::regrole
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO astra_quota_inside', v.name);
  END LOOP;
  FOR v IN SELECT n.nspname AS name FROM pg_namespace n WHERE n.nspname LIKE 'mem\_%' AND n.nspowner = 'astra_owner'::regrole LOOP
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM astra_quota', v.name);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO astra_quota_inside', v.name);
  END LOOP;
END
$$;

-- Every policy that went by the setting goes by the proof; astra_quota_inside's by what its functions have verified.
DO $$
DECLARE
  v record;
  v_setting text;
  v_proof text;
BEGIN
  FOR v IN SELECT p.schemaname, p.tablename, p.qual FROM pg_policies p
           WHERE p.policyname = 'tenant' AND (p.schemaname = 'public' OR p.schemaname LIKE 'mem\_%')
  LOOP
    v_setting := replace(v.qual, 'current_setting(''astra.workspace''::text, true)', '(SELECT current_setting(''astra.workspace'', true))');
    v_proof := replace(v.qual, 'current_setting(''astra.workspace''::text, true)', '(SELECT astra.tenant())');
    IF v_proof = v.qual THEN
      RAISE EXCEPTION 'the policy of %.% does not go by the tenant', v.schemaname, v.tablename;
    END IF;
    EXECUTE format('ALTER POLICY tenant ON %I.%I TO astra_owner, astra_provision, astra_invoke, astra_quota, astra_billing USING %s WITH CHECK %s',
                   v.schemaname, v.tablename, v_proof, v_proof);
    EXECUTE format('CREATE POLICY inside ON %I.%I TO astra_quota_inside USING %s WITH CHECK %s', v.schemaname, v.tablename, v_setting, v_setting);
  END LOOP;
END
$$;

-- As in 0004, with these policies and roles.
CREATE OR REPLACE FUNCTION astra.create_memory_schema(p_workspace text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_owner text;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace OR NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
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
    EXECUTE format($sql$CREATE POLICY tenant ON %1$I.memories TO astra_owner, astra_provision, astra_invoke, astra_billing
                   USING ((SELECT astra.tenant()) = %2$L) WITH CHECK ((SELECT astra.tenant()) = %2$L)$sql$, v_schema, p_workspace);
    EXECUTE format($sql$CREATE POLICY inside ON %1$I.memories TO astra_quota_inside USING ((SELECT current_setting('astra.workspace', true)) = %2$L)
                   WITH CHECK ((SELECT current_setting('astra.workspace', true)) = %2$L)$sql$, v_schema, p_workspace);
  END IF;

  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', v_schema);
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO astra_quota_inside, astra_provision, astra_invoke', v_schema);
  EXECUTE format('GRANT SELECT ON %I.memories TO astra_quota_inside', v_schema);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.memories TO astra_provision, astra_invoke', v_schema);
END
$$;

CREATE OR REPLACE FUNCTION astra.drop_memory_schema(p_workspace text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace
     OR NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'deleting') THEN
    RAISE EXCEPTION 'this workspace is not being deleted' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF EXISTS (SELECT 1 FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = v_schema AND r.rolname = 'astra_owner') THEN
    EXECUTE format('DROP SCHEMA %I CASCADE', v_schema);
  END IF;
END
$$;

-- The other functions as they are: the counter's verify the proof where they took the tenant from their caller, the rest leave it to the policies.
DO $$
DECLARE
  v_function record;
  v_new text;
BEGIN
  FOR v_function IN SELECT p.oid, p.oid::regprocedure AS name, p.proconfig,
                           has_function_privilege('astra_quota', p.oid, 'EXECUTE') AND pg_get_function_arguments(p.oid) = 'p_workspace text, p_arg text' AS is_counters
                    FROM pg_proc p
                    WHERE p.pronamespace = 'astra'::regnamespace AND (p.prosrc LIKE '%astra.workspace'', p_workspace%' OR p.proname IN ('turns_many', 'counter_many'))
  LOOP
    v_new := pg_get_functiondef(v_function.oid);
    IF v_function.is_counters THEN
      v_new := regexp_replace(v_new, 'set_config\(''astra\.workspace'', p_workspace, true\)', 'set_config(''astra.workspace'', astra.tenant(), true)', 'g');
    ELSE
      v_new := regexp_replace(v_new, '\n *PERFORM (pg_catalog\.)?set_config\(''astra\.workspace'', p_workspace, true\);', '', 'g');
    END IF;
    IF v_new LIKE '%''astra.workspace'', p_workspace%' OR v_new LIKE '%current_setting(''astra.workspace''%' THEN
      RAISE EXCEPTION 'a function still takes the tenant from its caller: %', v_function.name;
    END IF;
    EXECUTE v_new;
    IF v_function.is_counters THEN
      IF v_function.proconfig IS NULL OR NOT 'search_path=pg_catalog, pg_temp' = ANY (v_function.proconfig) THEN
        RAISE EXCEPTION '% would run with the search path of its caller', v_function.name;
      END IF;
      EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', v_function.name);
      EXECUTE format('ALTER FUNCTION %s OWNER TO astra_quota_inside', v_function.name);
    END IF;
  END LOOP;
END
$$;

REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;
