-- Scheduled jobs, webhooks with their outbox, and usage for Stripe's meters with its own.
--
-- A job has one row: when it is due, who has it (a lease), where it goes on (a cursor). Whatever crosses workspaces here only names workspaces; what is done for one is done through
-- its tenant's door. Both outboxes are written in the transaction of what they tell, and an entry that is taken is out of sight for a while: so two runs at once send it once, and
-- one whose sender died is sent again, under the same id.
--
-- Traps: * an event's id never changes, whatever becomes of a try: whoever gets it twice can tell.
--        * Stripe forgets an identifier after a day: what was sent, nobody knows with what result, is not sent again after 23 hours, but listed.
--        * a usage event never spans two days (UTC), so that none of it is counted in another month than it was entered in.

SET LOCAL ROLE astra_owner;

-- Every job that has ever run. Of the whole deployment: no workspace's data is in it.
CREATE TABLE public.billing_jobs (
  name         text PRIMARY KEY,
  next_run     timestamptz NOT NULL,
  lease        uuid,         -- who has it
  leased_until timestamptz,
  cursor       text,         -- of a run that is not done: where it goes on
  began_at     timestamptz,  -- that run
  done         bigint NOT NULL DEFAULT 0,  -- what that run, or the last one, has done
  failed       bigint NOT NULL DEFAULT 0,  -- and what of it did not work
  last_run     timestamptz,  -- when a run last ended, well or not
  last_success timestamptz,
  last_error   text,         -- of the last run: ours, nobody's text
  runs         bigint NOT NULL DEFAULT 0,
  failures     bigint NOT NULL DEFAULT 0
);
REVOKE ALL ON public.billing_jobs FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE ON public.billing_jobs TO astra_operator;

-- Where a workspace's events go.
CREATE TABLE public.webhooks (
  workspace_id   text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  name           text NOT NULL,
  url            text NOT NULL,
  events         text[] NOT NULL,
  -- The secret, sealed under SECRETS_KEY, and the one before it, which signs until then.
  key_id         text NOT NULL,
  nonce          bytea NOT NULL,
  ciphertext     bytea NOT NULL,
  old_key_id     text,
  old_nonce      bytea,
  old_ciphertext bytea,
  old_until      timestamptz,
  failing_since  timestamptz,  -- the first failure since the last success
  disabled_at    timestamptz,
  disabled_why   text,
  created_at     timestamptz NOT NULL,
  updated_at     timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, name)
);
SELECT astra.wall('public.webhooks');
GRANT SELECT, INSERT, UPDATE, DELETE ON public.webhooks TO astra_billing;

-- The outbox, and its log. The body is text: each try sends the same bytes.
CREATE TABLE public.webhook_deliveries (
  workspace_id text NOT NULL,
  id           uuid NOT NULL,  -- webhook-id is msg_ and its digits
  webhook      text NOT NULL,
  type         text NOT NULL,
  body         text NOT NULL,
  created_at   timestamptz NOT NULL,
  attempts     int NOT NULL DEFAULT 0,
  next_at      timestamptz,  -- null: nothing more is tried
  delivered_at timestamptz,
  dead_at      timestamptz,
  log          jsonb NOT NULL DEFAULT '[]',  -- [{at, status | error, millis}], oldest first; no answer's text
  PRIMARY KEY (workspace_id, id),
  FOREIGN KEY (workspace_id, webhook) REFERENCES public.webhooks (workspace_id, name) ON DELETE CASCADE
);
CREATE INDEX webhook_deliveries_due ON public.webhook_deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX webhook_deliveries_listed ON public.webhook_deliveries (workspace_id, webhook, created_at, id);
SELECT astra.wall('public.webhook_deliveries');
GRANT SELECT, UPDATE ON public.webhook_deliveries TO astra_billing;
CREATE POLICY operator_reads ON public.webhook_deliveries FOR SELECT TO astra_operator USING (true);
GRANT SELECT (workspace_id, next_at) ON public.webhook_deliveries TO astra_operator;

-- Who a workspace is at Stripe, and how far its ledger was put into the outbox.
CREATE TABLE public.stripe_customers (
  workspace_id text PRIMARY KEY REFERENCES public.workspaces (id) ON DELETE CASCADE,
  customer_id  text,            -- null: nothing more is put into the outbox
  pushed_seq   bigint NOT NULL,
  carried      numeric NOT NULL DEFAULT 0,  -- of micro-dollars: less than one, for the next event
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL
);
SELECT astra.wall('public.stripe_customers');
GRANT SELECT, INSERT, UPDATE ON public.stripe_customers TO astra_billing;
CREATE POLICY operator_reads ON public.stripe_customers FOR SELECT TO astra_operator USING (true);
GRANT SELECT (workspace_id, customer_id, pushed_seq, updated_at) ON public.stripe_customers TO astra_operator;

CREATE TABLE public.stripe_events (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  first_seq    bigint NOT NULL,  -- of the ledger; the identifier is made of it
  last_seq     bigint NOT NULL,
  customer_id  text NOT NULL,
  event_name   text NOT NULL,    -- the meter's
  value        bigint NOT NULL,
  at           timestamptz NOT NULL,
  -- uncertain: it may or may not have been taken, and may not be sent again; expired: it became too old before it could be.
  state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'refused', 'uncertain', 'expired')),
  attempts     int NOT NULL DEFAULT 0,
  next_at      timestamptz NOT NULL,
  unsure_since timestamptz,      -- the first try whose result nobody knows
  code         text,
  message      text,
  sent_at      timestamptz,
  created_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, first_seq)
);
CREATE INDEX stripe_events_refused ON public.stripe_events (workspace_id, first_seq) WHERE state NOT IN ('pending', 'sent');
SELECT astra.wall('public.stripe_events');
GRANT SELECT, INSERT, UPDATE ON public.stripe_events TO astra_billing;
CREATE POLICY operator_reads ON public.stripe_events FOR SELECT TO astra_operator USING (true);
GRANT SELECT ON public.stripe_events TO astra_operator;
GRANT SELECT (workspace_id, seq, created_at, charge_usd, input_tokens, output_tokens, embedding_tokens) ON public.ledger TO astra_billing;
GRANT SELECT (workspace_id, seq) ON public.ledger_heads TO astra_billing;

CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON public.webhooks
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('name', 'webhook.put', 'webhook.put', 'webhook.delete', '-url', 'events', '-ciphertext', 'disabled_why');
CREATE TRIGGER audit AFTER INSERT OR UPDATE OF customer_id ON public.stripe_customers
  FOR EACH ROW EXECUTE FUNCTION astra.audit_row('workspace_id', 'billing.customer', 'billing.customer', '', 'customer_id');

-- --- webhooks -------------------------------------------------------------------------------------------------------------------

-- Puts an event into the outbox of each of the workspace's webhooks that want it, in the caller's transaction. Of the transaction's own workspace: a row of another's is refused by
-- the policies. {"type", "timestamp", "data"}: Standard Webhooks' form.
CREATE FUNCTION astra.webhook_emit(p_workspace text, p_type text, p_data jsonb, p_at timestamptz) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_count int;
BEGIN
  INSERT INTO public.webhook_deliveries (workspace_id, id, webhook, type, body, created_at, next_at)
  SELECT p_workspace, gen_random_uuid(), w.name, p_type,
         (json_build_object('type', p_type, 'timestamp', astra.ts(p_at), 'data', jsonb_build_object('workspaceId', p_workspace) || p_data))::text, p_at, p_at
  FROM public.webhooks w WHERE w.workspace_id = p_workspace AND p_type = ANY (w.events) AND w.disabled_at IS NULL;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$$;
GRANT EXECUTE ON FUNCTION astra.webhook_emit(text, text, jsonb, timestamptz) TO astra_billing, astra_quota_inside;

-- A mark that was passed is told, whoever wrote it down.
CREATE FUNCTION astra.quota_event_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM astra.webhook_emit(NEW.workspace_id, 'quota.threshold', jsonb_build_object('limit', NEW.limit_name, 'scope', NEW.scope, 'mark', NEW.mark,
    'max', NEW.max, 'used', NEW.used, 'startsAt', astra.ts(NEW.starts_at), 'at', astra.ts(NEW.at)), NEW.at);
  RETURN NULL;
END
$$;
CREATE TRIGGER told AFTER INSERT ON public.quota_events FOR EACH ROW EXECUTE FUNCTION astra.quota_event_told();

CREATE FUNCTION astra.webhook_json(p_row public.webhooks) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$
  SELECT jsonb_build_object('name', p_row.name, 'url', p_row.url, 'events', p_row.events, 'failingSince', astra.ts(p_row.failing_since), 'disabledAt', astra.ts(p_row.disabled_at),
    'disabledWhy', p_row.disabled_why, 'oldSecretUntil', astra.ts(p_row.old_until), 'createdAt', astra.ts(p_row.created_at), 'updatedAt', astra.ts(p_row.updated_at))
$$;

-- {} -> ok | not_found, data: all of them, by name (there are twenty at most)
CREATE FUNCTION astra.webhooks_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'data', (SELECT COALESCE(jsonb_agg(astra.webhook_json(w) ORDER BY w.name COLLATE "C"), '[]') FROM public.webhooks w
    WHERE w.workspace_id = p_workspace))::text;
END
$$;

-- {name, url, events, keyId, nonce, ciphertext, most, now} -> created | changed {webhook} | too_many | not_found. The secret is for one that is new: another keeps its own.
-- One that was disabled is enabled again.
CREATE FUNCTION astra.webhook_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_events text[] := ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'events'));
  v_row public.webhooks;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace AND w.status = 'active') THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  -- One after the other: so many and no more.
  PERFORM pg_advisory_xact_lock(hashtextextended('astra.webhooks:' || p_workspace, 0));
  UPDATE public.webhooks w SET url = v_arg ->> 'url', events = v_events, failing_since = NULL, disabled_at = NULL, disabled_why = NULL, updated_at = v_now
  WHERE w.workspace_id = p_workspace AND w.name = v_arg ->> 'name' RETURNING w.* INTO v_row;
  IF FOUND THEN
    RETURN jsonb_build_object('outcome', 'changed', 'webhook', astra.webhook_json(v_row))::text;
  END IF;
  IF (SELECT count(*) FROM public.webhooks w WHERE w.workspace_id = p_workspace) >= (v_arg ->> 'most')::int THEN
    RETURN '{"outcome":"too_many"}';
  END IF;
  INSERT INTO public.webhooks AS w (workspace_id, name, url, events, key_id, nonce, ciphertext, created_at, updated_at)
  VALUES (p_workspace, v_arg ->> 'name', v_arg ->> 'url', v_events, v_arg ->> 'keyId', decode(v_arg ->> 'nonce', 'base64'), decode(v_arg ->> 'ciphertext', 'base64'), v_now, v_now)
  RETURNING w.* INTO v_row;
  RETURN jsonb_build_object('outcome', 'created', 'webhook', astra.webhook_json(v_row))::text;
END
$$;

-- {name, keyId, nonce, ciphertext, oldUntil, now} -> ok {webhook} | not_found: a new secret; the one that was signs beside it until then.
CREATE FUNCTION astra.webhook_rotate(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_row public.webhooks;
BEGIN
  UPDATE public.webhooks w SET old_key_id = w.key_id, old_nonce = w.nonce, old_ciphertext = w.ciphertext, old_until = (v_arg ->> 'oldUntil')::timestamptz,
    key_id = v_arg ->> 'keyId', nonce = decode(v_arg ->> 'nonce', 'base64'), ciphertext = decode(v_arg ->> 'ciphertext', 'base64'), updated_at = (v_arg ->> 'now')::timestamptz
  WHERE w.workspace_id = p_workspace AND w.name = v_arg ->> 'name' RETURNING w.* INTO v_row;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'webhook', astra.webhook_json(v_row))::text;
END
$$;

-- {name} -> ok | not_found. What it was still to be told goes with it.
CREATE FUNCTION astra.webhook_delete(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  DELETE FROM public.webhooks w WHERE w.workspace_id = p_workspace AND w.name = p_arg::jsonb ->> 'name';
  RETURN CASE WHEN FOUND THEN '{"outcome":"ok"}' ELSE '{"outcome":"not_found"}' END;
END
$$;

-- {name, after?: "CREATED ID", limit?} -> ok | not_found, data newest first, next
CREATE FUNCTION astra.webhook_deliveries_list(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_after uuid := (v_arg ->> 'after')::uuid;
  v_data jsonb;
  v_next text;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.webhooks w WHERE w.workspace_id = p_workspace AND w.name = v_arg ->> 'name') THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('id', p.id, 'type', p.type, 'createdAt', astra.ts(p.created_at), 'attempts', p.attempts, 'nextAt', astra.ts(p.next_at),
           'deliveredAt', astra.ts(p.delivered_at), 'deadAt', astra.ts(p.dead_at), 'log', p.log) ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN (max(p.id::text) FILTER (WHERE p.n = v_limit)) END
  INTO v_data, v_next
  FROM (SELECT d.*, row_number() OVER (ORDER BY d.created_at DESC, d.id DESC) AS n FROM public.webhook_deliveries d
        WHERE d.workspace_id = p_workspace AND d.webhook = v_arg ->> 'name'
          AND (v_after IS NULL OR (d.created_at, d.id) < (SELECT a.created_at, a.id FROM public.webhook_deliveries a WHERE a.workspace_id = p_workspace AND a.id = v_after))
        ORDER BY d.created_at DESC, d.id DESC LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {name, id, now} -> ok | disabled | not_found: it is sent again from the start, under its id, whatever became of it.
CREATE FUNCTION astra.webhook_replay(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  IF EXISTS (SELECT 1 FROM public.webhooks w WHERE w.workspace_id = p_workspace AND w.name = v_arg ->> 'name' AND w.disabled_at IS NOT NULL) THEN
    RETURN '{"outcome":"disabled"}';
  END IF;
  UPDATE public.webhook_deliveries d SET attempts = 0, next_at = (v_arg ->> 'now')::timestamptz, delivered_at = NULL, dead_at = NULL
  WHERE d.workspace_id = p_workspace AND d.id = (v_arg ->> 'id')::uuid AND d.webhook = v_arg ->> 'name';
  RETURN CASE WHEN FOUND THEN '{"outcome":"ok"}' ELSE '{"outcome":"not_found"}' END;
END
$$;

-- {now, hide (seconds), limit} -> {deliveries: [{id, attempt, webhook, url, body, keyId, nonce, ciphertext, old..?}]}: what is due, out of everybody else's sight for so long.
-- Of a webhook that is disabled nothing is.
CREATE FUNCTION astra.webhook_take(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_data jsonb;
BEGIN
  WITH due AS (
    SELECT d.id FROM public.webhook_deliveries d JOIN public.webhooks w ON w.workspace_id = d.workspace_id AND w.name = d.webhook
    WHERE d.workspace_id = p_workspace AND d.next_at <= v_now AND w.disabled_at IS NULL
    ORDER BY d.next_at, d.id LIMIT (v_arg ->> 'limit')::int FOR UPDATE OF d SKIP LOCKED),
  taken AS (
    UPDATE public.webhook_deliveries d SET attempts = d.attempts + 1, next_at = v_now + make_interval(secs => (v_arg ->> 'hide')::int)
    FROM due WHERE d.workspace_id = p_workspace AND d.id = due.id RETURNING d.*)
  SELECT COALESCE(jsonb_agg(jsonb_build_object('id', t.id, 'attempt', t.attempts, 'webhook', t.webhook, 'url', w.url, 'body', t.body,
           'secret', jsonb_build_object('keyId', w.key_id, 'nonce', encode(w.nonce, 'base64'), 'ciphertext', encode(w.ciphertext, 'base64')),
           'oldSecret', CASE WHEN w.old_until > v_now THEN jsonb_build_object('keyId', w.old_key_id, 'nonce', encode(w.old_nonce, 'base64'),
                                                                              'ciphertext', encode(w.old_ciphertext, 'base64')) END)
           ORDER BY t.created_at, t.id), '[]')
  INTO v_data FROM taken t JOIN public.webhooks w ON w.workspace_id = p_workspace AND w.name = t.webhook;
  RETURN jsonb_build_object('outcome', 'ok', 'deliveries', v_data)::text;
END
$$;

-- {id, attempt, entry: {at, status?, error?, millis}, isDelivered, isGone, nextAt?, giveUpBefore, now} -> ok | lost: what became of a try. Of one that somebody else took up
-- meanwhile nothing is said. Without nextAt it is dead. A webhook that has only failed since before giveUpBefore, or is gone, is disabled, and what it was to be told is dead.
CREATE FUNCTION astra.webhook_done(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_next timestamptz := (v_arg ->> 'nextAt')::timestamptz;
  v_delivered boolean := (v_arg ->> 'isDelivered')::boolean;
  v_name text;
  v_why text;
BEGIN
  UPDATE public.webhook_deliveries d
  SET log = d.log || (v_arg -> 'entry'), next_at = CASE WHEN v_delivered THEN NULL ELSE v_next END, delivered_at = CASE WHEN v_delivered THEN v_now END,
      dead_at = CASE WHEN NOT v_delivered AND v_next IS NULL THEN v_now END
  WHERE d.workspace_id = p_workspace AND d.id = (v_arg ->> 'id')::uuid AND d.attempts = (v_arg ->> 'attempt')::int AND d.next_at IS NOT NULL
  RETURNING d.webhook INTO v_name;
  IF NOT FOUND THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  IF v_delivered THEN
    UPDATE public.webhooks w SET failing_since = NULL WHERE w.workspace_id = p_workspace AND w.name = v_name AND w.failing_since IS NOT NULL;
    RETURN '{"outcome":"ok"}';
  END IF;
  UPDATE public.webhooks w SET failing_since = COALESCE(w.failing_since, v_now) WHERE w.workspace_id = p_workspace AND w.name = v_name;
  IF (v_arg ->> 'isGone')::boolean THEN
    v_why := 'it answered 410 Gone';
  ELSIF EXISTS (SELECT 1 FROM public.webhooks w WHERE w.workspace_id = p_workspace AND w.name = v_name AND w.failing_since <= (v_arg ->> 'giveUpBefore')::timestamptz) THEN
    v_why := 'it has failed for days';
  END IF;
  IF v_why IS NOT NULL THEN
    UPDATE public.webhooks w SET disabled_at = v_now, disabled_why = v_why WHERE w.workspace_id = p_workspace AND w.name = v_name AND w.disabled_at IS NULL;
    UPDATE public.webhook_deliveries d SET next_at = NULL, dead_at = v_now WHERE d.workspace_id = p_workspace AND d.webhook = v_name AND d.next_at IS NOT NULL;
  END IF;
  RETURN '{"outcome":"ok"}';
END
$$;

-- --- usage for Stripe -----------------------------------------------------------------------------------------------------------

-- {customerId: text | null, now} -> ok | not_found. What is entered from then on is told: also when it was none for a while.
CREATE FUNCTION astra.stripe_customer_put(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_seq bigint := COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  INSERT INTO public.stripe_customers AS c (workspace_id, customer_id, pushed_seq, created_at, updated_at)
  VALUES (p_workspace, v_arg ->> 'customerId', v_seq, v_now, v_now)
  ON CONFLICT (workspace_id) DO UPDATE SET customer_id = excluded.customer_id, updated_at = excluded.updated_at,
    pushed_seq = CASE WHEN c.customer_id IS NULL THEN excluded.pushed_seq ELSE c.pushed_seq END
  WHERE c.customer_id IS DISTINCT FROM excluded.customer_id;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {unit: micro_usd | tokens, eventName, most, now} -> {made}: the ledger from where it was left, a day at a time, into the outbox; what remains under a micro-dollar is carried on.
-- The customer's row is locked: two at once do it once.
CREATE FUNCTION astra.stripe_cut(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_customer public.stripe_customers;
  v_exact numeric;
  v_value bigint;
  v_made int := 0;
  v record;
BEGIN
  SELECT c.* INTO v_customer FROM public.stripe_customers c WHERE c.workspace_id = p_workspace FOR UPDATE;
  IF v_customer.customer_id IS NULL THEN
    RETURN '{"made":0}';
  END IF;
  FOR v IN
    SELECT min(l.seq) AS first, max(l.seq) AS last, max(l.created_at) AS at, sum(l.charge_usd) AS usd, sum(l.input_tokens + l.output_tokens + l.embedding_tokens) AS tokens
    FROM (SELECT e.*, count(*) FILTER (WHERE e.day <> e.before) OVER (ORDER BY e.seq) AS part
          FROM (SELECT x.*, (x.created_at AT TIME ZONE 'UTC')::date AS day, lag((x.created_at AT TIME ZONE 'UTC')::date) OVER (ORDER BY x.seq) AS before
                FROM (SELECT i.seq, i.created_at, i.charge_usd, i.input_tokens, i.output_tokens, i.embedding_tokens FROM public.ledger i
                      WHERE i.workspace_id = p_workspace AND i.seq > v_customer.pushed_seq ORDER BY i.seq LIMIT (v_arg ->> 'most')::int) x) e) l
    GROUP BY l.part ORDER BY l.part
  LOOP
    v_exact := CASE WHEN v_arg ->> 'unit' = 'tokens' THEN v.tokens ELSE v.usd * 1000000 + v_customer.carried END;
    v_value := floor(v_exact)::bigint;  -- so that all that was told is the whole of all that there was
    v_customer.carried := CASE WHEN v_arg ->> 'unit' = 'tokens' THEN v_customer.carried ELSE v_exact - v_value END;
    v_customer.pushed_seq := v.last;
    IF v_value <> 0 THEN
      INSERT INTO public.stripe_events (workspace_id, first_seq, last_seq, customer_id, event_name, value, at, next_at, created_at)
      VALUES (p_workspace, v.first, v.last, v_customer.customer_id, v_arg ->> 'eventName', v_value, v.at, (v_arg ->> 'now')::timestamptz, (v_arg ->> 'now')::timestamptz);
      v_made := v_made + 1;
    END IF;
  END LOOP;
  UPDATE public.stripe_customers c SET pushed_seq = v_customer.pushed_seq, carried = v_customer.carried
  WHERE c.workspace_id = p_workspace AND c.pushed_seq <> v_customer.pushed_seq;
  RETURN jsonb_build_object('made', v_made)::text;
END
$$;

-- {now, hide (seconds), notBefore, notAfter, unsureBefore} -> {event: {firstSeq, attempt, wasUnsure, customerId, eventName, value, at} | null, setAside}: the next that is due, out of sight for
-- so long, and its result unknown until it is said. What is older than notBefore is expired; what may have been taken before unsureBefore is not sent again. What is
-- later than notAfter waits.
CREATE FUNCTION astra.stripe_take(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_aside int;
  v public.stripe_events;
BEGIN
  UPDATE public.stripe_events e SET state = CASE WHEN e.unsure_since <= (v_arg ->> 'unsureBefore')::timestamptz THEN 'uncertain' ELSE 'expired' END
  WHERE e.workspace_id = p_workspace AND e.state = 'pending' AND e.next_at <= v_now
    AND (e.unsure_since <= (v_arg ->> 'unsureBefore')::timestamptz OR e.at < (v_arg ->> 'notBefore')::timestamptz);
  GET DIAGNOSTICS v_aside = ROW_COUNT;
  UPDATE public.stripe_events e SET attempts = e.attempts + 1, next_at = v_now + make_interval(secs => (v_arg ->> 'hide')::int), unsure_since = COALESCE(e.unsure_since, v_now)
  WHERE e.workspace_id = p_workspace AND e.first_seq = (
    SELECT d.first_seq FROM public.stripe_events d
    WHERE d.workspace_id = p_workspace AND d.state = 'pending' AND d.next_at <= v_now AND d.at <= (v_arg ->> 'notAfter')::timestamptz
    ORDER BY d.first_seq LIMIT 1 FOR UPDATE SKIP LOCKED)
  RETURNING e.* INTO v;
  RETURN jsonb_build_object('setAside', v_aside, 'event', CASE WHEN v.first_seq IS NOT NULL THEN jsonb_build_object('firstSeq', v.first_seq, 'attempt', v.attempts,
    'wasUnsure', v.unsure_since < v_now, 'customerId', v.customer_id, 'eventName', v.event_name, 'value', v.value, 'at', astra.ts(v.at)) END)::text;
END
$$;

-- {firstSeq, attempt, state: sent | refused | pending, isUnsure, nextAt, code?, message?, now} -> ok | lost. isUnsure: Stripe may have taken it all the same, by this try or one before.
CREATE FUNCTION astra.stripe_done(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  UPDATE public.stripe_events e SET state = v_arg ->> 'state', next_at = (v_arg ->> 'nextAt')::timestamptz, code = v_arg ->> 'code', message = v_arg ->> 'message',
    sent_at = CASE WHEN v_arg ->> 'state' = 'sent' THEN (v_arg ->> 'now')::timestamptz END,
    unsure_since = CASE WHEN (v_arg ->> 'isUnsure')::boolean THEN e.unsure_since END
  WHERE e.workspace_id = p_workspace AND e.first_seq = (v_arg ->> 'firstSeq')::bigint AND e.attempts = (v_arg ->> 'attempt')::int AND e.state = 'pending';
  RETURN CASE WHEN FOUND THEN '{"outcome":"ok"}' ELSE '{"outcome":"lost"}' END;
END
$$;

-- {now} -> {count}: what was refused is tried again. What is uncertain or too old is not: somebody has to look at Stripe.
CREATE FUNCTION astra.stripe_retry(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_count int;
BEGIN
  UPDATE public.stripe_events e SET state = 'pending', attempts = 0, unsure_since = NULL, next_at = (p_arg::jsonb ->> 'now')::timestamptz,
    customer_id = COALESCE((SELECT c.customer_id FROM public.stripe_customers c WHERE c.workspace_id = p_workspace), e.customer_id)
  WHERE e.workspace_id = p_workspace AND e.state = 'refused';
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN jsonb_build_object('count', v_count)::text;
END
$$;

-- --- what is old ----------------------------------------------------------------------------------------------------------------

-- {now} -> {removed}: of one workspace. As astra_owner, because nobody else may remove these: revoked tokens that have long expired by themselves, grants that ended more than 400
-- days ago, and the log of deliveries after 90 days.
CREATE FUNCTION astra.clean_up(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_now timestamptz := (p_arg::jsonb ->> 'now')::timestamptz;
  v_all bigint := 0;
  v_count bigint;
BEGIN
  IF astra.tenant() IS DISTINCT FROM p_workspace THEN
    RAISE EXCEPTION 'no such workspace for this tenant' USING ERRCODE = 'insufficient_privilege';
  END IF;
  DELETE FROM public.revoked_tokens t WHERE t.workspace_id = p_workspace AND t.revoked_at < v_now - interval '366 days';
  GET DIAGNOSTICS v_count = ROW_COUNT;
  v_all := v_all + v_count;
  DELETE FROM public.grants g WHERE g.workspace_id = p_workspace AND LEAST(g.expires_at, g.revoked_at) < v_now - interval '400 days';
  GET DIAGNOSTICS v_count = ROW_COUNT;
  v_all := v_all + v_count;
  DELETE FROM public.received_grants g WHERE g.workspace_id = p_workspace AND LEAST(g.expires_at, g.revoked_at) < v_now - interval '400 days';
  GET DIAGNOSTICS v_count = ROW_COUNT;
  v_all := v_all + v_count;
  DELETE FROM public.webhook_deliveries d WHERE d.workspace_id = p_workspace AND d.next_at IS NULL AND d.created_at < v_now - interval '90 days';
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN jsonb_build_object('removed', v_all + v_count)::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.webhook_json(public.webhooks), astra.webhooks_list(text, text), astra.webhook_put(text, text), astra.webhook_rotate(text, text),
  astra.webhook_delete(text, text), astra.webhook_deliveries_list(text, text), astra.webhook_replay(text, text), astra.webhook_take(text, text), astra.webhook_done(text, text),
  astra.stripe_customer_put(text, text), astra.stripe_cut(text, text), astra.stripe_take(text, text), astra.stripe_done(text, text), astra.stripe_retry(text, text),
  astra.clean_up(text, text)
TO astra_billing;

-- --- across workspaces ----------------------------------------------------------------------------------------------------------

GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;

-- {name, lease, now, seconds, evenIfNotDue} -> taken: true {cursor} | false. A job that nobody has and that is due, or was left in the middle.
CREATE FUNCTION astra.op_job_take(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v public.billing_jobs;
BEGIN
  INSERT INTO public.billing_jobs (name, next_run) VALUES (v_arg ->> 'name', v_now) ON CONFLICT (name) DO NOTHING;
  UPDATE public.billing_jobs j
  SET lease = (v_arg ->> 'lease')::uuid, leased_until = v_now + make_interval(secs => (v_arg ->> 'seconds')::int), began_at = COALESCE(j.began_at, v_now),
      done = CASE WHEN j.began_at IS NULL THEN 0 ELSE j.done END, failed = CASE WHEN j.began_at IS NULL THEN 0 ELSE j.failed END
  WHERE j.name = v_arg ->> 'name' AND (j.lease IS NULL OR j.leased_until <= v_now)
    AND (j.next_run <= v_now OR (v_arg ->> 'evenIfNotDue')::boolean)
  RETURNING j.* INTO v;
  RETURN jsonb_build_object('taken', v.name IS NOT NULL, 'cursor', v.cursor)::text;
END
$$;

-- {name, lease, now, seconds, cursor, done, failed} -> held: true | false. A step was done: the lease is renewed, and whoever takes over goes on after it.
CREATE FUNCTION astra.op_job_step(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  UPDATE public.billing_jobs j
  SET leased_until = (v_arg ->> 'now')::timestamptz + make_interval(secs => (v_arg ->> 'seconds')::int), cursor = v_arg ->> 'cursor',
      done = j.done + (v_arg ->> 'done')::bigint, failed = j.failed + (v_arg ->> 'failed')::bigint
  WHERE j.name = v_arg ->> 'name' AND j.lease = (v_arg ->> 'lease')::uuid;
  RETURN jsonb_build_object('held', FOUND)::text;
END
$$;

-- {name, lease, now, nextRun, error?, isPaused, done, failed} -> held. The run is over with this last step, both at once: else one that was killed in between would be done again. Or
-- (isPaused) it goes on at nextRun where it was.
CREATE FUNCTION astra.op_job_end(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_error text := v_arg ->> 'error';
  v_paused boolean := (v_arg ->> 'isPaused')::boolean;
BEGIN
  UPDATE public.billing_jobs j
  SET lease = NULL, leased_until = NULL, next_run = (v_arg ->> 'nextRun')::timestamptz,
      cursor = CASE WHEN v_paused THEN j.cursor END, began_at = CASE WHEN v_paused THEN j.began_at END,
      done = j.done + (v_arg ->> 'done')::bigint, failed = j.failed + (v_arg ->> 'failed')::bigint,
      last_error = CASE WHEN v_error IS NULL AND v_paused THEN j.last_error ELSE v_error END,
      last_run = v_now,
      last_success = CASE WHEN v_error IS NULL AND NOT v_paused THEN v_now ELSE j.last_success END,
      runs = j.runs + (NOT v_paused OR v_error IS NOT NULL)::int, failures = j.failures + (v_error IS NOT NULL)::int
  WHERE j.name = v_arg ->> 'name' AND j.lease = (v_arg ->> 'lease')::uuid;
  RETURN jsonb_build_object('held', FOUND)::text;
END
$$;

-- {} -> data: every job that has ever run
CREATE FUNCTION astra.op_jobs_list(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN (SELECT jsonb_build_object('outcome', 'ok', 'data', COALESCE(jsonb_agg(jsonb_build_object('name', j.name, 'nextRun', astra.ts(j.next_run), 'leasedUntil', astra.ts(j.leased_until),
      'cursor', j.cursor, 'beganAt', astra.ts(j.began_at), 'done', j.done, 'failed', j.failed, 'lastRun', astra.ts(j.last_run), 'lastSuccess', astra.ts(j.last_success),
      'lastError', j.last_error, 'runs', j.runs, 'failures', j.failures) ORDER BY j.name COLLATE "C"), '[]')) FROM public.billing_jobs j)::text;
END
$$;

-- {now, limit} -> {workspaces}: those with something to deliver, the one that waits longest first
CREATE FUNCTION astra.op_webhooks_due(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  RETURN (SELECT jsonb_build_object('outcome', 'ok', 'workspaces', COALESCE(jsonb_agg(w.workspace_id ORDER BY w.since, w.workspace_id), '[]'))
          FROM (SELECT d.workspace_id, min(d.next_at) AS since FROM public.webhook_deliveries d WHERE d.next_at <= (v_arg ->> 'now')::timestamptz
                GROUP BY d.workspace_id ORDER BY 2, 1 LIMIT (v_arg ->> 'limit')::int) w)::text;
END
$$;

-- {after?, limit} -> data [{workspaceId, customerId, pushedSeq, updatedAt}] by workspace, next
CREATE FUNCTION astra.op_stripe_customers(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_data jsonb;
  v_next text;
BEGIN
  SELECT COALESCE(jsonb_agg(jsonb_build_object('workspaceId', p.workspace_id, 'customerId', p.customer_id, 'pushedSeq', p.pushed_seq, 'updatedAt', astra.ts(p.updated_at)) ORDER BY p.n)
           FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.workspace_id) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT c.workspace_id, c.customer_id, c.pushed_seq, c.updated_at, row_number() OVER (ORDER BY c.workspace_id COLLATE "C") AS n FROM public.stripe_customers c
        WHERE v_arg ->> 'after' IS NULL OR c.workspace_id COLLATE "C" > v_arg ->> 'after' ORDER BY c.workspace_id COLLATE "C" LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {after?: "WORKSPACE:SEQ", limit} -> data: events that Stripe has not taken and that are not sent again by themselves, next
CREATE FUNCTION astra.op_stripe_refusals(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_after text := v_arg ->> 'after';
  v_data jsonb;
  v_next text;
BEGIN
  SELECT COALESCE(jsonb_agg(jsonb_build_object('workspaceId', p.workspace_id, 'firstSeq', p.first_seq, 'lastSeq', p.last_seq, 'customerId', p.customer_id, 'eventName', p.event_name,
           'value', p.value, 'at', astra.ts(p.at), 'state', p.state, 'attempts', p.attempts, 'code', p.code, 'message', p.message) ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.workspace_id || ':' || p.first_seq) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT e.*, row_number() OVER (ORDER BY e.workspace_id COLLATE "C", e.first_seq) AS n FROM public.stripe_events e
        WHERE e.state NOT IN ('pending', 'sent')
          AND (v_after IS NULL OR (e.workspace_id COLLATE "C", e.first_seq) > (split_part(v_after, ':', 1), split_part(v_after, ':', 2)::bigint))
        ORDER BY e.workspace_id COLLATE "C", e.first_seq LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.op_job_take(text), astra.op_job_step(text), astra.op_job_end(text), astra.op_jobs_list(text), astra.op_webhooks_due(text),
  astra.op_stripe_customers(text), astra.op_stripe_refusals(text) TO astra_billing;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;
