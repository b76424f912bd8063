-- :workspaces workspaces with :entries ledger entries each, over the two months before this one: three agents, two models, twenty users, a conversation for each five turns; some
-- embeddings, corrections and credits. Written past the functions, as a superuser: only reading and closing are measured.
\set ON_ERROR_STOP on
SET session_replication_role = replica;
INSERT INTO public.workspaces (id, display_name, plan, owner_id, create_body, created_at, updated_at, time_zone)
SELECT 'bench-' || w, 'Bench ' || w, 'bench', 'owner', '{}', now(), now(), (ARRAY['UTC', 'America/New_York', 'Asia/Kathmandu', 'Australia/Lord_Howe'])[1 + w % 4]
FROM generate_series(1, :workspaces) w;
INSERT INTO public.ledger_heads (workspace_id, seq) SELECT 'bench-' || w, :entries FROM generate_series(1, :workspaces) w;
INSERT INTO public.usage_heads SELECT 'bench-' || w, 0, 0, 0, 'UTC' FROM generate_series(1, :workspaces) w;
INSERT INTO public.invoice_heads (workspace_id, since_seq, last_seq) SELECT 'bench-' || w, 0, 0 FROM generate_series(1, :workspaces) w;
-- By name, so that columns that come later do no harm. Hashes are nobody's: nothing here checks the chain.
INSERT INTO public.ledger
SELECT l.*
FROM generate_series(1, :workspaces) w CROSS JOIN generate_series(1, :entries) s
CROSS JOIN LATERAL (SELECT CASE WHEN s = 500 THEN 'credit' WHEN s % 100 = 1 AND s > 1 THEN 'correction' WHEN s % 20 = 7 THEN 'embedding' ELSE 'turn' END AS kind) k
CROSS JOIN LATERAL jsonb_populate_record(NULL::public.ledger, jsonb_build_object('workspace_id', 'bench-' || w, 'seq', s, 'id', gen_random_uuid(), 'kind', k.kind, 'nth', (k.kind = 'correction')::int,
  'turn_id', md5(w || '-' || CASE k.kind WHEN 'correction' THEN s - 1 ELSE s END)::uuid, 'corrects', CASE k.kind WHEN 'correction' THEN gen_random_uuid() END,
  'agent_id', 'agent-' || s % 3, 'user_id', 'user-' || s * 7 % 20, 'user_hash', '\x00', 'prev_hash', '\x00', 'hash', '\x00', 'markup_basis_points', 0,
  'session_id', CASE WHEN k.kind IN ('turn', 'correction') THEN md5(w || '/' || s / 5)::uuid END, 'provider', 'openai', 'model', CASE s % 2 WHEN 0 THEN 'gpt-4o-mini' ELSE 'gpt-4o' END,
  'price_version', 1, 'input_tokens', CASE k.kind WHEN 'turn' THEN 900 WHEN 'embedding' THEN 400 ELSE 0 END, 'cached_input_tokens', 0, 'output_tokens', CASE k.kind WHEN 'turn' THEN 200 ELSE 0 END,
  'reasoning_tokens', 0, 'embedding_tokens', CASE k.kind WHEN 'embedding' THEN 400 ELSE 0 END,
  'cost_usd', CASE k.kind WHEN 'credit' THEN 0 WHEN 'correction' THEN -0.000001 ELSE 0.000255 + w * 0.000000001 END,
  'charge_usd', CASE k.kind WHEN 'credit' THEN -0.01 WHEN 'correction' THEN -0.000002 ELSE 0.0003825 END, 'source', 'provider', 'created_at', now(),
  'turn_started_at', date_trunc('month', now(), 'UTC') - interval '61 days' + (s - CASE k.kind WHEN 'correction' THEN 1 ELSE 0 END) * (interval '61 days' / :entries),
  'reason', CASE k.kind WHEN 'credit' THEN 'goodwill' END, 'made_by', CASE k.kind WHEN 'credit' THEN 'operator' END)) l;
SET session_replication_role = origin;
ANALYZE;
