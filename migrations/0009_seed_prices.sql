-- List prices to begin with, in nano-dollars per million tokens (0.15 USD is 150000000). PUT prices replaces them by newer versions.
-- A model without a row is refused, so only prices that are widely published are here, by the exact names under which they are sold: a prefix that is
-- too wide would price a dearer model as a cheap one. Anthropic's dated names are one price per family, so these end in '*'.

SET LOCAL ROLE astra_owner;

INSERT INTO public.prices (provider, model, version, input_nano_per_mtok, cached_input_nano_per_mtok, output_nano_per_mtok, holds_maximum, valid_from)
SELECT s.provider, s.model, 1, (s.input * 1000000000)::bigint, (s.cached * 1000000000)::bigint, (s.output * 1000000000)::bigint, s.holds_maximum,
       '2024-01-01T00:00:00Z'
FROM (VALUES
  ('openai', 'gpt-4o-mini',             0.15,  0.075,  0.60, false),
  ('openai', 'gpt-4o-mini-2024-07-18',  0.15,  0.075,  0.60, false),
  ('openai', 'gpt-4o',                  2.50,  1.25,  10.00, false),
  ('openai', 'gpt-4o-2024-08-06',       2.50,  1.25,  10.00, false),
  ('openai', 'gpt-4o-2024-11-20',       2.50,  1.25,  10.00, false),
  ('openai', 'gpt-4.1',                 2.00,  0.50,   8.00, false),
  ('openai', 'gpt-4.1-2025-04-14',      2.00,  0.50,   8.00, false),
  ('openai', 'gpt-4.1-mini',            0.40,  0.10,   1.60, false),
  ('openai', 'gpt-4.1-mini-2025-04-14', 0.40,  0.10,   1.60, false),
  ('openai', 'gpt-4.1-nano',            0.10,  0.025,  0.40, false),
  ('openai', 'gpt-4.1-nano-2025-04-14', 0.10,  0.025,  0.40, false),
  -- Bills reasoning that it does not stream.
  ('openai', 'o4-mini',                 1.10,  0.275,  4.40, true),
  ('openai', 'o4-mini-2025-04-16',      1.10,  0.275,  4.40, true),
  ('anthropic', 'claude-sonnet-4-5*',   3.00,  0.30,  15.00, false),
  ('anthropic', 'claude-sonnet-4-2025*', 3.00, 0.30,  15.00, false),
  ('anthropic', 'claude-3-7-sonnet*',   3.00,  0.30,  15.00, false),
  ('anthropic', 'claude-haiku-4-5*',    1.00,  0.10,   5.00, false),
  ('anthropic', 'claude-3-5-haiku*',    0.80,  0.08,   4.00, false),
  -- The model that answers without a network: a demonstration price (gpt-4o-mini's), so that budgets and bills can be tried without a key.
  ('local', 'echo-1',                   0.15,  0.075,  0.60, false)
) AS s (provider, model, input, cached, output, holds_maximum);
