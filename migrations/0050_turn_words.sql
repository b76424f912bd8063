-- A turn's words by the index in Typesense, where the deployment has one. Whoever runs the turn asks it while turn_begin searches with what Postgres has; turn_begin says whether the workspace
-- has an index that may be believed (`indexed`), and turn_recall searches once more with the ids that it named. Postgres is the truth: of those ids what is there, and who asks may see, is told,
-- and nothing else.

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
GRANT SELECT (workspace_id, serving) ON public.word_indexes TO astra_quota_inside;
-- A turn has an index made, as a search has. (It is for the proof's own workspace.)
GRANT EXECUTE ON FUNCTION astra.words_open(text, text) TO astra_quota;

-- p_said: what an index says has the words, best first, in the place of the search by words.
SELECT pg_temp.amend('astra.recall(text, text, text[], text, text, integer)', 'p_limit integer, OUT near', 'p_limit integer, p_said uuid[] DEFAULT NULL, OUT near');
DROP FUNCTION astra.recall(text, text, text[], text, text, integer);
SELECT pg_temp.amend('astra.recall(text, text, text[], text, text, integer, uuid[])',
$old$  IF current_user = 'astra_quota_inside' THEN$old$,
$new$  IF p_said IS NOT NULL THEN
    EXECUTE format($sql$
      SELECT array_agg(l.id ORDER BY l.place), array_agg(l.source ORDER BY l.place) FROM (
        WITH said AS (SELECT s.id, min(s.place) AS place FROM unnest($1) WITH ORDINALITY s(id, place) GROUP BY s.id)
        SELECT s.id, 'memory' AS source, s.place FROM said s JOIN %1$I.memories m ON m.id = s.id WHERE $2 @> '{memories}'
        UNION ALL
        SELECT s.id, 'document', s.place FROM said s JOIN %1$I.chunks c ON c.id = s.id WHERE $2 @> '{documents}' AND c.document_id <> ALL ($3)) l$sql$, v_schema)
    INTO said, said_from USING p_said[1:p_limit], p_what, v_unsearched;
  ELSIF current_user = 'astra_quota_inside' THEN$new$);
GRANT EXECUTE ON FUNCTION astra.recall(text, text, text[], text, text, integer, uuid[]) TO astra_memory, astra_quota_inside;

-- p_sure: those of p_said that have half of the words, as the index says, which knows words that are spelt a little otherwise.
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb, boolean)', 'p_is_weak boolean)', 'p_is_weak boolean, p_said uuid[], p_sure uuid[])');
DROP FUNCTION astra.recall_told(text, text, text, text, integer, jsonb, boolean);
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb, boolean, uuid[], uuid[])', 'p_embedding, p_message, 50);', 'p_embedding, p_message, 50, p_said);');
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb, boolean, uuid[], uuid[])',
$old$>= 0.5 * cardinality($2) LIMIT $10)$old$, $new$>= 0.5 * cardinality($2) OR o.id = ANY ($12) LIMIT $10)$new$);
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb, boolean, uuid[], uuid[])', 'p_limit, p_is_weak;', 'p_limit, p_is_weak, p_sure;');
GRANT EXECUTE ON FUNCTION astra.recall_told(text, text, text, text, integer, jsonb, boolean, uuid[], uuid[]) TO astra_quota_inside;

-- With p_said a vector is of the embedder in force or nothing is told, whichever that is.
SELECT pg_temp.amend('astra.recall_for_turn(text, text, text, text, integer, integer)', 'p_generation integer DEFAULT NULL::integer)',
                     'p_generation integer DEFAULT NULL::integer, p_said uuid[] DEFAULT NULL, p_sure uuid[] DEFAULT NULL)');
DROP FUNCTION astra.recall_for_turn(text, text, text, text, integer, integer);
SELECT pg_temp.amend('astra.recall_for_turn(text, text, text, text, integer, integer, uuid[], uuid[])', 'p_generation IS NULL);', 'p_generation IS NULL, p_said, p_sure);');
SELECT pg_temp.amend('astra.recall_for_turn(text, text, text, text, integer, integer, uuid[], uuid[])',
$old$  IF p_generation IS NOT NULL AND NOT v_fits THEN$old$,
$new$  IF (p_generation IS NOT NULL OR p_said IS NOT NULL AND p_embedding IS NOT NULL) AND NOT v_fits THEN$new$);
GRANT EXECUTE ON FUNCTION astra.recall_for_turn(text, text, text, text, integer, integer, uuid[], uuid[]) TO astra_quota_inside;

GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;

-- {subject, message, embedding?, generation?, said?, sure?, topK}
SELECT pg_temp.amend('astra.turn_recall(text, text)',
$old$(v_arg ->> 'generation')::int), 'null')::text;$old$,
$new$(v_arg ->> 'generation')::int,
                                        CASE WHEN v_arg ? 'said' THEN ARRAY(SELECT s.id::uuid FROM jsonb_array_elements_text(v_arg -> 'said') WITH ORDINALITY s(id, place) ORDER BY s.place) END,
                                        ARRAY(SELECT s.id::uuid FROM jsonb_array_elements_text(v_arg -> 'sure') s(id))), 'null')::text;$new$);

SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  v_embedder jsonb;
BEGIN$old$,
$new$  v_embedder jsonb;
  v_indexed boolean;  -- NULL: nobody asks, there is no memory, or it is being made
BEGIN$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$    v_embedder := astra.embedder_of(p_workspace);$old$,
$new$    IF (v_arg ->> 'asksIndex')::boolean THEN
      SELECT CASE WHEN i.serving IS NOT NULL THEN true END INTO v_indexed FROM public.word_indexes i WHERE i.workspace_id = p_workspace;
      IF NOT FOUND THEN
        v_indexed := false;
      END IF;
    END IF;
    v_embedder := astra.embedder_of(p_workspace);$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$      'embedder', v_embedder, 'leftOut', CASE WHEN v_embedder IS NULL THEN '[]'::json ELSE '["vector"]' END)::text;$old$,
$new$      'embedder', v_embedder, 'indexed', v_indexed, 'leftOut', CASE WHEN v_embedder IS NULL THEN '[]'::json ELSE '["vector"]' END)::text;$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$    'embedder', v_embedder, 'leftOut', CASE WHEN v_embedder IS NULL THEN '[]'::json ELSE '["vector"]' END,$old$,
$new$    'embedder', v_embedder, 'indexed', v_indexed, 'leftOut', CASE WHEN v_embedder IS NULL THEN '[]'::json ELSE '["vector"]' END,$new$);

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
