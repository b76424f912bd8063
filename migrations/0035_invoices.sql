-- The books: roll-ups of the ledger, and the month's close into invoices.
--
-- A roll-up is a sum over the ledger up to an entry: usage_heads says up to which. Whoever asks adds the entries after it (the tail), in the same snapshot, so that an answer is the ledger's
-- sum whatever was rolled up, and a turn writes nothing for it. A job rolls up; how far it is behind is ledger_heads.seq less the head's.
--
-- usage_months      by calendar month in UTC: what the guide's query and GET /workspaces/{id}/usage?month= say
-- usage_days        by day in the workspace's time zone: ranges of dates. Made anew when the zone changes; until then the entries themselves are read. (By UTC quarter-hours, which every
--                   zone's days are made of, no zone's change would matter; a million entries of two months made 62,705 rows so, and 745 by day.)
-- usage_user_days   the same by user, apart: with the user in usage_days all other sums would read a row for each user of a day
-- usage_sessions    which conversations a month had; usage_month_sessions how many
-- usage_guests      turns of this workspace that another one paid for: they are in turns and not in its ledger. Those that are not rolled up yet.
--
-- An invoice covers a set of entries that anybody can make anew: of those up to its last_seq that began before its ends_at, those that the invoice before does not cover. As both only
-- grow, nothing is covered twice and nothing is left out: what comes later for an earlier month is in the next invoice. invoice_heads says up to where a workspace is invoiced, also where there
-- was nothing to invoice. A name that was given to a new workspace has two of them, parted by the entry at which the new one began: nobody is shown, or charged for, what another had.
--
-- All of it belongs to astra_books, which reads the ledger of every workspace and writes these tables and no other.
--
-- Traps: * an entry belongs to the month of its turn_started_at, a correction to that of its turn.
--        * usage_days goes by the zone in usage_heads: who reads it compares that with the workspace's.
--        * no foreign key to workspaces: its check would lock the workspace's row under the head's, and who deletes the workspace has them the other way round. A trigger deletes them.
--        * the tables of invoices refuse every change, also a superuser's. A wrong invoice is set right by a correction or a credit in the ledger.
--        * an invoice's number is taken from a row that is locked until the commit: numbers have no gap, and closing goes one after the other.

DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_books') THEN
    BEGIN
      CREATE ROLE astra_books NOINHERIT NOCREATEDB NOCREATEROLE NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = 'astra_books'
             AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolcanlogin)) THEN
    RAISE EXCEPTION 'role astra_books exists with other rights than astra gives it';
  END IF;
  IF NOT pg_has_role(current_user, 'astra_books', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
    GRANT astra_books TO CURRENT_USER;
  END IF;
END
$$;
GRANT USAGE ON SCHEMA public TO astra_books;
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
GRANT USAGE, CREATE ON SCHEMA astra TO astra_books;
GRANT EXECUTE ON FUNCTION astra.ts(timestamptz), astra.month_start(date), astra.month_of(timestamptz), astra.parse_month(text), astra.page_limit(text), astra.day_start(date, text)
TO astra_books;
GRANT EXECUTE ON FUNCTION astra.day_start(date, text) TO astra_billing;

CREATE TABLE public.usage_heads (
  workspace_id text PRIMARY KEY,
  since_seq    bigint NOT NULL,  -- the ledger's last entry before the workspace began: its name may have been another's
  months_seq   bigint NOT NULL,  -- the last entry in usage_months
  days_seq     bigint NOT NULL,  -- the last entry in usage_days
  time_zone    text NOT NULL     -- whose days those are
);
CREATE TABLE public.usage_months (
  workspace_id        text NOT NULL,
  month               date NOT NULL,
  agent_id            text NOT NULL,
  provider            text NOT NULL,
  model               text NOT NULL,
  turns               bigint NOT NULL,
  uses                bigint NOT NULL,  -- turns, embeddings, extractions, tools: all but corrections and credits
  input_tokens        bigint NOT NULL,
  cached_input_tokens bigint NOT NULL,
  output_tokens       bigint NOT NULL,
  reasoning_tokens    bigint NOT NULL,
  embedding_tokens    bigint NOT NULL,
  cost                bigint NOT NULL,  -- nano-dollars
  charge              bigint NOT NULL,
  PRIMARY KEY (workspace_id, month, agent_id, provider, model)
) WITH (fillfactor = 70);
CREATE INDEX usage_months_month ON public.usage_months (month);
CREATE TABLE public.usage_days (
  workspace_id        text NOT NULL,
  day                 date NOT NULL,
  agent_id            text NOT NULL,
  provider            text NOT NULL,
  model               text NOT NULL,
  kind                text NOT NULL,
  turns               bigint NOT NULL,
  input_tokens        bigint NOT NULL,
  cached_input_tokens bigint NOT NULL,
  output_tokens       bigint NOT NULL,
  reasoning_tokens    bigint NOT NULL,
  embedding_tokens    bigint NOT NULL,
  cost                bigint NOT NULL,
  charge              bigint NOT NULL,
  PRIMARY KEY (workspace_id, day, agent_id, provider, model, kind)
) WITH (fillfactor = 70);
CREATE TABLE public.usage_user_days (
  workspace_id        text NOT NULL,
  day                 date NOT NULL,
  user_id             text NOT NULL,
  turns               bigint NOT NULL,
  input_tokens        bigint NOT NULL,
  cached_input_tokens bigint NOT NULL,
  output_tokens       bigint NOT NULL,
  reasoning_tokens    bigint NOT NULL,
  embedding_tokens    bigint NOT NULL,
  cost                bigint NOT NULL,
  charge              bigint NOT NULL,
  PRIMARY KEY (workspace_id, day, user_id)
) WITH (fillfactor = 70);
CREATE TABLE public.usage_sessions (
  workspace_id text NOT NULL,
  month        date NOT NULL,
  session_id   uuid NOT NULL,
  agent_id     text NOT NULL,  -- '': whichever
  PRIMARY KEY (workspace_id, month, session_id, agent_id)
);
CREATE TABLE public.usage_month_sessions (
  workspace_id text NOT NULL,
  month        date NOT NULL,
  agent_id     text NOT NULL,
  sessions     bigint NOT NULL,
  PRIMARY KEY (workspace_id, month, agent_id)
) WITH (fillfactor = 70);
CREATE TABLE public.usage_guests (
  workspace_id text NOT NULL,
  turn_id      uuid NOT NULL,
  session_id   uuid NOT NULL,
  agent_id     text NOT NULL,
  provider     text NOT NULL,
  model        text NOT NULL,
  started_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, turn_id)
);

CREATE TABLE public.invoice_heads (
  workspace_id text NOT NULL,  -- no foreign key: it outlives the workspace
  since_seq    bigint NOT NULL,  -- the ledger's last entry before the workspace began
  until_seq    bigint,  -- the last one before another began under its name
  display_name text,  -- when it was deleted
  time_zone    text,
  month        date,  -- the last one that was closed
  ends_at      timestamptz,  -- where it ended
  last_seq     bigint NOT NULL,  -- the ledger's last entry then
  PRIMARY KEY (workspace_id, since_seq)
);
CREATE TABLE public.invoices (
  workspace_id      text NOT NULL,
  number            text NOT NULL CHECK (number <> ''),
  place             bigint NOT NULL,  -- 1, 2, 3 and so on in this deployment
  since_seq         bigint NOT NULL,
  month             date NOT NULL,
  display_name      text NOT NULL,
  time_zone         text NOT NULL,
  previous_ends_at  timestamptz,  -- what the invoices before cover: entries up to previous_last_seq that began before this
  ends_at           timestamptz NOT NULL,
  previous_last_seq bigint NOT NULL,
  first_seq         bigint NOT NULL,  -- the first entry that it covers
  last_seq          bigint NOT NULL,  -- the ledger's last entry when it was made
  last_hash         text,  -- that entry's
  entries           bigint NOT NULL CHECK (entries > 0),
  cost              bigint NOT NULL,  -- nano-dollars
  charge            bigint NOT NULL,
  issued_at         timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, number),
  UNIQUE (workspace_id, since_seq, month)
);
CREATE INDEX invoices_place ON public.invoices (place);
CREATE TABLE public.invoice_lines (
  workspace_id        text NOT NULL,
  number              text NOT NULL,
  line                int NOT NULL CHECK (line > 0),
  month               date NOT NULL,  -- in which its entries began: an earlier one's came after its invoice
  kind                text NOT NULL,
  agent_id            text NOT NULL,
  provider            text NOT NULL,
  model               text NOT NULL,
  reason              text NOT NULL,
  entries             bigint NOT NULL,
  input_tokens        bigint NOT NULL,
  cached_input_tokens bigint NOT NULL,
  output_tokens       bigint NOT NULL,
  reasoning_tokens    bigint NOT NULL,
  embedding_tokens    bigint NOT NULL,
  cost                bigint NOT NULL,
  charge              bigint NOT NULL,
  PRIMARY KEY (workspace_id, number, line)  -- no foreign key: it would want a right to change invoices
);
-- Operator-global: one row.
CREATE TABLE public.invoice_numbers (
  id    boolean PRIMARY KEY DEFAULT true CHECK (id),
  place bigint NOT NULL  -- of the last invoice
);
INSERT INTO public.invoice_numbers (place) VALUES (0);
REVOKE ALL ON public.invoice_numbers FROM PUBLIC, astra_owner;
GRANT SELECT, UPDATE (place) ON public.invoice_numbers TO astra_books;

DO $$
DECLARE
  v_table text;
BEGIN
  FOREACH v_table IN ARRAY ARRAY['usage_heads', 'usage_months', 'usage_days', 'usage_user_days', 'usage_sessions', 'usage_month_sessions', 'usage_guests',
                                 'invoice_heads', 'invoices', 'invoice_lines'] LOOP
    PERFORM astra.wall(format('public.%I', v_table)::regclass);
    EXECUTE format('CREATE POLICY books ON public.%I TO astra_books USING (true) WITH CHECK (true)', v_table);
    EXECUTE format('GRANT SELECT ON public.%I TO astra_billing', v_table);
    EXECUTE format('GRANT SELECT, INSERT %s ON public.%I TO astra_books', CASE WHEN v_table LIKE 'usage%' THEN ', UPDATE, DELETE' ELSE '' END, v_table);
  END LOOP;
  FOREACH v_table IN ARRAY ARRAY['workspaces', 'turns', 'ledger', 'ledger_heads', 'holds'] LOOP
    EXECUTE format('CREATE POLICY books ON public.%I FOR SELECT TO astra_books USING (true)', v_table);
  END LOOP;
END
$$;
GRANT UPDATE (until_seq, display_name, time_zone, month, ends_at, last_seq) ON public.invoice_heads TO astra_books;
GRANT SELECT (id, display_name, time_zone, created_at) ON public.workspaces TO astra_books;
GRANT SELECT (workspace_id, id, session_id, agent_id, provider, model, created_at) ON public.turns TO astra_books;
GRANT SELECT ON public.ledger, public.ledger_heads TO astra_books, astra_billing;
GRANT SELECT (workspace_id, started_at, expires_at) ON public.holds TO astra_books;
GRANT INSERT ON public.usage_guests TO astra_quota_inside;

-- Nobody changes an invoice, not the tables' owner and not a superuser, as long as they leave the triggers on. Heads only go on.
CREATE FUNCTION astra.invoices_are_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF TG_LEVEL = 'ROW' THEN
    IF current_user = 'astra_books' AND NEW.last_seq >= OLD.last_seq AND (OLD.month IS NULL OR NEW.month >= OLD.month) THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'invoices are append-only: what is wrong is set right by an entry in the ledger' USING ERRCODE = 'insufficient_privilege';
END
$$;
GRANT EXECUTE ON FUNCTION astra.invoices_are_append_only() TO astra_books;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON public.invoices FOR EACH STATEMENT EXECUTE FUNCTION astra.invoices_are_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON public.invoice_lines FOR EACH STATEMENT EXECUTE FUNCTION astra.invoices_are_append_only();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON public.invoice_heads FOR EACH STATEMENT EXECUTE FUNCTION astra.invoices_are_append_only();
CREATE TRIGGER only_on BEFORE UPDATE ON public.invoice_heads FOR EACH ROW EXECUTE FUNCTION astra.invoices_are_append_only();
REVOKE ALL ON public.invoices, public.invoice_lines, public.invoice_heads FROM astra_owner;
GRANT SELECT ON public.invoices, public.invoice_lines, public.invoice_heads TO astra_owner;

-- The day of a moment in a time zone, as spans_json has it: a midnight that comes twice belongs to the day before until its second coming.
CREATE FUNCTION astra.day_in(p_time timestamptz, p_zone text) RETURNS date LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT (p_time AT TIME ZONE p_zone)::date - ((p_time AT TIME ZONE p_zone)::date::timestamp AT TIME ZONE p_zone > p_time)::int $$;

-- The ledger's entries after one and up to another, as roll-ups and invoices count them.
CREATE FUNCTION astra.usage_entries(p_workspace text, p_after bigint, p_to bigint)
RETURNS TABLE (seq bigint, kind text, turns int, uses int, session_id uuid, agent_id text, user_id text, provider text, model text, reason text, input_tokens bigint,
  cached_input_tokens bigint, output_tokens bigint, reasoning_tokens bigint, embedding_tokens bigint, cost bigint, charge bigint, started_at timestamptz)
LANGUAGE sql STABLE AS
$$
  SELECT l.seq, l.kind, (l.kind = 'turn')::int, (l.kind NOT IN ('correction', 'credit'))::int, l.session_id, l.agent_id, l.user_id, l.provider, l.model, COALESCE(l.reason, ''),
    l.input_tokens, l.cached_input_tokens, l.output_tokens, l.reasoning_tokens, l.embedding_tokens, (l.cost_usd * 1000000000)::bigint, (l.charge_usd * 1000000000)::bigint,
    l.turn_started_at
  FROM public.ledger l WHERE l.workspace_id = p_workspace AND l.seq > p_after AND l.seq <= p_to
$$;

-- What is not in usage_months yet: entries, and turns that another workspace paid for.
CREATE FUNCTION astra.usage_tail(p_workspace text, p_after bigint)
RETURNS TABLE (turns int, uses int, session_id uuid, agent_id text, provider text, model text, input_tokens bigint, cached_input_tokens bigint, output_tokens bigint,
  reasoning_tokens bigint, embedding_tokens bigint, cost bigint, charge bigint, started_at timestamptz)
LANGUAGE sql STABLE AS
$$
  SELECT e.turns, e.uses, e.session_id, e.agent_id, e.provider, e.model, e.input_tokens, e.cached_input_tokens, e.output_tokens, e.reasoning_tokens, e.embedding_tokens, e.cost,
    e.charge, e.started_at
  FROM astra.usage_entries(p_workspace, p_after, 9223372036854775807) e
  UNION ALL
  SELECT 1, 1, g.session_id, g.agent_id, g.provider, g.model, 0, 0, 0, 0, 0, 0, 0, g.started_at FROM public.usage_guests g WHERE g.workspace_id = p_workspace
$$;
GRANT EXECUTE ON FUNCTION astra.day_in(timestamptz, text), astra.usage_entries(text, bigint, bigint), astra.usage_tail(text, bigint) TO astra_books, astra_billing;

-- {month} -> ok | not_found, and the month's usage. As in 0008, from the roll-ups and what is not in them yet. notRolledUp: how many entries that is.
CREATE OR REPLACE FUNCTION astra.usage(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_month date := astra.parse_month(p_arg::jsonb ->> 'month');
  v_after bigint;
  v_behind bigint;
  v_doc jsonb;
BEGIN
  SELECT u.months_seq, GREATEST(h.seq - u.months_seq, 0) INTO v_after, v_behind
  FROM public.usage_heads u LEFT JOIN public.ledger_heads h ON h.workspace_id = u.workspace_id WHERE u.workspace_id = p_workspace;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  WITH tail AS MATERIALIZED (
    SELECT t.* FROM astra.usage_tail(p_workspace, v_after) t WHERE t.started_at >= astra.month_start(v_month) AND t.started_at < astra.month_start((v_month + interval '1 month')::date)
  ), parts AS (
    SELECT m.agent_id, m.provider, m.model, m.turns, m.uses, m.input_tokens, m.cached_input_tokens, m.output_tokens, m.reasoning_tokens, m.embedding_tokens, m.cost, m.charge
    FROM public.usage_months m WHERE m.workspace_id = p_workspace AND m.month = v_month
    UNION ALL
    SELECT t.agent_id, t.provider, t.model, t.turns, t.uses, t.input_tokens, t.cached_input_tokens, t.output_tokens, t.reasoning_tokens, t.embedding_tokens, t.cost, t.charge FROM tail t
  ), sessions AS (
    SELECT s.agent_id, sum(s.sessions)::bigint AS sessions
    FROM (SELECT c.agent_id, c.sessions FROM public.usage_month_sessions c WHERE c.workspace_id = p_workspace AND c.month = v_month
          UNION ALL
          SELECT a.agent_id, count(DISTINCT t.session_id) FROM tail t CROSS JOIN LATERAL (VALUES (t.agent_id), ('')) a (agent_id)
          WHERE NOT EXISTS (SELECT 1 FROM public.usage_sessions k WHERE k.workspace_id = p_workspace AND k.month = v_month AND k.session_id = t.session_id AND k.agent_id = a.agent_id)
          GROUP BY a.agent_id) s
    GROUP BY s.agent_id
  ), by_agent AS (
    SELECT jsonb_build_object('agentId', p.agent_id, 'turns', sum(p.turns), 'sessions', (SELECT COALESCE(max(s.sessions), 0) FROM sessions s WHERE s.agent_id = p.agent_id),
      'totalTokens', sum(p.input_tokens + p.output_tokens), 'inputTokens', sum(p.input_tokens), 'outputTokens', sum(p.output_tokens), 'totalCostNanoUsd', sum(p.cost),
      'totalChargeNanoUsd', sum(p.charge)) AS doc, p.agent_id AS name, sum(p.cost) AS cost
    FROM parts p WHERE p.agent_id <> '' GROUP BY p.agent_id
  ), by_model AS (
    SELECT jsonb_build_object('provider', p.provider, 'model', p.model, 'turns', sum(p.turns), 'totalTokens', sum(p.input_tokens + p.output_tokens), 'inputTokens', sum(p.input_tokens),
      'outputTokens', sum(p.output_tokens), 'totalCostNanoUsd', sum(p.cost), 'totalChargeNanoUsd', sum(p.charge)) AS doc, p.provider || '/' || p.model AS name, sum(p.cost) AS cost
    FROM parts p WHERE p.model <> '' GROUP BY p.provider, p.model
  )
  SELECT jsonb_build_object('outcome', 'ok', 'workspaceId', p_workspace, 'month', to_char(v_month, 'YYYY-MM'),
    'totalTokens', COALESCE(sum(p.input_tokens + p.output_tokens), 0), 'inputTokens', COALESCE(sum(p.input_tokens), 0),
    'cachedInputTokens', COALESCE(sum(p.cached_input_tokens), 0), 'outputTokens', COALESCE(sum(p.output_tokens), 0),
    'reasoningTokens', COALESCE(sum(p.reasoning_tokens), 0), 'embeddingTokens', COALESCE(sum(p.embedding_tokens), 0),
    'sessions', (SELECT COALESCE(max(s.sessions), 0) FROM sessions s WHERE s.agent_id = ''), 'turns', COALESCE(sum(p.turns), 0),
    'totalCostNanoUsd', COALESCE(sum(p.cost), 0), 'totalChargeNanoUsd', COALESCE(sum(p.charge), 0), 'notRolledUp', COALESCE(v_behind, 0),
    'byAgent', (SELECT COALESCE(jsonb_agg(a.doc ORDER BY a.cost DESC, a.name COLLATE "C"), '[]') FROM by_agent a),
    'byModel', (SELECT COALESCE(jsonb_agg(b.doc ORDER BY b.cost DESC, b.name COLLATE "C"), '[]') FROM by_model b))
  INTO v_doc FROM parts p;
  RETURN v_doc::text;
END
$$;

-- What was used within dates of the workspace's own time zone, by one thing: {by, from?, to?, now, after?, limit} -> data [{key, turns, ..}], next, notRolledUp. Dearest first, days in their
-- order. Without dates: the month until now. p_workspace NULL: all that the caller may see, each by its own zone's days. Entries that a role does not see are not in it: no tenant names another.
CREATE FUNCTION astra.usage_parts(p_workspace text, p_arg jsonb) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_by text := p_arg ->> 'by';
  v_now timestamptz := (p_arg ->> 'now')::timestamptz;
  v_from date := (p_arg ->> 'from')::date;
  v_to date := (p_arg ->> 'to')::date;
  v_limit int := astra.page_limit(p_arg ->> 'limit');
  v_after text := p_arg ->> 'after';
  v_after_rank bigint := split_part(v_after, ':', 1)::bigint;
  v_after_key text := substr(v_after, position(':' IN v_after) + 1);
  v_data jsonb;
  v_next text;
  v_behind bigint;
BEGIN
  WITH heads AS MATERIALIZED (
    SELECT u.workspace_id, w.time_zone, u.time_zone = w.time_zone AS fits, CASE WHEN u.time_zone = w.time_zone THEN u.days_seq ELSE u.since_seq END AS after_seq,
      COALESCE(l.seq, 0) AS seq, COALESCE(v_from, date_trunc('month', astra.day_in(v_now, w.time_zone))::date) AS from_day, COALESCE(v_to, astra.day_in(v_now, w.time_zone)) AS to_day
    FROM public.usage_heads u JOIN public.workspaces w ON w.id = u.workspace_id LEFT JOIN public.ledger_heads l ON l.workspace_id = u.workspace_id
    WHERE p_workspace IS NULL OR u.workspace_id = p_workspace
  ), parts AS (
    SELECT CASE v_by WHEN 'workspace' THEN d.workspace_id WHEN 'agent' THEN d.agent_id WHEN 'model' THEN d.provider || '/' || d.model WHEN 'kind' THEN d.kind WHEN 'day' THEN d.day::text END AS key,
      d.turns, d.input_tokens, d.cached_input_tokens, d.output_tokens, d.reasoning_tokens, d.embedding_tokens, d.cost, d.charge
    FROM heads h JOIN public.usage_days d ON d.workspace_id = h.workspace_id AND d.day BETWEEN h.from_day AND h.to_day
    WHERE h.fits AND v_by <> 'user'
    UNION ALL
    SELECT d.user_id, d.turns, d.input_tokens, d.cached_input_tokens, d.output_tokens, d.reasoning_tokens, d.embedding_tokens, d.cost, d.charge
    FROM heads h JOIN public.usage_user_days d ON d.workspace_id = h.workspace_id AND d.day BETWEEN h.from_day AND h.to_day
    WHERE h.fits AND v_by = 'user'
    UNION ALL
    SELECT CASE v_by WHEN 'workspace' THEN h.workspace_id WHEN 'agent' THEN e.agent_id WHEN 'model' THEN e.provider || '/' || e.model WHEN 'kind' THEN e.kind WHEN 'user' THEN e.user_id
                     WHEN 'day' THEN astra.day_in(e.started_at, h.time_zone)::text END,
      e.turns, e.input_tokens, e.cached_input_tokens, e.output_tokens, e.reasoning_tokens, e.embedding_tokens, e.cost, e.charge
    -- OFFSET 0: for each workspace by itself, by the ledger's key, however many the planner expects.
    FROM heads h CROSS JOIN LATERAL (SELECT * FROM astra.usage_entries(h.workspace_id, h.after_seq, h.seq) OFFSET 0) e
    WHERE h.seq > h.after_seq AND astra.day_in(e.started_at, h.time_zone) BETWEEN h.from_day AND h.to_day
  ), sums AS (
    SELECT p.key, CASE v_by WHEN 'day' THEN 0 ELSE -sum(p.cost)::bigint END AS rank, sum(p.turns) AS turns, sum(p.input_tokens) AS input_tokens,
      sum(p.cached_input_tokens) AS cached_input_tokens, sum(p.output_tokens) AS output_tokens, sum(p.reasoning_tokens) AS reasoning_tokens,
      sum(p.embedding_tokens) AS embedding_tokens, sum(p.cost) AS cost, sum(p.charge) AS charge
    FROM parts p GROUP BY p.key
  ), page AS (
    SELECT s.*, row_number() OVER (ORDER BY s.rank, s.key COLLATE "C") AS n
    FROM sums s WHERE v_after IS NULL OR s.rank > v_after_rank OR (s.rank = v_after_rank AND s.key COLLATE "C" > v_after_key)
    ORDER BY s.rank, s.key COLLATE "C" LIMIT v_limit + 1
  )
  SELECT COALESCE(jsonb_agg(jsonb_build_object('key', p.key, 'turns', p.turns, 'inputTokens', p.input_tokens, 'cachedInputTokens', p.cached_input_tokens, 'outputTokens', p.output_tokens,
                                               'reasoningTokens', p.reasoning_tokens, 'embeddingTokens', p.embedding_tokens, 'costNanoUsd', p.cost, 'chargeNanoUsd', p.charge)
                            ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.rank || ':' || p.key) FILTER (WHERE p.n = v_limit) END,
         (SELECT COALESCE(sum(GREATEST(h.seq - h.after_seq, 0)), 0)::bigint FROM heads h)
  INTO v_data, v_next, v_behind FROM page p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next, 'notRolledUp', v_behind)::text;
END
$$;

CREATE FUNCTION astra.usage_by(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.usage_heads u WHERE u.workspace_id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  RETURN astra.usage_parts(p_workspace, p_arg::jsonb);
END
$$;

-- An invoice as JSON; with its lines, or without.
CREATE FUNCTION astra.invoice_json(p_invoice public.invoices, p_with_lines boolean) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_lines jsonb;
BEGIN
  IF p_with_lines THEN
    SELECT COALESCE(jsonb_agg(jsonb_build_object('line', l.line, 'month', to_char(l.month, 'YYYY-MM'), 'kind', l.kind, 'agentId', l.agent_id, 'provider', l.provider, 'model', l.model,
                                                 'reason', l.reason, 'entries', l.entries, 'inputTokens', l.input_tokens, 'cachedInputTokens', l.cached_input_tokens,
                                                 'outputTokens', l.output_tokens, 'reasoningTokens', l.reasoning_tokens, 'embeddingTokens', l.embedding_tokens,
                                                 'costNanoUsd', l.cost, 'chargeNanoUsd', l.charge) ORDER BY l.line), '[]') INTO v_lines
    FROM public.invoice_lines l WHERE l.workspace_id = p_invoice.workspace_id AND l.number = p_invoice.number;
  END IF;
  RETURN jsonb_strip_nulls(jsonb_build_object('lines', v_lines)) || jsonb_build_object('workspaceId', p_invoice.workspace_id, 'displayName', p_invoice.display_name,
    'number', p_invoice.number, 'month', to_char(p_invoice.month, 'YYYY-MM'), 'timeZone', p_invoice.time_zone, 'endsAt', astra.ts(p_invoice.ends_at),
    'previousEndsAt', astra.ts(p_invoice.previous_ends_at), 'previousLastSeq', p_invoice.previous_last_seq, 'firstSeq', p_invoice.first_seq, 'lastSeq', p_invoice.last_seq,
    'lastHash', p_invoice.last_hash, 'entries', p_invoice.entries, 'totalCostNanoUsd', p_invoice.cost, 'totalChargeNanoUsd', p_invoice.charge, 'issuedAt', astra.ts(p_invoice.issued_at));
END
$$;
GRANT EXECUTE ON FUNCTION astra.invoice_json(public.invoices, boolean), astra.usage_parts(text, jsonb) TO astra_books, astra_billing;

-- {after?: number's place, limit?, all} -> data: invoices, the newest first. all: also those of who had the name before, which are the operator's to see.
CREATE FUNCTION astra.invoices_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_since bigint;
  v_data jsonb;
  v_next text;
BEGIN
  SELECT max(h.since_seq) INTO v_since FROM public.invoice_heads h WHERE h.workspace_id = p_workspace;
  IF v_since IS NULL THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  SELECT COALESCE(jsonb_agg(astra.invoice_json(p.invoice, false) ORDER BY (p.invoice).place DESC) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN (min((p.invoice).place) FILTER (WHERE p.n <= v_limit))::text END
  INTO v_data, v_next
  FROM (SELECT i AS invoice, row_number() OVER (ORDER BY i.place DESC) AS n FROM public.invoices i
        WHERE i.workspace_id = p_workspace AND (i.since_seq = v_since OR (v_arg ->> 'all')::boolean) AND (v_arg ->> 'after' IS NULL OR i.place < (v_arg ->> 'after')::bigint)
        ORDER BY i.place DESC LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {number, all} -> ok, invoice | not_found
CREATE FUNCTION astra.invoice_get(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_invoice public.invoices;
BEGIN
  SELECT i.* INTO v_invoice FROM public.invoices i
  WHERE i.workspace_id = p_workspace AND i.number = v_arg ->> 'number'
    AND ((v_arg ->> 'all')::boolean OR i.since_seq = (SELECT max(h.since_seq) FROM public.invoice_heads h WHERE h.workspace_id = p_workspace));
  IF v_invoice.number IS NULL THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'invoice', astra.invoice_json(v_invoice, true))::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.usage_by(text, text), astra.invoices_list(text, text), astra.invoice_get(text, text) TO astra_billing;

-- The ledger's head stays as it is until the commit: whoever enters something waits. Without a proof, as a superuser's, it waits for nobody.
CREATE FUNCTION astra.ledger_stand(p_workspace text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM 1 FROM public.ledger_heads h WHERE h.workspace_id = p_workspace FOR UPDATE;
END
$$;
GRANT EXECUTE ON FUNCTION astra.ledger_stand(text) TO astra_books;

SET LOCAL ROLE astra_books;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- A workspace's roll-ups go. The caller has the head locked.
CREATE FUNCTION astra.usage_forget(p_workspace text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  DELETE FROM public.usage_days d WHERE d.workspace_id = p_workspace;
  DELETE FROM public.usage_user_days d WHERE d.workspace_id = p_workspace;
  DELETE FROM public.usage_months m WHERE m.workspace_id = p_workspace;
  DELETE FROM public.usage_sessions s WHERE s.workspace_id = p_workspace;
  DELETE FROM public.usage_month_sessions s WHERE s.workspace_id = p_workspace;
END
$$;

-- A workspace begins or ends: its books do. What was entered under its name before is another's.
CREATE FUNCTION astra.books_of_workspace() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_seq bigint;
BEGIN
  IF TG_OP = 'DELETE' THEN
    UPDATE public.invoice_heads h SET display_name = OLD.display_name, time_zone = OLD.time_zone WHERE h.workspace_id = OLD.id AND h.until_seq IS NULL;
    -- The head first: who rolls up has it locked.
    DELETE FROM public.usage_heads u WHERE u.workspace_id = OLD.id;
    DELETE FROM public.usage_guests g WHERE g.workspace_id = OLD.id;
    PERFORM astra.usage_forget(OLD.id);
    RETURN OLD;
  END IF;
  PERFORM astra.ledger_stand(NEW.id);
  v_seq := COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = NEW.id), 0);
  UPDATE public.invoice_heads h SET until_seq = v_seq WHERE h.workspace_id = NEW.id AND h.until_seq IS NULL;
  -- One that had no entry leaves no trace.
  INSERT INTO public.invoice_heads (workspace_id, since_seq, last_seq) VALUES (NEW.id, v_seq, v_seq)
  ON CONFLICT (workspace_id, since_seq) DO UPDATE SET until_seq = NULL, display_name = NULL, time_zone = NULL;
  INSERT INTO public.usage_heads (workspace_id, since_seq, months_seq, days_seq, time_zone) VALUES (NEW.id, v_seq, v_seq, v_seq, NEW.time_zone);
  RETURN NULL;
END
$$;
GRANT EXECUTE ON FUNCTION astra.books_of_workspace() TO astra_owner;

-- Rolls up at most so many of a workspace's entries. How many it were; NULL when somebody else is at it.
CREATE FUNCTION astra.usage_roll(p_workspace text, p_limit bigint) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_head public.usage_heads;
  v_zone text;
  v_last bigint;
  v_to bigint;
  v_done bigint := 0;
BEGIN
  SELECT u.* INTO v_head FROM public.usage_heads u WHERE u.workspace_id = p_workspace FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  v_zone := (SELECT w.time_zone FROM public.workspaces w WHERE w.id = p_workspace);
  -- All entries up to here are committed: the head's row is locked from before an entry is written until then.
  v_last := COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);

  IF v_head.time_zone <> v_zone THEN
    DELETE FROM public.usage_days d WHERE d.workspace_id = p_workspace;
    DELETE FROM public.usage_user_days d WHERE d.workspace_id = p_workspace;
    v_head.time_zone := v_zone;
    v_head.days_seq := v_head.since_seq;
  END IF;
  v_to := LEAST(v_last, v_head.days_seq + p_limit);
  IF v_to > v_head.days_seq THEN
    WITH e AS MATERIALIZED (
      SELECT x.*, astra.day_in(x.started_at, v_zone) AS day FROM astra.usage_entries(p_workspace, v_head.days_seq, v_to) x
    ), users AS (
      INSERT INTO public.usage_user_days AS d (workspace_id, day, user_id, turns, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, embedding_tokens, cost, charge)
      SELECT p_workspace, e.day, e.user_id, sum(e.turns), sum(e.input_tokens), sum(e.cached_input_tokens), sum(e.output_tokens), sum(e.reasoning_tokens), sum(e.embedding_tokens), sum(e.cost),
        sum(e.charge)
      FROM e GROUP BY e.day, e.user_id
      ON CONFLICT (workspace_id, day, user_id) DO UPDATE
      SET turns = d.turns + excluded.turns, input_tokens = d.input_tokens + excluded.input_tokens, cached_input_tokens = d.cached_input_tokens + excluded.cached_input_tokens,
          output_tokens = d.output_tokens + excluded.output_tokens, reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
          embedding_tokens = d.embedding_tokens + excluded.embedding_tokens, cost = d.cost + excluded.cost, charge = d.charge + excluded.charge
    )
    INSERT INTO public.usage_days AS d (workspace_id, day, agent_id, provider, model, kind, turns, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, embedding_tokens, cost,
      charge)
    SELECT p_workspace, e.day, e.agent_id, e.provider, e.model, e.kind, sum(e.turns), sum(e.input_tokens), sum(e.cached_input_tokens), sum(e.output_tokens), sum(e.reasoning_tokens),
      sum(e.embedding_tokens), sum(e.cost), sum(e.charge)
    FROM e GROUP BY e.day, e.agent_id, e.provider, e.model, e.kind
    ON CONFLICT (workspace_id, day, agent_id, provider, model, kind) DO UPDATE
    SET turns = d.turns + excluded.turns, input_tokens = d.input_tokens + excluded.input_tokens, cached_input_tokens = d.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = d.output_tokens + excluded.output_tokens, reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
        embedding_tokens = d.embedding_tokens + excluded.embedding_tokens, cost = d.cost + excluded.cost, charge = d.charge + excluded.charge;
    v_done := v_to - v_head.days_seq;
    v_head.days_seq := v_to;
  END IF;

  v_to := LEAST(v_last, v_head.months_seq + p_limit);
  IF v_to > v_head.months_seq OR EXISTS (SELECT 1 FROM public.usage_guests g WHERE g.workspace_id = p_workspace) THEN
    WITH g AS (
      DELETE FROM public.usage_guests g WHERE g.workspace_id = p_workspace RETURNING g.*
    ), e AS MATERIALIZED (
      SELECT x.turns, x.uses, x.session_id, x.agent_id, x.provider, x.model, x.input_tokens, x.cached_input_tokens, x.output_tokens, x.reasoning_tokens, x.embedding_tokens, x.cost, x.charge,
        astra.month_of(x.started_at) AS month
      FROM astra.usage_entries(p_workspace, v_head.months_seq, v_to) x
      UNION ALL
      SELECT 1, 1, g.session_id, g.agent_id, g.provider, g.model, 0, 0, 0, 0, 0, 0, 0, astra.month_of(g.started_at) FROM g
    ), sessions AS (
      INSERT INTO public.usage_sessions (workspace_id, month, session_id, agent_id)
      SELECT DISTINCT p_workspace, e.month, e.session_id, a.agent_id FROM e CROSS JOIN LATERAL (VALUES (e.agent_id), ('')) a (agent_id) WHERE e.session_id IS NOT NULL
      ON CONFLICT (workspace_id, month, session_id, agent_id) DO NOTHING
      RETURNING month, agent_id
    ), counted AS (
      INSERT INTO public.usage_month_sessions AS c (workspace_id, month, agent_id, sessions)
      SELECT p_workspace, s.month, s.agent_id, count(*) FROM sessions s GROUP BY s.month, s.agent_id
      ON CONFLICT (workspace_id, month, agent_id) DO UPDATE SET sessions = c.sessions + excluded.sessions
    )
    INSERT INTO public.usage_months AS m (workspace_id, month, agent_id, provider, model, turns, uses, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, embedding_tokens, cost,
      charge)
    SELECT p_workspace, e.month, e.agent_id, e.provider, e.model, sum(e.turns), sum(e.uses), sum(e.input_tokens), sum(e.cached_input_tokens), sum(e.output_tokens), sum(e.reasoning_tokens),
      sum(e.embedding_tokens), sum(e.cost), sum(e.charge)
    FROM e GROUP BY e.month, e.agent_id, e.provider, e.model
    ON CONFLICT (workspace_id, month, agent_id, provider, model) DO UPDATE
    SET turns = m.turns + excluded.turns, uses = m.uses + excluded.uses, input_tokens = m.input_tokens + excluded.input_tokens,
        cached_input_tokens = m.cached_input_tokens + excluded.cached_input_tokens, output_tokens = m.output_tokens + excluded.output_tokens,
        reasoning_tokens = m.reasoning_tokens + excluded.reasoning_tokens, embedding_tokens = m.embedding_tokens + excluded.embedding_tokens, cost = m.cost + excluded.cost,
        charge = m.charge + excluded.charge;
    v_done := GREATEST(v_done, v_to - v_head.months_seq);
    v_head.months_seq := v_to;
  END IF;

  UPDATE public.usage_heads u SET months_seq = v_head.months_seq, days_seq = v_head.days_seq, time_zone = v_head.time_zone WHERE u.workspace_id = p_workspace;
  RETURN v_done;
END
$$;

-- {workspaces?: [ids], limit?: entries} -> rolledUp: entries, workspaces: how many had some, left: entries that are not rolled up. Those that are the furthest behind first.
CREATE FUNCTION astra.op_usage_roll(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_ids text[] := CASE WHEN jsonb_typeof(v_arg -> 'workspaces') = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'workspaces')) END;
  v_left bigint := LEAST(COALESCE((v_arg ->> 'limit')::bigint, 20000), 100000);
  v_done bigint;
  v_entries bigint := 0;
  v_count bigint := 0;
  v_behind bigint;
  v record;
BEGIN
  FOR v IN
    SELECT u.workspace_id FROM public.usage_heads u JOIN public.workspaces w ON w.id = u.workspace_id LEFT JOIN public.ledger_heads h ON h.workspace_id = u.workspace_id
    WHERE (v_ids IS NULL OR u.workspace_id = ANY (v_ids))
      AND (h.seq > LEAST(u.months_seq, u.days_seq) OR u.time_zone <> w.time_zone OR EXISTS (SELECT 1 FROM public.usage_guests g WHERE g.workspace_id = u.workspace_id))
    ORDER BY h.seq - LEAST(u.months_seq, u.days_seq) DESC NULLS LAST, u.workspace_id LIMIT 500
  LOOP
    EXIT WHEN v_left <= 0;
    v_done := astra.usage_roll(v.workspace_id, v_left);
    CONTINUE WHEN v_done IS NULL;
    v_count := v_count + 1;
    v_entries := v_entries + v_done;
    v_left := v_left - v_done;
  END LOOP;
  SELECT COALESCE(sum(GREATEST(h.seq - LEAST(u.months_seq, CASE WHEN u.time_zone = w.time_zone THEN u.days_seq ELSE u.since_seq END), 0)), 0) INTO v_behind
  FROM public.usage_heads u JOIN public.workspaces w ON w.id = u.workspace_id JOIN public.ledger_heads h ON h.workspace_id = u.workspace_id
  WHERE v_ids IS NULL OR u.workspace_id = ANY (v_ids);
  RETURN jsonb_build_object('outcome', 'ok', 'rolledUp', v_entries, 'workspaces', v_count, 'left', v_behind)::text;
END
$$;

-- {workspaceId} -> ok | not_found. Drops a workspace's roll-ups. Until they are made again its entries are read one by one.
CREATE FUNCTION astra.op_usage_drop(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_id text := p_arg::jsonb ->> 'workspaceId';
BEGIN
  PERFORM 1 FROM public.usage_heads u WHERE u.workspace_id = v_id FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  PERFORM astra.usage_forget(v_id);
  INSERT INTO public.usage_guests (workspace_id, turn_id, session_id, agent_id, provider, model, started_at)
  SELECT t.workspace_id, t.id, t.session_id, t.agent_id, t.provider, t.model, t.created_at FROM public.turns t
  WHERE t.workspace_id = v_id AND t.session_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM public.ledger l WHERE l.workspace_id = v_id AND l.turn_id = t.id)
  ON CONFLICT (workspace_id, turn_id) DO NOTHING;
  UPDATE public.usage_heads u SET months_seq = u.since_seq, days_seq = u.since_seq WHERE u.workspace_id = v_id;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {by, from?, to?, now, after?, limit} -> as usage_parts, of every workspace
CREATE FUNCTION astra.op_usage_by(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ BEGIN RETURN astra.usage_parts(NULL, p_arg::jsonb); END $$;

SET LOCAL ROLE astra_operator;
DROP FUNCTION astra.op_costs(text);
SET LOCAL ROLE astra_books;
-- {month, after?, limit?} -> data [{workspaceId, displayName, totalCostNanoUsd, totalChargeNanoUsd, totalTokens, sessions}] dearest first, next (opaque), notRolledUp. As in 0008, from the
-- roll-ups and what is not in them yet: the guide's query, for any month.
CREATE FUNCTION astra.op_costs(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_month date := astra.parse_month(v_arg ->> 'month');
  v_after text := v_arg ->> 'after';  -- "<nano-dollars>:<workspace>" of the last row seen
  v_after_nano bigint;
  v_after_id text;
  v_data jsonb;
  v_next text;
  v_behind bigint;
BEGIN
  IF v_after IS NOT NULL THEN
    IF v_after !~ '^-?[0-9]{1,18}:[a-z0-9-]{1,48}$' THEN
      RAISE EXCEPTION 'not a cursor of this list' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    v_after_nano := split_part(v_after, ':', 1)::bigint;
    v_after_id := split_part(v_after, ':', 2);
  END IF;
  WITH heads AS MATERIALIZED (
    SELECT u.workspace_id, u.months_seq, GREATEST(COALESCE(h.seq, 0) - u.months_seq, 0) AS behind
    FROM public.usage_heads u LEFT JOIN public.ledger_heads h ON h.workspace_id = u.workspace_id
    WHERE h.seq > u.months_seq OR EXISTS (SELECT 1 FROM public.usage_guests g WHERE g.workspace_id = u.workspace_id)
  ), tail AS MATERIALIZED (
    SELECT h.workspace_id, t.uses, t.session_id, t.input_tokens, t.output_tokens, t.cost, t.charge
    FROM heads h CROSS JOIN LATERAL (SELECT * FROM astra.usage_tail(h.workspace_id, h.months_seq) OFFSET 0) t
    WHERE t.started_at >= astra.month_start(v_month) AND t.started_at < astra.month_start((v_month + interval '1 month')::date)
  ), sums AS (
    SELECT p.workspace_id, sum(p.uses) AS uses, sum(p.tokens) AS tokens, sum(p.cost)::bigint AS cost, sum(p.charge) AS charge
    FROM (SELECT m.workspace_id, m.uses, m.input_tokens + m.output_tokens AS tokens, m.cost, m.charge FROM public.usage_months m WHERE m.month = v_month
          UNION ALL
          SELECT t.workspace_id, t.uses, t.input_tokens + t.output_tokens, t.cost, t.charge FROM tail t) p
    GROUP BY p.workspace_id
  ), page AS (
    SELECT s.*, w.display_name, row_number() OVER (ORDER BY s.cost DESC, s.workspace_id COLLATE "C") AS n
    FROM sums s JOIN public.workspaces w ON w.id = s.workspace_id
    WHERE s.uses > 0 AND (v_after IS NULL OR s.cost < v_after_nano OR (s.cost = v_after_nano AND s.workspace_id COLLATE "C" > v_after_id))
    ORDER BY s.cost DESC, s.workspace_id COLLATE "C" LIMIT v_limit + 1
  )
  SELECT COALESCE(jsonb_agg(jsonb_build_object('workspaceId', p.workspace_id, 'displayName', p.display_name, 'totalCostNanoUsd', p.cost, 'totalChargeNanoUsd', p.charge,
           'totalTokens', p.tokens, 'sessions',
           COALESCE((SELECT c.sessions FROM public.usage_month_sessions c WHERE c.workspace_id = p.workspace_id AND c.month = v_month AND c.agent_id = ''), 0)
           + (SELECT count(DISTINCT t.session_id) FROM tail t
              WHERE t.workspace_id = p.workspace_id AND NOT EXISTS (SELECT 1 FROM public.usage_sessions k
                WHERE k.workspace_id = p.workspace_id AND k.month = v_month AND k.session_id = t.session_id AND k.agent_id = ''))) ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.cost || ':' || p.workspace_id) FILTER (WHERE p.n = v_limit) END,
         (SELECT COALESCE(sum(h.behind), 0)::bigint FROM heads h)
  INTO v_data, v_next, v_behind FROM page p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next, 'notRolledUp', v_behind)::text;
END
$$;

-- One month of one workspace: its invoice, when there is something to invoice. The caller has the head locked.
CREATE FUNCTION astra.invoice_make(p_head public.invoice_heads, p_month date, p_zone text, p_name text, p_prefix text, p_now timestamptz) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v public.invoices;
  v_lines public.invoice_lines[];
BEGIN
  v.ends_at := astra.day_start((p_month + interval '1 month')::date, p_zone);
  -- Read before the entries: all up to here are committed.
  v.last_seq := LEAST(p_head.until_seq, COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_head.workspace_id), 0));
  UPDATE public.invoice_heads h SET month = p_month, ends_at = v.ends_at, last_seq = v.last_seq WHERE h.workspace_id = p_head.workspace_id AND h.since_seq = p_head.since_seq;

  SELECT array_agg(ROW(p_head.workspace_id, '', n.line, n.month, n.kind, n.agent_id, n.provider, n.model, n.reason, n.entries, n.input_tokens, n.cached_input_tokens, n.output_tokens,
                       n.reasoning_tokens, n.embedding_tokens, n.cost, n.charge)::public.invoice_lines ORDER BY n.line),
         min(n.first_seq), sum(n.entries), sum(n.cost), sum(n.charge)
  INTO v_lines, v.first_seq, v.entries, v.cost, v.charge
  FROM (SELECT g.*, row_number() OVER (ORDER BY g.month DESC, array_position(ARRAY['turn', 'tool', 'extraction', 'embedding', 'correction', 'credit'], g.kind), g.charge DESC,
                                       g.agent_id COLLATE "C", g.provider COLLATE "C", g.model COLLATE "C", g.reason COLLATE "C") AS line
        FROM (SELECT date_trunc('month', astra.day_in(e.started_at, p_zone))::date AS month, e.kind, e.agent_id, e.provider, e.model, e.reason, min(e.seq) AS first_seq, count(*) AS entries,
                     sum(e.input_tokens)::bigint AS input_tokens, sum(e.cached_input_tokens)::bigint AS cached_input_tokens, sum(e.output_tokens)::bigint AS output_tokens,
                     sum(e.reasoning_tokens)::bigint AS reasoning_tokens, sum(e.embedding_tokens)::bigint AS embedding_tokens, sum(e.cost)::bigint AS cost, sum(e.charge)::bigint AS charge
              FROM (
                -- Of the time after what the invoices before cover.
                SELECT i.* FROM astra.usage_entries(p_head.workspace_id, p_head.since_seq, v.last_seq) i
                WHERE i.started_at >= COALESCE(p_head.ends_at, '-infinity') AND i.started_at < v.ends_at
                UNION ALL
                -- Of the time before, and entered since.
                SELECT l.* FROM astra.usage_entries(p_head.workspace_id, p_head.last_seq, v.last_seq) l WHERE l.started_at < p_head.ends_at
              ) e
              GROUP BY 1, 2, 3, 4, 5, 6) g) n;
  IF v.entries IS NULL THEN
    RETURN false;
  END IF;

  UPDATE public.invoice_numbers n SET place = n.place + 1 RETURNING n.place INTO v.place;
  v.number := p_prefix || lpad(v.place::text, GREATEST(6, length(v.place::text)), '0');
  v.workspace_id := p_head.workspace_id;
  v.since_seq := p_head.since_seq;
  v.month := p_month;
  v.display_name := p_name;
  v.time_zone := p_zone;
  v.previous_ends_at := p_head.ends_at;
  v.previous_last_seq := p_head.last_seq;
  -- In hexadecimal; a ledger without a chain has none.
  v.last_hash := (SELECT substr(to_jsonb(l) ->> 'hash', 3) FROM public.ledger l WHERE l.workspace_id = p_head.workspace_id AND l.seq = v.last_seq);
  v.issued_at := p_now;
  INSERT INTO public.invoices SELECT v.*;
  INSERT INTO public.invoice_lines SELECT (jsonb_populate_record(l, jsonb_build_object('number', v.number))).* FROM unnest(v_lines) l;
  RETURN true;
END
$$;

-- {month, now, graceSeconds, prefix, workspaces?: [ids], after?, limit?: workspaces} -> closed: months of workspaces, invoices, early, waiting: workspaces whose month has not ended for so long yet, or
-- that have a turn of it that runs; next: where the next call goes on. Closes each month up to that one, the earliest first. A month is closed once; whatever ends the call half-way leaves
-- nothing of it. Turns in an object's memory (Workers) are not seen here: the grace is for them, and one that is still later is in the next invoice.
CREATE FUNCTION astra.op_month_close(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_month date := astra.parse_month(v_arg ->> 'month');
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_grace interval := make_interval(secs => (v_arg ->> 'graceSeconds')::int);
  v_prefix text := v_arg ->> 'prefix';
  v_ids text[] := CASE WHEN jsonb_typeof(v_arg -> 'workspaces') = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'workspaces')) END;
  v_limit int := LEAST(GREATEST(COALESCE((v_arg ->> 'limit')::int, 100), 1), 1000);
  v_after_id text := split_part(v_arg ->> 'after', ':', 1);
  v_after_seq bigint := split_part(v_arg ->> 'after', ':', 2)::bigint;
  v_seen int := 0;
  v_closed int := 0;
  v_invoices int := 0;
  v_early int := 0;
  v_waiting int := 0;
  v_last record;
  v_head public.invoice_heads;
  v_ws record;
  v_next date;
  v_end timestamptz;
BEGIN
  IF v_prefix IS NULL OR v_prefix !~ '^[A-Za-z0-9._-]{0,20}$' OR v_grace IS NULL OR v_now IS NULL THEN
    RAISE EXCEPTION 'prefix, graceSeconds and now are wanted' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR v_last IN
    SELECT h.workspace_id, h.since_seq FROM public.invoice_heads h
    WHERE (v_ids IS NULL OR h.workspace_id = ANY (v_ids)) AND (v_after_id IS NULL OR (h.workspace_id, h.since_seq) > (v_after_id, v_after_seq))
      AND (h.month IS NULL OR h.month < v_month)
    ORDER BY h.workspace_id, h.since_seq LIMIT v_limit
  LOOP
    v_seen := v_seen + 1;
    -- Who else closes it now is at it.
    SELECT h.* INTO v_head FROM public.invoice_heads h WHERE h.workspace_id = v_last.workspace_id AND h.since_seq = v_last.since_seq FOR UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND;
    SELECT w.display_name, w.time_zone INTO v_ws FROM public.workspaces w WHERE w.id = v_head.workspace_id AND v_head.until_seq IS NULL;
    v_ws.time_zone := COALESCE(v_ws.time_zone, v_head.time_zone, 'UTC');
    v_next := COALESCE((v_head.month + interval '1 month')::date,
      (SELECT date_trunc('month', astra.day_in(min(l.turn_started_at), v_ws.time_zone))::date FROM public.ledger l
       WHERE l.workspace_id = v_head.workspace_id AND l.seq > v_head.since_seq AND l.seq <= COALESCE(v_head.until_seq, 9223372036854775807)));
    CONTINUE WHEN v_next IS NULL;  -- nothing was ever used
    WHILE v_next <= v_month LOOP
      v_end := astra.day_start((v_next + interval '1 month')::date, v_ws.time_zone);
      IF v_now < v_end + v_grace THEN
        v_early := v_early + 1;
        EXIT;
      END IF;
      -- One of which nothing was heard for a day is nobody's any more.
      IF EXISTS (SELECT 1 FROM public.holds o WHERE o.workspace_id = v_head.workspace_id AND o.started_at < v_end AND o.expires_at > v_now - interval '1 day') THEN
        v_waiting := v_waiting + 1;
        EXIT;
      END IF;
      IF astra.invoice_make(v_head, v_next, v_ws.time_zone, COALESCE(v_ws.display_name, v_head.display_name, v_head.workspace_id), v_prefix, v_now) THEN
        v_invoices := v_invoices + 1;
      END IF;
      v_closed := v_closed + 1;
      SELECT h.* INTO v_head FROM public.invoice_heads h WHERE h.workspace_id = v_last.workspace_id AND h.since_seq = v_last.since_seq;
      v_next := (v_next + interval '1 month')::date;
    END LOOP;
  END LOOP;
  RETURN jsonb_build_object('outcome', 'ok', 'closed', v_closed, 'invoices', v_invoices, 'early', v_early, 'waiting', v_waiting,
    'next', CASE WHEN v_seen = v_limit THEN v_last.workspace_id || ':' || v_last.since_seq END)::text;
END
$$;

-- {month?, after?: number's place, limit?} -> data: invoices of every workspace, the newest first
CREATE FUNCTION astra.op_invoices_list(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_month date := CASE WHEN v_arg ->> 'month' IS NOT NULL THEN astra.parse_month(v_arg ->> 'month') END;
  v_data jsonb;
  v_next text;
BEGIN
  SELECT COALESCE(jsonb_agg(astra.invoice_json(p.invoice, false) ORDER BY (p.invoice).place DESC) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN (min((p.invoice).place) FILTER (WHERE p.n <= v_limit))::text END
  INTO v_data, v_next
  FROM (SELECT i AS invoice, row_number() OVER (ORDER BY i.place DESC) AS n FROM public.invoices i
        WHERE (v_month IS NULL OR i.month = v_month) AND (v_arg ->> 'after' IS NULL OR i.place < (v_arg ->> 'after')::bigint)
        ORDER BY i.place DESC LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.op_usage_roll(text), astra.op_usage_drop(text), astra.op_usage_by(text), astra.op_costs(text), astra.op_month_close(text), astra.op_invoices_list(text)
TO astra_billing;

-- What is there. A workspace that was made again: what was written down before it is another's.
INSERT INTO public.invoice_heads (workspace_id, since_seq, until_seq, last_seq)
SELECT l.workspace_id, 0, CASE WHEN w.id IS NOT NULL THEN max(l.seq) END, 0
FROM public.ledger l LEFT JOIN public.workspaces w ON w.id = l.workspace_id
WHERE w.id IS NULL OR l.created_at < w.created_at GROUP BY l.workspace_id, w.id;
INSERT INTO public.invoice_heads (workspace_id, since_seq, last_seq)
SELECT w.id, COALESCE(h.until_seq, 0), COALESCE(h.until_seq, 0) FROM public.workspaces w LEFT JOIN public.invoice_heads h ON h.workspace_id = w.id;
INSERT INTO public.usage_heads (workspace_id, since_seq, months_seq, days_seq, time_zone)
SELECT w.id, h.since_seq, h.since_seq, h.since_seq, w.time_zone FROM public.workspaces w JOIN public.invoice_heads h ON h.workspace_id = w.id AND h.until_seq IS NULL;
INSERT INTO public.usage_guests (workspace_id, turn_id, session_id, agent_id, provider, model, started_at)
SELECT t.workspace_id, t.id, t.session_id, t.agent_id, t.provider, t.model, t.created_at FROM public.turns t
WHERE t.session_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM public.ledger l WHERE l.workspace_id = t.workspace_id AND l.turn_id = t.id);

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_books;
CREATE TRIGGER aa_books AFTER INSERT OR DELETE ON public.workspaces FOR EACH ROW EXECUTE FUNCTION astra.books_of_workspace();

-- Workspaces that have had no turn since 0010.
ALTER TABLE public.ledger NO FORCE ROW LEVEL SECURITY;
ALTER TABLE public.ledger_heads NO FORCE ROW LEVEL SECURITY;
INSERT INTO public.ledger_heads (workspace_id, seq)
SELECT l.workspace_id, max(l.seq) FROM public.ledger l WHERE NOT EXISTS (SELECT 1 FROM public.ledger_heads h WHERE h.workspace_id = l.workspace_id) GROUP BY l.workspace_id;
ALTER TABLE public.ledger FORCE ROW LEVEL SECURITY;
ALTER TABLE public.ledger_heads FORCE ROW LEVEL SECURITY;

-- A turn that another workspace pays for is told to the receiver's roll-ups.
RESET ROLE;
SELECT pg_temp.amend('astra.guest_enter(jsonb, jsonb)',
$old$        EXIT WHEN FOUND;
      END LOOP;$old$,
$new$        IF FOUND THEN
          INSERT INTO public.usage_guests (workspace_id, turn_id, session_id, agent_id, provider, model, started_at)
          VALUES (v_workspace, v_id, v_session, v_agent, p_record ->> 'provider', p_record ->> 'model', v_started);
          EXIT;
        END IF;
      END LOOP;$new$);
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
