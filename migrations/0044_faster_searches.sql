-- Searches that take less of the database's time; what they find of rare words is the same, in the same order. docs/retrieval.md says what each of these was measured to cost.
--
--   * A word that more than 1,000 of the documents' pieces have is not looked for where the query's rarer words find enough: a list of all the places where it stands costs more than all
--     else of a search. How many have it is what the planner expects, by its statistics of the table. Of memories each word is looked for: those statistics are also of what others keep
--     for themselves. The rows that are found are ranked by all words, as before.
--   * How often a word stands in a text is asked of ts_rank, word by word: to unfold the texts took two thirds of a search by words at 10,000 pieces.
--   * A search reads what it gives and nothing else; a turn the contents of those it is told.
--
-- Trap: only a function that is VOLATILE may have a statement explained; all that reads is STABLE, so that a search sees one moment.

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

DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT * FROM (VALUES
    ('astra.recall_words(text, text, text[], uuid[], text[], integer)', '54b9db77fca86e5c9b3ee351bbac5a9e'),
    ('astra.recall(text, text, text[], text, text, integer)', '9237e8ecffbe092af92ef1e2a8590c02'),
    ('astra.recall_for_turn(text, text, text, text, integer, integer)', '8ddc37dc659f7bddd394a5c0a4dd84d1'),
    ('astra.memory_search(text, text)', '370fd8f1af1ce8115d743a51df7b8e0c')) f(name, hash)
  LOOP
    IF (SELECT md5(p.prosrc) FROM pg_proc p WHERE p.oid = v.name::regprocedure) <> v.hash THEN
      RAISE EXCEPTION '% is not as it was', v.name;
    END IF;
  END LOOP;
END
$$;

GRANT CREATE ON SCHEMA astra TO astra_recall;
SET LOCAL ROLE astra_recall;

-- Of which of these words more than 1,000 pieces of the workspace's documents are expected to have: what share of them, and NULL of the others. For recall_words, as whose role it reads.
CREATE FUNCTION astra.words_frequent(p_workspace text, p_words tsquery[]) RETURNS float8[] LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_rows float8 := (SELECT c.reltuples FROM pg_class c WHERE c.oid = to_regclass(format('%I.chunks', v_schema)));
  v_plan jsonb;
BEGIN
  -- Of one word there is no plan of several, and nothing to be left out.
  IF v_rows <= 1000 OR cardinality(p_words) < 2 THEN
    RETURN array_fill(NULL::float8, ARRAY[cardinality(p_words)]);
  END IF;
  EXECUTE (SELECT 'EXPLAIN (FORMAT JSON) ' || string_agg(format('SELECT FROM %I.chunks c WHERE c.tsv @@ $1[%s]', v_schema, p.place), ' UNION ALL ' ORDER BY p.place)
           FROM generate_subscripts(p_words, 1) p(place)) INTO v_plan USING p_words;
  -- Of a word that its statistics do not have, the planner expects a thousandth of the rows at most.
  RETURN (SELECT array_agg(CASE WHEN e.rows > greatest(1000, v_rows / 500) THEN least(e.rows / v_rows, 1) END ORDER BY e.place)
          FROM (SELECT (p.value -> 'Plan Rows')::float8 AS rows, p.place FROM jsonb_array_elements(v_plan #> '{0,Plan,Plans}') WITH ORDINALITY p(value, place)) e);
END
$$;

-- The search by words: ids and where they are from, best first. It is of a role of its own, whose policy on the two tables is no condition: behind a condition no index of words is used
-- (@@ is not leakproof, so that each row would be read). What that role may read is ids, words, and whose they are; what is done with the ids is done behind the walls. Who calls it
-- has verified the workspace: astra_quota_inside, and recall_words_own.
--
-- BM25 (Robertson, Zaragoza 2009; k1 = 1.2, b = 0.75), which Postgres's own ranks are not: they do not know that a rare word says more than a frequent one. How rare a word is, is
-- counted among what this member may see: nobody's own memories are in anybody else's counts. Of a word that many have the first 1,000 rows are taken, and it weighs what one in half
-- of them does. Rows are read for those only that have the most of what is rare.
--
-- Of documents a word of which more rows than that are expected (frequent) is looked for only if the others found less than is asked for. Then what has the three rarest of these is, and as long
-- as that is too little what has two, or one: the first rows of each would have little in common. It weighs by its share of the rows, but no more than one in half of them.
--
-- ts_rank of one word, each place of it weighing 1, is (1 + 1/4 + 1/9 + .. 1/n^2) / 1.64493406685, of n places (255 at most: a tsvector keeps no more). The sum is pi^2/6 - 1/(n + 1/2), but for
-- less than n can be mistaken by.
CREATE OR REPLACE FUNCTION astra.recall_words(p_workspace text, p_subject text, p_what text[], p_unsearched uuid[], p_words text[], p_limit int, OUT ids uuid[], OUT sources text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- Of a small table the planner would read each row for each word.
SET enable_seqscan = off SET max_parallel_workers_per_gather = 0 AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_words tsquery[] := ARRAY(SELECT quote_literal(replace(w.word, '\', ''))::tsquery FROM unnest(p_words) WITH ORDINALITY w(word, place) ORDER BY w.place);
  v_all int[] := ARRAY(SELECT generate_subscripts(v_words, 1));
  v_shares float8[];  -- of the frequent ones
  v_frequent int[] := '{}';  -- these, the rarest first
  v_pieces text := format($sql$
    SELECT array_agg(h.id), array_agg(w.place) FROM unnest($1, $2) w(query, place)
    CROSS JOIN LATERAL (SELECT c.id FROM %I.chunks c WHERE c.tsv @@ w.query AND c.document_id <> ALL ($3) LIMIT 1001) h$sql$, v_schema);
  v_found uuid[] := '{}';  -- rows, and the words for which they were found: memories, then pieces
  v_found_by int[] := '{}';
  v_more uuid[];
  v_more_by int[];
  v_memories int;
  v_together tsquery[];  -- the first frequent word, the first two, the first three
  v_found_together uuid[];
  v_found_by_first int[];
  v_next uuid[];
  v_next_by int[];
  v_rows int;
  v_weights float8[];
BEGIN
  ids := '{}';
  sources := '{}';
  IF p_what @> '{memories}' THEN
    EXECUTE format($sql$
      SELECT array_agg(h.id), array_agg(w.place) FROM unnest($1, $2) w(query, place)
      CROSS JOIN LATERAL (SELECT m.id FROM %I.memories m WHERE m.tsv @@ w.query AND (m.user_id IS NULL OR m.user_id = $3) LIMIT 1001) h$sql$, v_schema)
    INTO v_more, v_more_by USING v_words, v_all, p_subject;
    v_found := v_found || v_more;
    v_found_by := v_found_by || v_more_by;
  END IF;
  v_memories := cardinality(v_found);
  IF p_what @> '{documents}' THEN
    v_shares := astra.words_frequent(p_workspace, v_words);
    v_frequent := ARRAY(SELECT a.place FROM unnest(v_all) a(place) WHERE v_shares[a.place] IS NOT NULL ORDER BY v_shares[a.place], a.place);
    EXECUTE v_pieces INTO v_more, v_more_by
    USING ARRAY(SELECT v_words[a.place] FROM unnest(v_all) a(place) WHERE v_shares[a.place] IS NULL ORDER BY a.place),
          ARRAY(SELECT a.place FROM unnest(v_all) a(place) WHERE v_shares[a.place] IS NULL ORDER BY a.place), p_unsearched;
    v_found := v_found || v_more;
    v_found_by := v_found_by || v_more_by;
    v_together := ARRAY[v_words[v_frequent[1]], v_words[v_frequent[1]] && v_words[v_frequent[2]], v_words[v_frequent[1]] && v_words[v_frequent[2]] && v_words[v_frequent[3]]];
    v_found_together := '{}';
    v_found_by_first := '{}';
    FOR v_first IN REVERSE least(3, cardinality(v_frequent))..1 LOOP
      EXIT WHEN (SELECT count(DISTINCT f.id) FROM unnest(v_more || v_found_together) f(id)) >= p_limit;
      EXECUTE v_pieces INTO v_next, v_next_by USING v_together[v_first:v_first], ARRAY[v_first], p_unsearched;
      v_found_together := v_found_together || v_next;
      v_found_by_first := v_found_by_first || v_next_by;
    END LOOP;
    -- What has the first three has the first, and the second.
    SELECT v_found || COALESCE(array_agg(t.id), '{}'), v_found_by || COALESCE(array_agg(v_frequent[t.n]), '{}') INTO v_found, v_found_by
    FROM (SELECT DISTINCT t.id, n FROM unnest(v_found_together, v_found_by_first) t(id, upto), generate_series(1, t.upto) n) t;
  END IF;
  IF cardinality(v_found) = 0 THEN
    RETURN;
  END IF;
  -- A frequent word stands for the 1,000 rows that it has at least.
  v_rows := (SELECT count(*) FROM (SELECT f.id FROM unnest(v_found) f(id) GROUP BY f.id) r) + 1000 * cardinality(v_frequent);
  v_weights := (
    SELECT array_agg(CASE WHEN v_shares[a.place] IS NOT NULL THEN least(-ln(v_shares[a.place]), ln(2::float8)) WHEN c.rows > 1000 THEN ln(2::float8)
                       ELSE ln(1 + (v_rows - c.rows + 0.5::float8) / (c.rows + 0.5::float8)) END ORDER BY a.place)
    FROM unnest(v_all) a(place) LEFT JOIN (SELECT b.place, count(*) AS rows FROM unnest(v_found_by) b(place) GROUP BY b.place) c ON c.place = a.place);
  SELECT array_agg(l.id) FILTER (WHERE l.is_memory), array_agg(l.id) FILTER (WHERE NOT l.is_memory) INTO v_found, v_more
  FROM (SELECT f.id, f.n <= v_memories AS is_memory FROM unnest(v_found, v_found_by) WITH ORDINALITY f(id, place, n)
        GROUP BY f.id, f.n <= v_memories ORDER BY sum(v_weights[f.place]) DESC, f.id LIMIT 2 * p_limit) l;
  EXECUTE format($sql$
    WITH matches AS MATERIALIZED (
      SELECT m.id, 'memory' AS source, setweight(m.tsv, 'D') AS tsv FROM %1$I.memories m WHERE m.id = ANY ($1)
      UNION ALL
      SELECT c.id, 'document', setweight(c.tsv, 'D') FROM %1$I.chunks c WHERE c.id = ANY ($2)),
    ranked AS (
      SELECT m.id, m.source, sum(w.weight * 2.2 * t.times / (t.times + 1.2 * (0.25 + 0.75 * length(m.tsv) / s.words))) AS rank
      FROM matches m CROSS JOIN (SELECT avg(length(a.tsv))::float8 AS words FROM matches a) s CROSS JOIN unnest($3, $4) w(query, weight)
      CROSS JOIN LATERAL (SELECT round(1 / (1.64493406685 * (1 - ts_rank('{1,1,1,1}', m.tsv, w.query)::float8)) - 0.5) AS times) t
      GROUP BY m.id, m.source ORDER BY 3 DESC, m.id LIMIT $5)
    SELECT COALESCE(array_agg(r.id ORDER BY r.rank DESC, r.id), '{}'), COALESCE(array_agg(r.source ORDER BY r.rank DESC, r.id), '{}') FROM ranked r$sql$, v_schema)
  INTO ids, sources USING v_found, v_more, v_words, v_weights, p_limit;
END
$$;
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_recall;

-- What a workspace knows about a text, for one of its members (NULL: nobody's own memories): what is near by its embedding, with the cosine's distances, and what has its words; each leg in
-- its order, best first, and where each is from. Without an embedding there is no leg of vectors. p_what: memories, documents, or both. The caller has verified the workspace.
--
-- The vectors' leg is a statement of its own: by the index wherever there is one, for which sorting is priced out. (By its estimates the planner would compare all: it takes a wall's
-- condition for one that keeps half a percent of the rows.) What an index gives may be out of order by a little (relaxed_order) and is put in order. At equal distances at the end it
-- is anybody's guess: distance alone is what an index knows.
--
-- Chunks are not joined with their documents before the best are found, or no plan would use the index: those of versions that are not searched are few, the ones that are being split
-- (document_chunks takes away a version's chunks in the transaction that puts another in its place).
DROP FUNCTION astra.recall(text, text, text[], text, text, integer);
CREATE FUNCTION astra.recall(p_workspace text, p_subject text, p_what text[], p_embedding text, p_query text, p_limit int,
  OUT near uuid[], OUT near_from text[], OUT distances float8[], OUT said uuid[], OUT said_from text[], OUT words text[]) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
  v_unsearched uuid[];
BEGIN
  -- As much of a text as a search has; more words cost time and say little.
  words := (tsvector_to_array(to_tsvector('pg_catalog.simple'::regconfig, left(p_query, 2000))))[1:64];
  EXECUTE format('SELECT COALESCE(array_agg(d.id), ''{}'') FROM %I.documents d WHERE NOT d.is_current AND d.status <> ''ready''', v_schema) INTO v_unsearched;
  IF p_embedding IS NOT NULL THEN
    PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '100', true), set_config('enable_sort', 'off', true);
    -- A zero vector has no direction: its distance is NaN, which sorts last.
    EXECUTE format($sql$
      SELECT array_agg(l.id ORDER BY l.distance, l.id), array_agg(l.source ORDER BY l.distance, l.id), array_agg(l.distance ORDER BY l.distance, l.id) FROM (
        (SELECT m.id, 'memory' AS source, m.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector AS distance FROM %1$I.memories m
         WHERE $2 @> '{memories}' AND m.embedding IS NOT NULL AND (m.user_id IS NULL OR m.user_id = $3) ORDER BY 3 LIMIT $4)
        UNION ALL
        (SELECT c.id, 'document', c.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector FROM %1$I.chunks c
         WHERE $2 @> '{documents}' AND c.document_id <> ALL ($5) ORDER BY 3 LIMIT $4)) l$sql$, v_schema, astra.vector_schema())
    INTO near, near_from, distances USING p_embedding, p_what, p_subject, p_limit, v_unsearched;
    near := near[1:p_limit];
    near_from := near_from[1:p_limit];
    distances := distances[1:p_limit];
    PERFORM set_config('enable_sort', 'on', true);
  END IF;
  IF current_user = 'astra_quota_inside' THEN
    SELECT w.ids, w.sources INTO said, said_from FROM astra.recall_words(p_workspace, p_subject, p_what, v_unsearched, words, p_limit) w;
  ELSE
    SELECT w.ids, w.sources INTO said, said_from FROM astra.recall_words_own(p_workspace, p_subject, p_what, v_unsearched, words, p_limit) w;
  END IF;
END
$$;

-- What a search found: entries [{id, ..}], and each leg in its order, best first.
CREATE FUNCTION astra.recall_found(p_workspace text, p_subject text, p_what text[], p_embedding text, p_query text, p_limit int, OUT vector json, OUT keyword json, OUT entries json)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v record;
BEGIN
  SELECT * INTO v FROM astra.recall(p_workspace, p_subject, p_what, p_embedding, p_query, p_limit);
  vector := COALESCE(to_json(v.near), '[]');
  keyword := to_json(v.said);
  EXECUTE format($sql$
    WITH legs AS (SELECT n.id, n.source FROM unnest($1, $2) n(id, source) UNION SELECT s.id, s.source FROM unnest($3, $4) s(id, source))
    SELECT COALESCE(json_agg(f.doc), '[]') FROM (
      SELECT json_build_object('id', m.id, 'source', 'memory', 'kind', m.kind, 'content', m.content, 'pinned', m.pinned, 'updatedAt', astra.ts(m.updated_at)) AS doc
      FROM legs l JOIN %1$I.memories m ON m.id = l.id WHERE l.source = 'memory' AND (m.user_id IS NULL OR m.user_id = $5)
      UNION ALL
      SELECT json_build_object('id', c.id, 'source', 'document', 'content', c.content, 'heading', c.heading, 'position', c.position, 'documentId', d.id,
               'slug', d.slug, 'title', d.title, 'version', d.version, 'pinned', true, 'updatedAt', astra.ts(d.created_at))
      FROM legs l JOIN %1$I.chunks c ON c.id = l.id JOIN %1$I.documents d ON d.id = c.document_id WHERE l.source = 'document') f$sql$, astra.memory_schema(p_workspace))
  INTO entries USING v.near, v.near_from, v.said, v.said_from, p_subject;
END
$$;

-- What a turn is told: both legs fused by reciprocal rank (k = 60; score 0 to 1, and 1 is first in both), without what is neither near nor has half of the message's words: the best of
-- nothing is nothing. Faded by age, what is pinned (and documents) is not. [{content, score, ..}], best first; of a document with its source before it.
CREATE FUNCTION astra.recall_told(p_workspace text, p_subject text, p_embedding text, p_message text, p_limit int, p_fade jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v record;
  v_told jsonb;
BEGIN
  SELECT * INTO v FROM astra.recall(p_workspace, p_subject, '{memories,documents}', p_embedding, p_message, 50);
  EXECUTE format($sql$
    WITH legs AS (
      SELECT n.id, n.source, n.distance, 61 / (60.0 + n.place) AS score FROM unnest($3, $4, $5) WITH ORDINALITY n(id, source, distance, place)
      UNION ALL
      SELECT s.id, s.source, NULL, 61 / (60.0 + s.place) FROM unnest($6, $7) WITH ORDINALITY s(id, source, place)),
    found AS (SELECT l.id, l.source, max(l.distance) AS distance, sum(l.score) / CASE WHEN $1 IS NULL THEN 1 ELSE 2 END AS score FROM legs l GROUP BY l.id, l.source),
    -- (Its distance it has from its leg, if that found it.)
    seen AS (
      SELECT x.id, x.source, x.score, m.content, m.pinned, m.updated_at, NULL AS heading, NULL::int AS position, NULL::uuid AS document_id,
             COALESCE(x.distance, m.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector) AS distance, m.tsv
      FROM found x JOIN %1$I.memories m ON m.id = x.id WHERE x.source = 'memory' AND (m.user_id IS NULL OR m.user_id = $8)
      UNION ALL
      SELECT x.id, x.source, x.score, c.content, true, NULL, c.heading, c.position, c.document_id, COALESCE(x.distance, c.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector), c.tsv
      FROM found x JOIN %1$I.chunks c ON c.id = x.id WHERE x.source = 'document'),
    -- The best first, so that no more are looked at than it takes.
    ordered AS (
      SELECT s.id, s.source, s.content, s.heading, s.position, s.document_id, s.distance, s.tsv, f.score
      FROM seen s CROSS JOIN LATERAL (
        SELECT s.score * CASE WHEN $9 IS NULL OR s.pinned THEN 1 ELSE
          (1 - ($9 ->> 'weight')::float8 * (1 - 0.5::float8 ^ (greatest(extract(epoch FROM now() - s.updated_at), 0)::float8 / 86400 / ($9 ->> 'halfLifeDays')::float8)))::numeric END AS score) f
      ORDER BY f.score DESC, s.id OFFSET 0),
    told AS (
      SELECT o.* FROM ordered o
      WHERE COALESCE(NULLIF(1 - o.distance, 'NaN'), 0) >= 0.1 OR length(o.tsv) - length(ts_delete(o.tsv, $2)) >= 0.5 * cardinality($2) LIMIT $10)
    SELECT COALESCE(jsonb_agg(CASE WHEN t.source = 'memory' THEN jsonb_build_object('id', t.id, 'score', t.score, 'content', t.content)
      ELSE jsonb_build_object('id', t.id, 'score', t.score, 'content', format('[%%s, version %%s%%s] ', d.title, d.version, COALESCE(': ' || NULLIF(t.heading, ''), '')) || t.content,
        'heading', t.heading, 'position', t.position, 'documentId', d.id, 'slug', d.slug, 'title', d.title, 'version', d.version) END ORDER BY t.score DESC, t.id), '[]')
    FROM told t LEFT JOIN %1$I.documents d ON d.id = t.document_id$sql$, astra.memory_schema(p_workspace), astra.vector_schema())
  INTO v_told USING p_embedding, v.words, v.near, v.near_from, v.distances, v.said, v.said_from, p_subject, p_fade, p_limit;
  RETURN v_told;
END
$$;

-- As in 0043: NULL, when the vector is of an embedder (p_generation) that is not in force.
CREATE OR REPLACE FUNCTION astra.recall_for_turn(p_workspace text, p_subject text, p_embedding text, p_message text, p_limit int, p_generation int DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_fits boolean;
BEGIN
  EXECUTE format('LOCK TABLE %1$I.memories, %1$I.chunks IN ACCESS SHARE MODE', astra.memory_schema(p_workspace));
  v_fits := p_embedding IS NOT NULL AND astra.embedder_fits(astra.embedder_of(p_workspace), p_generation);
  IF p_generation IS NOT NULL AND NOT v_fits THEN
    RETURN NULL;
  END IF;
  RETURN astra.recall_told(p_workspace, p_subject, CASE WHEN v_fits THEN p_embedding END, p_message, p_limit,
                           (SELECT s.fade FROM public.memory_settings s WHERE s.workspace_id = p_workspace));
END
$$;

SELECT pg_temp.amend('astra.memory_search(text, text)',
$old$  RETURN (jsonb_build_object('outcome', 'ok', 'embedder', CASE WHEN NOT v_fits THEN v_embedder END,
                             'fade', (SELECT s.fade FROM public.memory_settings s WHERE s.workspace_id = p_workspace)) || astra.recall(p_workspace, v_arg ->> 'subject', ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'what')),
    CASE WHEN v_fits THEN v_arg ->> 'embedding' END, v_arg ->> 'query', (v_arg ->> 'limit')::int))::text;$old$,
$new$  RETURN (
    SELECT json_build_object('outcome', 'ok', 'embedder', CASE WHEN NOT v_fits THEN v_embedder END, 'vector', r.vector, 'keyword', r.keyword, 'found', r.entries,
                             'fade', (SELECT s.fade FROM public.memory_settings s WHERE s.workspace_id = p_workspace))::text
    FROM astra.recall_found(p_workspace, v_arg ->> 'subject', ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'what')), CASE WHEN v_fits THEN v_arg ->> 'embedding' END,
                            v_arg ->> 'query', (v_arg ->> 'limit')::int) r);$new$);

GRANT EXECUTE ON FUNCTION astra.recall(text, text, text[], text, text, integer) TO astra_memory, astra_quota_inside;
GRANT EXECUTE ON FUNCTION astra.recall_found(text, text, text[], text, text, integer) TO astra_memory;
GRANT EXECUTE ON FUNCTION astra.recall_told(text, text, text, text, integer, jsonb) TO astra_quota_inside;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
