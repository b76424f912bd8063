# Sourced by scripts/stack for --host native: all functions in one process.
# shellcheck shell=bash

FUNCTIONS_ARE="astra-edge serve"
. "$ROOT/scripts/stack.d/programs.sh"

check_functions() { if [ "$ASTRA_PROFILE" = release ]; then keep_programs server astra-edge; else keep_programs debug astra-edge; fi; }

restart_functions() {
  stop_functions
  run_program astra-edge serve --listen "127.0.0.1:$ASTRA_PORT"
}

end_functions() {
  local pid
  pid="$(functions_pid)"
  [ -n "$pid" ] || return 0
  kill -TERM "$pid"
  gone "$pid" 400 || die "astra-edge ($pid) does not end within 40 s of SIGTERM"
  rm -f "$DEV/$PROGRAM.pid"
}

# replica PORT: a second process over the same database. It ends with the stack; nothing restarts it.
start_replica() {
  stop_replica
  printf '%s\n' "$1" >"$DEV/replica.port"
  (ASTRA_PORT="$1" PROGRAM=replica; restart_functions)
}

stop_replica() {
  local port
  port="$(cat "$DEV/replica.port" 2>/dev/null)" || return 0
  (ASTRA_PORT="$port" PROGRAM=replica; stop_functions)
}
