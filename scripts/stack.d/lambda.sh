# Sourced by scripts/stack for --host lambda: each function's Lambda program in environments of its own, behind tools/lambda.
# shellcheck shell=bash

FUNCTIONS_ARE="astra-lambda"
PROGRAMS=(astra-lambda provision invoke-turn billing)

functions_pid() { ours "$DEV/lambda.pid" "astra-lambda --listen 127.0.0.1:$ASTRA_PORT"; }

# What runs are copies: the next build does not change them, and who restarts them later need not know where builds go.
check_functions() {
  local profile=debug from name
  [ "$ASTRA_PROFILE" != release ] || profile=small
  from="${CARGO_TARGET_DIR:-$ROOT/target}/$profile"
  mkdir -p "$DEV/bin"
  for name in "${PROGRAMS[@]}"; do
    [ -x "$from/$name" ] || die "$name is not built: run scripts/build --host lambda$([ "$ASTRA_PROFILE" != release ] || echo ' --release')"
    cp "$from/$name" "$DEV/bin/$name.new"
    mv "$DEV/bin/$name.new" "$DEV/bin/$name"
  done
}

# One address for all, as API Gateway's.
invoke_url() { printf 'http://127.0.0.1:%s' "$ASTRA_PORT"; }

restart_functions() {
  stop_functions
  free_port "$ASTRA_PORT" "astra-lambda"
  printf -- '--- started %s\n' "$(date -u +%FT%TZ)" >>"$DEV/log/functions.log"
  # In a session of its own: Ctrl-C in the terminal is for the script that started it, which then ends all of it, environments too.
  (
    cd "$DEV"
    unset DATABASE_URL
    DATABASE_URL_PROVISION="$(role_url astra_provision)" DATABASE_URL_INVOKE_TURN="$(role_url astra_invoke)"
    DATABASE_URL_BILLING="$(role_url astra_billing)" DATABASE_URL_QUOTA="$(role_url astra_quota)" LAMBDA_INVOKE_MODE=RESPONSE_STREAM
    export DATABASE_URL_PROVISION DATABASE_URL_INVOKE_TURN DATABASE_URL_BILLING DATABASE_URL_QUOTA TOKEN_KEYS SECRETS_KEY LAMBDA_INVOKE_MODE
    exec setsid "$DEV/bin/astra-lambda" --listen "127.0.0.1:$ASTRA_PORT" --programs "$DEV/bin" >>"$DEV/log/functions.log" 2>&1 </dev/null 9>&-
  ) &
  printf '%s\n' "$!" >"$DEV/lambda.pid"
  wait_for_port "$ASTRA_PORT" "$!" "$DEV/log/functions.log" "astra-lambda"
}

stop_functions() {
  local pid
  pid="$(functions_pid)"
  [ -n "$pid" ] || return 0
  # The whole session: most environments are stopped and would not end by themselves.
  kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid"
  gone "$pid" 50 || die "astra-lambda ($pid) does not end"
  released "$ASTRA_PORT"
  rm -f "$DEV/lambda.pid"
}

end_functions() { stop_functions; }
