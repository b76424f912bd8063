-- A turn whose workspace's embedder is a provider's searches by meaning too. turn_begin cannot: the message is not embedded yet. It searches by words, as before, and says which embedder it
-- would have to be (`embedder`); whoever runs the turn embeds the message by that one and has both searches made once more (turn_recall).

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

-- p_generation: for which embedder the vector was made (NULL: the local one, and for another the words are searched alone). NULL, when it was made for one that is not in force.
SELECT pg_temp.amend('astra.recall_for_turn(text, text, text, text, integer)', $old$p_limit integer)$old$, $new$p_limit integer, p_generation integer DEFAULT NULL)$new$);
DROP FUNCTION astra.recall_for_turn(text, text, text, text, integer);
SELECT pg_temp.amend('astra.recall_for_turn(text, text, text, text, integer, integer)',
$old$astra.embedder_fits(astra.embedder_of(p_workspace), NULL);$old$,
$new$astra.embedder_fits(astra.embedder_of(p_workspace), p_generation);
  IF p_generation IS NOT NULL AND NOT v_fits THEN
    RETURN NULL;
  END IF;$new$);
GRANT EXECUTE ON FUNCTION astra.recall_for_turn(text, text, text, text, integer, integer) TO astra_quota_inside;

GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;

-- {subject, message, embedding, generation, topK} -> memories, as turn_begin's | null: the vector is of an embedder that is not in force
CREATE FUNCTION astra.turn_recall(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace THEN
    RAISE EXCEPTION 'not this tenant''s memory' USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM set_config('astra.workspace', p_workspace, true);
  RETURN COALESCE(astra.recall_for_turn(p_workspace, v_arg ->> 'subject', v_arg ->> 'embedding', v_arg ->> 'message', (v_arg ->> 'topK')::int,
                                        (v_arg ->> 'generation')::int), 'null')::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.turn_recall(text, text) TO astra_quota;

SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  v_memories jsonb := '[]';
BEGIN$old$,
$new$  v_memories jsonb := '[]';
  v_embedder jsonb;
BEGIN$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$    v_memories := astra.recall_for_turn($old$,
$new$    v_embedder := astra.embedder_of(p_workspace);
    IF astra.embedder_fits(v_embedder, NULL) THEN
      v_embedder := NULL;
    END IF;
    v_memories := astra.recall_for_turn($new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$'leftOut', astra.legs_left_out(p_workspace, v_ws.has_memories))$old$,
$new$'embedder', v_embedder, 'leftOut', CASE WHEN v_embedder IS NULL THEN '[]'::json ELSE '["vector"]' END)$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$'leftOut', astra.legs_left_out(p_workspace, v_ws.has_memories AND v_arg ->> 'embedding' IS NOT NULL),$old$,
$new$'embedder', v_embedder, 'leftOut', CASE WHEN v_embedder IS NULL THEN '[]'::json ELSE '["vector"]' END,$new$);

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;
DROP FUNCTION astra.legs_left_out(text, boolean);
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
