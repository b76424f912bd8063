-- Who may do what in this database: the roles, the two schemas, the vector extension.
--
-- Every file here runs in ONE transaction of its own (tools/migrate, or `psql -1 -f`): they use SET LOCAL ROLE.
--
-- astra_owner     owns tables and tenant functions. Nobody logs in as it.
-- astra_operator  owns the operator-wide op_* functions (SECURITY DEFINER) and has policies that let it READ every workspace.
--                 An admin takes it with SET ROLE to run the billing query.
-- astra_provision, astra_invoke, astra_quota, astra_billing
--                 one per deployed function: they log in, own nothing, inherit nothing, cannot bypass row security.
--                 Their passwords are set by tools/migrate from ASTRA_ROLE_PASSWORD; without one they cannot log in over SCRAM.
--
-- Traps: * roles belong to the server, not to the database, so another database's migration may have made them, even at this
--          very moment: losing that race is fine, an existing role with too much power is not.
--        * the migrating user may be a superuser or only a database owner with CREATEROLE (Supabase): the latter must be a member of a role
--          before it can create things as that role, and since PostgreSQL 16 creating a role does not give that by itself.

DO $$
DECLARE
  v_role record;
BEGIN
  FOR v_role IN
    SELECT * FROM (VALUES ('astra_owner', false), ('astra_operator', false), ('astra_provision', true), ('astra_invoke', true),
                          ('astra_quota', true), ('astra_billing', true)) AS r (name, login)
  LOOP
    IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = v_role.name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOINHERIT NOCREATEDB NOCREATEROLE %s', v_role.name,
                       CASE WHEN v_role.login THEN 'LOGIN' ELSE 'NOLOGIN' END);
        IF v_role.login THEN
          -- The request path asks for milliseconds; a statement that hangs must not keep a pooled connection. JIT costs more than it saves.
          EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', v_role.name, '15s');
          EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', v_role.name, '15s');
          EXECUTE format('ALTER ROLE %I SET jit = off', v_role.name);
        END IF;
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;

    IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles
               WHERE rolname = v_role.name
                 AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolcanlogin <> v_role.login)) THEN
      RAISE EXCEPTION 'role % exists with other rights than astra gives it', v_role.name
        USING HINT = 'It must be NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION, and log in only if it is a function''s role.';
    END IF;
    IF v_role.login AND EXISTS (SELECT 1 FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member
                                WHERE r.rolname = v_role.name) THEN
      RAISE EXCEPTION 'role % is a member of another role, it must not be', v_role.name;
    END IF;
  END LOOP;
END
$$;

-- The migrating user becomes a member of the two owning roles, unless it is a superuser and needs no membership.
DO $$
DECLARE
  v_role text;
  v_right text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
  FOREACH v_role IN ARRAY ARRAY['astra_owner', 'astra_operator'] LOOP
    IF NOT pg_has_role(current_user, v_role, v_right) THEN
      EXECUTE format('GRANT %I TO CURRENT_USER', v_role);
    END IF;
  END LOOP;
END
$$;

-- pgvector. Where only a superuser may install it (it is not a trusted extension) it has to be there already.
DO $$
DECLARE
  v_schema text;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_extension WHERE extname = 'vector') THEN
    BEGIN
      CREATE EXTENSION vector WITH SCHEMA public;
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE EXCEPTION 'the extension vector is not installed in this database and % may not install it', current_user
        USING ERRCODE = 'insufficient_privilege', HINT = 'Run CREATE EXTENSION vector as a superuser (or in your provider''s console), then migrate again.';
    END;
  END IF;
  SELECT n.nspname INTO v_schema
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
  IF v_schema <> 'public' THEN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO astra_owner, astra_provision, astra_invoke, astra_quota', v_schema);
  END IF;
END
$$;

DO $$
BEGIN
  -- For the schema of each new workspace's memory, made by astra.create_memory_schema.
  EXECUTE format('GRANT CREATE ON DATABASE %I TO astra_owner', current_database());
END
$$;

-- Whoever can create in a schema of somebody's search_path can put a function of his own under a known name.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO astra_owner;
GRANT USAGE ON SCHEMA public TO astra_operator, astra_provision, astra_invoke, astra_quota, astra_billing;

SET LOCAL ROLE astra_owner;

-- PostgreSQL lets everybody execute a new function. Not here: for these owners the default is nobody.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;

SET LOCAL ROLE astra_operator;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

SET LOCAL ROLE astra_owner;

CREATE SCHEMA astra;
COMMENT ON SCHEMA astra IS 'The functions that astra-edge calls. One call is one statement, in and out as JSON text: see docs/contracts/sql.md.';
REVOKE ALL ON SCHEMA astra FROM PUBLIC;
GRANT USAGE ON SCHEMA astra TO astra_operator, astra_provision, astra_invoke, astra_quota, astra_billing;

-- Small helpers. No SET clause and fully qualified names: the SQL ones are inlined into the caller's statement.

CREATE FUNCTION astra.ts(p_time timestamptz) RETURNS text LANGUAGE sql STABLE STRICT PARALLEL SAFE AS
$$ SELECT pg_catalog.to_char(p_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;
COMMENT ON FUNCTION astra.ts IS 'RFC 3339, UTC, milliseconds.';

-- A product, not a quotient: numeric division picks a scale of its own.
CREATE FUNCTION astra.usd(p_nano bigint) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT p_nano::numeric * 0.000000001 $$;
COMMENT ON FUNCTION astra.usd IS 'Nano-dollars to dollars, exact.';

CREATE FUNCTION astra.nano(p_usd numeric) RETURNS bigint LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS
$$
BEGIN
  IF p_usd * 1000000000 <> pg_catalog.trunc(p_usd * 1000000000) THEN
    RAISE EXCEPTION 'an amount has parts smaller than a nano-dollar' USING ERRCODE = 'numeric_value_out_of_range';
  END IF;
  RETURN (p_usd * 1000000000)::bigint;  -- out of range raises 22003: never clamped
END
$$;
COMMENT ON FUNCTION astra.nano IS 'Dollars to nano-dollars, exact; raises numeric_value_out_of_range when it would not be.';

-- The instant a month begins, in UTC whatever the session's time zone is.
CREATE FUNCTION astra.month_start(p_month date) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT p_month::timestamp AT TIME ZONE 'UTC' $$;

CREATE FUNCTION astra.month_of(p_time timestamptz) RETURNS date LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT pg_catalog.date_trunc('month', p_time AT TIME ZONE 'UTC')::date $$;

CREATE FUNCTION astra.parse_month(p_month text) RETURNS date LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
BEGIN
  IF p_month IS NULL OR p_month !~ '^[0-9]{4}-(0[1-9]|1[0-2])$' OR p_month < '0001' THEN
    RAISE EXCEPTION 'a month is YYYY-MM' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN (p_month || '-01')::date;
END
$$;

-- A page is 1 to 1000 rows, 100 unless told.
CREATE FUNCTION astra.page_limit(p_limit text) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT LEAST(GREATEST(COALESCE(p_limit::int, 100), 1), 1000) $$;

GRANT EXECUTE ON FUNCTION astra.ts(timestamptz), astra.usd(bigint), astra.nano(numeric), astra.month_start(date), astra.month_of(timestamptz),
  astra.parse_month(text), astra.page_limit(text)
TO astra_operator, astra_provision, astra_invoke, astra_quota, astra_billing;
