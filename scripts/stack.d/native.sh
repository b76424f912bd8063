# Sourced by scripts/stack for --host native: all functions in one process.
# shellcheck shell=bash

FUNCTIONS_ARE="astra-edge serve"

functions_pid() { ours "$DEV/server.pid" "--listen 127.0.0.1:$ASTRA_PORT"; }

# What runs is a copy: the next build does not change it, and who restarts it later need not know where builds go.
check_functions() {
  local profile=debug built
  [ "$ASTRA_PROFILE" != release ] || profile=server
  built="${CARGO_TARGET_DIR:-$ROOT/target}/$profile/astra-edge"
  [ -x "$built" ] || die "the server is not built: run scripts/build --host native$([ "$ASTRA_PROFILE" != release ] || echo ' --release')"
  mkdir -p "$DEV/bin"
  cp "$built" "$DEV/bin/astra-edge.new"
  mv "$DEV/bin/astra-edge.new" "$DEV/bin/astra-edge"
}

# One address for all.
invoke_url() { printf 'http://127.0.0.1:%s' "$ASTRA_PORT"; }

restart_functions() {
  stop_functions
  free_port "$ASTRA_PORT" "the server"
  printf -- '--- started %s\n' "$(date -u +%FT%TZ)" >>"$DEV/log/functions.log"
  # In a session of its own: Ctrl-C in the terminal is for the script that started it, which then stops it in order.
  (
    cd "$DEV"
    unset DATABASE_URL
    DATABASE_URL_PROVISION="$(role_url astra_provision)" DATABASE_URL_INVOKE_TURN="$(role_url astra_invoke)"
    DATABASE_URL_BILLING="$(role_url astra_billing)" DATABASE_URL_QUOTA="$(role_url astra_quota)"
    export DATABASE_URL_PROVISION DATABASE_URL_INVOKE_TURN DATABASE_URL_BILLING DATABASE_URL_QUOTA TOKEN_KEYS SECRETS_KEY
    exec setsid "$DEV/bin/astra-edge" serve --listen "127.0.0.1:$ASTRA_PORT" >>"$DEV/log/functions.log" 2>&1 </dev/null 9>&-
  ) &
  printf '%s\n' "$!" >"$DEV/server.pid"
  wait_for_port "$ASTRA_PORT" "$!" "$DEV/log/functions.log" "astra-edge serve"
}

stop_functions() {
  local pid
  pid="$(functions_pid)"
  [ -n "$pid" ] || return 0
  kill -KILL "$pid"
  gone "$pid" 50 || die "astra-edge ($pid) does not end"
  released "$ASTRA_PORT"
  rm -f "$DEV/server.pid"
}

end_functions() {
  local pid
  pid="$(functions_pid)"
  [ -n "$pid" ] || return 0
  kill -TERM "$pid"
  gone "$pid" 400 || die "astra-edge ($pid) does not end within 40 s of SIGTERM"
  rm -f "$DEV/server.pid"
}
