-- What a ledger's entry may be beside a turn, what the customer is charged for it beside what it cost, and who made an entry that no turn made.
--
-- cost_usd stays what the model's provider is paid by the price book: limits, quota and the guide's query go by it. charge_usd is what the operator charges the workspace for the
-- same use; until plans have mark-ups it equals the cost. A credit costs nothing and charges less than nothing.

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

-- Entries from before get what they lack once; the row trigger's rule (append-only) holds again at the commit.
ALTER TABLE public.ledger DISABLE TRIGGER ledger_append_only;
ALTER TABLE public.ledger
  ADD COLUMN embedding_tokens bigint NOT NULL DEFAULT 0,
  ADD COLUMN charge_usd numeric(20, 9),
  ADD COLUMN reason text,
  ADD COLUMN made_by text,
  ALTER COLUMN session_id DROP NOT NULL,
  DROP CONSTRAINT ledger_kind_check,
  ADD CONSTRAINT ledger_kind_check CHECK (kind IN ('turn', 'embedding', 'extraction', 'tool', 'correction', 'credit')),
  DROP CONSTRAINT ledger_correction_form,
  ADD CONSTRAINT ledger_correction_form CHECK (kind = 'credit' OR (kind = 'correction') = (corrects IS NOT NULL)),
  ADD CONSTRAINT ledger_credit_form CHECK (kind <> 'credit' OR (cost_usd = 0 AND charge_usd < 0 AND reason IS NOT NULL AND made_by IS NOT NULL)),
  ADD CONSTRAINT ledger_session_form CHECK (session_id IS NOT NULL OR kind IN ('embedding', 'correction', 'credit'));
ALTER TABLE public.ledger NO FORCE ROW LEVEL SECURITY;
UPDATE public.ledger SET charge_usd = cost_usd;
ALTER TABLE public.ledger FORCE ROW LEVEL SECURITY;
ALTER TABLE public.ledger ENABLE TRIGGER ledger_append_only;
ALTER TABLE public.ledger ALTER COLUMN charge_usd SET NOT NULL;
COMMENT ON COLUMN public.ledger.charge_usd IS 'What the workspace is charged for it. Negative: given back.';
COMMENT ON COLUMN public.ledger.reason IS 'Of a credit, and of a correction that somebody made by hand: why.';
COMMENT ON COLUMN public.ledger.made_by IS 'Of those: who (the subject of the token).';

-- What has no session (an embedding of a document) is in turns too, so that the guide's query counts all that was used.
ALTER TABLE public.turns
  ADD COLUMN kind text NOT NULL DEFAULT 'turn' CHECK (kind IN ('turn', 'embedding', 'extraction')),
  ALTER COLUMN session_id DROP NOT NULL,
  ADD CONSTRAINT turns_session_form CHECK (session_id IS NOT NULL OR kind = 'embedding');

RESET ROLE;
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$kind, turn_id, grant_id, agent_id, user_id, session_id, provider, model, price_version,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, source, turn_started_at)$old$,
$new$kind, turn_id, grant_id, agent_id, user_id, session_id, provider, model, price_version,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, charge_usd, source, turn_started_at)$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$v_input, v_cached, v_output, v_reasoning, v_cost, v_source, v_started)
  ON CONFLICT$old$,
$new$v_input, v_cached, v_output, v_reasoning, v_cost, v_cost, v_source, v_started)
  ON CONFLICT$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, source, turn_started_at)
    SELECT$old$,
$new$input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, charge_usd, source, turn_started_at)
    SELECT$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$v_reasoning - v_old.reasoning_tokens, v_cost - v_old.cost_usd, v_source,$old$,
$new$v_reasoning - v_old.reasoning_tokens, v_cost - v_old.cost_usd, v_cost - v_old.cost_usd, v_source,$new$);
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
