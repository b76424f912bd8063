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
  rm -f "$DEV/program.pid"
}
