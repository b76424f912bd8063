-- A hold is counted in every window that its turn began in, also in one that nobody looked at then: of a limit over an hour or a day that is new, or of a time zone that
-- was changed. And a window is told apart by its end too: those of two time zones may begin together and end apart.
--
-- So rows know where they begin, and what changes a hold changes each row that the moment of its beginning lies in, by the moment and not by name. A row that is built
-- counts the holds of now in the same way. A hold that grows is told the limits and windows of now (hold_grows), so that the turn keeps to them.
--
-- What was decided by limits that have changed since is decided anew: `of` says which row of the workspace was read, hold_take and hold_grow compare it under the lock.
--
-- Code from before reads a sum's window by its beginning alone (the first word of `sums`), and sends no `of`. It runs on.

SET LOCAL ROLE astra_owner;

-- Sums, built again when they are needed. Looked for by moment and scope.
TRUNCATE public.quota_windows;
ALTER TABLE public.quota_windows
  ADD COLUMN starts_at timestamptz NOT NULL,
  DROP CONSTRAINT quota_windows_pkey,
  ADD PRIMARY KEY (workspace_id, scope, span);
COMMENT ON COLUMN public.quota_windows.span IS 'Its length, its first moment and the first after it: month:2026-11-01T00:00:00.000Z/2026-12-01T00:00:00.000Z (astra_quota::Span::id).';

-- In place of the windows' names. (No UPDATE: row security lets astra_owner see no row of any tenant.)
ALTER TABLE public.holds ALTER COLUMN spans TYPE timestamptz USING (hold ->> 'startedAt')::timestamptz;
ALTER TABLE public.holds RENAME COLUMN spans TO started_at;

DROP FUNCTION astra.span_id(jsonb), astra.span_ids(jsonb), astra.windows_of(text, jsonb), astra.windows_ensure(text, jsonb),
  astra.windows_hold(text, text[], text, bigint, bigint), astra.standing_json(text, text[], text, timestamptz);

-- What the rows call a window: astra_quota::Span::id.
CREATE FUNCTION astra.span_id(p_span jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
BEGIN
  RETURN (p_span ->> 'period') || ':' || (p_span ->> 'startsAt') || '/' || (p_span ->> 'endsAt');
END
$$;

-- The windows that a decision about a hold looks at, by name: its month, and those of its caps.
CREATE FUNCTION astra.spans_looked_at(p_hold jsonb) RETURNS text[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
DECLARE
  v_caps jsonb := p_hold -> 'caps';
  v_span jsonb := p_hold #> '{spans,0}';
  v_name text := (v_span ->> 'period') || ':' || (v_span ->> 'startsAt') || '/' || (v_span ->> 'endsAt');
  v_names text[] := ARRAY[v_name];
BEGIN
  FOR i IN 0 .. COALESCE(jsonb_array_length(v_caps), 0) - 1 LOOP
    v_span := v_caps -> i -> 'window';
    v_name := (v_span ->> 'period') || ':' || (v_span ->> 'startsAt') || '/' || (v_span ->> 'endsAt');
    IF v_name <> ALL (v_names) THEN
      v_names := v_names || v_name;
    END IF;
  END LOOP;
  RETURN v_names;
END
$$;

-- Builds those of some windows that are not there, or have not counted the ledger's last entry. The caller has the lock.
CREATE FUNCTION astra.windows_ensure(p_workspace text, p_spans text[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_last bigint := COALESCE((SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace), 0);
  v_span text;
  v_edges text;
  v_starts timestamptz;
  v_ends timestamptz;
BEGIN
  FOREACH v_span IN ARRAY p_spans LOOP
    CONTINUE WHEN EXISTS (SELECT 1 FROM public.quota_windows w
                          WHERE w.workspace_id = p_workspace AND w.scope = 'workspace' AND w.span = v_span AND w.ledger_seq = v_last);
    v_edges := substr(v_span, strpos(v_span, ':') + 1);
    v_starts := split_part(v_edges, '/', 1)::timestamptz;
    v_ends := split_part(v_edges, '/', 2)::timestamptz;
    -- A window that has been over for an hour is seldom anybody's to decide.
    DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace AND (w.span = v_span OR w.ends_at < v_starts - interval '1 hour');
    INSERT INTO public.quota_windows (workspace_id, span, scope, starts_at, ends_at, ledger_seq, cost_used, tokens_used, cost_held, tokens_held)
    SELECT p_workspace, v_span, CASE WHEN grouping(s.agent_id) = 1 THEN 'workspace' ELSE 'agent:' || s.agent_id END, v_starts, v_ends, v_last,
           astra.nano(COALESCE(sum(s.cost_usd), 0)), COALESCE(sum(s.tokens), 0), COALESCE(sum(s.cost_held), 0), COALESCE(sum(s.tokens_held), 0)
    FROM (SELECT l.agent_id, l.cost_usd, l.input_tokens + l.output_tokens AS tokens, 0 AS cost_held, 0 AS tokens_held
          FROM public.ledger l
          WHERE l.workspace_id = p_workspace AND l.turn_started_at >= v_starts AND l.turn_started_at < v_ends
          UNION ALL
          SELECT h.agent_id, 0, 0, h.cost, h.tokens FROM public.holds h
          WHERE h.workspace_id = p_workspace AND h.started_at >= v_starts AND h.started_at < v_ends) s
    GROUP BY GROUPING SETS ((s.agent_id), ());
  END LOOP;
END
$$;

-- Whether the rows (all of one moment, of the workspace and of one agent) have each of some windows as of the ledger's last entry: NULL if not, else in how many
-- windows the agent has no row.
CREATE FUNCTION astra.windows_stand(p_rows public.quota_windows[], p_spans text[], p_last bigint) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
$$
DECLARE
  v_row public.quota_windows;
  v_standing int := 0;
  v_lacking int := 0;
BEGIN
  FOREACH v_row IN ARRAY p_rows LOOP
    IF v_row.scope <> 'workspace' THEN
      v_lacking := v_lacking - 1;
    ELSE
      v_lacking := v_lacking + 1;
      IF v_row.ledger_seq = p_last AND v_row.span = ANY (p_spans) THEN
        v_standing := v_standing + 1;
      END IF;
    END IF;
  END LOOP;
  RETURN CASE WHEN v_standing = cardinality(p_spans) THEN v_lacking END;
END
$$;

-- Adds to what is held of the windows that a moment lies in, by the whole workspace and by an agent, which may have no row in some of them.
CREATE FUNCTION astra.windows_hold(p_workspace text, p_started timestamptz, p_agent text, p_cost bigint, p_tokens bigint, p_lacking int) RETURNS void
LANGUAGE plpgsql AS
$$
BEGIN
  UPDATE public.quota_windows w SET cost_held = w.cost_held + p_cost, tokens_held = w.tokens_held + p_tokens
  WHERE w.workspace_id = p_workspace AND w.scope IN ('workspace', 'agent:' || p_agent) AND w.starts_at <= p_started AND w.ends_at > p_started;
  IF p_lacking IS DISTINCT FROM 0 THEN
    INSERT INTO public.quota_windows (workspace_id, span, scope, starts_at, ends_at, ledger_seq, cost_used, tokens_used, cost_held, tokens_held)
    SELECT p_workspace, w.span, 'agent:' || p_agent, w.starts_at, w.ends_at, 0, 0, 0, p_cost, p_tokens
    FROM public.quota_windows w
    WHERE w.workspace_id = p_workspace AND w.scope = 'workspace' AND w.starts_at <= p_started AND w.ends_at > p_started
    ON CONFLICT DO NOTHING;
  END IF;
END
$$;

-- {windows: [span], sums: [[the span's beginning, scope, cost used, tokens used, cost held, tokens held]], recent: the turns of the last minute, waits: [text], of} of those
-- windows that a moment lies in and that have counted the ledger's last entry; of one agent, or of all. A window without a sum of scope 'workspace' has to be
-- built. `of`: which row of the workspace this was read with.
CREATE FUNCTION astra.standing_json(p_workspace text, p_at timestamptz, p_agent text, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_rows public.quota_windows[];
  v_row public.quota_windows;
  v_last bigint;
  v_begun timestamptz[];
  v_waits text[];
  v_of text;
  v_behind text[] := '{}';
  v_windows text[] := '{}';
  v_sums jsonb[] := '{}';
  v_recent jsonb := '{"count":0,"first":null}';
  v_waiting jsonb := '[]';
BEGIN
  SELECT ARRAY(SELECT w FROM public.quota_windows w
               WHERE w.workspace_id = p_workspace AND w.starts_at <= p_at AND w.ends_at > p_at
                 AND (p_agent IS NULL OR w.scope IN ('workspace', 'agent:' || p_agent))),
         (SELECT h.seq FROM public.ledger_heads h WHERE h.workspace_id = p_workspace),
         ARRAY(SELECT b.at FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at > p_now - interval '60 seconds'),
         ARRAY(SELECT h.waits FROM public.holds h WHERE h.workspace_id = p_workspace AND h.waits IS NOT NULL),
         (SELECT w.xmin::text FROM public.workspaces w WHERE w.id = p_workspace)
  INTO v_rows, v_last, v_begun, v_waits, v_of;
  v_last := COALESCE(v_last, 0);
  FOREACH v_row IN ARRAY v_rows LOOP
    IF v_row.ledger_seq <> v_last AND v_row.scope = 'workspace' THEN
      v_behind := v_behind || v_row.span;
    END IF;
  END LOOP;
  FOREACH v_row IN ARRAY v_rows LOOP
    IF v_row.span <> ALL (v_behind) THEN
      v_windows := v_windows || v_row.span;
      v_sums := v_sums || jsonb_build_array(split_part(v_row.span, '/', 1), v_row.scope, v_row.cost_used, v_row.tokens_used, v_row.cost_held, v_row.tokens_held);
    END IF;
  END LOOP;
  IF v_begun <> '{}' THEN
    v_recent := jsonb_build_object('count', cardinality(v_begun), 'first', astra.ts((SELECT min(b.at) FROM unnest(v_begun) AS b (at))));
  END IF;
  IF v_waits <> '{}' THEN
    v_waiting := (SELECT jsonb_agg(DISTINCT w.waits) FROM unnest(v_waits) AS w (waits));
  END IF;
  RETURN jsonb_build_object('windows', to_jsonb(v_windows), 'sums', to_jsonb(v_sums), 'recent', v_recent, 'waits', v_waiting, 'of', v_of);
END
$$;

-- What is answered when a hold has to grow: {outcome: grow, hold, limits, spans, standings}. The limits of now in the month in which it began, and the windows of its
-- beginning in the time zone of now; NULL when the workspace is gone.
CREATE FUNCTION astra.hold_grows(p_workspace text, p_hold public.holds, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_zone text;
  v_limits jsonb;
  v_spans jsonb;
BEGIN
  SELECT w.time_zone, w.limits INTO v_zone, v_limits FROM public.workspaces w WHERE w.id = p_workspace;
  IF v_zone IS NOT NULL THEN
    v_spans := astra.spans_json(p_hold.started_at, v_zone);
    v_limits := astra.limits_in(p_workspace, v_limits, v_spans #>> '{month,startsAt}');
  END IF;
  RETURN jsonb_build_object('outcome', 'grow', 'hold', astra.hold_json(p_hold), 'limits', v_limits, 'spans', v_spans,
    'standings', astra.standing_json(p_workspace, p_hold.started_at, p_hold.agent_id, p_now));
END
$$;

-- As in 0019; a cap's window is told apart by its end too.
CREATE OR REPLACE FUNCTION astra.caps_fit(p_caps jsonb, p_rows public.quota_windows[], p_cost bigint, p_tokens bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
$$
DECLARE
  v_cap jsonb;
  v_span text;
  v_scope text;
  v_row public.quota_windows;
  v_cost bigint;
  v_tokens bigint;
BEGIN
  FOR i IN 0 .. COALESCE(jsonb_array_length(p_caps), 0) - 1 LOOP
    v_cap := p_caps -> i;
    v_span := (v_cap #>> '{window,period}') || ':' || (v_cap #>> '{window,startsAt}') || '/' || (v_cap #>> '{window,endsAt}');
    v_scope := v_cap ->> 'scope';
    v_cost := p_cost;
    v_tokens := p_tokens;
    FOREACH v_row IN ARRAY p_rows LOOP
      IF v_row.span = v_span AND v_row.scope = v_scope THEN
        v_cost := v_row.cost_used + v_row.cost_held + p_cost;
        v_tokens := v_row.tokens_used + v_row.tokens_held + p_tokens;
        EXIT;
      END IF;
    END LOOP;
    IF (CASE WHEN v_cap ->> 'limit' LIKE 'maxTokens%' THEN v_tokens ELSE v_cost END) > (v_cap ->> 'max')::bigint THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;

-- Likewise. The rows are those of the windows that the turn began in, as they were before.
CREATE OR REPLACE FUNCTION astra.quota_view(p_workspace text, p_hold jsonb, p_rows public.quota_windows[], p_cost bigint, p_held_cost bigint, p_tokens bigint,
  p_held_tokens bigint, p_now timestamptz) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$
DECLARE
  v_caps jsonb := p_hold -> 'caps';
  v_cap jsonb;
  v_span text;
  v_scope text;
  v_row public.quota_windows;
  v_limit bigint;
  v_used bigint;
  v_held bigint;
  v_windows jsonb := '[]';
  v_begun record;
BEGIN
  FOR i IN 0 .. COALESCE(jsonb_array_length(v_caps), 0) - 1 LOOP
    v_cap := v_caps -> i;
    v_span := (v_cap #>> '{window,period}') || ':' || (v_cap #>> '{window,startsAt}') || '/' || (v_cap #>> '{window,endsAt}');
    v_scope := v_cap ->> 'scope';
    v_limit := (v_cap ->> 'max')::bigint;
    v_used := 0;
    v_held := 0;
    FOREACH v_row IN ARRAY p_rows LOOP
      IF v_row.span = v_span AND v_row.scope = v_scope THEN
        IF v_cap ->> 'limit' LIKE 'maxTokens%' THEN
          v_used := v_row.tokens_used + p_tokens;
          v_held := v_row.tokens_held - p_held_tokens;
        ELSE
          v_used := v_row.cost_used + p_cost;
          v_held := v_row.cost_held - p_held_cost;
        END IF;
        EXIT;
      END IF;
    END LOOP;
    v_windows := v_windows || jsonb_build_object('limit', v_cap -> 'limit', 'scope', v_scope, 'max', v_limit, 'used', v_used, 'held', v_held,
      'left', GREATEST(v_limit - v_used - v_held, 0), 'startsAt', v_cap #> '{window,startsAt}', 'resetsAt', v_cap #> '{window,endsAt}');
  END LOOP;
  v_limit := (p_hold ->> 'maxTurnsPerMinute')::bigint;
  IF v_limit IS NOT NULL THEN
    SELECT count(*) AS n, astra.ts(min(b.at) + interval '60 seconds') AS resets INTO v_begun
    FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at > p_now - interval '60 seconds';
    v_windows := v_windows || jsonb_strip_nulls(jsonb_build_object('limit', 'maxTurnsPerMinute', 'scope', 'workspace', 'max', v_limit, 'used', v_begun.n,
      'held', 0, 'left', GREATEST(v_limit - v_begun.n, 0), 'resetsAt', v_begun.resets));
  END IF;
  RETURN jsonb_build_object('windows', v_windows);
END
$$;

GRANT EXECUTE ON FUNCTION astra.span_id(jsonb), astra.spans_looked_at(jsonb), astra.windows_ensure(text, text[]),
  astra.windows_stand(public.quota_windows[], text[], bigint), astra.windows_hold(text, timestamptz, text, bigint, bigint, int),
  astra.standing_json(text, timestamptz, text, timestamptz), astra.hold_grows(text, public.holds, timestamptz)
TO astra_quota_inside;

GRANT CREATE ON SCHEMA astra TO astra_quota_inside;
SET LOCAL ROLE astra_quota_inside;

-- As in 0012.
CREATE OR REPLACE FUNCTION astra.hold_begin(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_key text := v_arg ->> 'idempotencyKey';
  v_hold record;
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  PERFORM 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.expires_at <= v_now LIMIT 1;
  IF FOUND THEN
    RETURN '{"outcome":"expired"}';
  END IF;
  IF v_key IS NOT NULL THEN
    SELECT h.turn_id, h.request_hash = v_arg ->> 'requestHash' AND h.subject = v_arg ->> 'subject' AS same INTO v_hold
    FROM public.holds h
    WHERE h.workspace_id = p_workspace AND h.idempotency_key = v_key AND h.turn_id <> (v_arg ->> 'turnId')::uuid;
    IF FOUND THEN
      RETURN jsonb_build_object('outcome', 'running', 'turnId', v_hold.turn_id, 'same', v_hold.same)::text;
    END IF;
  END IF;
  -- As text: it is not looked into.
  RETURN concat('{"outcome":"read","context":', astra.turn_begin(p_workspace, p_arg), ',"standings":',
    astra.standing_json(p_workspace, v_now, v_arg ->> 'agentId', v_now)::text, '}');
END
$$;

-- {windows: [span], agentId | null, now} -> standing_json of them, built if they have to be. They have a moment in common: that at which a turn began.
CREATE OR REPLACE FUNCTION astra.hold_standing(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_spans text[];
  v_at timestamptz;
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  PERFORM astra.counter_lock(p_workspace);
  SELECT array_agg(astra.span_id(e.value)), max((e.value ->> 'startsAt')::timestamptz) INTO v_spans, v_at
  FROM jsonb_array_elements(v_arg -> 'windows') e;
  -- A statement of its own: the next one sees what it has built.
  PERFORM astra.windows_ensure(p_workspace, v_spans);
  RETURN astra.standing_json(p_workspace, v_at, v_arg ->> 'agentId', (v_arg ->> 'now')::timestamptz)::text;
END
$$;

-- As in 0023; by moment, and by the workspace as it is now.
CREATE OR REPLACE FUNCTION astra.hold_take(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_hold jsonb := v_arg -> 'hold';
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_started timestamptz := (v_hold ->> 'startedAt')::timestamptz;
  v_agent text := v_hold ->> 'agent';
  v_key text := v_hold #>> '{key,0}';
  v_cost bigint := (v_hold ->> 'cost')::bigint;
  v_tokens bigint := (v_arg ->> 'tokens')::bigint;
  v_per_minute bigint := (v_hold ->> 'maxTurnsPerMinute')::bigint;
  v_spans text[] := astra.spans_looked_at(v_hold);
  v_of text := v_arg ->> 'of';
  v_workspace text[];
  v_month date;
  v_is_held boolean;
  v_rows public.quota_windows[];
  v_last bigint;
  v_lacking int;
  v_fits boolean;
  v_known public.holds;
  v_done text;
BEGIN
  v_done := set_config('astra.workspace', astra.tenant(), true);
  v_done := astra.counter_lock(p_workspace);
  FOR v_try IN 1 .. 2 LOOP
    SELECT (SELECT ARRAY[s.time_zone, s.xmin::text] FROM public.workspaces s WHERE s.id = p_workspace),
           EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn),
           (SELECT l.seq FROM public.ledger_heads l WHERE l.workspace_id = p_workspace),
           ARRAY(SELECT w FROM public.quota_windows w
                 WHERE w.workspace_id = p_workspace AND w.scope IN ('workspace', 'agent:' || v_agent) AND w.starts_at <= v_started AND w.ends_at > v_started)
    INTO v_workspace, v_is_held, v_last, v_rows;
    -- Each window that is looked at is there and has counted the ledger's last entry.
    v_lacking := astra.windows_stand(v_rows, v_spans, COALESCE(v_last, 0));
    EXIT WHEN v_try = 2 OR v_lacking IS NOT NULL;
    v_done := astra.windows_ensure(p_workspace, v_spans);
  END LOOP;

  IF v_is_held THEN
    SELECT h.* INTO v_known FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    RETURN jsonb_build_object('outcome', 'held', 'hold', astra.hold_json(v_known))::text;
  END IF;
  -- The workspace is gone, or it is not as it was when its limits were read.
  IF v_workspace IS NULL OR v_of <> v_workspace[2] THEN
    RETURN '{"outcome":"again"}';
  END IF;
  IF v_key IS NOT NULL THEN
    v_month := astra.month_in(v_started, v_workspace[1]);
    IF EXISTS (SELECT 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.idempotency_key = v_key)
       OR EXISTS (SELECT 1 FROM public.turns t WHERE t.workspace_id = p_workspace AND t.idempotency_key = v_key AND t.idempotency_month = v_month) THEN
      RETURN '{"outcome":"again"}';
    END IF;
  END IF;

  -- A grant once more: whoever revokes it waits for this lock before its turns are told to stop.
  IF strpos(v_agent, '/') > 0
     AND NOT EXISTS (SELECT 1 FROM public.received_grants g
                     WHERE g.workspace_id = p_workspace AND g.granting_workspace_id || '/' || g.agent_id = v_agent AND g.revoked_at IS NULL
                       AND (g.expires_at IS NULL OR g.expires_at > v_now)) THEN
    RETURN '{"outcome":"again"}';
  END IF;

  -- The limits once more, against what is true until the commit.
  v_fits := astra.caps_fit(v_hold -> 'caps', v_rows, v_cost, v_tokens);
  IF v_per_minute IS NOT NULL THEN
    v_fits := v_fits AND v_per_minute > (SELECT count(*) FROM public.quota_begins b
                                         WHERE b.workspace_id = p_workspace AND b.at > v_now - interval '60 seconds');
  END IF;
  IF NOT v_fits THEN
    RETURN jsonb_build_object('outcome', 'full', 'standings', astra.standing_json(p_workspace, v_started, v_agent, v_now))::text;
  END IF;

  v_done := astra.windows_hold(p_workspace, v_started, v_agent, v_cost, v_tokens, v_lacking);
  INSERT INTO public.holds (workspace_id, turn_id, started_at, agent_id, subject, idempotency_key, request_hash, cost, tokens, hold, draft, progress, expires_at)
  VALUES (p_workspace, v_turn, v_started, v_agent, v_hold ->> 'subject', v_key, COALESCE(v_hold #>> '{key,1}', ''), v_cost, v_tokens, v_hold,
          v_arg -> 'draft', v_hold -> 'progress', (v_hold ->> 'expiresAt')::timestamptz);
  IF v_per_minute IS NOT NULL THEN
    DELETE FROM public.quota_begins b WHERE b.workspace_id = p_workspace AND b.at <= v_now - interval '60 seconds';
    INSERT INTO public.quota_begins (workspace_id, at, turn_id) VALUES (p_workspace, v_now, v_turn);
  END IF;
  RETURN '{"outcome":"taken"}';
END
$$;

-- As in 0023. What it answers when the hold has to grow is hold_grows'.
CREATE OR REPLACE FUNCTION astra.hold_extend(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_hold public.holds;
  v_covers boolean;
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  UPDATE public.holds h
  SET sequence = (v_arg ->> 'sequence')::bigint, progress = v_arg -> 'progress',
      -- A grant that has expired by now.
      stop = h.stop OR COALESCE((h.hold ->> 'until')::timestamptz <= v_now, false),
      expires_at = GREATEST(h.expires_at, v_now + (h.hold ->> 'leaseMillis')::bigint * interval '1 millisecond')
  WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn AND h.sequence < (v_arg ->> 'sequence')::bigint
  RETURNING h.* INTO v_hold;
  IF NOT FOUND THEN
    SELECT h.* INTO v_hold FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    IF NOT FOUND THEN
      RETURN '{"outcome":"not_running"}';
    END IF;
  END IF;
  v_covers := (v_arg ->> 'inputBound')::numeric <= (v_hold.hold ->> 'inputBound')::numeric
    AND LEAST((v_arg ->> 'output')::numeric, (v_hold.hold ->> 'maxOutput')::numeric) <= (v_hold.hold ->> 'output')::numeric;
  -- What comes late changes nothing.
  IF (v_arg ->> 'sequence')::bigint >= v_hold.sequence THEN
    IF NOT v_covers THEN
      RETURN astra.hold_grows(p_workspace, v_hold, v_now)::text;
    END IF;
    IF v_hold.waits IS NOT NULL THEN
      UPDATE public.holds h SET waits = NULL WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    END IF;
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'extended', jsonb_build_object('stop', v_hold.stop, 'covered', v_covers, 'wait', false,
    'output', v_hold.hold -> 'output', 'maxOutput', v_hold.hold -> 'maxOutput'))::text;
END
$$;

-- As in 0019; by moment, and by the workspace as it is now. {turnId, was: hold, hold, tokens, of?, now} -> not_running | grown | hold_grows': it was changed, does not fit any
-- more, or the workspace is not as it was when its limits were read.
CREATE OR REPLACE FUNCTION astra.hold_grow(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_hold jsonb := v_arg -> 'hold';
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_cost bigint := (v_hold ->> 'cost')::bigint;
  v_tokens bigint := (v_arg ->> 'tokens')::bigint;
  v_old public.holds;
  v_rows public.quota_windows[];
  v_version text;
  v_done text;
BEGIN
  v_done := set_config('astra.workspace', astra.tenant(), true);
  v_done := astra.counter_lock(p_workspace);
  SELECT h.* INTO v_old FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_running"}';
  END IF;
  v_done := astra.windows_ensure(p_workspace, astra.spans_looked_at(v_hold));
  SELECT ARRAY(SELECT w FROM public.quota_windows w
               WHERE w.workspace_id = p_workspace AND w.scope IN ('workspace', 'agent:' || v_old.agent_id)
                 AND w.starts_at <= v_old.started_at AND w.ends_at > v_old.started_at),
         (SELECT s.xmin::text FROM public.workspaces s WHERE s.id = p_workspace)
  INTO v_rows, v_version;
  -- Who only waits no longer needs no room: there may be none, since a limit was lowered.
  IF ((v_cost > v_old.cost OR v_tokens > v_old.tokens)
      AND NOT astra.caps_fit(v_hold -> 'caps', v_rows, v_cost - v_old.cost, v_tokens - v_old.tokens))
     OR v_old.hold -> 'inputBound' <> v_arg -> 'was' -> 'inputBound' OR v_old.hold -> 'output' <> v_arg -> 'was' -> 'output'
     OR v_arg ->> 'of' <> v_version THEN
    RETURN astra.hold_grows(p_workspace, v_old, (v_arg ->> 'now')::timestamptz)::text;
  END IF;
  -- Its agent has a row in each of these windows: since it was taken, or since they were built.
  v_done := astra.windows_hold(p_workspace, v_old.started_at, v_old.agent_id, v_cost - v_old.cost, v_tokens - v_old.tokens, 0);
  UPDATE public.holds h SET cost = v_cost, tokens = v_tokens, hold = v_hold, waits = NULL WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  RETURN '{"outcome": "grown"}';
END
$$;

-- As in 0017; by moment.
CREATE OR REPLACE FUNCTION astra.hold_wait(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_scope text := v_arg ->> 'scope';
  v_starts timestamptz := (v_arg #>> '{window,startsAt}')::timestamptz;
  v_ends timestamptz := (v_arg #>> '{window,endsAt}')::timestamptz;
  v_wait boolean;
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  PERFORM astra.counter_lock(p_workspace);
  v_wait := EXISTS (
    SELECT 1 FROM public.holds h
    WHERE h.workspace_id = p_workspace AND h.turn_id <> v_turn AND h.started_at >= v_starts AND h.started_at < v_ends
      AND (v_scope = 'workspace' OR v_scope = 'agent:' || h.agent_id) AND (h.waits IS NULL OR h.turn_id > v_turn));
  UPDATE public.holds h SET waits = CASE WHEN v_wait THEN COALESCE(v_arg ->> 'waits', v_scope) END WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  IF NOT FOUND THEN
    RETURN '{"outcome":"not_running"}';
  END IF;
  RETURN jsonb_build_object('outcome', 'wait', 'wait', v_wait)::text;
END
$$;

-- As in 0019; by moment.
CREATE OR REPLACE FUNCTION astra.hold_finish(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_turn uuid := (v_arg ->> 'turnId')::uuid;
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_cost bigint := (v_arg ->> 'costNanoUsd')::bigint;
  v_tokens bigint := (v_arg #>> '{usage,inputTokens}')::bigint + (v_arg #>> '{usage,outputTokens}')::bigint;
  v_answer jsonb := v_arg -> 'answer';
  v_has_answer boolean := jsonb_typeof(v_answer) = 'object';
  v_hold jsonb;
  v_agent text;
  v_spans text[];
  v_held_cost bigint;
  v_held_tokens bigint;
  v_started timestamptz;
  v_last bigint;
  v_rows public.quota_windows[];
  v_quota jsonb;
  v_alerts jsonb;
  v_saved jsonb;
  v_done text;
BEGIN
  v_done := set_config('astra.workspace', astra.tenant(), true);
  v_done := astra.counter_lock(p_workspace);
  IF (v_arg ->> 'onlyExpired')::boolean THEN
    PERFORM 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn AND h.expires_at <= v_now FOR UPDATE;
    IF NOT FOUND THEN
      RETURN '{"outcome":"alive"}';
    END IF;
  END IF;

  FOR v_try IN 1 .. 2 LOOP
    SELECT h.hold, h.agent_id, h.started_at, h.cost, h.tokens, (SELECT l.seq FROM public.ledger_heads l WHERE l.workspace_id = p_workspace),
           ARRAY(SELECT w FROM public.quota_windows w
                 WHERE w.workspace_id = p_workspace AND w.scope IN ('workspace', 'agent:' || h.agent_id) AND w.starts_at <= h.started_at AND w.ends_at > h.started_at)
    INTO v_hold, v_agent, v_started, v_held_cost, v_held_tokens, v_last, v_rows
    FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
    IF NOT FOUND THEN
      -- A settlement that comes late: the windows are built anew from what it enters. Its limits went with its hold: who wants to know them asks for those of
      -- now.
      v_done := astra.turn_enter(p_workspace, v_arg, v_answer, v_arg -> 'alerts');
      IF NOT v_has_answer THEN
        RETURN jsonb_build_object('outcome', 'finished', 'quota', jsonb_build_object('windows', jsonb_build_array()))::text;
      END IF;
      RETURN '{"outcome":"late"}';
    END IF;
    v_last := COALESCE(v_last, 0);
    v_spans := astra.spans_looked_at(v_hold);
    -- Before anything is changed: windows that were built half-way through would have counted a half.
    EXIT WHEN v_try = 2 OR astra.windows_stand(v_rows, v_spans, v_last) IS NOT NULL;
    v_done := astra.windows_ensure(p_workspace, v_spans);
  END LOOP;

  DELETE FROM public.holds h WHERE h.workspace_id = p_workspace AND h.turn_id = v_turn;
  -- Charged before it is saved, because what is left then is a part of the answer that is saved. What the ledger says of it is looked at below. A window that the turn
  -- did not begin in has counted its entry too: as nothing.
  UPDATE public.quota_windows w
  SET cost_held = w.cost_held - (w.starts_at <= v_started AND w.ends_at > v_started)::int * v_held_cost,
      tokens_held = w.tokens_held - (w.starts_at <= v_started AND w.ends_at > v_started)::int * v_held_tokens,
      cost_used = w.cost_used + (w.starts_at <= v_started AND w.ends_at > v_started)::int * v_cost,
      tokens_used = w.tokens_used + (w.starts_at <= v_started AND w.ends_at > v_started)::int * v_tokens,
      ledger_seq = v_last + 1
  WHERE w.workspace_id = p_workspace AND w.scope IN ('workspace', 'agent:' || v_agent)
    AND ((w.scope = 'workspace' AND w.ledger_seq = v_last) OR (w.scope <> 'workspace' AND w.starts_at <= v_started AND w.ends_at > v_started));
  v_quota := astra.quota_view(p_workspace, v_hold, v_rows, v_cost, v_held_cost, v_tokens, v_held_tokens, v_now);
  v_alerts := astra.marks_passed(v_quota -> 'windows', v_cost, v_tokens);
  IF v_arg ->> 'finishReason' = 'quota' THEN
    v_alerts := COALESCE(v_alerts, '[]') || COALESCE(astra.marks_used_up(v_quota -> 'windows', v_hold), '[]');
  END IF;
  IF v_has_answer THEN
    v_answer := v_answer || jsonb_build_object('quota', v_quota);
  END IF;

  v_saved := astra.turn_enter(p_workspace, v_arg, v_answer, COALESCE(v_alerts, v_arg -> 'alerts'));
  IF v_saved ->> 'outcome' <> 'saved' OR (v_saved ->> 'ledgerSeq')::bigint <> v_last + 1 OR v_agent <> v_arg ->> 'agentId'
     OR v_started <> (v_arg ->> 'startedAt')::timestamptz THEN
    -- It was charged before, or somebody else entered something: the ledger knows how much.
    DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace;
  END IF;
  RETURN jsonb_build_object('outcome', 'finished', 'quota', v_quota)::text;
END
$$;

-- As in 0012.
CREATE OR REPLACE FUNCTION astra.hold_status(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_now timestamptz := (p_arg::jsonb ->> 'now')::timestamptz;
  v_status jsonb;
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  v_status := astra.quota_status(p_workspace, p_arg)::jsonb;
  IF v_status ->> 'outcome' <> 'ok' THEN
    RETURN '{"outcome":"not_found"}';
  END IF;
  PERFORM 1 FROM public.holds h WHERE h.workspace_id = p_workspace AND h.expires_at <= v_now LIMIT 1;
  IF FOUND THEN
    RETURN '{"outcome":"expired"}';
  END IF;
  RETURN (v_status || jsonb_build_object('standings', astra.standing_json(p_workspace, v_now, NULL, v_now)))::text;
END
$$;

-- As in 0015.
CREATE OR REPLACE FUNCTION astra.hold_reconcile(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_data jsonb;
BEGIN
  PERFORM set_config('astra.workspace', astra.tenant(), true);
  PERFORM astra.counter_lock(p_workspace);
  WITH compared AS (
    SELECT w.span, w.scope, w.cost_used, w.tokens_used, astra.nano(l.cost) AS cost, l.tokens
    FROM public.quota_windows w
    CROSS JOIN LATERAL (
      SELECT COALESCE(sum(e.cost_usd), 0) AS cost, COALESCE(sum(e.input_tokens + e.output_tokens), 0)::bigint AS tokens
      FROM public.ledger e
      WHERE e.workspace_id = p_workspace AND e.turn_started_at >= w.starts_at AND e.turn_started_at < w.ends_at
        AND (w.scope = 'workspace' OR w.scope = 'agent:' || e.agent_id)) l
    WHERE w.workspace_id = p_workspace)
  SELECT COALESCE(jsonb_agg(jsonb_build_object('window', c.span, 'scope', c.scope,
           'counter', jsonb_build_object('cost', c.cost_used, 'tokens', c.tokens_used), 'ledger', jsonb_build_object('cost', c.cost, 'tokens', c.tokens))
           ORDER BY c.span, c.scope), '[]')
  INTO v_data FROM compared c;
  IF EXISTS (SELECT 1 FROM jsonb_array_elements(v_data) d WHERE d.value -> 'counter' <> d.value -> 'ledger') THEN
    DELETE FROM public.quota_windows w WHERE w.workspace_id = p_workspace;
  END IF;
  RETURN jsonb_build_object('data', v_data)::text;
END
$$;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside;
