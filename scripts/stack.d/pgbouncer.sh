# Sourced by scripts/stack: PgBouncer in transaction mode, as in production.
# shellcheck shell=bash

ROLES=(astra_provision astra_invoke astra_quota astra_billing astra_grants astra_memory)

pgbouncer_pid() { ours "$DEV/pgbouncer/pid" "$DEV/pgbouncer/pgbouncer.ini"; }

# role_url ROLE: how a function of this instance reaches the database.
role_url() {
  if [ "${ASTRA_POOLER:-}" = none ]; then
    printf 'postgres://%s:%s@%s:%s/%s?sslmode=%s' "$1" "$ASTRA_ROLE_PASSWORD" "$DB_HOST" "$DB_PORT" "$DB_NAME" "$DB_TLS"
  else
    printf 'postgres://%s:%s@127.0.0.1:%s/astra?sslmode=disable' "$1" "$ASTRA_ROLE_PASSWORD" "$POOLER_PORT"
  fi
}

start_pgbouncer() {
  local role i dir="$DEV/pgbouncer" log="$DEV/log/pgbouncer.log"
  [ -z "$(pgbouncer_pid)" ] || stop_pgbouncer # the database or the passwords may be other ones
  free_port "$POOLER_PORT" PgBouncer
  mkdir -p "$dir"
  chmod 700 "$dir"
  (umask 077; for role in "${ROLES[@]}"; do printf '"%s" "%s"\n' "$role" "$ASTRA_ROLE_PASSWORD"; done >"$dir/userlist.txt"
    if $POSTGRES_IS_OURS; then printf '"postgres" "%s"\n' "$PG_ADMIN_PASSWORD" >>"$dir/userlist.txt"; fi)
  # auth_type md5: a function on Workers opens a connection for each request, and SCRAM's 4,096 rounds would cost it milliseconds
  # of CPU each time. Towards Postgres it is SCRAM.
  # While Postgres is away, clients wait for 5 s at most, and it is looked for five times a second (PgBouncer's own defaults: 120, 15).
  cat >"$dir/pgbouncer.ini" <<EOF
[databases]
astra = host=$DB_HOST port=$DB_PORT dbname=$DB_NAME

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $POOLER_PORT
unix_socket_dir =
pidfile = $dir/pid
logfile = $log
auth_type = md5
auth_file = $dir/userlist.txt
admin_users = postgres
pool_mode = transaction
default_pool_size = ${ASTRA_POOL_SIZE:-20}
max_client_conn = 2000
max_prepared_statements = 0
server_tls_sslmode = $DB_TLS
server_tls_ca_file = ${PGSSLROOTCERT:-/etc/ssl/certs/ca-certificates.crt}
server_connect_timeout = 5
server_login_retry = 0.2
query_wait_timeout = 5
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
EOF
  # 1.18 has no max_prepared_statements, later ones have it on.
  "$ASTRA_PGBOUNCER" --version | grep -qE ' 1\.(1[0-9]|20)\.' && sed -i '/^max_prepared_statements/d' "$dir/pgbouncer.ini"
  : >"$log"
  owned_by_ordinary_user "$dir" "$log"
  (
    ulimit -n "$(ulimit -H -n)"
    cd /
    ordinary_user "$ASTRA_PGBOUNCER" -d "$dir/pgbouncer.ini" >>"$log" 2>&1 </dev/null 9>&-
  ) || { tail -n 20 "$log" >&2; die "PgBouncer did not start; its log is $log"; }
  # It goes to the background first and writes its pid after that.
  for ((i = 0; i < 100; i++)); do
    [ -z "$(pgbouncer_pid)" ] || break
    sleep 0.02
  done
  wait_for_port "$POOLER_PORT" "$(pgbouncer_pid)" "$log" PgBouncer
}

stop_pgbouncer() {
  local pid
  pid="$(pgbouncer_pid)"
  [ -n "$pid" ] || return 0
  kill -TERM "$pid" # at once, whoever is connected
  gone "$pid" 50 || kill -KILL "$pid" 2>/dev/null || true
  released "$POOLER_PORT"
  rm -f "$DEV/pgbouncer/pid"
}
