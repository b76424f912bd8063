# Sourced by scripts/stack for --host lambda: each function's Lambda program in environments of its own, behind tools/lambda.
# shellcheck shell=bash

FUNCTIONS_ARE="astra-lambda"
. "$ROOT/scripts/stack.d/programs.sh"

check_functions() {
  local programs=(astra-lambda "${LAMBDAS[@]}")
  if [ "$ASTRA_PROFILE" = release ]; then keep_programs small "${programs[@]}"; else keep_programs debug "${programs[@]}"; fi
}

restart_functions() {
  stop_functions
  LAMBDA_INVOKE_MODE=RESPONSE_STREAM run_program astra-lambda --listen "127.0.0.1:$ASTRA_PORT" --programs "$DEV/bin"
}

end_functions() { stop_functions; }
