-- Searches by meaning look at more of a vast table's index; an export has memory's settings, what memories have replaced, and webhooks (without their secrets) as well.

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

-- How many candidates a search keeps (hnsw.ef_search): where a table has more than 300,000 rows by its statistics, twice as many find the same share of the nearest as 100 do in a smaller one.
CREATE FUNCTION astra.candidates(p_schema text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN CASE WHEN EXISTS (SELECT 1 FROM pg_class c WHERE c.oid IN (to_regclass(format('%I.chunks', p_schema)), to_regclass(format('%I.memories', p_schema))) AND c.reltuples > 300000)
              THEN '200' ELSE '100' END;
END
$$;
SELECT pg_temp.amend('astra.recall(text, text, text[], text, text, integer, uuid[])', $old$set_config('hnsw.ef_search', '100', true)$old$,
$new$set_config('hnsw.ef_search', astra.candidates(v_schema), true)$new$);
GRANT EXECUTE ON FUNCTION astra.candidates(text) TO astra_memory, astra_quota_inside;

SELECT pg_temp.amend('astra.workspace_export(text, text)', $old$'documentPart'];$old$, $new$'documentPart', 'supersededMemory', 'memorySettings', 'webhook'];$new$);
SELECT pg_temp.amend('astra.workspace_export(text, text)',
$old$    END CASE;$old$,
$new$      WHEN 'supersededMemory' THEN
        OPEN v_rows FOR EXECUTE format('SELECT s.id::text AS key, to_jsonb(s) AS doc FROM %I.superseded s WHERE $1 IS NULL OR s.id > $1 ORDER BY s.id LIMIT $2', v_schema)
          USING v_key::uuid, v_left;
      WHEN 'memorySettings' THEN
        -- Where embedders run is the deployment's own business.
        OPEN v_rows FOR SELECT '-' AS key, to_jsonb(s) - 'workspace_id' #- '{embedder,endpoint}' #- '{next_embedder,endpoint}' AS doc FROM public.memory_settings s
          WHERE s.workspace_id = p_workspace AND v_key IS NULL LIMIT v_left;
      WHEN 'webhook' THEN
        OPEN v_rows FOR SELECT w.name AS key, jsonb_build_object('name', w.name, 'url', w.url, 'events', w.events, 'disabled_at', w.disabled_at, 'created_at', w.created_at,
                                                                 'updated_at', w.updated_at) AS doc
          FROM public.webhooks w WHERE w.workspace_id = p_workspace AND (v_key IS NULL OR w.name > v_key) ORDER BY w.name LIMIT v_left;
    END CASE;$new$);
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
