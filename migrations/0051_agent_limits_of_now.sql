-- A turn that runs keeps to its agent's limits as they are now when it needs more, as it does to its workspace's since 0027: hold_grows reads them with these, of the agent as it is for
-- the workspace now, its own or its plan's. An agent that is gone has none of now, nor has one that is granted, whose cap never changes: what is revoked stops its turns.
--
-- What was decided by limits of an agent that have changed since is decided anew: `of` says which rows of the workspace, its plan and the agent were read (limits_of).
--
-- quota_status names agents without limits, too: the quota object tells an agent that has no limit any more from one that is gone.
--
-- Code from before does not look at `allowance`, and sends back any `of` as it was told. It runs on.

CREATE OR REPLACE FUNCTION pg_temp.amend(p_function regprocedure, p_old text, p_new text) RETURNS void LANGUAGE plpgsql AS
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

-- Which rows say what a workspace and one of its agents may use. NULL: the workspace is gone.
CREATE FUNCTION astra.limits_of(p_workspace text, p_agent text) RETURNS text LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN (SELECT concat_ws(' ', w.xmin, COALESCE(p.xmin::text, '-'), COALESCE(a.xmin::text, '-'))
          FROM public.workspaces w
          LEFT JOIN public.plans p ON p.plan = w.plan
          LEFT JOIN public.agents a ON a.workspace_id = p_workspace AND a.id = p_agent
          WHERE w.id = p_workspace);
END
$$;
GRANT EXECUTE ON FUNCTION astra.limits_of(text, text) TO astra_quota_inside;

SELECT pg_temp.amend('astra.standing_json(text, timestamptz, text, timestamptz)',
$old$         (SELECT w.xmin::text FROM public.workspaces w WHERE w.id = p_workspace)
$old$,
$new$         astra.limits_of(p_workspace, p_agent)
$new$);

SELECT pg_temp.amend('astra.hold_grows(text, public.holds, timestamptz)',
$old$  v_limits jsonb;
$old$,
$new$  v_limits jsonb;
  v_agent jsonb;
  v_allowance jsonb;
$new$);
SELECT pg_temp.amend('astra.hold_grows(text, public.holds, timestamptz)',
$old$  SELECT w.time_zone, w.limits INTO v_zone, v_limits FROM public.workspaces w WHERE w.id = p_workspace;
$old$,
$new$  SELECT w.time_zone, w.limits,
         COALESCE(a.definition, (SELECT e.value FROM public.plans p CROSS JOIN LATERAL jsonb_array_elements(p.template -> 'agents') e
                                 WHERE p.plan = w.plan AND e.value ->> 'id' = p_hold.agent_id LIMIT 1))
  INTO v_zone, v_limits, v_agent
  FROM public.workspaces w LEFT JOIN public.agents a ON a.workspace_id = p_workspace AND a.id = p_hold.agent_id
  WHERE w.id = p_workspace;
$new$);
SELECT pg_temp.amend('astra.hold_grows(text, public.holds, timestamptz)',
$old$#>> '{month,startsAt}');
  END IF;
$old$,
$new$#>> '{month,startsAt}');
    v_allowance := CASE WHEN v_agent IS NOT NULL THEN astra.agent_allowance(v_agent, v_limits) END;
  END IF;
$new$);
SELECT pg_temp.amend('astra.hold_grows(text, public.holds, timestamptz)',
$old$'limits', v_limits, 'spans', v_spans,$old$,
$new$'limits', v_limits, 'allowance', v_allowance, 'spans', v_spans,$new$);

GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;

SELECT pg_temp.amend('astra.hold_take(text, text)',
$old$ARRAY[s.time_zone, s.xmin::text] FROM$old$,
$new$ARRAY[s.time_zone, astra.limits_of(p_workspace, v_agent)] FROM$new$);
SELECT pg_temp.amend('astra.hold_take(text, text)',
$old$  -- The workspace is gone, or it is not as it was when its limits were read.$old$,
$new$  -- The workspace is gone, or it or the agent is not as it was when the limits were read.$new$);
SELECT pg_temp.amend('astra.hold_grow(text, text)',
$old$         (SELECT s.xmin::text FROM public.workspaces s WHERE s.id = p_workspace)
$old$,
$new$         astra.limits_of(p_workspace, v_old.agent_id)
$new$);
SELECT pg_temp.amend('astra.quota_status(text, text)',
$old$ ORDER BY b.id COLLATE "C") FILTER (WHERE b.allowance <> '{}'), '[]'),$old$,
$new$ ORDER BY b.id COLLATE "C"), '[]'),$new$);

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;

RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
