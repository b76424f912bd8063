-- What a grant may show of its granter's memory: allow = {memory:cross-workspace-read}. A turn with the granted agent is then told, beside what its own workspace remembers, what the
-- granter's whole workspace does, and what its documents say; nobody's own memories. Whether whoever asks may be told is decided where roles are judged: the entries are marked
-- as shared, and are left out of the prompt of who may not.
--
-- It crosses workspaces in one place: turn_begin, for a granted agent that granted_agent has found to be in force, and by that grant's own word.

CREATE FUNCTION pg_temp.amend(p_function regprocedure, p_old text, p_new text) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
  v_is text := pg_get_functiondef(p_function);
BEGIN
  IF (length(v_is) - length(replace(v_is, p_old, ''))) <> length(p_old) THEN
    RAISE EXCEPTION '% is not as it was: %', p_function, p_old;
  END IF;
  EXECUTE replace(v_is, p_old, p_new);
END
$$;

SET LOCAL ROLE astra_owner;
GRANT CREATE ON SCHEMA astra TO astra_crossing, astra_quota_inside;

SET LOCAL ROLE astra_crossing;
SELECT pg_temp.amend('astra.granted_agent(text, text, timestamptz, boolean)',
$old$'payer', g.payer,$old$,
$new$'payer', g.payer, 'shows', 'memory:cross-workspace-read' = ANY (g.allow),$new$);

SET LOCAL ROLE astra_quota_inside;

-- What a workspace shows to another one's turn: its own memories of everybody's, and its documents. Called for a grant in force that says so, and by nothing else.
CREATE FUNCTION astra.recall_shared(p_granter text, p_embedding text, p_message text, p_limit int) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_found jsonb := '[]';
  v_done text := set_config('astra.workspace', p_granter, true);
BEGIN
  IF (SELECT q.has_memories FROM public.quotas q WHERE q.workspace_id = p_granter) THEN
    v_found := astra.recall_for_turn(p_granter, NULL, p_embedding, p_message, p_limit);
  END IF;
  v_done := set_config('astra.workspace', astra.tenant(), true);
  RETURN (SELECT COALESCE(jsonb_agg(f.value || '{"shared":true}' ORDER BY f.place), '[]') FROM jsonb_array_elements(v_found) WITH ORDINALITY f(value, place));
END
$$;

SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$v_arg ->> 'message', (v_arg ->> 'topK')::int);
  END IF;$old$,
$new$v_arg ->> 'message', (v_arg ->> 'topK')::int);
  END IF;
  IF (v_granted ->> 'shows')::boolean AND v_arg ->> 'embedding' IS NOT NULL THEN
    v_memories := v_memories || astra.recall_shared(v_granted ->> 'granter', v_arg ->> 'embedding', v_arg ->> 'message', (v_arg ->> 'topK')::int);
  END IF;$new$);

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_crossing, astra_quota_inside;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
