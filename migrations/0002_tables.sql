-- The shared tables. The workspace comes first in every primary and foreign key, so that the tables can be distributed by it.
-- They are in schema public so that the guide's billing query runs as it is printed.
--
-- Traps: * the ledger has no foreign key: its rows outlive the workspace, and a workspace made again under the same name goes on with its seq.
--        * turns has no foreign key to sessions: deleting a conversation must not change a bill.
--        * an idempotency key holds for the billing month (UTC) of its turn, so the month is part of what is unique.

SET LOCAL ROLE astra_owner;

CREATE TABLE public.workspaces (
  id           text PRIMARY KEY CONSTRAINT workspaces_id_form CHECK (id ~ '^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$'),
  display_name text NOT NULL,
  plan         text NOT NULL,  -- no foreign key: a plan's template may come after its first workspace
  owner_id     text NOT NULL,
  limits       jsonb NOT NULL DEFAULT '{}' CONSTRAINT workspaces_limits_form CHECK (jsonb_typeof(limits) = 'object'),
  status       text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'provisioning', 'deleting')),
  create_body  jsonb NOT NULL,
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL
);
COMMENT ON COLUMN public.workspaces.limits IS 'maxAgents, maxTokensPerMonth, maxCostNanoUsdPerMonth, maxTurnsPerMinute: all optional integers.';
COMMENT ON COLUMN public.workspaces.create_body IS 'The canonical body of POST /workspaces: the same body again is the same workspace. jsonb compares by value.';

-- Its existence says that the workspace's quota is provisioned; the limits themselves are workspaces.limits, in one place only.
-- has_memories: whether a memory was ever written, so that a turn of a workspace without any does not look for them.
CREATE TABLE public.quotas (
  workspace_id text PRIMARY KEY REFERENCES public.workspaces (id) ON DELETE CASCADE,
  status       text NOT NULL DEFAULT 'active',
  has_memories boolean NOT NULL DEFAULT false,
  created_at   timestamptz NOT NULL
);

CREATE TABLE public.members (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  user_id      text NOT NULL,
  role         text NOT NULL,
  created_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, user_id)
);

-- Operator-global.
CREATE TABLE public.plans (
  plan        text PRIMARY KEY,
  version     int NOT NULL CHECK (version > 0),
  template    jsonb NOT NULL CONSTRAINT plans_template_agents CHECK (COALESCE(jsonb_typeof(template -> 'agents'), '') = 'array'),
  source_yaml text NOT NULL,
  updated_at  timestamptz NOT NULL
);
COMMENT ON COLUMN public.plans.template IS '{"agents": [{"id": .., ..}]}: an element is an agent''s definition.';

-- Sealed by the provision function; the key is not in this database.
CREATE TABLE public.secrets (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  name         text NOT NULL,
  key_id       text NOT NULL,
  nonce        bytea NOT NULL,
  ciphertext   bytea NOT NULL,
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, name)
);

-- A workspace's own agents. Those of its plan's template are in plans.
CREATE TABLE public.agents (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  id           text NOT NULL,
  definition   jsonb NOT NULL CONSTRAINT agents_definition_form CHECK (jsonb_typeof(definition) = 'object'),
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, id)
);

CREATE TABLE public.sessions (
  workspace_id text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  id           uuid NOT NULL,
  agent_id     text NOT NULL,
  user_id      text NOT NULL,
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, id)
);
CREATE INDEX sessions_of_user ON public.sessions (workspace_id, user_id, id);

CREATE TABLE public.messages (
  workspace_id text NOT NULL,
  session_id   uuid NOT NULL,
  seq          bigint NOT NULL,
  turn_id      uuid NOT NULL,
  role         text NOT NULL CHECK (role IN ('user', 'assistant')),
  content      text NOT NULL,
  created_at   timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, session_id, seq),
  FOREIGN KEY (workspace_id, session_id) REFERENCES public.sessions (workspace_id, id) ON DELETE CASCADE
);

CREATE TABLE public.turns (
  workspace_id        text NOT NULL REFERENCES public.workspaces (id) ON DELETE CASCADE,
  id                  uuid NOT NULL,
  session_id          uuid NOT NULL,
  agent_id            text NOT NULL,
  user_id             text NOT NULL,
  status              text NOT NULL CHECK (status IN ('completed', 'failed', 'stopped', 'expired')),
  finish_reason       text,
  provider            text NOT NULL,
  model               text NOT NULL,
  price_version       int NOT NULL,
  input_tokens        bigint NOT NULL CHECK (input_tokens >= 0),
  cached_input_tokens bigint NOT NULL CHECK (cached_input_tokens >= 0),
  output_tokens       bigint NOT NULL CHECK (output_tokens >= 0),
  reasoning_tokens    bigint NOT NULL CHECK (reasoning_tokens >= 0),
  cost_usd            numeric(20, 9) NOT NULL CHECK (cost_usd >= 0),
  usage_source        text NOT NULL CHECK (usage_source IN ('provider', 'estimated')),
  idempotency_key     text,
  idempotency_month   date NOT NULL,
  request_hash        text NOT NULL,
  error_code          text,
  answer              jsonb,
  metadata            jsonb,
  created_at          timestamptz NOT NULL,  -- when the turn started: its billing month
  ended_at            timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, id)
);
COMMENT ON COLUMN public.turns.input_tokens IS 'All input, the cached part included.';
COMMENT ON COLUMN public.turns.output_tokens IS 'All output, the reasoning part included.';
CREATE UNIQUE INDEX turns_idempotency ON public.turns (workspace_id, idempotency_key, idempotency_month) WHERE idempotency_key IS NOT NULL;
CREATE INDEX turns_of_month ON public.turns (workspace_id, created_at);
-- For the operator's month over all workspaces. Rows come nearly in order of time, so a BRIN index is tiny and costs the request path nothing.
CREATE INDEX turns_created_at ON public.turns USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE public.ledger (
  workspace_id        text NOT NULL,
  seq                 bigint NOT NULL CHECK (seq > 0),
  id                  uuid NOT NULL,
  kind                text NOT NULL CHECK (kind IN ('turn', 'correction')),
  turn_id             uuid NOT NULL,
  corrects            uuid,
  agent_id            text NOT NULL,
  user_id             text NOT NULL,
  session_id          uuid NOT NULL,
  provider            text NOT NULL,
  model               text NOT NULL,
  price_version       int NOT NULL,
  input_tokens        bigint NOT NULL,
  cached_input_tokens bigint NOT NULL,
  output_tokens       bigint NOT NULL,
  reasoning_tokens    bigint NOT NULL,
  cost_usd            numeric(20, 9) NOT NULL,
  source              text NOT NULL CHECK (source IN ('provider', 'estimated')),
  turn_started_at     timestamptz NOT NULL,  -- decides the month, for a correction too
  created_at          timestamptz NOT NULL DEFAULT now(),  -- when it was written down
  PRIMARY KEY (workspace_id, seq),
  CONSTRAINT ledger_correction_form CHECK ((kind = 'correction') = (corrects IS NOT NULL)),
  CONSTRAINT ledger_turn_not_negative CHECK (kind = 'correction' OR LEAST(input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd) >= 0)
);
-- A turn is entered once and corrected at most once. That holds even if every check in code fails.
CREATE UNIQUE INDEX ledger_once ON public.ledger (workspace_id, turn_id, kind);
-- The month's spending is an index-only range scan.
CREATE INDEX ledger_of_month ON public.ledger (workspace_id, turn_started_at) INCLUDE (agent_id, input_tokens, output_tokens, cost_usd);

-- Operator-global. A model that ends in '*' is a prefix: the exact name wins over a prefix, a longer prefix over a shorter.
CREATE TABLE public.prices (
  provider                    text NOT NULL,
  model                       text NOT NULL CHECK (model <> '' AND position('*' IN left(model, -1)) = 0),
  version                     int NOT NULL CHECK (version > 0),
  input_nano_per_mtok         bigint NOT NULL CHECK (input_nano_per_mtok >= 0),
  cached_input_nano_per_mtok  bigint NOT NULL CHECK (cached_input_nano_per_mtok >= 0),
  output_nano_per_mtok        bigint NOT NULL CHECK (output_nano_per_mtok >= 0),
  holds_maximum               boolean NOT NULL DEFAULT false,  -- bills tokens that it does not stream: a hold takes its whole maximum
  valid_from                  timestamptz NOT NULL,
  PRIMARY KEY (provider, model, version)
);

-- The ledger is append-only. No app role has the rights; the trigger also stops the owner and whoever is granted too much one day.
-- Statement triggers, because row triggers do not fire for rows that row security hides. Only a superuser's maintenance gets through.
CREATE FUNCTION astra.ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = current_user AND r.rolsuper) THEN
    RAISE EXCEPTION 'the ledger is append-only: a correction is a new entry' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON public.ledger
  FOR EACH STATEMENT EXECUTE FUNCTION astra.ledger_is_append_only();
