-- The second wall: row security on every table that holds a workspace's data, forced on the owner too.
--
-- The tenant is the setting astra.workspace, set for the transaction by each function (set_config(.., true)), so nothing of it is left on a
-- pooled connection. Traps: * before it was ever set, current_setting(.., true) is NULL; after a transaction that set it, it is '' for the rest of
-- the connection. Neither equals an id (NULL never, '' by the CHECK on workspaces.id), so both see nothing. * A table with a workspace
-- that is missing here fails the test rls_covers_every_table.

SET LOCAL ROLE astra_owner;

DO $$
DECLARE
  v_table text;
  v_column text;
BEGIN
  FOREACH v_table IN ARRAY ARRAY['workspaces', 'quotas', 'members', 'secrets', 'agents', 'sessions', 'messages', 'turns', 'ledger'] LOOP
    v_column := CASE v_table WHEN 'workspaces' THEN 'id' ELSE 'workspace_id' END;
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_table);
    EXECUTE format('CREATE POLICY tenant ON public.%1$I USING (%2$I = current_setting(''astra.workspace'', true)) '
                   'WITH CHECK (%2$I = current_setting(''astra.workspace'', true))', v_table, v_column);
    EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC', v_table);
  END LOOP;
  -- What the operator may read of every workspace: who it is and what it cost. No messages, no secrets, no memory.
  FOREACH v_table IN ARRAY ARRAY['workspaces', 'turns', 'ledger'] LOOP
    EXECUTE format('CREATE POLICY operator_reads ON public.%I FOR SELECT TO astra_operator USING (true)', v_table);
    EXECUTE format('GRANT SELECT ON public.%I TO astra_operator', v_table);
  END LOOP;
END
$$;

REVOKE ALL ON public.plans, public.prices FROM PUBLIC;
GRANT SELECT ON public.plans, public.prices TO astra_provision, astra_invoke, astra_quota, astra_billing;
GRANT SELECT, INSERT, UPDATE ON public.plans TO astra_operator;
GRANT SELECT, INSERT ON public.prices TO astra_operator;

-- provision: everything about a workspace but its conversations. It can write a secret and cannot read one back.
GRANT SELECT, INSERT, DELETE ON public.workspaces TO astra_provision;
GRANT UPDATE (display_name, plan, limits, status, updated_at) ON public.workspaces TO astra_provision;
GRANT SELECT, INSERT ON public.quotas TO astra_provision;
GRANT UPDATE (has_memories) ON public.quotas TO astra_provision;
GRANT SELECT, INSERT, DELETE ON public.members TO astra_provision;
GRANT UPDATE (role) ON public.members TO astra_provision;
GRANT SELECT (workspace_id, name, key_id, created_at, updated_at), INSERT, DELETE ON public.secrets TO astra_provision;
GRANT UPDATE (key_id, nonce, ciphertext, updated_at) ON public.secrets TO astra_provision;
GRANT SELECT, INSERT, DELETE ON public.agents TO astra_provision;
GRANT UPDATE (definition, updated_at) ON public.agents TO astra_provision;

-- quota: reads a turn's context, appends what the turn did.
GRANT SELECT ON public.workspaces, public.quotas, public.agents, public.secrets, public.sessions, public.messages, public.turns, public.ledger TO astra_quota;
GRANT INSERT ON public.sessions, public.messages, public.turns, public.ledger TO astra_quota;
GRANT UPDATE (updated_at) ON public.sessions TO astra_quota;
GRANT UPDATE (status, finish_reason, provider, model, price_version, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd,
  usage_source, idempotency_key, idempotency_month, error_code, answer, metadata, ended_at) ON public.turns TO astra_quota;

-- invoke: shows conversations, deletes one.
GRANT SELECT ON public.workspaces, public.quotas, public.sessions, public.messages, public.turns TO astra_invoke;
GRANT UPDATE (has_memories) ON public.quotas TO astra_invoke;
GRANT DELETE ON public.sessions TO astra_invoke;
GRANT UPDATE (answer, metadata) ON public.turns TO astra_invoke;

-- billing: reads one workspace's month.
GRANT SELECT ON public.workspaces, public.turns TO astra_billing;
