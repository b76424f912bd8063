-- The ledger as a chain: each entry's hash covers the one before it, so that whoever changes, removes or inserts an entry with more rights than these is found, and what a workspace
-- is charged can be proved to it by receipts that it keeps. More than one correction of a turn; credits and corrections that the operator makes.
--
-- Traps: * an entry gets its place, its time and its hash in one place, astra.ledger_place, from ledger_heads' row, which is locked until the commit. Nothing else may write there.
--        * what is hashed is astra.ledger_text, to the byte; docs/ledger.md says it for everybody else, astra_kernel::ledger makes the same. A column that comes later is not in it.
--        * who asked is personal and goes with its workspace (0024): the text holds a salted hash of it, and the salt goes along, so that the chain holds and nobody can try names.
--        * a month of the chain is by when an entry was entered (created_at), which never goes back from one entry to the next; a month of the bill is by turn_started_at.

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

ALTER TABLE public.ledger_heads
  ADD COLUMN entered_at timestamptz NOT NULL DEFAULT 'epoch',
  ADD COLUMN prev_hash bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000',
  ADD COLUMN hash bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000';
COMMENT ON COLUMN public.ledger_heads.hash IS 'The last entry''s; prev_hash is what it was before that.';
GRANT UPDATE (entered_at, prev_hash, hash) ON public.ledger_heads TO astra_quota_inside;

ALTER TABLE public.ledger DISABLE TRIGGER ledger_append_only;
ALTER TABLE public.ledger
  ADD COLUMN nth smallint NOT NULL DEFAULT 0,
  ADD COLUMN markup_basis_points int NOT NULL DEFAULT 0,
  ADD COLUMN user_salt uuid,
  ADD COLUMN user_hash bytea,
  ADD COLUMN prev_hash bytea,
  ADD COLUMN hash bytea,
  ALTER COLUMN created_at DROP DEFAULT;
COMMENT ON COLUMN public.ledger.nth IS 'Of a correction: how many its turn had before it, and one. 0: no correction.';
COMMENT ON COLUMN public.ledger.markup_basis_points IS 'The plan''s mark-up when what was used began: charge_usd is astra.charge of cost_usd.';
COMMENT ON COLUMN public.ledger.user_salt IS 'Goes when user_id goes.';
COMMENT ON COLUMN public.ledger.user_hash IS 'sha256 of user_salt''s 16 bytes and user_id.';
COMMENT ON COLUMN public.ledger.hash IS 'sha256 of astra.ledger_text; prev_hash is that of the entry before, zeros for the first.';

-- What is charged for what it cost: rounded half up to a whole nano-dollar, once for each entry. (No division: its quotient would be rounded before.)
CREATE FUNCTION astra.charge(p_cost numeric, p_markup int) RETURNS numeric LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS
$$
BEGIN
  IF p_markup = 0 THEN
    RETURN p_cost;
  END IF;
  RETURN pg_catalog.round(p_cost OPERATOR(pg_catalog.*) (10000 OPERATOR(pg_catalog.+) p_markup) OPERATOR(pg_catalog.*) 0.0001, 9);
END
$$;

-- What an entry's hash is of, in UTF-8: a JSON object without blanks, these names in this order. Numbers are whole, times have six decimals, hashes are hexadecimal. First what is
-- known before it has a place; then the place (ledger_text), and in a receipt the hash. STABLE, as to_char is.
CREATE FUNCTION astra.ledger_words(p_workspace text, p_id uuid, p_kind text, p_turn uuid, p_corrects uuid, p_nth smallint, p_grant uuid, p_agent text, p_user_hash bytea, p_session uuid,
  p_provider text, p_model text, p_price int, p_markup int, p_input bigint, p_cached bigint, p_output bigint, p_reasoning bigint, p_embedding bigint, p_cost numeric, p_charge numeric, p_source text,
  p_started timestamptz, p_reason text, p_by text) RETURNS text LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN pg_catalog.concat('{"workspaceId":', pg_catalog.to_json(p_workspace), ',"id":"', p_id, '","kind":"', p_kind, '","turnId":"', p_turn,
    '","corrects":', COALESCE(pg_catalog.to_json(p_corrects)::text, 'null'), ',"nth":', p_nth, ',"grantId":', COALESCE(pg_catalog.to_json(p_grant)::text, 'null'),
    ',"agentId":', pg_catalog.to_json(p_agent), ',"userHash":"', pg_catalog.encode(p_user_hash, 'hex'), '","sessionId":', COALESCE(pg_catalog.to_json(p_session)::text, 'null'),
    ',"provider":', pg_catalog.to_json(p_provider), ',"model":', pg_catalog.to_json(p_model), ',"priceVersion":', p_price, ',"markupBasisPoints":', p_markup, ',"inputTokens":', p_input,
    ',"cachedInputTokens":', p_cached, ',"outputTokens":', p_output, ',"reasoningTokens":', p_reasoning, ',"embeddingTokens":', p_embedding,
    ',"costNanoUsd":', pg_catalog.round(p_cost OPERATOR(pg_catalog.*) 1000000000), ',"chargeNanoUsd":', pg_catalog.round(p_charge OPERATOR(pg_catalog.*) 1000000000),
    ',"source":"', p_source, '","startedAt":"', pg_catalog.to_char(p_started AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    '","reason":', COALESCE(pg_catalog.to_json(p_reason)::text, 'null'), ',"madeBy":', COALESCE(pg_catalog.to_json(p_by)::text, 'null'));
END
$$;
CREATE FUNCTION astra.ledger_text(p_words text, p_seq bigint, p_at timestamptz, p_prev bytea) RETURNS text LANGUAGE sql STABLE AS
$$
  SELECT pg_catalog.concat(p_words, ',"seq":', p_seq, ',"enteredAt":"', pg_catalog.to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                           '","prevHash":"', pg_catalog.encode(p_prev, 'hex'), '"}')
$$;
-- What a receipt says: the text that is hashed, with the hash behind it.
CREATE FUNCTION astra.receipt_text(p_text text, p_hash bytea) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT pg_catalog.concat(pg_catalog.left(p_text, -1), ',"hash":"', pg_catalog.encode(p_hash, 'hex'), '"}') $$;

-- The same of an entry that is there.
CREATE FUNCTION astra.ledger_text(p public.ledger) RETURNS text LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN astra.ledger_text(astra.ledger_words(p.workspace_id, p.id, p.kind, p.turn_id, p.corrects, p.nth, p.grant_id, p.agent_id, p.user_hash, p.session_id, p.provider, p.model,
    p.price_version, p.markup_basis_points, p.input_tokens, p.cached_input_tokens, p.output_tokens, p.reasoning_tokens, p.embedding_tokens, p.cost_usd, p.charge_usd, p.source, p.turn_started_at, p.reason,
    p.made_by), p.seq, p.created_at, p.prev_hash);
END
$$;
CREATE FUNCTION astra.receipt_text(p public.ledger) RETURNS text LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN astra.receipt_text(astra.ledger_text(p), p.hash); END $$;

-- astra_kernel::ledger::Entry, and who asked.
CREATE FUNCTION astra.ledger_json(p public.ledger) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN jsonb_build_object('entry', astra.receipt_text(p)::jsonb, 'userId', p.user_id, 'userSalt', p.user_salt); END $$;

-- Gives an entry its id, its place behind the last one, its time and its hash. The head's row is locked until the commit, so whoever waited for it goes on from what its last holder
-- committed. Whoever then does not enter it gives the place back (ledger_give_back). turn_enter does the same without a row in between, which costs a turn 25 us less.
CREATE FUNCTION astra.ledger_place(p public.ledger) RETURNS public.ledger LANGUAGE plpgsql AS
$$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_words text;
BEGIN
  p.id := gen_random_uuid();
  p.user_salt := gen_random_uuid();
  p.user_hash := sha256(uuid_send(p.user_salt) || convert_to(p.user_id, 'UTF8'));
  v_words := astra.ledger_words(p.workspace_id, p.id, p.kind, p.turn_id, p.corrects, p.nth, p.grant_id, p.agent_id, p.user_hash, p.session_id, p.provider, p.model,
    p.price_version, p.markup_basis_points, p.input_tokens, p.cached_input_tokens, p.output_tokens, p.reasoning_tokens, p.embedding_tokens, p.cost_usd, p.charge_usd, p.source, p.turn_started_at, p.reason,
    p.made_by);
  -- A workspace's first. Stays when the workspace goes, as its ledger does.
  INSERT INTO public.ledger_heads (workspace_id, seq) VALUES (p.workspace_id, 0) ON CONFLICT (workspace_id) DO NOTHING;
  UPDATE public.ledger_heads h
  SET seq = h.seq + 1, entered_at = greatest(h.entered_at, v_now), prev_hash = h.hash,
      hash = sha256(convert_to(astra.ledger_text(v_words, h.seq + 1, greatest(h.entered_at, v_now), h.hash), 'UTF8'))
  WHERE h.workspace_id = p.workspace_id
  RETURNING h.seq, h.entered_at, h.prev_hash, h.hash INTO p.seq, p.created_at, p.prev_hash, p.hash;
  RETURN p;
END
$$;

CREATE FUNCTION astra.ledger_give_back(p_workspace text) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
  UPDATE public.ledger_heads h SET seq = h.seq - 1, hash = h.prev_hash WHERE h.workspace_id = p_workspace;
END
$$;

-- The receipt of what a turn entered itself: its last entry that nobody made by hand. NULL when it has none here.
CREATE FUNCTION astra.turn_receipt(p_workspace text, p_turn uuid) RETURNS text LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN (SELECT astra.receipt_text(l) FROM public.ledger l
          WHERE l.workspace_id = p_workspace AND l.turn_id = p_turn AND l.kind <> 'credit' AND l.made_by IS NULL ORDER BY l.seq DESC LIMIT 1);
END
$$;
DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT p.oid::regprocedure AS name FROM pg_proc p
           WHERE p.pronamespace = 'astra'::regnamespace AND p.proname IN ('charge', 'ledger_words', 'ledger_text', 'receipt_text', 'ledger_json', 'ledger_place', 'ledger_give_back', 'turn_receipt') LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO astra_quota_inside', v.name);
    IF v.name::text ~ 'ledger_words|_text|_json' THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO astra_billing', v.name);
    END IF;
  END LOOP;
END
$$;

-- Entries from before, in their order. A correction was its turn's only one.
ALTER TABLE public.ledger NO FORCE ROW LEVEL SECURITY;
ALTER TABLE public.ledger_heads NO FORCE ROW LEVEL SECURITY;
DO $$
DECLARE
  v public.ledger;
  v_workspace text := '';
  v_hash bytea;
BEGIN
  FOR v IN SELECT l.* FROM public.ledger l ORDER BY l.workspace_id, l.seq LOOP
    IF v.workspace_id <> v_workspace THEN
      v_workspace := v.workspace_id;
      v_hash := decode(repeat('00', 32), 'hex');
    END IF;
    v.nth := (v.kind = 'correction')::int;
    -- Who was forgotten has no salt that anybody could know.
    v.user_salt := gen_random_uuid();
    v.user_hash := sha256(uuid_send(v.user_salt) || convert_to(v.user_id, 'UTF8'));
    IF v.user_id = '' THEN
      v.user_salt := NULL;
    END IF;
    v.prev_hash := v_hash;
    v.hash := sha256(convert_to(astra.ledger_text(v), 'UTF8'));
    UPDATE public.ledger l SET nth = v.nth, user_salt = v.user_salt, user_hash = v.user_hash, prev_hash = v.prev_hash, hash = v.hash
    WHERE l.workspace_id = v.workspace_id AND l.seq = v.seq;
    INSERT INTO public.ledger_heads AS h (workspace_id, seq, entered_at, prev_hash, hash) VALUES (v.workspace_id, v.seq, v.created_at, v.prev_hash, v.hash)
    ON CONFLICT (workspace_id) DO UPDATE SET seq = v.seq, entered_at = greatest(h.entered_at, v.created_at), prev_hash = v.prev_hash, hash = v.hash;
    v_hash := v.hash;
  END LOOP;
END
$$;
ALTER TABLE public.ledger FORCE ROW LEVEL SECURITY;
ALTER TABLE public.ledger_heads FORCE ROW LEVEL SECURITY;
ALTER TABLE public.ledger ENABLE TRIGGER ledger_append_only;
ALTER TABLE public.ledger
  ALTER COLUMN user_hash SET NOT NULL,
  ALTER COLUMN prev_hash SET NOT NULL,
  ALTER COLUMN hash SET NOT NULL;

-- The trigger says it to everybody; the owner has no right to more either.
REVOKE UPDATE, DELETE, TRUNCATE ON public.ledger FROM astra_owner;

-- A turn may be corrected more than once; what it entered itself is once.
DROP INDEX public.ledger_once;
CREATE UNIQUE INDEX ledger_once ON public.ledger (workspace_id, turn_id, kind, nth);

RESET ROLE;
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$  v_done text;
BEGIN
  IF v_guest IS NOT NULL THEN
    p_arg$old$,
$new$  v_done text;
  v_entry public.ledger;
  v_entry_id uuid := gen_random_uuid();
  v_used text := COALESCE(p_arg ->> 'kind', 'turn');
  v_embedded bigint := CASE WHEN p_arg ->> 'kind' = 'embedding' THEN (p_arg #>> '{usage,inputTokens}')::bigint ELSE 0 END;
  v_markup int := COALESCE((p_arg ->> 'markupBasisPoints')::int, 0);
  v_charge numeric := astra.charge(v_cost, v_markup);
  v_salt uuid := gen_random_uuid();
  v_who bytea;
  v_words text;
  v_at timestamptz := clock_timestamp();
  v_entered timestamptz;
  v_prev bytea;
  v_hash bytea;
BEGIN
  IF v_guest IS NOT NULL THEN
    p_arg$new$);
SELECT pg_temp.amend_from('astra.turn_enter(text, jsonb, jsonb, jsonb)', $from$  -- The ledger's next place.$from$, $to$
  ON CONFLICT (workspace_id, turn_id, kind) DO NOTHING$to$,
$new$  -- The entry, and its place in the ledger: astra.ledger_place says it. The row is locked until the commit, so whoever waited for it goes on from what its last holder committed.
  v_who := sha256(uuid_send(v_salt) || convert_to(v_subject, 'UTF8'));
  v_words := astra.ledger_words(p_workspace, v_entry_id, v_used, v_id, NULL, 0::smallint, (v_guest ->> 'grantId')::uuid, v_agent, v_who, v_session, v_provider, v_model, v_price,
    v_markup, v_input, v_cached, v_output, v_reasoning, v_embedded, v_cost, v_charge, v_source, v_started, NULL, NULL);
  LOOP
    UPDATE public.ledger_heads h
    SET seq = h.seq + 1, entered_at = greatest(h.entered_at, v_at), prev_hash = h.hash,
        hash = sha256(convert_to(astra.ledger_text(v_words, h.seq + 1, greatest(h.entered_at, v_at), h.hash), 'UTF8'))
    WHERE h.workspace_id = p_workspace
    RETURNING h.seq, h.entered_at, h.prev_hash, h.hash INTO v_seq, v_entered, v_prev, v_hash;
    EXIT WHEN FOUND;
    INSERT INTO public.ledger_heads (workspace_id, seq) VALUES (p_workspace, 0) ON CONFLICT (workspace_id) DO NOTHING;
  END LOOP;
  -- That a turn has one already is found by the index that upholds it, whatever the planner knows of the table.
  INSERT INTO public.ledger (workspace_id, seq, id, kind, turn_id, nth, grant_id, agent_id, user_id, user_salt, user_hash, session_id, provider, model, price_version, markup_basis_points,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, embedding_tokens, cost_usd, charge_usd, source, turn_started_at, created_at, prev_hash, hash)
  VALUES (p_workspace, v_seq, v_entry_id, v_used, v_id, 0, (v_guest ->> 'grantId')::uuid, v_agent, v_subject, v_salt, v_who, v_session, v_provider, v_model, v_price, v_markup,
    v_input, v_cached, v_output, v_reasoning, v_embedded, v_cost, v_charge, v_source, v_started, v_entered, v_prev, v_hash)
  ON CONFLICT (workspace_id, turn_id, kind, nth) DO NOTHING$new$);
SELECT pg_temp.amend_from('astra.turn_enter(text, jsonb, jsonb, jsonb)', $from$    SELECT t.* INTO v_old FROM$from$, $to$
    SELECT w.time_zone INTO v_zone$to$,
$new$    v_done := astra.ledger_give_back(p_workspace);
    SELECT t.* INTO v_old FROM public.turns t WHERE t.workspace_id = p_workspace AND t.id = v_id;
    IF v_old.status IS DISTINCT FROM 'expired' OR v_status = 'expired' THEN
      RETURN jsonb_build_object('outcome', 'duplicate', 'ledgerSeq',
        (SELECT max(l.seq) FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_id),
        'receipt', CASE WHEN v_guest IS NULL THEN astra.turn_receipt(p_workspace, v_id) END);
    END IF;
    -- What is to be added to the entries before (it may be negative). It counts in the turn's month.
    v_entry := astra.ledger_correction(v_old, v_input, v_cached, v_output, v_reasoning, v_cost, v_charge);
    v_entry.provider := v_provider;
    v_entry.model := v_model;
    v_entry.price_version := v_price;
    v_entry.markup_basis_points := v_markup;
    v_entry.source := v_source;
    v_entry := astra.ledger_place(v_entry);
    v_seq := v_entry.seq;
    INSERT INTO public.ledger SELECT v_entry.*;
    SELECT w.time_zone INTO v_zone$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$ELSE 'corrected' END, 'ledgerSeq', v_seq);$old$,
$new$ELSE 'corrected' END, 'ledgerSeq', v_seq,
    -- What another's turn was charged here is not its to know.
    'receipt', CASE WHEN v_guest IS NOT NULL THEN NULL WHEN v_old.id IS NOT NULL THEN astra.receipt_text(v_entry)
                    ELSE astra.receipt_text(astra.ledger_text(v_words, v_seq, v_entered, v_prev), v_hash) END);$new$);
SELECT pg_temp.amend('astra.hold_finish(text, text)',
$old$      RETURN '{"outcome":"late"}';$old$,
$new$      RETURN jsonb_build_object('outcome', 'late', 'receipt', v_saved -> 'receipt')::text;$new$);
SELECT pg_temp.amend('astra.hold_finish(text, text)',
$old$      v_done := astra.turn_enter(p_workspace, v_arg, v_answer, v_arg -> 'alerts');$old$,
$new$      v_saved := astra.turn_enter(p_workspace, v_arg, v_answer, v_arg -> 'alerts');$new$);
SELECT pg_temp.amend('astra.hold_finish(text, text)',
$old$  RETURN jsonb_build_object('outcome', 'finished', 'quota', v_quota)::text;$old$,
$new$  RETURN jsonb_build_object('outcome', 'finished', 'quota', v_quota, 'receipt', v_saved -> 'receipt')::text;$new$);
-- The same answer again has the same receipt.
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$        'replayTurn', jsonb_build_object('turnId', v_turn.id,$old$,
$new$        'receipt', astra.turn_receipt(p_workspace, v_turn.id),
        'replayTurn', jsonb_build_object('turnId', v_turn.id,$new$);
-- Whoever else enters something finds what is there by the same index.
DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'astra'::regnamespace AND p.prosrc LIKE '%ON CONFLICT (workspace_id, turn_id, kind) %' LOOP
    RAISE EXCEPTION '% enters something without a place in the chain', v.oid::regprocedure;
  END LOOP;
END
$$;

-- What is no agent's (a credit, an embedding) is in the sum and by no agent.
SELECT pg_temp.amend('astra.quota_spent(text, text)',
$old$'tokens', s.tokens::bigint)), '{}'))$old$,
$new$'tokens', s.tokens::bigint)) FILTER (WHERE s.agent_id <> ''), '{}'))$new$);

-- Who is forgotten is forgotten with the salt.
GRANT UPDATE (user_salt) ON public.ledger TO astra_eraser;
-- Whoever takes their data along takes hashes that they can compare.
SELECT pg_temp.amend('astra.workspace_export(text, text)', $old$to_jsonb(l) - 'workspace_id' AS doc FROM public.ledger l$old$,
$new$to_jsonb(l) - 'workspace_id' || jsonb_build_object('user_hash', encode(l.user_hash, 'hex'), 'prev_hash', encode(l.prev_hash, 'hex'), 'hash', encode(l.hash, 'hex')) AS doc
        FROM public.ledger l$new$);
SELECT pg_temp.amend('astra.ledger_forget(text)', $old$SET user_id = '' WHERE$old$, $new$SET user_id = '', user_salt = NULL WHERE$new$);

SET LOCAL ROLE astra_owner;

-- The entry that makes a turn's row what it is to be: the difference to what all its entries say. No place yet.
CREATE FUNCTION astra.ledger_correction(p_turn public.turns, p_input bigint, p_cached bigint, p_output bigint, p_reasoning bigint, p_cost numeric, p_charge numeric)
RETURNS public.ledger LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v public.ledger;
  v_first public.ledger;
BEGIN
  SELECT l.* INTO v_first FROM public.ledger l
  WHERE l.workspace_id = p_turn.workspace_id AND l.turn_id = p_turn.id AND l.kind NOT IN ('correction', 'credit') ORDER BY l.seq LIMIT 1;
  v := v_first;
  v.kind := 'correction';
  v.corrects := v_first.id;
  v.agent_id := p_turn.agent_id;
  v.user_id := p_turn.user_id;
  SELECT 1 + COALESCE(max(l.nth), 0), p_input - sum(l.input_tokens), p_cached - sum(l.cached_input_tokens), p_output - sum(l.output_tokens),
         p_reasoning - sum(l.reasoning_tokens), p_cost - sum(l.cost_usd), p_charge - sum(l.charge_usd)
  INTO v.nth, v.input_tokens, v.cached_input_tokens, v.output_tokens, v.reasoning_tokens, v.cost_usd, v.charge_usd
  FROM public.ledger l WHERE l.workspace_id = p_turn.workspace_id AND l.turn_id = p_turn.id AND l.kind <> 'credit';
  v.embedding_tokens := CASE v_first.kind WHEN 'embedding' THEN v.input_tokens ELSE 0 END;
  RETURN v;
END
$$;
GRANT EXECUTE ON FUNCTION astra.ledger_correction(public.turns, bigint, bigint, bigint, bigint, numeric, numeric) TO astra_quota_inside;

-- How many entries were entered before a moment. They are in the order of their times, so it is looked for by halves.
CREATE FUNCTION astra.ledger_before(p_workspace text, p_at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_low bigint := 0;
  v_high bigint := COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);
  v_half bigint;
BEGIN
  WHILE v_low < v_high LOOP
    v_half := (v_low + v_high + 1) / 2;
    IF (SELECT l.created_at < p_at FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.seq = v_half) THEN
      v_low := v_half;
    ELSE
      v_high := v_half - 1;
    END IF;
  END LOOP;
  RETURN v_low;
END
$$;

-- The places of a month's entries, which were entered in it, in the workspace's zone: from the first to before the last. NULL, NULL without a month.
CREATE FUNCTION astra.ledger_month(p_workspace text, p_month text, OUT first_seq bigint, OUT end_seq bigint) LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_month date;
  v_zone text;
BEGIN
  IF p_month IS NOT NULL THEN
    v_month := astra.parse_month(p_month);
    v_zone := COALESCE((SELECT w.time_zone FROM public.workspaces w WHERE w.id = p_workspace), 'UTC');
    first_seq := astra.ledger_before(p_workspace, astra.day_start(v_month, v_zone)) + 1;
    end_seq := astra.ledger_before(p_workspace, astra.day_start((v_month + interval '1 month')::date, v_zone)) + 1;
  END IF;
END
$$;

-- {after?, limit?, month?} -> ok | not_found, data [ledger_json] latest first, next
CREATE FUNCTION astra.ledger_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_month record;
  v_data jsonb;
  v_next text;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) AND NOT EXISTS (SELECT 1 FROM public.ledger_heads h WHERE h.workspace_id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[],"next":null}';
  END IF;
  v_month := astra.ledger_month(p_workspace, v_arg ->> 'month');
  SELECT COALESCE(jsonb_agg(astra.ledger_json((p.l)) ORDER BY (p.l).seq DESC)
                    FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN (min((p.l).seq) FILTER (WHERE p.n <= v_limit))::text END
  INTO v_data, v_next
  FROM (SELECT l, row_number() OVER (ORDER BY l.seq DESC) AS n
        FROM public.ledger l
        WHERE l.workspace_id = p_workspace AND l.seq < COALESCE((v_arg ->> 'after')::bigint, 9223372036854775807)
          AND (v_month.end_seq IS NULL OR (l.seq >= v_month.first_seq AND l.seq < v_month.end_seq))
        ORDER BY l.seq DESC LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {after?, limit?, month?} -> ok | not_found, data [{seq, turnId, kind, text: what is signed}] oldest first, next
CREATE FUNCTION astra.receipts_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_month record;
  v_data jsonb;
  v_next text;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) AND NOT EXISTS (SELECT 1 FROM public.ledger_heads h WHERE h.workspace_id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[],"next":null}';
  END IF;
  v_month := astra.ledger_month(p_workspace, v_arg ->> 'month');
  SELECT COALESCE(jsonb_agg(jsonb_build_object('seq', (p.l).seq, 'turnId', (p.l).turn_id, 'kind', (p.l).kind, 'text', astra.receipt_text((p.l))) ORDER BY (p.l).seq)
                    FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN (max((p.l).seq) FILTER (WHERE p.n <= v_limit))::text END
  INTO v_data, v_next
  FROM (SELECT l, row_number() OVER (ORDER BY l.seq) AS n
        FROM public.ledger l
        WHERE l.workspace_id = p_workspace AND l.seq > COALESCE((v_arg ->> 'after')::bigint, 0)
          AND (v_month.end_seq IS NULL OR (l.seq >= v_month.first_seq AND l.seq < v_month.end_seq))
        ORDER BY l.seq LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {} -> ok | not_found, entries, brokenAt: the seq of the first entry that is not as it was entered, or is missing; null when all are. Who asked may have been forgotten with an earlier
-- workspace of the name, and with none that is there.
CREATE FUNCTION astra.ledger_verify(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v record;
  v_head public.ledger_heads;
  v_since timestamptz := (SELECT w.created_at FROM public.workspaces w WHERE w.id = p_workspace);
BEGIN
  SELECT h.* INTO v_head FROM public.ledger_heads h WHERE h.workspace_id = p_workspace;
  IF NOT FOUND AND v_since IS NULL THEN
    RETURN '{"outcome":"not_found","entries":0,"brokenAt":null}';
  END IF;
  SELECT count(*) AS entries, COALESCE(max(e.seq), 0) AS seq, min(e.n) FILTER (WHERE NOT e.good) AS broken_at, (array_agg(e.hash ORDER BY e.seq DESC))[1] AS hash
  INTO v
  FROM (SELECT l.seq, l.hash, row_number() OVER w AS n,
               COALESCE(l.seq = row_number() OVER w AND l.prev_hash = lag(l.hash, 1, decode(repeat('00', 32), 'hex')) OVER w
                 AND l.hash = sha256(convert_to(astra.ledger_text(l), 'UTF8'))
                 -- A year before Christ looks like the same one after.
                 AND least(l.created_at, l.turn_started_at) >= '0001-01-01T00:00:00Z'
                 AND CASE WHEN l.user_salt IS NULL THEN l.user_id = '' AND (v_since IS NULL OR l.created_at < v_since)
                          ELSE l.user_hash = sha256(uuid_send(l.user_salt) || convert_to(l.user_id, 'UTF8')) END, false) AS good
        FROM public.ledger l WHERE l.workspace_id = p_workspace WINDOW w AS (ORDER BY l.seq)) e;
  RETURN jsonb_build_object('outcome', 'ok', 'entries', v.entries, 'brokenAt',
    COALESCE(v.broken_at, CASE WHEN (v.seq, COALESCE(v.hash, decode(repeat('00', 32), 'hex')))
                                    IS DISTINCT FROM (COALESCE(v_head.seq, 0), COALESCE(v_head.hash, decode(repeat('00', 32), 'hex'))) THEN v.seq + 1 END))::text;
END
$$;
GRANT SELECT ON public.ledger, public.ledger_heads TO astra_billing;
GRANT EXECUTE ON FUNCTION astra.ledger_list(text, text), astra.receipts_list(text, text), astra.ledger_verify(text, text) TO astra_billing;
GRANT EXECUTE ON FUNCTION astra.ledger_before(text, timestamptz), astra.ledger_month(text, text), astra.day_start(date, text) TO astra_billing;

-- What the operator enters by hand. As astra_quota_inside, because nobody else may: for the operator, by the proof's word, and under the counter's lock, which whoever changes the
-- ledger has.
GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
GRANT EXECUTE ON FUNCTION astra.actor() TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;

-- Who does it: the subject of the operator's token.
CREATE FUNCTION astra.ledger_hand(p_workspace text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
  v_done text;
BEGIN
  v_done := set_config('astra.workspace', astra.tenant(), true);
  IF astra.tenant() IS DISTINCT FROM p_workspace OR NOT COALESCE((astra.actor()::jsonb ->> 'operator')::boolean, false) THEN
    RAISE EXCEPTION 'this is the operator''s' USING ERRCODE = 'insufficient_privilege';
  END IF;
  v_done := astra.counter_lock(p_workspace);
  RETURN astra.actor()::jsonb ->> 'sub';
END
$$;

-- {key, amountNanoUsd, reason, corrects? (an entry's seq), now} -> entered | entered_before, entry | not_found | reused: that key was another credit's | unknown_entry.
-- The key makes the credit's turn id, and an id has one credit.
CREATE FUNCTION astra.ledger_credit(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_by text := astra.ledger_hand(p_workspace);
  v_id uuid := substr(encode(sha256(convert_to(concat('credit ', p_workspace, ' ', v_arg ->> 'key'), 'UTF8')), 'hex'), 1, 32)::uuid;
  v public.ledger;
  v_was public.ledger;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  IF v_arg ->> 'corrects' IS NOT NULL THEN
    SELECT l.* INTO v_was FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.seq = (v_arg ->> 'corrects')::bigint;
    IF NOT FOUND THEN
      RETURN '{"outcome":"unknown_entry"}';
    END IF;
  END IF;
  v.workspace_id := p_workspace;
  v.kind := 'credit';
  v.turn_id := v_id;
  v.corrects := v_was.id;
  v.nth := 0;
  v.agent_id := COALESCE(v_was.agent_id, '');
  v.user_id := v_by;
  v.provider := COALESCE(v_was.provider, '');
  v.model := COALESCE(v_was.model, '');
  v.price_version := COALESCE(v_was.price_version, 0);
  v.markup_basis_points := 0;
  v.input_tokens := 0;
  v.cached_input_tokens := 0;
  v.output_tokens := 0;
  v.reasoning_tokens := 0;
  v.embedding_tokens := 0;
  v.cost_usd := 0;
  v.charge_usd := -astra.usd((v_arg ->> 'amountNanoUsd')::bigint);
  v.source := 'provider';
  v.turn_started_at := (v_arg ->> 'now')::timestamptz;
  v.reason := v_arg ->> 'reason';
  v.made_by := v_by;
  SELECT l.* INTO v_was FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_id AND l.kind = 'credit' AND l.nth = 0;
  IF FOUND THEN
    IF (v_was.charge_usd, v_was.reason) <> (v.charge_usd, v.reason) OR v_was.corrects IS DISTINCT FROM v.corrects THEN
      RETURN '{"outcome":"reused"}';
    END IF;
    RETURN jsonb_build_object('outcome', 'entered_before', 'entry', astra.ledger_json(v_was))::text;
  END IF;
  v := astra.ledger_place(v);
  INSERT INTO public.ledger SELECT v.*;
  RETURN jsonb_build_object('outcome', 'entered', 'entry', astra.ledger_json(v))::text;
END
$$;

-- {turnId, reason, inputTokens?, cachedInputTokens?, outputTokens?, reasoningTokens?, costNanoUsd?, chargeNanoUsd?: what they are to be} -> entered, entry | as_it_is: nothing to
-- correct | not_found | unknown_turn | not_so: the cached of the input are more than the input, or reasoning more than output. The turn's row says the same from then on; windows on rows, which know the last entry that they have
-- counted, are built again.
CREATE FUNCTION astra.ledger_correct(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_by text := astra.ledger_hand(p_workspace);
  v_turn public.turns;
  v public.ledger;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  -- Locked before it is read: what the turn's own end enters is then before or after all of this.
  PERFORM 1 FROM public.ledger_heads h WHERE h.workspace_id = p_workspace FOR UPDATE;
  SELECT t.* INTO v_turn FROM public.turns t WHERE t.workspace_id = p_workspace AND t.id = (v_arg ->> 'turnId')::uuid;
  IF NOT FOUND OR NOT EXISTS (SELECT 1 FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_turn.id AND l.kind NOT IN ('correction', 'credit')) THEN
    RETURN '{"outcome":"unknown_turn"}';
  END IF;
  v_turn.input_tokens := COALESCE((v_arg ->> 'inputTokens')::bigint, v_turn.input_tokens);
  v_turn.cached_input_tokens := COALESCE((v_arg ->> 'cachedInputTokens')::bigint, v_turn.cached_input_tokens);
  v_turn.output_tokens := COALESCE((v_arg ->> 'outputTokens')::bigint, v_turn.output_tokens);
  v_turn.reasoning_tokens := COALESCE((v_arg ->> 'reasoningTokens')::bigint, v_turn.reasoning_tokens);
  v_turn.cost_usd := COALESCE(astra.usd((v_arg ->> 'costNanoUsd')::bigint), v_turn.cost_usd);
  IF v_turn.cached_input_tokens > v_turn.input_tokens OR v_turn.reasoning_tokens > v_turn.output_tokens THEN
    RETURN '{"outcome":"not_so"}';
  END IF;
  v := astra.ledger_correction(v_turn, v_turn.input_tokens, v_turn.cached_input_tokens, v_turn.output_tokens, v_turn.reasoning_tokens, v_turn.cost_usd,
    COALESCE(astra.usd((v_arg ->> 'chargeNanoUsd')::bigint),
      (SELECT sum(l.charge_usd) FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_turn.id AND l.kind <> 'credit')));
  IF (v.input_tokens, v.cached_input_tokens, v.output_tokens, v.reasoning_tokens, v.cost_usd, v.charge_usd) = (0, 0, 0, 0, 0, 0) THEN
    RETURN '{"outcome":"as_it_is"}';
  END IF;
  v.reason := v_arg ->> 'reason';
  v.made_by := v_by;
  v := astra.ledger_place(v);
  INSERT INTO public.ledger SELECT v.*;
  UPDATE public.turns t
  SET input_tokens = v_turn.input_tokens, cached_input_tokens = v_turn.cached_input_tokens, output_tokens = v_turn.output_tokens,
      reasoning_tokens = v_turn.reasoning_tokens, cost_usd = v_turn.cost_usd
  WHERE t.workspace_id = p_workspace AND t.id = v_turn.id;
  RETURN jsonb_build_object('outcome', 'entered', 'entry', astra.ledger_json(v))::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.ledger_credit(text, text), astra.ledger_correct(text, text) TO astra_billing;
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;
-- The price book: dearer prices of long prompts, and where a price is from. A plan's mark-up.
SET LOCAL ROLE astra_owner;
ALTER TABLE public.prices
  ADD COLUMN long_above_tokens bigint,
  ADD COLUMN long_input_nano_per_mtok bigint,
  ADD COLUMN long_cached_input_nano_per_mtok bigint,
  ADD COLUMN long_output_nano_per_mtok bigint,
  ADD COLUMN source text,
  -- A long prompt is not cheaper than a short one, so that more never costs less.
  ADD CONSTRAINT prices_long_context CHECK (
    (long_above_tokens IS NULL AND long_input_nano_per_mtok IS NULL AND long_cached_input_nano_per_mtok IS NULL AND long_output_nano_per_mtok IS NULL)
    OR (long_above_tokens >= 0 AND long_input_nano_per_mtok >= input_nano_per_mtok AND long_cached_input_nano_per_mtok >= cached_input_nano_per_mtok
        AND long_output_nano_per_mtok >= output_nano_per_mtok) IS TRUE);
COMMENT ON COLUMN public.prices.long_above_tokens IS 'A call whose prompt is longer has the long_ prices for all its tokens. NULL: no other prices.';
COMMENT ON COLUMN public.prices.source IS 'Where the price is from.';
ALTER TABLE public.plan_settings ADD COLUMN markup_basis_points int NOT NULL DEFAULT 0 CHECK (markup_basis_points BETWEEN -10000 AND 1000000);
COMMENT ON COLUMN public.plan_settings.markup_basis_points IS 'What its workspaces are charged: what it costs, and so many hundredths of a percent of that more.';

-- astra_kernel::Price, for what is priced by a row.
CREATE FUNCTION astra.long_context(p public.prices) RETURNS json LANGUAGE plpgsql STABLE AS
$$
BEGIN
  IF p.long_above_tokens IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN json_build_object('aboveTokens', p.long_above_tokens, 'inputNanoPerMtok', p.long_input_nano_per_mtok, 'cachedInputNanoPerMtok', p.long_cached_input_nano_per_mtok,
                           'outputNanoPerMtok', p.long_output_nano_per_mtok);
END
$$;
CREATE FUNCTION astra.markup_of(p_workspace text) RETURNS int LANGUAGE plpgsql STABLE AS
$$
BEGIN
  RETURN COALESCE((SELECT s.markup_basis_points FROM public.workspaces w JOIN public.plan_settings s ON s.plan = w.plan WHERE w.id = p_workspace), 0);
END
$$;
GRANT EXECUTE ON FUNCTION astra.long_context(public.prices) TO astra_quota_inside, astra_operator, astra_billing;
GRANT EXECUTE ON FUNCTION astra.markup_of(text) TO astra_quota_inside, astra_billing;
RESET ROLE;

SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$p.output_nano_per_mtok, p.holds_maximum INTO v_price$old$,
$new$p.output_nano_per_mtok, p.holds_maximum,
         CASE WHEN p.long_above_tokens IS NOT NULL THEN astra.long_context(p) END AS long_context INTO v_price$new$);
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$                                'holdsMaximum', v_price.holds_maximum),$old$,
$new$                                'holdsMaximum', v_price.holds_maximum, 'longContext', v_price.long_context,
                                'markupBasisPoints', astra.markup_of(p_workspace)),$new$);
-- A use of 0033.
SELECT pg_temp.amend('astra.use_begin(text, jsonb)', $old$p.output_nano_per_mtok, p.holds_maximum INTO v_price$old$,
$new$p.output_nano_per_mtok, p.holds_maximum, astra.long_context(p) AS long_context INTO v_price$new$);
SELECT pg_temp.amend('astra.use_begin(text, jsonb)', $old$'holdsMaximum', v_price.holds_maximum),$old$,
$new$'holdsMaximum', v_price.holds_maximum, 'longContext', v_price.long_context, 'markupBasisPoints', astra.markup_of(p_workspace)),$new$);

SET LOCAL ROLE astra_owner;
GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;
-- As in 0008.
CREATE OR REPLACE FUNCTION astra.op_prices_list(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN (SELECT jsonb_build_object('outcome', 'ok', 'data', COALESCE(jsonb_agg(jsonb_build_object(
      'provider', p.provider, 'model', p.model, 'version', p.version, 'inputNanoPerMtok', p.input_nano_per_mtok,
      'cachedInputNanoPerMtok', p.cached_input_nano_per_mtok, 'outputNanoPerMtok', p.output_nano_per_mtok, 'holdsMaximum', p.holds_maximum,
      'longContext', astra.long_context(p), 'source', p.source,
      'validFrom', astra.ts(p.valid_from)) ORDER BY p.provider COLLATE "C", p.model COLLATE "C", p.version DESC), '[]')) FROM public.prices p)::text;
END
$$;
CREATE OR REPLACE FUNCTION astra.op_price_put(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_new public.prices;
  v_last public.prices;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('astra.prices', 0));
  v_new.provider := v_arg ->> 'provider';
  v_new.model := v_arg ->> 'model';
  v_new.input_nano_per_mtok := (v_arg ->> 'inputNanoPerMtok')::bigint;
  v_new.cached_input_nano_per_mtok := (v_arg ->> 'cachedInputNanoPerMtok')::bigint;
  v_new.output_nano_per_mtok := (v_arg ->> 'outputNanoPerMtok')::bigint;
  v_new.holds_maximum := COALESCE((v_arg ->> 'holdsMaximum')::boolean, false);
  v_new.valid_from := (v_arg ->> 'validFrom')::timestamptz;
  v_new.long_above_tokens := (v_arg #>> '{longContext,aboveTokens}')::bigint;
  v_new.long_input_nano_per_mtok := (v_arg #>> '{longContext,inputNanoPerMtok}')::bigint;
  v_new.long_cached_input_nano_per_mtok := (v_arg #>> '{longContext,cachedInputNanoPerMtok}')::bigint;
  v_new.long_output_nano_per_mtok := (v_arg #>> '{longContext,outputNanoPerMtok}')::bigint;
  v_new.source := v_arg ->> 'source';
  SELECT p.* INTO v_last FROM public.prices p WHERE p.provider = v_new.provider AND p.model = v_new.model ORDER BY p.version DESC LIMIT 1;
  v_new.version := v_last.version;
  IF v_last.version IS NULL OR v_new IS DISTINCT FROM v_last THEN
    v_new.version := COALESCE(v_last.version, 0) + 1;
    INSERT INTO public.prices SELECT v_new.*;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'version', v_new.version)::text;
END
$$;
RESET ROLE;
-- A mark-up that is not said stays.
SELECT pg_temp.amend('astra.op_plan_settings_put(text)', $old$(plan, carry_over, $old$, $new$(plan, markup_basis_points, carry_over, $new$);
SELECT pg_temp.amend('astra.op_plan_settings_put(text)', $old$VALUES (v_arg ->> 'plan', $old$, $new$VALUES (v_arg ->> 'plan', COALESCE((v_arg ->> 'markupBasisPoints')::int, 0), $new$);
SELECT pg_temp.amend('astra.op_plan_settings_put(text)', $old$SET carry_over = excluded.carry_over,$old$,
$new$SET carry_over = excluded.carry_over, markup_basis_points = COALESCE((v_arg ->> 'markupBasisPoints')::int, s.markup_basis_points),$new$);
SELECT pg_temp.amend('astra.op_plan_settings_get(text)', $old$'templateVersion', v_version$old$,
$new$'markupBasisPoints', COALESCE((SELECT s.markup_basis_points FROM public.plan_settings s WHERE s.plan = v_plan), 0), 'templateVersion', v_version$new$);
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;

-- The book of 2026-11-29 beside that of 0009: list prices per million tokens in dollars, each with where it was read. docs/prices.md has the same list. Exact names where a model has one: a
-- prefix that is too wide would price a dearer model as a cheap one. A price that an operator has set stays.
INSERT INTO public.prices (provider, model, version, input_nano_per_mtok, cached_input_nano_per_mtok, output_nano_per_mtok, holds_maximum,
                           long_above_tokens, long_input_nano_per_mtok, long_cached_input_nano_per_mtok, long_output_nano_per_mtok, source, valid_from)
SELECT s.provider, s.model, s.version, (s.input * 1000000000)::bigint, (s.cached * 1000000000)::bigint, (s.output * 1000000000)::bigint, s.holds_maximum,
       s.above, (s.long_input * 1000000000)::bigint, (s.long_cached * 1000000000)::bigint, (s.long_output * 1000000000)::bigint, s.source, s.valid_from::timestamptz
FROM (VALUES
  -- Reasoning is billed and not streamed.
  ('openai', 'gpt-6-astra',             1, 10.00, 1.00,  50.00, true,  272000, 20.00, 2.00, 75.00, 'https://github.com/BerriAI/litellm/blob/eeb7732fc11fd47762ca84cc3fb7cc74235d7097/model_prices_and_context_window.json', '2026-01-01T00:00:00Z'),
  ('openai', 'gpt-5.6-sol',             1,  4.00, 0.40,  20.00, true,  272000,  8.00, 0.80, 30.00, 'https://github.com/BerriAI/litellm/blob/eeb7732fc11fd47762ca84cc3fb7cc74235d7097/model_prices_and_context_window.json', '2026-01-01T00:00:00Z'),
  ('openai', 'gpt-5.6-terra',           1,  2.00, 0.20,  12.00, true,  272000,  4.00, 0.40, 18.00, 'https://github.com/BerriAI/litellm/blob/eeb7732fc11fd47762ca84cc3fb7cc74235d7097/model_prices_and_context_window.json', '2026-01-01T00:00:00Z'),
  ('openai', 'gpt-5.6-luna',            1,  0.20, 0.02,   1.20, true,  272000,  0.40, 0.04,  1.80, 'https://github.com/BerriAI/litellm/blob/eeb7732fc11fd47762ca84cc3fb7cc74235d7097/model_prices_and_context_window.json', '2026-01-01T00:00:00Z'),
  ('openai', 'gpt-5.4-mini',            1,  0.75, 0.075,  4.50, true,  NULL, NULL, NULL, NULL, 'https://developers.openai.com/api/docs/pricing', '2026-01-01T00:00:00Z'),
  ('openai', 'gpt-5.4-nano',            1,  0.20, 0.02,   1.25, true,  NULL, NULL, NULL, NULL, 'https://developers.openai.com/api/docs/pricing', '2026-01-01T00:00:00Z'),
  ('openai', 'gpt-5.2',                 1,  1.75, 0.175, 14.00, true,  NULL, NULL, NULL, NULL, 'https://github.com/github/docs/blob/main/data/tables/copilot/models-and-pricing.yml', '2026-01-01T00:00:00Z'),
  ('openai', 'gpt-5-mini',              1,  0.25, 0.025,  2.00, true,  NULL, NULL, NULL, NULL, 'https://github.com/github/docs/blob/main/data/tables/copilot/models-and-pricing.yml', '2026-01-01T00:00:00Z'),
  ('openai', 'gpt-5-nano',              1,  0.05, 0.005,  0.40, true,  NULL, NULL, NULL, NULL, 'https://developers.openai.com/api/docs/models/gpt-5-nano', '2026-01-01T00:00:00Z'),
  -- An embedding's price is that of its input.
  ('openai', 'text-embedding-3-small',  1,  0.02, 0.02,   0.00, false, NULL, NULL, NULL, NULL, 'https://developers.openai.com/api/docs/models/text-embedding-3-small', '2026-01-01T00:00:00Z'),
  ('openai', 'text-embedding-3-large',  1,  0.13, 0.13,   0.00, false, NULL, NULL, NULL, NULL, 'https://developers.openai.com/api/docs/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-fable-5-1',     1, 10.00, 0.25,  50.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-fable-5',       1, 10.00, 1.00,  50.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-opus-5-5',      1,  4.00, 0.20,  20.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-opus-5',        1,  5.00, 0.50,  25.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-opus-4-8',      1,  5.00, 0.50,  25.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-opus-4-7',      1,  5.00, 0.50,  25.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-opus-4-6',      1,  5.00, 0.50,  25.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-opus-4-5*',     1,  5.00, 0.50,  25.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-opus-4-1*',     1, 15.00, 1.50,  75.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  -- Its cache became cheaper.
  ('anthropic', 'claude-sonnet-5-5',    1,  2.00, 0.20,  10.00, false, NULL, NULL, NULL, NULL, 'https://github.com/kurofune/claudit/releases/tag/v1.9.2', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-sonnet-5-5',    2,  2.00, 0.10,  10.00, false, NULL, NULL, NULL, NULL, 'https://github.com/kurofune/claudit/releases/tag/v1.9.2', '2026-10-07T00:00:00Z'),
  ('anthropic', 'claude-sonnet-5',      1,  2.00, 0.20,  10.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-sonnet-4-6',    1,  3.00, 0.30,  15.00, false, NULL, NULL, NULL, NULL, 'https://platform.claude.com/docs/en/about-claude/pricing', '2026-01-01T00:00:00Z'),
  ('anthropic', 'claude-haiku-5-5',     1,  0.10, 0.01,   0.50, false, 100000, 0.50, 0.05, 2.50, 'https://github.com/kurofune/claudit/releases/tag/v1.9.2', '2026-01-01T00:00:00Z')
) AS s (provider, model, version, input, cached, output, holds_maximum, above, long_input, long_cached, long_output, source, valid_from)
-- What has versions of the operator's own has no use for these.
WHERE NOT EXISTS (SELECT 1 FROM public.prices p WHERE p.provider = s.provider AND p.model = s.model);

-- Pricing a period again. What it would cost is reckoned by astra_kernel::Price, as of every turn; here is read what there is, and entered what differs.
-- {from, to, provider?, model?, after?, limit} -> ok | not_found, data [{seq, turnId, provider, model, usage, costNanoUsd, chargeNanoUsd, markupBasisPoints, price | null: that of the book
-- for when it began}] by seq, next. Of what this workspace has paid for and has not been deleted. What was corrected by hand is as it was corrected.
GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;
CREATE FUNCTION astra.reprice_read(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_done text;
  v_data jsonb;
  v_next text;
BEGIN
  v_done := set_config('astra.workspace', astra.tenant(), true);
  IF NOT COALESCE((astra.actor()::jsonb ->> 'operator')::boolean, false) THEN
    RAISE EXCEPTION 'this is the operator''s' USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF astra.tenant() IS DISTINCT FROM p_workspace OR NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[],"next":null}';
  END IF;
  SELECT COALESCE(jsonb_agg(p.doc ORDER BY p.seq) FILTER (WHERE p.n <= v_limit), '[]'), CASE WHEN count(*) > v_limit THEN (max(p.seq) FILTER (WHERE p.n <= v_limit))::text END
  INTO v_data, v_next
  FROM (
    SELECT e.seq, row_number() OVER (ORDER BY e.seq) AS n,
      jsonb_build_object('seq', e.seq, 'turnId', e.turn_id, 'provider', e.provider, 'model', e.model, 'costNanoUsd', astra.nano(e.cost), 'chargeNanoUsd', astra.nano(e.charge),
        'markupBasisPoints', e.markup, 'usage', jsonb_build_object('inputTokens', e.input, 'cachedInputTokens', e.cached, 'outputTokens', e.output, 'reasoningTokens', e.reasoning,
                                                                   'source', e.source),
        'price', CASE WHEN (b.price).version IS NOT NULL THEN
          json_build_object('version', (b.price).version, 'inputNanoPerMtok', (b.price).input_nano_per_mtok, 'cachedInputNanoPerMtok', (b.price).cached_input_nano_per_mtok,
                            'outputNanoPerMtok', (b.price).output_nano_per_mtok, 'holdsMaximum', (b.price).holds_maximum, 'longContext', astra.long_context(b.price)) END) AS doc
    FROM (SELECT l.seq, l.turn_id, t.provider, t.model, t.usage_source AS source, t.input_tokens AS input, t.cached_input_tokens AS cached, t.output_tokens AS output,
                 t.reasoning_tokens AS reasoning, t.cost_usd AS cost, l.markup_basis_points AS markup, l.turn_started_at,
                 (SELECT sum(c.charge_usd) FROM public.ledger c WHERE c.workspace_id = p_workspace AND c.turn_id = l.turn_id AND c.kind <> 'credit') AS charge
          FROM public.ledger l JOIN public.turns t ON t.workspace_id = p_workspace AND t.id = l.turn_id
          WHERE l.workspace_id = p_workspace AND l.kind NOT IN ('correction', 'credit') AND l.seq > COALESCE((v_arg ->> 'after')::bigint, 0)
            AND l.turn_started_at >= (v_arg ->> 'from')::timestamptz AND l.turn_started_at < (v_arg ->> 'to')::timestamptz
            AND (v_arg ->> 'provider' IS NULL OR t.provider = v_arg ->> 'provider') AND (v_arg ->> 'model' IS NULL OR t.model = v_arg ->> 'model')
          ORDER BY l.seq LIMIT v_limit + 1) e
    LEFT JOIN LATERAL (
      SELECT p AS price FROM public.prices p
      WHERE p.provider = e.provider AND p.valid_from <= e.turn_started_at
        AND (p.model = e.model OR (right(p.model, 1) = '*' AND starts_with(e.model, left(p.model, -1))))
      ORDER BY (p.model = e.model) DESC, length(p.model) DESC, p.valid_from DESC, p.version DESC LIMIT 1) b ON true) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {reason, turns: [{turnId, wasNanoUsd, costNanoUsd, priceVersion}]} -> ok {entered}. A turn that no longer costs what it was read at is left for the next time.
CREATE FUNCTION astra.ledger_reprice(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_by text := astra.ledger_hand(p_workspace);
  v_of jsonb;
  v_turn public.turns;
  v public.ledger;
  v_count int := 0;
BEGIN
  PERFORM 1 FROM public.ledger_heads h WHERE h.workspace_id = p_workspace FOR UPDATE;
  FOR v_of IN SELECT e.value FROM jsonb_array_elements(v_arg -> 'turns') WITH ORDINALITY e ORDER BY e.ordinality LOOP
    SELECT t.* INTO v_turn FROM public.turns t WHERE t.workspace_id = p_workspace AND t.id = (v_of ->> 'turnId')::uuid;
    CONTINUE WHEN NOT FOUND OR v_turn.cost_usd <> astra.usd((v_of ->> 'wasNanoUsd')::bigint)
      OR NOT EXISTS (SELECT 1 FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_turn.id AND l.kind NOT IN ('correction', 'credit'));
    v_turn.cost_usd := astra.usd((v_of ->> 'costNanoUsd')::bigint);
    v := astra.ledger_correction(v_turn, v_turn.input_tokens, v_turn.cached_input_tokens, v_turn.output_tokens, v_turn.reasoning_tokens, v_turn.cost_usd, NULL);
    -- By the mark-up that it began with.
    v.charge_usd := astra.charge(v_turn.cost_usd, v.markup_basis_points)
      - (SELECT sum(l.charge_usd) FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.turn_id = v_turn.id AND l.kind <> 'credit');
    v.price_version := (v_of ->> 'priceVersion')::int;
    v.reason := v_arg ->> 'reason';
    v.made_by := v_by;
    v := astra.ledger_place(v);
    INSERT INTO public.ledger SELECT v.*;
    UPDATE public.turns t SET cost_usd = v_turn.cost_usd, price_version = v.price_version WHERE t.workspace_id = p_workspace AND t.id = v_turn.id;
    v_count := v_count + 1;
  END LOOP;
  RETURN jsonb_build_object('outcome', 'ok', 'entered', v_count)::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.reprice_read(text, text), astra.ledger_reprice(text, text) TO astra_billing;
SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
DROP FUNCTION pg_temp.amend_from(regprocedure, text, text, text);
