-- What the billing function calls: one workspace's month, every workspace's month, prices.
--
-- The numbers come from turns, as in the guide's query, and a correction changes its turn: so both agree with the ledger.
-- Trap: the guide's query says date_trunc('month', now()), which is the month of the session's time zone: run it where timezone is UTC.

SET LOCAL ROLE astra_owner;

-- {month} -> ok | not_found, and the month's usage
CREATE FUNCTION astra.usage(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_month date := astra.parse_month(p_arg::jsonb ->> 'month');
  v_from timestamptz := astra.month_start(v_month);
  v_to timestamptz := astra.month_start((v_month + interval '1 month')::date);
  v_doc jsonb;
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN jsonb_build_object('outcome', 'not_found')::text;
  END IF;
  WITH month AS MATERIALIZED (
    SELECT t.* FROM public.turns t WHERE t.workspace_id = p_workspace AND t.created_at >= v_from AND t.created_at < v_to
  ), by_agent AS (
    SELECT jsonb_build_object('agentId', m.agent_id, 'turns', count(*), 'sessions', count(DISTINCT m.session_id),
      'totalTokens', sum(m.input_tokens + m.output_tokens)::bigint, 'inputTokens', sum(m.input_tokens)::bigint,
      'outputTokens', sum(m.output_tokens)::bigint, 'totalCostNanoUsd', astra.nano(sum(m.cost_usd))) AS doc, m.agent_id AS name, sum(m.cost_usd) AS cost
    FROM month m GROUP BY m.agent_id
  ), by_model AS (
    SELECT jsonb_build_object('provider', m.provider, 'model', m.model, 'turns', count(*),
      'totalTokens', sum(m.input_tokens + m.output_tokens)::bigint, 'inputTokens', sum(m.input_tokens)::bigint,
      'outputTokens', sum(m.output_tokens)::bigint, 'totalCostNanoUsd', astra.nano(sum(m.cost_usd))) AS doc,
      m.provider || '/' || m.model AS name, sum(m.cost_usd) AS cost
    FROM month m GROUP BY m.provider, m.model
  )
  SELECT jsonb_build_object('outcome', 'ok', 'workspaceId', p_workspace, 'month', to_char(v_month, 'YYYY-MM'),
    'totalTokens', COALESCE(sum(m.input_tokens + m.output_tokens), 0)::bigint, 'inputTokens', COALESCE(sum(m.input_tokens), 0)::bigint,
    'cachedInputTokens', COALESCE(sum(m.cached_input_tokens), 0)::bigint, 'outputTokens', COALESCE(sum(m.output_tokens), 0)::bigint,
    'reasoningTokens', COALESCE(sum(m.reasoning_tokens), 0)::bigint, 'sessions', count(DISTINCT m.session_id), 'turns', count(*),
    'totalCostNanoUsd', astra.nano(COALESCE(sum(m.cost_usd), 0)),
    'byAgent', (SELECT COALESCE(jsonb_agg(a.doc ORDER BY a.cost DESC, a.name COLLATE "C"), '[]') FROM by_agent a),
    'byModel', (SELECT COALESCE(jsonb_agg(b.doc ORDER BY b.cost DESC, b.name COLLATE "C"), '[]') FROM by_model b))
  INTO v_doc FROM month m;
  RETURN v_doc::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.usage(text, text) TO astra_billing;

GRANT CREATE ON SCHEMA astra TO astra_operator;
SET LOCAL ROLE astra_operator;

-- {month, after?, limit?} -> data [{workspaceId, displayName, totalCostNanoUsd, totalTokens, sessions}] dearest first, next (opaque)
-- A workspace without a turn in the month is not in it, as in the guide's query.
CREATE FUNCTION astra.op_costs(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_limit int := astra.page_limit(v_arg ->> 'limit');
  v_month date := astra.parse_month(v_arg ->> 'month');
  v_from timestamptz := astra.month_start(v_month);
  v_to timestamptz := astra.month_start((v_month + interval '1 month')::date);
  v_after text := v_arg ->> 'after';  -- "<nano-dollars>:<workspace>" of the last row seen
  v_after_nano bigint;
  v_after_id text;
  v_data jsonb;
  v_next text;
BEGIN
  IF v_after IS NOT NULL THEN
    IF v_after !~ '^[0-9]{1,18}:[a-z0-9-]{1,48}$' THEN
      RAISE EXCEPTION 'not a cursor of this list' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    v_after_nano := split_part(v_after, ':', 1)::bigint;
    v_after_id := split_part(v_after, ':', 2);
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('workspaceId', p.id, 'displayName', p.display_name, 'totalCostNanoUsd', p.nano, 'totalTokens', p.tokens,
                                               'sessions', p.sessions) ORDER BY p.n) FILTER (WHERE p.n <= v_limit), '[]'),
         CASE WHEN count(*) > v_limit THEN max(p.nano || ':' || p.id) FILTER (WHERE p.n = v_limit) END
  INTO v_data, v_next
  FROM (SELECT c.*, row_number() OVER (ORDER BY c.nano DESC, c.id COLLATE "C") AS n
        FROM (SELECT w.id, w.display_name, astra.nano(sum(t.cost_usd)) AS nano, sum(t.input_tokens + t.output_tokens)::bigint AS tokens,
                     count(DISTINCT t.session_id) AS sessions
              FROM public.turns t JOIN public.workspaces w ON t.workspace_id = w.id
              WHERE t.created_at >= v_from AND t.created_at < v_to
              GROUP BY w.id, w.display_name) c
        WHERE v_after IS NULL OR c.nano < v_after_nano OR (c.nano = v_after_nano AND c.id COLLATE "C" > v_after_id)
        ORDER BY c.nano DESC, c.id COLLATE "C" LIMIT v_limit + 1) p;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data, 'next', v_next)::text;
END
$$;

-- {} -> data: every version of every price, the newest version of a model first
CREATE FUNCTION astra.op_prices_list(p_arg text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  RETURN (SELECT jsonb_build_object('outcome', 'ok', 'data', COALESCE(jsonb_agg(jsonb_build_object(
      'provider', p.provider, 'model', p.model, 'version', p.version, 'inputNanoPerMtok', p.input_nano_per_mtok,
      'cachedInputNanoPerMtok', p.cached_input_nano_per_mtok, 'outputNanoPerMtok', p.output_nano_per_mtok, 'holdsMaximum', p.holds_maximum,
      'validFrom', astra.ts(p.valid_from)) ORDER BY p.provider COLLATE "C", p.model COLLATE "C", p.version DESC), '[]')) FROM public.prices p)::text;
END
$$;

-- {provider, model, inputNanoPerMtok, cachedInputNanoPerMtok, outputNanoPerMtok, holdsMaximum, validFrom} -> version.
-- A price is never changed: a new one is a new version. What equals the newest version is that version.
CREATE FUNCTION astra.op_price_put(p_arg text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
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
  SELECT p.* INTO v_last FROM public.prices p WHERE p.provider = v_new.provider AND p.model = v_new.model ORDER BY p.version DESC LIMIT 1;
  v_new.version := v_last.version;
  IF v_last.version IS NULL OR v_new IS DISTINCT FROM v_last THEN
    v_new.version := COALESCE(v_last.version, 0) + 1;
    INSERT INTO public.prices (provider, model, version, input_nano_per_mtok, cached_input_nano_per_mtok, output_nano_per_mtok, holds_maximum, valid_from)
    VALUES (v_new.provider, v_new.model, v_new.version, v_new.input_nano_per_mtok, v_new.cached_input_nano_per_mtok, v_new.output_nano_per_mtok,
            v_new.holds_maximum, v_new.valid_from);
  END IF;
  RETURN jsonb_build_object('outcome', 'ok', 'version', v_new.version)::text;
END
$$;

GRANT EXECUTE ON FUNCTION astra.op_costs(text), astra.op_prices_list(text), astra.op_price_put(text) TO astra_billing;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_operator;
