-- A workspace may have a mark-up of its own, in place of its plan's. The workspace's row says it, so it is read with the price as before.

SET LOCAL ROLE astra_owner;
ALTER TABLE public.workspaces ADD COLUMN markup_basis_points int CHECK (markup_basis_points BETWEEN -10000 AND 1000000);
COMMENT ON COLUMN public.workspaces.markup_basis_points IS 'In place of its plan''s mark-up. NULL: the plan''s.';
GRANT UPDATE (markup_basis_points) ON public.workspaces TO astra_provision;

CREATE OR REPLACE FUNCTION astra.markup_of(p_workspace text) RETURNS int LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN COALESCE((SELECT COALESCE(w.markup_basis_points, s.markup_basis_points) FROM public.workspaces w LEFT JOIN public.plan_settings s ON s.plan = w.plan WHERE w.id = p_workspace), 0);
END
$$;

-- As in 0021, with the mark-up in it.
CREATE OR REPLACE FUNCTION astra.workspace_json(p_row public.workspaces) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
$$
  SELECT pg_catalog.jsonb_build_object('id', p_row.id, 'displayName', p_row.display_name, 'plan', p_row.plan, 'ownerId', p_row.owner_id,
    'limits', p_row.limits, 'restrictions', p_row.restrictions, 'timeZone', p_row.time_zone, 'status', p_row.status, 'markupBasisPoints', p_row.markup_basis_points,
    'createdAt', astra.ts(p_row.created_at), 'updatedAt', astra.ts(p_row.updated_at))
$$;

DO $$
DECLARE
  v_is text := pg_get_functiondef('astra.workspace_patch(text, text)'::regprocedure);
  v_old text := $old$      time_zone = COALESCE(v_arg ->> 'timeZone', w.time_zone),$old$;
  v_new text := $new$      time_zone = COALESCE(v_arg ->> 'timeZone', w.time_zone),
      markup_basis_points = CASE WHEN v_arg ? 'markupBasisPoints' THEN (v_arg ->> 'markupBasisPoints')::int ELSE w.markup_basis_points END,$new$;
BEGIN
  IF length(v_is) - length(replace(v_is, v_old, '')) <> length(v_old) THEN
    RAISE EXCEPTION 'workspace_patch is not as it was';
  END IF;
  EXECUTE replace(v_is, v_old, v_new);
END
$$;
RESET ROLE;
