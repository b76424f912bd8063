# Sourced by scripts/stack for the hosts whose functions are programs of this machine (native, lambda).
# shellcheck shell=bash

# One address for all.
invoke_url() { printf 'http://127.0.0.1:%s' "$ASTRA_PORT"; }

# keep_programs PROFILE NAME...: copies of what scripts/build made. The next build does not change them, and who restarts them later need not know where
# builds go.
keep_programs() {
  local from="${CARGO_TARGET_DIR:-$ROOT/target}/$1" name; shift
  mkdir -p "$DEV/bin"
  for name in "$@"; do
    [ -x "$from/$name" ] || die "$name is not built: run scripts/build --host $ASTRA_HOST$([ "$ASTRA_PROFILE" != release ] || echo ' --release')"
    cp "$from/$name" "$DEV/bin/$name.new"
    mv "$DEV/bin/$name.new" "$DEV/bin/$name"
  done
}

# The one whose pid is kept under this name is meant by what follows.
PROGRAM=program

# run_program NAME ARGUMENTS...: in the background, with what the functions are configured by.
run_program() {
  local name="$1" clock=(); shift
  free_port "$ASTRA_PORT" "$name"
  [ -z "${ASTRA_CLOCK_AHEAD:-}" ] || clock=(faketime --exclude-monotonic -f "+${ASTRA_CLOCK_AHEAD}s")
  printf -- '--- started %s\n' "$(date -u +%FT%TZ)" >>"$DEV/log/functions.log"
  # In a session of its own: Ctrl-C in the terminal is for the script that started it, which then stops it in order.
  (
    cd "$DEV"
    unset DATABASE_URL
    DATABASE_URL_PROVISION="$(role_url astra_provision)" DATABASE_URL_INVOKE_TURN="$(role_url astra_invoke)"
    DATABASE_URL_BILLING="$(role_url astra_billing)" DATABASE_URL_GRANTS="$(role_url astra_grants)" DATABASE_URL_MEMORY="$(role_url astra_memory)"
    DATABASE_URL_QUOTA="$(role_url astra_quota)"
    export DATABASE_URL_PROVISION DATABASE_URL_INVOKE_TURN DATABASE_URL_BILLING DATABASE_URL_GRANTS DATABASE_URL_MEMORY
    export DATABASE_URL_QUOTA TOKEN_KEYS SECRETS_KEY TENANT_KEYS RECEIPT_KEYS
    exec setsid ${clock[@]+"${clock[@]}"} "$DEV/bin/$name" "$@" >>"$DEV/log/functions.log" 2>&1 </dev/null 9>&-
  ) &
  printf '%s\n' "$!" >"$DEV/$PROGRAM.pid"
  wait_for_port "$ASTRA_PORT" "$!" "$DEV/log/functions.log" "$name"
}

functions_pid() { ours "$DEV/$PROGRAM.pid" "--listen 127.0.0.1:$ASTRA_PORT"; }

stop_functions() {
  local pid
  pid="$(functions_pid)"
  [ -n "$pid" ] || return 0
  # The whole session: what it has started, and may have stopped, goes with it.
  kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid"
  gone "$pid" 50 || die "process $pid does not end"
  released "$ASTRA_PORT"
  rm -f "$DEV/$PROGRAM.pid"
}
