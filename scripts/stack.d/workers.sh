# Sourced by scripts/stack for --host workers: all functions in one workerd, without wrangler's Node in front.
# shellcheck shell=bash

FUNCTIONS_ARE="workerd"

functions_pid() { ours "$DEV/workerd.pid" "$DEV/workerd.capnp"; }

bundle_of() { # where scripts/build put a function
  if [ "$ASTRA_PROFILE" = release ]; then printf '%s' "$ROOT/functions/$1/build"; else printf '%s' "$ROOT/functions/$1/build/edge"; fi
}

check_functions() {
  local name
  for name in "${FUNCTIONS[@]}"; do
    [ -f "$(bundle_of "$name")/index.js" ] || die "functions/$name is not built: run scripts/build$([ "$ASTRA_PROFILE" = edge ] || echo ' --release')"
  done
}

# Values come from the environment of workerd by name: the file holds no secret.
from_environment() { # BINDING VARIABLE
  [ -z "${!2:-}" ] || printf '    (name = "%s", fromEnvironment = "%s"),\n' "$1" "$2"
}

# database ROLE VARIABLE: the address of the pooler, or with ASTRA_HYPERDRIVE=1 the binding that stands in for it.
# (A plain pass-through here: what Cloudflare's does differently, no local run shows. Its password is the only secret in the file.)
database() {
  if [ -z "${ASTRA_HYPERDRIVE:-}" ]; then from_environment DATABASE_URL "$2"; return; fi
  printf '    (name = "HYPERDRIVE", hyperdrive = (designator = "database", database = "%s", user = "%s", password = "%s", scheme = "postgres")),\n' \
    "$(behind_hyperdrive name)" "$1" "$ASTRA_ROLE_PASSWORD"
}
behind_hyperdrive() { # name | address
  local at="127.0.0.1:$POOLER_PORT" name=astra
  if [ "${ASTRA_POOLER:-}" = none ]; then at="$DB_HOST:$DB_PORT" name="$DB_NAME"; fi
  if [ "$1" = name ]; then printf '%s' "$name"; else printf '%s' "$at"; fi
}

bindings() { # FUNCTION
  local name
  case "$1" in
    gateway)
      printf '    (name = "%s", service = "%s"),\n' PROVISION provision INVOKE_TURN invoke-turn BILLING billing GRANTS grants MEMORY memory
      from_environment ALLOWED_ORIGINS ALLOWED_ORIGINS
      return ;;
    convert) return ;;
    quota)
      database astra_quota URL_QUOTA
      from_environment TENANT_KEYS TENANT_KEYS
      return ;;
    provision) database astra_provision URL_PROVISION ;;
    invoke-turn) database astra_invoke URL_INVOKE ;;
    billing) database astra_billing URL_BILLING ;;
    grants) database astra_grants URL_GRANTS ;;
    memory)
      database astra_memory URL_MEMORY
      printf '    (name = "CONVERT", service = "convert"),\n' ;;
  esac
  printf '    (name = "QUOTA", durableObjectNamespace = (className = "Quota", serviceName = "quota")),\n'
  for name in TOKEN_KEYS SECRETS_KEY TENANT_KEYS RECEIPT_KEYS "${PASSED_ON[@]}"; do from_environment "$name" "$name"; done
}

write_config() {
  local name date flags
  mkdir -p "$DEV/quota" "$DEV/bundle"
  (umask 077; : >"$DEV/workerd.capnp"; chmod 600 "$DEV/workerd.capnp")
  {
    printf 'using Workerd = import "/workerd/workerd.capnp";\n\nconst config :Workerd.Config = (\n  services = [\n'
    for name in "${FUNCTIONS[@]}"; do printf '    (name = "%s", worker = .%s),\n' "$name" "$(camel "$name")"; done
    # private and local: the pooler and mock models are on this machine.
    printf '    (name = "internet", network = (allow = ["public", "private", "local"], tlsOptions = (trustBrowserCas = true))),\n'
    [ -z "${ASTRA_HYPERDRIVE:-}" ] || printf '    (name = "database", external = (address = "%s", tcp = ())),\n' "$(behind_hyperdrive address)"
    [ -z "${ASTRA_COUNTER_PORT:-}" ] || printf '    (name = "counter", worker = .counter),\n'
    printf '    (name = "quota-disk", disk = (path = "quota", writable = true)),\n  ],\n  sockets = [\n'
    [ -z "${ASTRA_COUNTER_PORT:-}" ] || printf '    (name = "counter", address = "127.0.0.1:%s", http = (), service = "counter"),\n' "$ASTRA_COUNTER_PORT"
    printf '    (name = "gateway", address = "127.0.0.1:%s", http = (), service = "gateway"),\n' "$ASTRA_PORT"
    printf '    (name = "invoke-turn", address = "127.0.0.1:%s", http = (), service = "invoke-turn"),\n  ],\n);\n' "$INVOKE_PORT"
    for name in "${FUNCTIONS[@]}"; do
      rm -rf "$DEV/bundle/$name"
      mkdir "$DEV/bundle/$name"
      cp "$(bundle_of "$name")/index.js" "$(bundle_of "$name")/index_bg.wasm" "$DEV/bundle/$name/"
      # One place says the runtime's date and flags: the function's wrangler.toml.
      date="$(sed -n 's/^compatibility_date = //p' "$(wrangler_toml "$name")")"
      flags="$(sed -n 's/^compatibility_flags = //p' "$(wrangler_toml "$name")")"
      printf '\nconst %s :Workerd.Worker = (\n  compatibilityDate = %s,\n  compatibilityFlags = %s,\n' "$(camel "$name")" "$date" "${flags:-[]}"
      printf '  modules = [\n    (name = "index.js", esModule = embed "bundle/%s/index.js"),\n' "$name"
      printf '    (name = "./index_bg.wasm", wasm = embed "bundle/%s/index_bg.wasm"),\n  ],\n' "$name"
      printf '  bindings = [\n%s\n  ],\n' "$(bindings "$name")"
      if [ "$name" = quota ]; then
        printf '  durableObjectNamespaces = [(className = "Quota", uniqueKey = "astra-quota", enableSql = true)],\n'
        printf '  durableObjectStorage = (localDisk = "quota-disk"),\n'
      fi
      printf ');\n'
    done
    [ -z "${ASTRA_COUNTER_PORT:-}" ] || counter_worker
  } >"$DEV/workerd.capnp"
}

# What asks the counter alone, for loads.
counter_worker() {
  cp "$ROOT/scripts/stack.d/counter.js" "$DEV/bundle/counter.js"
  printf '\nconst counter :Workerd.Worker = (\n  compatibilityDate = %s,\n' "$(sed -n 's/^compatibility_date = //p' "$(wrangler_toml quota)")"
  printf '  modules = [(name = "counter.js", esModule = embed "bundle/counter.js")],\n'
  printf '  bindings = [(name = "QUOTA", durableObjectNamespace = (className = "Quota", serviceName = "quota"))],\n);\n'
}

# invoke-turn without the gateway in front.
invoke_url() { printf 'http://127.0.0.1:%s' "$INVOKE_PORT"; }

camel() { sed 's/-\(.\)/\U\1/g' <<<"$1"; }

restart_functions() {
  stop_functions
  free_port "$ASTRA_PORT" "the gateway"
  free_port "$INVOKE_PORT" "invoke-turn"
  local URL_PROVISION URL_INVOKE URL_QUOTA URL_BILLING URL_GRANTS URL_MEMORY
  URL_PROVISION="$(role_url astra_provision)" URL_INVOKE="$(role_url astra_invoke)" URL_QUOTA="$(role_url astra_quota)" \
    URL_BILLING="$(role_url astra_billing)" URL_GRANTS="$(role_url astra_grants)" URL_MEMORY="$(role_url astra_memory)"
  export URL_PROVISION URL_INVOKE URL_QUOTA URL_BILLING URL_GRANTS URL_MEMORY TOKEN_KEYS SECRETS_KEY TENANT_KEYS RECEIPT_KEYS
  write_config
  printf -- '--- started %s\n' "$(date -u +%FT%TZ)" >>"$DEV/log/functions.log"
  # In a session of its own: Ctrl-C in the terminal is for the script that started it, which then stops it in order.
  (cd "$DEV" && exec setsid "$ASTRA_NPM_HOME/node_modules/workerd/bin/workerd" serve "$DEV/workerd.capnp" >>"$DEV/log/functions.log" 2>&1 </dev/null 9>&-) &
  printf '%s\n' "$!" >"$DEV/workerd.pid"
  wait_for_port "$ASTRA_PORT" "$!" "$DEV/log/functions.log" workerd
  wait_for_port "$INVOKE_PORT" "$!" "$DEV/log/functions.log" workerd
}

stop_functions() {
  local pid
  pid="$(functions_pid)"
  [ -n "$pid" ] || return 0
  kill -KILL "$pid"
  gone "$pid" 50 || die "workerd ($pid) does not end"
  released "$ASTRA_PORT"
  released "$INVOKE_PORT"
  rm -f "$DEV/workerd.pid"
}

end_functions() { stop_functions; }
