-- Batch rates in the price book, and extractions that are asked for at them.
--
-- A batch rate is a row of the book like any other, with a tier of its own, so that an entry's price version says by which row it was priced. A turn is never priced by one. A use that
-- the provider served as a batch (OpenAI's flex, say) is; turns.batch says so, for who prices it again.

SET LOCAL ROLE astra_owner;
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
-- The same for what stands from one text to the end of another, whatever is between them.
CREATE FUNCTION pg_temp.amend_from(p_function regprocedure, p_from text, p_to text, p_new text) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
  v_is text := pg_get_functiondef(p_function);
  v_from int := strpos(v_is, p_from);
  v_length int := strpos(substr(v_is, v_from), p_to) + length(p_to) - 1;
BEGIN
  IF v_from = 0 OR v_length < length(p_to) OR (length(v_is) - length(replace(v_is, p_from, ''))) <> length(p_from) THEN
    RAISE EXCEPTION '% is not as it was: % .. %', p_function, p_from, p_to;
  END IF;
  EXECUTE overlay(v_is PLACING p_new FROM v_from FOR v_length);
END
$$;
ALTER TABLE public.prices ADD COLUMN tier text NOT NULL DEFAULT 'standard' CHECK (tier IN ('standard', 'batch'));
COMMENT ON COLUMN public.prices.tier IS 'batch: of what the provider does when it suits it. Versions are counted over both tiers.';
ALTER TABLE public.turns ADD COLUMN batch boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN public.turns.batch IS 'It was served, and is priced, as a batch.';
GRANT UPDATE (batch) ON public.turns TO astra_quota_inside;
-- The row of the book for a model at a moment: the exact name wins, then the longest prefix, then the row that begins last. All NULL: it has none.
CREATE FUNCTION astra.price_at(p_provider text, p_model text, p_tier text, p_at timestamptz) RETURNS public.prices LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v public.prices;
BEGIN
  SELECT p.* INTO v FROM public.prices p
  WHERE p.provider = p_provider AND p.tier = p_tier AND p.valid_from <= p_at
    AND (p.model = p_model OR (right(p.model, 1) = '*' AND starts_with(p_model, left(p.model, -1))))
  ORDER BY (p.model = p_model) DESC, length(p.model) DESC, p.valid_from DESC, p.version DESC
  LIMIT 1;
  RETURN v;
END
$$;
-- It as astra_kernel::Price; NULL where it has none.
CREATE FUNCTION astra.price_json(p public.prices, p_markup int) RETURNS json LANGUAGE plpgsql STABLE AS
$$
BEGIN
  IF p.version IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN json_build_object('version', p.version, 'inputNanoPerMtok', p.input_nano_per_mtok, 'cachedInputNanoPerMtok', p.cached_input_nano_per_mtok,
    'outputNanoPerMtok', p.output_nano_per_mtok, 'holdsMaximum', p.holds_maximum, 'longContext', astra.long_context(p), 'markupBasisPoints', p_markup);
END
$$;
GRANT EXECUTE ON FUNCTION astra.price_at(text, text, text, timestamptz), astra.price_json(public.prices, int) TO astra_quota_inside;
ALTER TABLE public.plan_settings DROP CONSTRAINT plan_settings_extraction_check, ADD CONSTRAINT plan_settings_extraction_check CHECK (extraction IN ('off', 'rules', 'model', 'batch'));
RESET ROLE;

SELECT pg_temp.amend('astra.turn_begin(text, text)', $old$WHERE p.provider = v_provider AND p.valid_from <= v_now$old$,
$new$WHERE p.provider = v_provider AND p.tier = 'standard' AND p.valid_from <= v_now$new$);
-- The standard price is what is held. The batch rate that comes with it is what is charged if the provider says that it was a batch.
SELECT pg_temp.amend('astra.use_begin(text, jsonb)', $old$  v_price record;$old$, $new$  v_price public.prices;
  v_batch public.prices;$new$);
SELECT pg_temp.amend_from('astra.use_begin(text, jsonb)', $from$  SELECT p.version, p.input_nano_per_mtok$from$, $to$
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'model_unpriced'$to$,
$new$  v_price := astra.price_at(v_model ->> 'provider', v_model ->> 'modelId', 'standard', v_now);
  IF v_is_extraction THEN
    v_batch := astra.price_at(v_model ->> 'provider', v_model ->> 'modelId', 'batch', v_now);
  END IF;
  IF v_price.version IS NULL THEN
    RETURN jsonb_build_object('outcome', 'model_unpriced'$new$);
SELECT pg_temp.amend_from('astra.use_begin(text, jsonb)', $from$    'price', json_build_object('version', v_price.version$from$, $to$astra.markup_of(p_workspace)),$to$,
$new$    'price', astra.price_json(v_price, astra.markup_of(p_workspace)), 'batchPrice', astra.price_json(v_batch, astra.markup_of(p_workspace)),$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)', $old$INSERT INTO public.turns (workspace_id, kind, id,$old$, $new$INSERT INTO public.turns (workspace_id, kind, batch, id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)', $old$VALUES (p_workspace, v_kind, v_id,$old$,
$new$VALUES (p_workspace, v_kind, COALESCE((p_arg ->> 'batch')::boolean, false), v_id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)', $old$SET status = v_status, finish_reason$old$,
$new$SET status = v_status, batch = COALESCE((p_arg ->> 'batch')::boolean, false), finish_reason$new$);
SELECT pg_temp.amend('astra.reprice_read(text, text)', $old$t.provider, t.model, t.usage_source AS source,$old$, $new$t.provider, t.model, t.batch, t.usage_source AS source,$new$);
SELECT pg_temp.amend_from('astra.reprice_read(text, text)', $from$    LEFT JOIN LATERAL ($from$, $to$LIMIT 1) b ON true) p;$to$,
$new$    CROSS JOIN LATERAL (SELECT astra.price_at(e.provider, e.model, CASE WHEN e.batch THEN 'batch' ELSE 'standard' END, e.turn_started_at) AS price) b) p;$new$);
SELECT pg_temp.amend_from('astra.reprice_read(text, text)', $from$CASE WHEN (b.price).version IS NOT NULL THEN$from$, $to$astra.long_context(b.price)) END) AS doc$to$,
$new$astra.price_json(b.price, 0)) AS doc$new$);
SELECT pg_temp.amend('astra.op_prices_list(text)', $old$'version', p.version,$old$, $new$'tier', p.tier, 'version', p.version,$new$);
-- A price that is the newest of its tier already keeps its version.
SELECT pg_temp.amend('astra.op_price_put(text)', $old$  v_new.source := v_arg ->> 'source';
  SELECT p.* INTO v_last FROM public.prices p WHERE p.provider = v_new.provider AND p.model = v_new.model ORDER BY p.version DESC LIMIT 1;$old$,
$new$  v_new.source := v_arg ->> 'source';
  v_new.tier := COALESCE(v_arg ->> 'tier', 'standard');
  SELECT p.* INTO v_last FROM public.prices p WHERE p.provider = v_new.provider AND p.model = v_new.model AND p.tier = v_new.tier ORDER BY p.version DESC LIMIT 1;$new$);
SELECT pg_temp.amend('astra.op_price_put(text)', $old$    v_new.version := COALESCE(v_last.version, 0) + 1;$old$,
$new$    v_new.version := 1 + COALESCE((SELECT max(p.version) FROM public.prices p WHERE p.provider = v_new.provider AND p.model = v_new.model), 0);$new$);

SET LOCAL ROLE astra_owner;
-- Half of the standard rates, each with where that was read on 2026-11-29.
INSERT INTO public.prices (provider, model, version, tier, input_nano_per_mtok, cached_input_nano_per_mtok, output_nano_per_mtok, holds_maximum,
                           long_above_tokens, long_input_nano_per_mtok, long_cached_input_nano_per_mtok, long_output_nano_per_mtok, source, valid_from)
SELECT p.provider, p.model, (SELECT max(o.version) FROM public.prices o WHERE o.provider = p.provider AND o.model = p.model) + row_number() OVER (PARTITION BY p.provider, p.model ORDER BY p.version),
       'batch', p.input_nano_per_mtok / 2, p.cached_input_nano_per_mtok / 2, p.output_nano_per_mtok / 2, p.holds_maximum,
       p.long_above_tokens, p.long_input_nano_per_mtok / 2, p.long_cached_input_nano_per_mtok / 2, p.long_output_nano_per_mtok / 2, s.source, p.valid_from
FROM public.prices p
JOIN (VALUES
  ('openai', 'gpt-5.6-sol', 1, 'https://developers.openai.com/api/docs/guides/flex-processing'),
  ('openai', 'gpt-5.6-terra', 1, 'https://developers.openai.com/api/docs/guides/flex-processing'),
  ('openai', 'gpt-5.6-luna', 1, 'https://developers.openai.com/api/docs/guides/flex-processing'),
  ('anthropic', 'claude-opus-5-5', 1, 'https://platform.claude.com/docs/en/build-with-claude/batch-processing'),
  ('anthropic', 'claude-opus-5', 1, 'https://platform.claude.com/docs/en/build-with-claude/batch-processing'),
  ('anthropic', 'claude-opus-4-8', 1, 'https://platform.claude.com/docs/en/build-with-claude/batch-processing'),
  ('anthropic', 'claude-sonnet-5-5', 1, 'https://platform.claude.com/docs/en/build-with-claude/batch-processing'),
  ('anthropic', 'claude-sonnet-5-5', 2, 'https://platform.claude.com/docs/en/build-with-claude/batch-processing'),
  ('anthropic', 'claude-sonnet-4-6', 1, 'https://platform.claude.com/docs/en/build-with-claude/batch-processing'),
  ('anthropic', 'claude-haiku-5-5', 1, 'https://platform.claude.com/docs/en/build-with-claude/batch-processing')
) AS s (provider, model, version, source) ON s.provider = p.provider AND s.model = p.model AND s.version = p.version
-- What has versions of the operator's own has no use for these.
WHERE p.source IS NOT NULL AND p.tier = 'standard' AND p.valid_from IN ('2026-01-01T00:00:00Z', '2026-10-07T00:00:00Z')
  AND (SELECT max(o.version) FROM public.prices o WHERE o.provider = p.provider AND o.model = p.model) = CASE p.model WHEN 'claude-sonnet-5-5' THEN 2 ELSE 1 END;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text), pg_temp.amend_from(regprocedure, text, text, text);
