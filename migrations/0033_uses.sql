-- Uses: what costs money and is no turn (a call to an embedder, an extraction of memories). A use is held at the counter before the provider is called, by the same functions as a turn:
-- turn_begin reads for it what the decision needs and nothing that was said, turn_enter enters it in the ledger under its own kind, and in turns, which is what the guide's query sums.

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
GRANT CREATE ON SCHEMA astra TO astra_quota_inside, astra_operator;
-- The model if there is a key for it (the workspace's or the host's) or it needs none; else the host's default; NULL: neither. (turn_begin has this written out: there a call more is time
-- that somebody waits.)
CREATE FUNCTION astra.model_choice(p_workspace text, p_model jsonb, p_hosts jsonb, p_default jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_provider text := p_model ->> 'provider';
BEGIN
  IF v_provider = 'local' OR COALESCE(p_hosts ? v_provider, false)
     OR EXISTS (SELECT 1 FROM public.secrets s
                WHERE s.workspace_id = p_workspace AND s.name = CASE v_provider WHEN 'openai' THEN 'OPENAI_API_KEY' WHEN 'anthropic' THEN 'ANTHROPIC_API_KEY' END) THEN
    RETURN p_model;
  END IF;
  RETURN NULLIF(p_default, 'null');
END
$$;

-- All that a use needs, in the form of turn_begin's document. noTurn {kind, model?}: a model that is named is that or none; else the agent's.
CREATE FUNCTION astra.use_begin(p_workspace text, p_arg jsonb) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_is_extraction boolean := p_arg #>> '{noTurn,kind}' = 'extraction';
  v_named jsonb := NULLIF(p_arg #> '{noTurn,model}', 'null');
  v_agent text := p_arg ->> 'agentId';
  v_session uuid;
  v_now timestamptz := (p_arg ->> 'now')::timestamptz;
  v_ws record;
  v_price record;
  v_granted jsonb;
  v_definition jsonb;
  v_limits jsonb;
  v_secret jsonb;
  v_model jsonb;
BEGIN
  SELECT w.display_name, w.owner_id, w.limits, w.status, w.time_zone, w.restrictions, a.definition AS own,
         (SELECT e.value FROM public.plans p CROSS JOIN LATERAL jsonb_array_elements(p.template -> 'agents') e
          WHERE p.plan = w.plan AND e.value ->> 'id' = v_agent LIMIT 1) AS templated,
         EXISTS (SELECT 1 FROM public.turns t WHERE t.workspace_id = p_workspace AND t.id = (p_arg ->> 'turnId')::uuid) AS is_known
  INTO v_ws
  FROM public.workspaces w LEFT JOIN public.agents a ON a.workspace_id = p_workspace AND a.id = v_agent
  WHERE w.id = p_workspace;
  IF NOT FOUND THEN
    RETURN '{"outcome":"workspace_unknown"}';
  ELSIF v_ws.status <> 'active' THEN
    RETURN '{"outcome":"workspace_inactive"}';
  ELSIF v_ws.is_known THEN
    -- It was entered already: what the provider counts for another call would be nobody's.
    RETURN '{"outcome":"use_known"}';
  END IF;
  IF v_is_extraction THEN
    -- The agent as a turn of the conversation would find it.
    IF v_ws.own IS NULL AND strpos(v_agent, '/') > 0 THEN
      v_granted := astra.granted_agent(p_workspace, v_agent, v_now, false);
    END IF;
    v_definition := COALESCE(v_ws.own, v_granted -> 'definition', v_ws.templated);
    IF v_definition IS NULL THEN
      RETURN '{"outcome":"agent_denied"}';
    END IF;
    SELECT s.id INTO v_session FROM public.sessions s
    WHERE s.workspace_id = p_workspace AND s.id = (p_arg ->> 'sessionId')::uuid AND s.user_id = p_arg ->> 'subject';
    IF NOT FOUND THEN
      RETURN '{"outcome":"session_unknown"}';
    END IF;
  END IF;
  v_model := CASE WHEN v_named IS NOT NULL THEN astra.model_choice(p_workspace, v_named, p_arg -> 'hostProviders', NULL)
                  ELSE astra.model_choice(p_workspace, v_definition -> 'model', p_arg -> 'hostProviders', p_arg -> 'defaultModel') END;
  IF v_model IS NULL THEN
    RETURN '{"outcome":"model_unavailable"}';
  END IF;
  IF NOT (astra.model_is_allowed(v_ws.restrictions, v_model ->> 'provider', v_model ->> 'modelId')
          AND astra.model_is_allowed(COALESCE(v_granted -> 'restrictions', '{}'), v_model ->> 'provider', v_model ->> 'modelId')) THEN
    RETURN jsonb_build_object('outcome', 'model_forbidden', 'model', v_model)::text;
  END IF;
  SELECT p.version, p.input_nano_per_mtok, p.cached_input_nano_per_mtok, p.output_nano_per_mtok, p.holds_maximum INTO v_price
  FROM public.prices p
  WHERE p.provider = v_model ->> 'provider' AND p.valid_from <= v_now
    AND (p.model = v_model ->> 'modelId' OR (right(p.model, 1) = '*' AND starts_with(v_model ->> 'modelId', left(p.model, -1))))
  ORDER BY (p.model = v_model ->> 'modelId') DESC, length(p.model) DESC, p.valid_from DESC, p.version DESC
  LIMIT 1;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('outcome', 'model_unpriced', 'model', v_model)::text;
  END IF;
  SELECT jsonb_build_object('name', s.name, 'keyId', s.key_id, 'nonce', translate(encode(s.nonce, 'base64'), E'\n', ''),
                            'ciphertext', translate(encode(s.ciphertext, 'base64'), E'\n', ''))
  INTO v_secret
  FROM public.secrets s
  WHERE s.workspace_id = p_workspace AND s.name = CASE v_model ->> 'provider' WHEN 'openai' THEN 'OPENAI_API_KEY' WHEN 'anthropic' THEN 'ANTHROPIC_API_KEY' END;
  v_limits := astra.limits_in(p_workspace, v_ws.limits, astra.spans_json(v_now, v_ws.time_zone) #>> '{month,startsAt}');
  RETURN json_build_object('outcome', 'ok',
    'workspace', json_build_object('displayName', v_ws.display_name, 'ownerId', v_ws.owner_id),
    'agent', json_build_object('id', CASE WHEN v_is_extraction THEN COALESCE(v_granted ->> 'id', v_agent) ELSE '(embedding)' END, 'definition', json_build_object(),
      'allowance', CASE WHEN v_is_extraction THEN COALESCE(v_granted -> 'allowance', astra.agent_allowance(v_definition, v_limits)) ELSE '{}' END),
    'model', json_build_object('provider', v_model -> 'provider', 'modelId', v_model -> 'modelId', 'endpoint', v_model -> 'endpoint'),
    'price', json_build_object('version', v_price.version, 'inputNanoPerMtok', v_price.input_nano_per_mtok,
      'cachedInputNanoPerMtok', v_price.cached_input_nano_per_mtok, 'outputNanoPerMtok', v_price.output_nano_per_mtok, 'holdsMaximum', v_price.holds_maximum),
    'secret', v_secret, 'sessionId', v_session, 'newSession', false, 'agentCount', 0, 'now', p_arg -> 'now',
    'spans', astra.spans_json(v_now, v_ws.time_zone), 'limits', v_limits, 'carryDue', v_limits ? 'carryDue')::text;
END
$$;
GRANT EXECUTE ON FUNCTION astra.model_choice(text, jsonb, jsonb, jsonb), astra.use_begin(text, jsonb) TO astra_quota_inside;

SET LOCAL ROLE astra_quota_inside;
SELECT pg_temp.amend('astra.turn_begin(text, text)',
$old$  PERFORM set_config('astra.workspace', astra.tenant(), true);

$old$,
$new$  PERFORM set_config('astra.workspace', astra.tenant(), true);
  IF v_arg ? 'noTurn' THEN
    RETURN astra.use_begin(p_workspace, v_arg);
  END IF;

$new$);

-- An entry's kind; what was embedded is its input. A use has no message, no key, and is no turn of its session's: it leaves that as it was.
SET LOCAL ROLE astra_owner;
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)', $old$  v_old public.turns;$old$, $new$  v_kind text := COALESCE(p_arg ->> 'kind', 'turn');
  v_old public.turns;$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$(workspace_id, seq, id, kind, turn_id, grant_id,$old$, $new$(workspace_id, seq, id, embedding_tokens, kind, turn_id, grant_id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$gen_random_uuid(), 'turn', v_id,$old$, $new$gen_random_uuid(), CASE v_kind WHEN 'embedding' THEN v_input ELSE 0 END, v_kind, v_id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$(workspace_id, seq, id, kind, turn_id, corrects,$old$, $new$(workspace_id, seq, id, embedding_tokens, kind, turn_id, corrects,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$gen_random_uuid(), 'correction', v_id,$old$,
$new$gen_random_uuid(), CASE v_kind WHEN 'embedding' THEN v_input - v_old.input_tokens ELSE 0 END, 'correction', v_id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)', $old$l.turn_id = v_id AND l.kind = 'turn';$old$, $new$l.turn_id = v_id AND l.kind = v_kind;$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)', $old$IF NOT v_is_new AND v_guest IS NULL THEN$old$, $new$IF NOT v_is_new AND v_guest IS NULL AND v_kind = 'turn' THEN$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$INSERT INTO public.turns (workspace_id, id, session_id,$old$, $new$INSERT INTO public.turns (workspace_id, kind, id, session_id,$new$);
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$VALUES (p_workspace, v_id, v_session, v_agent, v_subject, v_status, p_arg ->> 'finishReason',$old$,
$new$VALUES (p_workspace, v_kind, v_id, v_session, v_agent, v_subject, v_status, p_arg ->> 'finishReason',$new$);

-- Tokens and cost are of all that was used; turns are turns.
SELECT pg_temp.amend('astra.usage(text, text)', $old$'agentId', m.agent_id, 'turns', count(*),$old$, $new$'agentId', m.agent_id, 'turns', count(*) FILTER (WHERE m.kind = 'turn'),$new$);
SELECT pg_temp.amend('astra.usage(text, text)', $old$'model', m.model, 'turns', count(*),$old$, $new$'model', m.model, 'turns', count(*) FILTER (WHERE m.kind = 'turn'),$new$);
SELECT pg_temp.amend('astra.usage(text, text)', $old$count(DISTINCT m.session_id), 'turns', count(*),
    'totalCostNanoUsd'$old$, $new$count(DISTINCT m.session_id), 'turns', count(*) FILTER (WHERE m.kind = 'turn'),
    'totalCostNanoUsd'$new$);

-- A job that cannot be done for now, by no fault of its own: it waits, and the try is not counted.
CREATE FUNCTION astra.job_wait(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
BEGIN
  IF NOT astra.job_held(p_workspace, (v_arg ->> 'id')::uuid, (v_arg ->> 'lease')::uuid) THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  UPDATE public.jobs j
  SET error = v_arg ->> 'error', run_at = (v_arg ->> 'runAt')::timestamptz, attempts = GREATEST(j.attempts - 1, 0), lease = NULL, leased_until = NULL
  WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'id')::uuid;
  RETURN '{"outcome":"ok"}';
END
$$;
GRANT EXECUTE ON FUNCTION astra.job_wait(text, text) TO astra_memory;

-- Extraction: what a conversation says that is worth remembering becomes memories, by a job after the turn.
--
-- A plan says how: by rules that cost nothing, by a model (the agent's unless it names one), or not at all; NULL: as the deployment says. A job reads from the session's mark on, a range
-- that stays the job's however often it is tried, so that what is said meanwhile is the next job's.
ALTER TABLE public.plan_settings
  ADD COLUMN extraction text CHECK (extraction IN ('off', 'rules', 'model')),
  ADD COLUMN extraction_model jsonb;
ALTER TABLE public.sessions ADD COLUMN extracted_seq bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN public.sessions.extracted_seq IS 'The last message of which memories were made.';
ALTER TABLE public.jobs DROP CONSTRAINT jobs_kind_check, ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('ingest', 'extract'));
GRANT INSERT, SELECT, UPDATE (run_at) ON public.jobs TO astra_quota_inside;
GRANT SELECT ON public.sessions, public.messages, public.agents, public.plan_settings TO astra_memory;
GRANT UPDATE (extracted_seq) ON public.sessions TO astra_memory;
GRANT SELECT (workspace_id, name) ON public.secrets TO astra_memory;
GRANT EXECUTE ON FUNCTION astra.model_choice(text, jsonb, jsonb, jsonb) TO astra_memory;

-- In the turn's transaction. One job that no process has begun is enough for a session; it cannot be taken until this commits (its row is locked), so it will read what this turn says.
SELECT pg_temp.amend('astra.turn_enter(text, jsonb, jsonb, jsonb)',
$old$    IF p_alerts IS NOT NULL THEN
      PERFORM astra.quota_events_add$old$,
$new$    IF v_kind = 'turn' AND v_status = 'completed' AND v_has_session THEN
      INSERT INTO public.jobs (workspace_id, id, kind, ordering, arg, run_at, created_at)
      SELECT p_workspace, v_id, 'extract', 'session ' || v_session, jsonb_build_object('sessionId', v_session), v_ended, v_ended
      FROM public.workspaces w LEFT JOIN public.plan_settings s ON s.plan = w.plan
      WHERE w.id = p_workspace AND s.extraction IS DISTINCT FROM 'off'
        AND NOT EXISTS (SELECT 1 FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.ordering = 'session ' || v_session AND j.dead_at IS NULL
                          AND j.lease IS NULL AND NOT j.arg ? 'upto' FOR KEY SHARE SKIP LOCKED)
      ON CONFLICT (workspace_id, id) DO NOTHING;
    END IF;
    IF p_alerts IS NOT NULL THEN
      PERFORM astra.quota_events_add$new$);

-- {jobId, lease, now, hostProviders, defaultModel, bytes, before}: what a job is to read, and by whose leave.
CREATE FUNCTION astra.extract_read(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_job public.jobs;
  v_session uuid;
  v_s record;
  v_after bigint;
  v_upto bigint;
  v_messages jsonb;
BEGIN
  SELECT j.* INTO v_job FROM public.jobs j
  WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid AND j.lease = (v_arg ->> 'lease')::uuid AND j.dead_at IS NULL FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  v_session := (v_job.arg ->> 'sessionId')::uuid;
  -- A turn that began earlier and ended later may have made a job with an earlier place while another was at work.
  IF EXISTS (SELECT 1 FROM public.jobs e WHERE e.workspace_id = p_workspace AND e.ordering = v_job.ordering AND e.id <> v_job.id AND e.dead_at IS NULL
               AND e.leased_until > (v_arg ->> 'now')::timestamptz) THEN
    RETURN '{"outcome":"busy"}';
  END IF;
  SELECT s.agent_id, s.user_id, s.extracted_seq, w.status, w.plan, p.extraction, p.extraction_model, m.role, r.allow, r.deny,
         (SELECT t.template #> ARRAY['roles', m.role] FROM public.plans t WHERE t.plan = w.plan) AS role_template,
         COALESCE((SELECT a.definition FROM public.agents a WHERE a.workspace_id = p_workspace AND a.id = s.agent_id),
                  (SELECT e.value FROM public.plans t CROSS JOIN LATERAL jsonb_array_elements(t.template -> 'agents') e
                   WHERE t.plan = w.plan AND e.value ->> 'id' = s.agent_id LIMIT 1)) -> 'model' AS model
  INTO v_s
  FROM public.sessions s
  JOIN public.workspaces w ON w.id = p_workspace AND w.status = 'active'
  LEFT JOIN public.plan_settings p ON p.plan = w.plan
  LEFT JOIN public.members m ON m.workspace_id = p_workspace AND m.user_id = s.user_id
  LEFT JOIN public.roles r ON r.workspace_id = p_workspace AND r.name = m.role
  WHERE s.workspace_id = p_workspace AND s.id = v_session;
  IF NOT FOUND THEN
    DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = v_job.id;
    RETURN '{"outcome":"lost"}';
  END IF;

  v_after := COALESCE((v_job.arg ->> 'after')::bigint, v_s.extracted_seq);
  v_upto := (v_job.arg ->> 'upto')::bigint;
  IF v_upto IS NULL THEN
    -- As much as one prompt takes, a turn at least.
    SELECT COALESCE(max(c.seq), v_after) INTO v_upto
    FROM (SELECT m.seq, sum(octet_length(m.content) + 64) OVER (ORDER BY m.seq) AS bytes, row_number() OVER (ORDER BY m.seq) AS n
          FROM public.messages m WHERE m.workspace_id = p_workspace AND m.session_id = v_session AND m.seq > v_after) c
    WHERE c.n <= 2 OR c.bytes <= (v_arg ->> 'bytes')::bigint;
    UPDATE public.jobs j SET arg = j.arg || jsonb_build_object('after', v_after, 'upto', v_upto) WHERE j.workspace_id = p_workspace AND j.id = v_job.id;
  END IF;
  SELECT COALESCE(jsonb_agg(jsonb_build_object('role', m.role, 'content', m.content, 'isNew', m.seq > v_after) ORDER BY m.seq), '[]') INTO v_messages
  FROM public.messages m
  WHERE m.workspace_id = p_workspace AND m.session_id = v_session AND m.seq > v_after - (v_arg ->> 'before')::bigint AND m.seq <= v_upto;
  RETURN jsonb_build_object('outcome', 'ok', 'sessionId', v_session, 'agentId', v_s.agent_id, 'subject', v_s.user_id, 'extraction', v_s.extraction,
    'model', v_s.extraction_model,
    'provider', astra.model_choice(p_workspace, COALESCE(v_s.extraction_model, v_s.model), v_arg -> 'hostProviders', v_arg -> 'defaultModel') ->> 'provider',
    'access', CASE WHEN v_s.role IS NOT NULL THEN astra.access_json(v_s.role, v_s.allow, v_s.deny, v_s.role_template) END,
    'messages', v_messages)::text;
END
$$;

-- {subject, wanted: [{embedding, replaces, personal}], limit}: the known memories of the same people near each, but for those that somebody has pinned.
CREATE FUNCTION astra.extract_near(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_wanted jsonb;
  v_found jsonb;
  v_data jsonb := '[]';
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  FOR v_wanted IN SELECT e.value FROM jsonb_array_elements(v_arg -> 'wanted') WITH ORDINALITY e ORDER BY e.ordinality LOOP
    EXECUTE format($sql$
      SELECT COALESCE(jsonb_agg(jsonb_build_object('id', n.id, 'kind', n.kind, 'content', n.content, 'score', n.score) ORDER BY n.score DESC, n.id), '[]')
      FROM (SELECT m.id, m.kind, m.content,
                   GREATEST(1 - (m.embedding OPERATOR(%2$I.<=>) $1::%2$I.vector(384)), 1 - (m.embedding OPERATOR(%2$I.<=>) $2::%2$I.vector(384))) AS score
            FROM %1$I.memories m
            WHERE m.user_id IS NOT DISTINCT FROM $3 AND NOT m.pinned AND m.embedding IS NOT NULL
            ORDER BY score DESC, m.id LIMIT $4) n$sql$, astra.memory_schema(p_workspace), astra.vector_schema())
    INTO v_found
    USING v_wanted ->> 'embedding', v_wanted ->> 'replaces', CASE WHEN (v_wanted ->> 'personal')::boolean THEN v_arg ->> 'subject' END, (v_arg ->> 'limit')::int;
    v_data := v_data || jsonb_build_array(v_found);
  END LOOP;
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data)::text;
END
$$;

-- {jobId, lease, now, subject, known: [ids], memories: [{id, kind, content, embedding, hash, personal, supersedes}]} -> ok | lost. The job's effect and its end, once.
CREATE FUNCTION astra.extract_store(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_schema text := astra.memory_schema(p_workspace);
  v_now timestamptz := (v_arg ->> 'now')::timestamptz;
  v_job public.jobs;
  v_session uuid;
  v_upto bigint;
  v_memory jsonb;
  v_user text;
  v_id uuid;
BEGIN
  SELECT j.* INTO v_job FROM public.jobs j
  WHERE j.workspace_id = p_workspace AND j.id = (v_arg ->> 'jobId')::uuid AND j.lease = (v_arg ->> 'lease')::uuid AND j.dead_at IS NULL FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome":"lost"}';
  END IF;
  v_session := (v_job.arg ->> 'sessionId')::uuid;
  v_upto := (v_job.arg ->> 'upto')::bigint;
  UPDATE public.sessions s SET extracted_seq = GREATEST(s.extracted_seq, v_upto)
  WHERE s.workspace_id = p_workspace AND s.id = v_session AND s.user_id = v_arg ->> 'subject';
  IF NOT FOUND THEN
    -- The conversation was deleted meanwhile, and nothing of it is to be remembered.
    DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = v_job.id;
    RETURN '{"outcome":"lost"}';
  END IF;
  IF jsonb_array_length(v_arg -> 'memories') > 0 THEN
    UPDATE public.quotas q SET has_memories = true WHERE q.workspace_id = p_workspace AND NOT q.has_memories;
  END IF;
  IF jsonb_array_length(v_arg -> 'known') > 0 THEN
    EXECUTE format('UPDATE %I.memories m SET updated_at = GREATEST(m.updated_at, $2) WHERE m.id = ANY ($1)', v_schema)
    USING ARRAY(SELECT jsonb_array_elements_text(v_arg -> 'known')::uuid), v_now;
  END IF;
  FOR v_memory IN SELECT e.value FROM jsonb_array_elements(v_arg -> 'memories') WITH ORDINALITY e ORDER BY e.ordinality LOOP
    v_user := CASE WHEN (v_memory ->> 'personal')::boolean THEN v_arg ->> 'subject' END;
    EXECUTE format($sql$
      INSERT INTO %1$I.memories AS m (id, kind, content, embedding, hash, user_id, pinned, session_id, created_at, updated_at)
      VALUES ($1, $2, $3, $4::%2$I.vector, $5, $6, false, $7, $8, $8)
      ON CONFLICT (hash, (user_id IS NULL), COALESCE(user_id, '')) DO UPDATE SET updated_at = GREATEST(m.updated_at, excluded.updated_at)
      RETURNING m.id$sql$, v_schema, astra.vector_schema())
    INTO v_id
    USING (v_memory ->> 'id')::uuid, v_memory ->> 'kind', v_memory ->> 'content', v_memory ->> 'embedding', v_memory ->> 'hash', v_user, v_session, v_now;
    IF v_memory ->> 'supersedes' IS NOT NULL AND v_memory ->> 'supersedes' <> v_id::text THEN
      -- It becomes history, and so does what it had replaced itself. Only of the same people, and nothing that was pinned meanwhile.
      EXECUTE format($sql$
        WITH old AS (SELECT m.* FROM %1$I.memories m WHERE m.id = $1 AND m.user_id IS NOT DISTINCT FROM $3 AND NOT m.pinned FOR UPDATE),
             before AS (UPDATE %1$I.superseded s SET superseded_by = $2 FROM old WHERE s.superseded_by = old.id)
        INSERT INTO %1$I.superseded (id, kind, content, user_id, session_id, created_at, updated_at, superseded_by, superseded_at)
        SELECT o.id, o.kind, o.content, o.user_id, o.session_id, o.created_at, o.updated_at, $2, $4 FROM old o
        ON CONFLICT (id) DO NOTHING$sql$, v_schema)
      USING (v_memory ->> 'supersedes')::uuid, v_id, v_user, v_now;
      EXECUTE format('DELETE FROM %1$I.memories m WHERE m.id = $1 AND EXISTS (SELECT 1 FROM %1$I.superseded s WHERE s.id = m.id)', v_schema)
      USING (v_memory ->> 'supersedes')::uuid;
    END IF;
  END LOOP;
  -- What was said beyond what one prompt takes is this job's next range.
  IF EXISTS (SELECT 1 FROM public.messages m WHERE m.workspace_id = p_workspace AND m.session_id = v_session AND m.seq > v_upto)
     AND NOT EXISTS (SELECT 1 FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.ordering = v_job.ordering AND j.id <> v_job.id AND j.dead_at IS NULL) THEN
    UPDATE public.jobs j SET arg = j.arg - 'after' - 'upto', attempts = 0, error = NULL, lease = NULL, leased_until = NULL, run_at = v_now
    WHERE j.workspace_id = p_workspace AND j.id = v_job.id;
  ELSE
    DELETE FROM public.jobs j WHERE j.workspace_id = p_workspace AND j.id = v_job.id;
  END IF;
  RETURN '{"outcome":"ok"}';
END
$$;

-- {id, subject}: what a memory has replaced, the latest first.
CREATE FUNCTION astra.memory_history(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  v_arg jsonb := p_arg::jsonb;
  v_data jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.workspaces w WHERE w.id = p_workspace) THEN
    RETURN '{"outcome":"not_found","data":[]}';
  END IF;
  EXECUTE format($sql$
    SELECT COALESCE(jsonb_agg(jsonb_build_object('kind', s.kind, 'content', s.content, 'createdAt', astra.ts(s.created_at), 'supersededAt', astra.ts(s.superseded_at))
                              ORDER BY s.superseded_at DESC, s.id DESC), '[]')
    FROM %I.superseded s WHERE s.superseded_by = $1 AND (s.user_id IS NULL OR s.user_id = $2)$sql$, astra.memory_schema(p_workspace))
  INTO v_data USING (v_arg ->> 'id')::uuid, v_arg ->> 'subject';
  RETURN jsonb_build_object('outcome', 'ok', 'data', v_data)::text;
END
$$;

-- What was superseded is no memory any more: no search looks at it.
CREATE FUNCTION astra.memory_history_build(p_workspace text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS
$$
DECLARE
  v_schema text := astra.memory_schema(p_workspace);
BEGIN
  EXECUTE format($sql$
    CREATE TABLE IF NOT EXISTS %1$I.superseded (
      id            uuid PRIMARY KEY,
      kind          text NOT NULL,
      content       text NOT NULL,
      user_id       text,
      session_id    uuid,
      created_at    timestamptz NOT NULL,
      updated_at    timestamptz NOT NULL,
      superseded_by uuid NOT NULL REFERENCES %1$I.memories (id) ON DELETE CASCADE,
      superseded_at timestamptz NOT NULL
    )$sql$, v_schema);
  EXECUTE format('CREATE INDEX IF NOT EXISTS superseded_by ON %I.superseded (superseded_by)', v_schema);
  PERFORM astra.memory_wall(p_workspace, 'superseded');
END
$$;
SELECT pg_temp.amend('astra.memory_build(text)', $old$  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', v_schema);$old$,
$new$  PERFORM astra.memory_history_build(p_workspace);
  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', v_schema);$new$);

-- In the schemas that are there.
DO $$
DECLARE
  v record;
BEGIN
  FOR v IN SELECT substr(n.nspname, 5) AS workspace FROM pg_namespace n WHERE n.nspname LIKE 'mem\_%' AND n.nspowner = 'astra_owner'::regrole LOOP
    PERFORM astra.memory_history_build(v.workspace);
  END LOOP;
END
$$;

-- A job that died has read its range: the next goes on behind it, and a replay reads it again.
SELECT pg_temp.amend('astra.job_fail(text, text)', $old$  IF v_again IS NULL AND v_job.kind = 'ingest' THEN$old$,
$new$  IF v_again IS NULL AND v_job.kind = 'extract' THEN
    UPDATE public.sessions s SET extracted_seq = GREATEST(s.extracted_seq, (v_job.arg ->> 'upto')::bigint)
    WHERE s.workspace_id = p_workspace AND s.id = (v_job.arg ->> 'sessionId')::uuid;
  END IF;
  IF v_again IS NULL AND v_job.kind = 'ingest' THEN$new$);

-- Forgotten is also what would still become a memory, and what was one.
SELECT pg_temp.amend('astra.memory_forget(text, text)', $old$  v_rows bigint;$old$, $new$  v_user text := p_arg::jsonb ->> 'userId';
  v_rows bigint;
  v_jobs bigint;$new$);
SELECT pg_temp.amend('astra.memory_forget(text, text)', $old$  GET DIAGNOSTICS v_rows = ROW_COUNT;$old$,
$new$  GET DIAGNOSTICS v_rows = ROW_COUNT;
  DELETE FROM public.jobs j
  WHERE j.workspace_id = p_workspace AND j.kind = 'extract'
    AND (j.arg ->> 'sessionId')::uuid IN (SELECT s.id FROM public.sessions s WHERE s.workspace_id = p_workspace AND s.user_id = v_user);
  GET DIAGNOSTICS v_jobs = ROW_COUNT;
  UPDATE public.sessions s
  SET extracted_seq = COALESCE((SELECT max(m.seq) FROM public.messages m WHERE m.workspace_id = p_workspace AND m.session_id = s.id), s.extracted_seq)
  WHERE s.workspace_id = p_workspace AND s.user_id = v_user;$new$);
SELECT pg_temp.amend('astra.memory_forget(text, text)', $old$jsonb_build_object('memories', v_rows)$old$, $new$jsonb_build_object('memories', v_rows, 'jobs', v_jobs)$new$);
GRANT EXECUTE ON FUNCTION astra.extract_read(text, text), astra.extract_near(text, text), astra.extract_store(text, text), astra.memory_history(text, text) TO astra_memory;

SET LOCAL ROLE astra_operator;
SELECT pg_temp.amend('astra.op_plan_settings_put(text)', $old$(plan, carry_over, updated_at)$old$, $new$(plan, carry_over, extraction, extraction_model, updated_at)$new$);
SELECT pg_temp.amend('astra.op_plan_settings_put(text)', $old$(v_arg ->> 'carryOver')::boolean, (v_arg ->> 'now')$old$,
$new$(v_arg ->> 'carryOver')::boolean, v_arg ->> 'extraction', NULLIF(v_arg -> 'extractionModel', 'null'), (v_arg ->> 'now')$new$);
SELECT pg_temp.amend('astra.op_plan_settings_put(text)', $old$SET carry_over = excluded.carry_over,$old$,
$new$SET carry_over = excluded.carry_over, extraction = excluded.extraction, extraction_model = excluded.extraction_model,$new$);
SELECT pg_temp.amend('astra.op_plan_settings_get(text)', $old$  v_version int :=$old$,
$new$  v_extraction jsonb := (SELECT jsonb_build_object('extraction', s.extraction, 'extractionModel', s.extraction_model) FROM public.plan_settings s WHERE s.plan = v_plan);
  v_version int :=$new$);
SELECT pg_temp.amend('astra.op_plan_settings_get(text)', $old$'templateVersion', v_version)::text;$old$, $new$'templateVersion', v_version,
                            'extraction', v_extraction -> 'extraction', 'extractionModel', v_extraction -> 'extractionModel')::text;$new$);

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_quota_inside, astra_operator;
RESET ROLE;
DROP FUNCTION pg_temp.amend(regprocedure, text, text);
