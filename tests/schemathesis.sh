#!/usr/bin/env bash
# Fuzzes the running stack from its own /openapi.json with PyPI's schemathesis: no 5xx, no answer that the description does not know,
# no body that does not fit its schema. Prints one line at the end: "schemathesis: N passed, N failed (N requests)".
#
# Three callers, because each reaches other code: the operator in any workspace (mostly ones that do not exist), an admin and a viewer in one that
# is full. (An owner could delete it half-way.) Needs ASTRA_URL, ASTRA_TOKEN_KEYS and
# ASTRA_ADMIN_DATABASE_URL, as scripts/test sets them. SEED and EXAMPLES can be given.
set -euo pipefail

VERSION=4.32.5
VALIDATOR=0.9.0
CACHE="${ASTRA_CACHE:-$HOME/.cache/astra-edge}"
VENV="$CACHE/schemathesis-$VERSION"
: "${ASTRA_URL:?is not set: the gateway\'s address}" "${ASTRA_TOKEN_KEYS:?is not set: the stack\'s TOKEN_KEYS}"
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

if [ ! -x "$VENV/bin/schemathesis" ]; then
  echo "installing schemathesis $VERSION into $VENV" >&2
  python3 -m venv "$VENV.new"
  "$VENV.new/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$VERSION" "openapi-spec-validator==$VALIDATOR"
  rm -rf "$VENV"
  mv "$VENV.new" "$VENV"
fi

WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT
cd "$WORK"

# A workspace with something of everything in it, and the three tokens.
"$VENV/bin/python" "$HERE/schemathesis_workspace.py" > callers.env
# shellcheck source=/dev/null
. ./callers.env

curl -sf "$ASTRA_URL/openapi.json" > openapi.json
"$VENV/bin/python" -m openapi_spec_validator --schema 3.1 openapi.json >&2

# One worker: Python 3.11's ast module fails now and then when two threads use it ("AST constructor recursion depth mismatch").
# fuzz NAME TOKEN [CONFIG]: one run; its report is NAME.json, its output NAME.log.
fuzz() {
  local config=()
  [ -z "${3:-}" ] || config=(--config-file "$3")
  "$VENV/bin/python" -m schemathesis.cli "${config[@]}" run "$ASTRA_URL/openapi.json" \
    --header "Authorization: Bearer $2" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-40}" --seed "${SEED:-1}" --workers 1 \
    --continue-on-failure --request-timeout 30 --suppress-health-check all --warnings off \
    --report json --report-json-path "$1.json" --no-color > "$1.log" 2>&1 || true
  [ -s "$1.json" ] || { cat "$1.log" >&2; echo "schemathesis: did not run" >&2; exit 1; }
}

# The operator's run makes up prices, and one for every model ("*") would be in the way of tests after this one.
sql() { "${ASTRA_PG_BIN:+$ASTRA_PG_BIN/}psql" --no-psqlrc --quiet --tuples-only --no-align "${ASTRA_ADMIN_DATABASE_URL:?is not set: a superuser\'s database URL}" --command "$1"; }
prices="$(sql "SELECT string_agg(format('(%L, %L, %s)', provider, model, version), ', ') FROM prices")"

fuzz operator "$OPERATOR"
fuzz admin "$ADMIN" workspace.toml
fuzz viewer "$VIEWER" workspace.toml
sql "DELETE FROM prices WHERE (provider, model, version) NOT IN ($prices)"

"$VENV/bin/python" "$HERE/schemathesis_summary.py" operator admin viewer
