-- Vectors of the local embedder count little in what a turn is told, as they do in a search (shared/memory/src/fuse.rs, which says why): of what the words found they weigh a hundredth;
-- what they alone found has half of its share, as from any leg, and comes after it. Those of a provider's embedder count as they did.

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

-- p_is_weak: the vectors are the local embedder's.
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb)', 'p_fade jsonb)', 'p_fade jsonb, p_is_weak boolean)');
DROP FUNCTION astra.recall_told(text, text, text, text, integer, jsonb);
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb, boolean)',
$old$      SELECT n.id, n.source, n.distance, 61 / (60.0 + n.place) AS score FROM$old$,
$new$      SELECT n.id, n.source, n.distance, false AS said, 61 / (60.0 + n.place) AS score FROM$new$);
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb, boolean)',
$old$      SELECT s.id, s.source, NULL, 61 / (60.0 + s.place) FROM$old$,
$new$      SELECT s.id, s.source, NULL, true, 61 / (60.0 + s.place) FROM$new$);
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb, boolean)',
$old$sum(l.score) / CASE WHEN $1 IS NULL THEN 1 ELSE 2 END AS score FROM legs l$old$,
$new$CASE WHEN $1 IS NULL THEN sum(l.score) WHEN $11 AND bool_or(l.said) THEN sum(CASE WHEN l.said THEN 100 * l.score ELSE l.score END) / 101
                ELSE sum(l.score) / 2 END AS score FROM legs l$new$);
SELECT pg_temp.amend('astra.recall_told(text, text, text, text, integer, jsonb, boolean)', 'p_subject, p_fade, p_limit;', 'p_subject, p_fade, p_limit, p_is_weak;');
GRANT EXECUTE ON FUNCTION astra.recall_told(text, text, text, text, integer, jsonb, boolean) TO astra_quota_inside;

SELECT pg_temp.amend('astra.recall_for_turn(text, text, text, text, integer, integer)',
$old$(SELECT s.fade FROM public.memory_settings s WHERE s.workspace_id = p_workspace));$old$,
$new$(SELECT s.fade FROM public.memory_settings s WHERE s.workspace_id = p_workspace), p_generation IS NULL);$new$);
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
