-- Who did what to what, allowed or denied: the audit log. Ids, roles, limits and names of settings; never a secret's value, a text or a template's source.
--
-- Append-only by rights: no role that logs in may write it. Entries come from triggers on what is changed and from audit_add, both SECURITY DEFINER as astra_owner; who did it is
-- the caller of the proof (0020), which no app role can make. An entry's hash covers the hash of the one before it, so that whoever changes, removes or inserts one with more
-- rights than these is found by audit_verify, or by tools/audit with an export and no database.
--
-- Traps: * the entry is part of the transaction: what is not written down is not done. audit_heads is locked until the commit, so it has to be the last lock that is taken:
--          triggers fire by name, those of foreign keys ("RI_..") before these ("audit").
--        * a row that is changed without a proof is a superuser's work: its entry has no actor. Policy maintenance lets it in, and nothing else.
--        * when a workspace goes its rows go with it (ON DELETE CASCADE): only workspace.delete is written. The log stays, and goes on when the name comes again.
--        * no trigger on what a turn writes.

SET LOCAL ROLE astra_owner;

CREATE TABLE public.audit_log (
  workspace_id text NOT NULL,  -- no foreign key: it outlives the workspace
  seq          bigint NOT NULL CHECK (seq > 0),
  at           timestamptz NOT NULL,
  actor        text NOT NULL,
  action       text NOT NULL,
  target       text NOT NULL,
  outcome      text NOT NULL CHECK (outcome IN ('allowed', 'denied')),
  detail       text NOT NULL,
  prev_hash    bytea NOT NULL CHECK (length(prev_hash) = 32),
  hash         bytea NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (workspace_id, seq)
);
COMMENT ON COLUMN public.audit_log.actor IS 'astra.audit_json of who is in the proof; empty when nobody is.';
COMMENT ON COLUMN public.audit_log.detail IS 'astra.audit_json of strings.';
COMMENT ON COLUMN public.audit_log.hash IS 'sha256 of astra.audit_bytes; prev_hash is that of the entry before, zeros for the first.';

CREATE TABLE public.audit_heads (
  workspace_id text PRIMARY KEY,
  seq          bigint NOT NULL,
  hash         bytea NOT NULL
);
COMMENT ON TABLE public.audit_heads IS 'The last entry of each log. Locked by who appends: seq has no gaps.';

SELECT astra.wall('public.audit_log'), astra.wall('public.audit_heads');
CREATE POLICY maintenance ON public.audit_log TO astra_owner USING ((SELECT astra.tenant()) IS NULL) WITH CHECK ((SELECT astra.tenant()) IS NULL);
CREATE POLICY maintenance ON public.audit_heads TO astra_owner USING ((SELECT astra.tenant()) IS NULL) WITH CHECK ((SELECT astra.tenant()) IS NULL);
GRANT SELECT ON public.audit_log, public.audit_heads TO astra_grants;

CREATE FUNCTION astra.audit_is_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF TG_LEVEL = 'ROW' AND NEW.workspace_id = OLD.workspace_id AND NEW.seq = OLD.seq + 1 THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON public.audit_log FOR EACH STATEMENT EXECUTE FUNCTION astra.audit_is_append_only();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON public.audit_heads FOR EACH STATEMENT EXECUTE FUNCTION astra.audit_is_append_only();
CREATE TRIGGER one_by_one BEFORE UPDATE ON public.audit_heads FOR EACH ROW EXECUTE FUNCTION astra.audit_is_append_only();

-- The triggers say it to everybody; the owner has no right to more either.
REVOKE ALL ON public.audit_log, public.audit_heads FROM astra_owner;
GRANT SELECT, INSERT ON public.audit_log, public.audit_heads TO astra_owner;
GRANT UPDATE (seq, hash) ON public.audit_heads TO astra_owner;

-- A flat object as text that everybody makes alike: keys by their bytes, no blanks; strings, booleans and nulls as they are, anything else as the string of its JSON.
-- Strings are escaped as by serde_json: \" \\ \b \f \n \r \t, \u00xx for other control characters, nothing else.
CREATE FUNCTION astra.audit_json(p_object jsonb) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT '{' || COALESCE(string_agg(to_json(e.key)::text || ':' || CASE WHEN jsonb_typeof(e.value) IN ('string', 'boolean', 'null') THEN e.value::text
                                                                        ELSE to_json(e.value::text)::text END, ',' ORDER BY e.key COLLATE "C"), '') || '}'
  FROM jsonb_each(p_object) e
$$;

-- What the hash is made of: a JSON array without blanks, [workspace, seq, at, actor, action, target, outcome, detail, hash of the entry before in hexadecimal], in UTF-8.
-- astra_kernel::audit makes the same bytes.
CREATE FUNCTION astra.audit_bytes(p_entry public.audit_log) RETURNS bytea LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT convert_to('[' || concat_ws(',', to_json(p_entry.workspace_id), p_entry.seq, to_json(astra.ts(p_entry.at)), to_json(p_entry.actor), to_json(p_entry.action),
                                     to_json(p_entry.target), to_json(p_entry.outcome), to_json(p_entry.detail), to_json(encode(p_entry.prev_hash, 'hex'))) || ']', 'UTF8')
$$;

-- The time is the database's, read after the lock was had: nobody's word, and no later entry is earlier.
CREATE FUNCTION astra.audit_append(p_workspace text, p_action text, p_target text, p_outcome text, p_detail jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v public.audit_log;
BEGIN
  INSERT INTO public.audit_heads (workspace_id, seq, hash) VALUES (p_workspace, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT (workspace_id) DO NOTHING;
  SELECT h.seq + 1, h.hash INTO v.seq, v.prev_hash FROM public.audit_heads h WHERE h.workspace_id = p_workspace FOR UPDATE;
  v.workspace_id := p_workspace;
  v.at := date_trunc('milliseconds', clock_timestamp());
  v.actor := CASE WHEN astra.tenant() = p_workspace AND astra.actor() IS NOT NULL THEN astra.audit_json(astra.actor()::jsonb) ELSE '' END;
  v.action := p_action;
  v.target := p_target;
  v.outcome := p_outcome;
  v.detail := astra.audit_json(p_detail);
  v.hash := sha256(astra.audit_bytes(v));
  INSERT INTO public.audit_log SELECT v.*;
  UPDATE public.audit_heads h SET seq = v.seq, hash = v.hash WHERE h.workspace_id = p_workspace;
END
$$;

-- Whether a workspace is there, also for who has no proof. astra_operator's policy sees every workspace.
GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;
CREATE FUNCTION astra.audit_workspace_is_there(p_workspace text) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ BEGIN RETURN EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace); END $$;
GRANT EXECUTE ON FUNCTION astra.audit_workspace_is_there(text) TO astra_owner;
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;

-- What is said of a row: its columns, named as in JSON, the fields of an object each by itself ("limits.maxAgents").
CREATE FUNCTION astra.audit_facts(p_row jsonb, p_columns text[]) RETURNS TABLE (name text, value text) LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT n.name || COALESCE('.' || f.key, ''), CASE WHEN f.key IS NULL THEN p_row ->> c.col ELSE f.value END
  FROM unnest(p_columns) AS c (col)
  CROSS JOIN LATERAL (SELECT lower(left(c.col, 1)) || substr(replace(initcap(c.col), '_', ''), 2) AS name) n
  LEFT JOIN LATERAL jsonb_each_text(CASE jsonb_typeof(p_row -> c.col) WHEN 'object' THEN p_row -> c.col ELSE '{}' END) f ON true
  WHERE p_row ->> c.col IS NOT NULL AND (f.key IS NOT NULL OR jsonb_typeof(p_row -> c.col) <> 'object')
$$;

-- Writes down that a row came, changed or went. Arguments: the column of the target; the actions of INSERT, UPDATE and DELETE; then the columns that are said, with a minus those
-- of which is said only what of them was changed. An UPDATE that changes none of them is none.
CREATE FUNCTION astra.audit_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_old jsonb := CASE WHEN TG_OP = 'INSERT' THEN '{}' ELSE to_jsonb(OLD) END;
  v_new jsonb := CASE WHEN TG_OP = 'DELETE' THEN '{}' ELSE to_jsonb(NEW) END;
  v_row jsonb := CASE WHEN TG_OP = 'DELETE' THEN v_old ELSE v_new END;
  v_workspace text := COALESCE(v_row ->> 'workspace_id', v_row ->> 'id');
  v_said text[] := ARRAY(SELECT c FROM unnest(TG_ARGV[4:]) c WHERE NOT starts_with(c, '-'));
  v_hidden text[] := ARRAY(SELECT substr(c, 2) FROM unnest(TG_ARGV[4:]) c WHERE starts_with(c, '-'));
  v_detail jsonb;
BEGIN
  IF TG_TABLE_NAME = 'workspaces' THEN
    IF TG_OP = 'UPDATE' AND v_new ->> 'status' = 'deleting' THEN
      RETURN NULL;  -- workspace.delete says it
    END IF;
  ELSIF astra.tenant() <> v_workspace OR NOT astra.audit_workspace_is_there(v_workspace) THEN
    RETURN NULL;  -- another's row that goes with one of this tenant's; or it goes with its workspace, and workspace.delete says it
  END IF;
  SELECT COALESCE(jsonb_object_agg(f.name, f.value), '{}') INTO v_detail
  FROM (
    SELECT n.name, n.value FROM astra.audit_facts(v_new, v_said) n LEFT JOIN astra.audit_facts(v_old, v_said) o USING (name) WHERE n.value IS DISTINCT FROM o.value
    UNION ALL
    SELECT o.name || '.was', o.value FROM astra.audit_facts(v_old, v_said) o LEFT JOIN astra.audit_facts(v_new, v_said) n USING (name) WHERE n.value IS DISTINCT FROM o.value
    UNION ALL
    SELECT name, 'changed' FROM astra.audit_facts(v_new, v_hidden) h FULL JOIN astra.audit_facts(v_old, v_hidden) o USING (name)
    WHERE TG_OP = 'UPDATE' AND h.value IS DISTINCT FROM o.value
  ) f;
  IF TG_OP = 'UPDATE' AND v_detail = '{}' THEN
    RETURN NULL;
  END IF;
  PERFORM astra.audit_append(v_workspace, TG_ARGV[CASE TG_OP WHEN 'INSERT' THEN 1 WHEN 'UPDATE' THEN 2 ELSE 3 END], v_row ->> TG_ARGV[0], 'allowed', v_detail);
  RETURN NULL;
END
$$;

CREATE TRIGGER audit AFTER INSERT OR DELETE OR UPDATE OF display_name, plan, owner_id, limits, restrictions, time_zone, status ON public.workspaces
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('id', 'workspace.create', 'workspace.change', 'workspace.delete',
                                                '-display_name', 'plan', 'owner_id', 'limits', 'restrictions', 'time_zone', 'status');
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON public.members
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('user_id', 'member.add', 'member.change', 'member.remove', 'role');
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON public.roles
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('name', 'role.put', 'role.put', 'role.delete', 'allow', 'deny');
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON public.agents
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('id', 'agent.put', 'agent.put', 'agent.delete', '-definition');
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON public.secrets
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('name', 'secret.put', 'secret.put', 'secret.delete', '-ciphertext');
CREATE TRIGGER audit AFTER INSERT ON public.revoked_tokens
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('jti', 'token.revoke', '', '');
CREATE TRIGGER audit AFTER DELETE ON public.sessions
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('id', '', '', 'session.delete', 'user_id');

-- A grant is two rows: who gives, accepts, revokes or gives it back is in the log of the workspace whose people did it. The other half's log is not theirs to write.
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON public.grants
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('id', 'grant.give', 'grant.change', '', 'receiving_workspace_id', 'agent_id', 'readonly', 'max_cost', 'allow', 'expires_at', 'revoked_at');
CREATE TRIGGER audit AFTER UPDATE ON public.received_grants
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('id', '', 'grant.change', '', 'accepted_at', 'revoked_at');

-- {action, target, outcome, detail: {name: string}} -> ok | not_found. What leaves no row that a trigger could see: these actions and no others. A workspace that is not there has no log.
CREATE FUNCTION astra.audit_add(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace THEN
    RAISE EXCEPTION 'no such workspace for this tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF (v_arg ->> 'action', v_arg ->> 'outcome') NOT IN (('token.issue', 'allowed'), ('access.denied', 'denied')) OR octet_length(p_arg) > 16384 THEN
    RAISE EXCEPTION 'not an entry that is added so' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  PERFORM astra.audit_append(p_workspace, v_arg ->> 'action', v_arg ->> 'target', v_arg ->> 'outcome', v_arg -> 'detail');
  RETURN '{"outcome":"ok"}';
END
$$;

-- {after?, limit?, action? (member.* for all that begin so), actor? (sub), target?, outcome?, since?, until?} -> ok | not_found, data [astra_kernel::audit::Entry] newest first, next
CREATE FUNCTION astra.audit_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_data jsonb;
  v_next text;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) AND NOT EXISTS (SELECT 1 FROM public.audit_heads h WHERE h.workspace_id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[],"next":null}';
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('workspaceId', p_workspace, 'seq', p.seq, 'at', astra.ts(p.at), 'actor', NULLIF(p.actor, '')::jsonb, 'action', p.action,
                                               'target', p.target, 'outcome', p.outcome, 'detail', p.detail::jsonb,
                                               'prevHash', encode(p.prev_hash, 'hex'), 'hash', encode(p.hash, 'hex')) ORDER BY p.seq DESC) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN (min(p.seq) FILTER (WHERE p.n <= v_limit))::text END
  INTO v_data, v_next
  FROM (SELECT l.*, row_number() OVER (ORDER BY l.seq DESC) AS n
        FROM public.audit_log l
        WHERE l.workspace_id = p_workspace
          AND (v_arg ->> 'after' IS NULL OR l.seq < (v_arg ->> 'after')::bigint)
          AND (v_arg ->> 'action' IS NULL OR l.action = v_arg ->> 'action' OR (right(v_arg ->> 'action', 2) = '.*' AND starts_with(l.action, left(v_arg ->> 'action', -1))))
          AND (v_arg ->> 'actor' IS NULL OR NULLIF(l.actor, '')::jsonb ->> 'sub' = v_arg ->> 'actor')
          AND (v_arg ->> 'target' IS NULL OR l.target = v_arg ->> 'target')
          AND (v_arg ->> 'outcome' IS NULL OR l.outcome = v_arg ->> 'outcome')
          AND (v_arg ->> 'since' IS NULL OR l.at >= (v_arg ->> 'since')::timestamptz)
          AND (v_arg ->> 'until' IS NULL OR l.at < (v_arg ->> 'until')::timestamptz)
        ORDER BY l.seq DESC LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {} -> ok | not_found, entries, brokenAt: the seq of the first entry that is not as it was written, or is missing; null when all are.
-- Whoever may write everything can also write a log anew from its first entry on: what was exported before shows that (tools/audit).
CREATE FUNCTION astra.audit_verify(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v record;
  v_head public.audit_heads;
BEGIN
  SELECT h.* INTO v_head FROM public.audit_heads h WHERE h.workspace_id = p_workspace;
  IF NOT FOUND AND NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","entries":0,"brokenAt":null}';
  END IF;
  SELECT count(*) AS entries, COALESCE(max(e.seq), 0) AS seq,
         min(e.n) FILTER (WHERE e.seq <> e.n OR e.prev_hash <> e.before OR e.hash <> e.made) AS broken_at,
         (array_agg(e.hash ORDER BY e.seq DESC))[1] AS hash
  INTO v
  FROM (SELECT l.seq, l.prev_hash, l.hash, row_number() OVER (ORDER BY l.seq) AS n, sha256(astra.audit_bytes(l)) AS made,
               lag(l.hash, 1, decode(repeat('00', 32), 'hex')) OVER (ORDER BY l.seq) AS before
        FROM public.audit_log l WHERE l.workspace_id = p_workspace) e;
  RETURN jsonb_build_object('outcome', 'ok', 'entries', v.entries, 'brokenAt',
    COALESCE(v.broken_at, CASE WHEN (v.seq, v.hash) IS DISTINCT FROM (COALESCE(v_head.seq, 0), v_head.hash) THEN v.seq + 1 END))::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.audit_add(text, text) TO astra_provision, astra_invoke, astra_billing, astra_grants;
GRANT EXECUTE ON FUNCTION astra.audit_list(text, text), astra.audit_verify(text, text), astra.audit_bytes(public.audit_log) TO astra_grants;
