# Sourced by scripts/stack: Postgres 16 with pgvector, from a package of PyPI's, or the one of DATABASE_URL.
# shellcheck shell=bash

# Where the database is: HOST, PORT, DATABASE, TLS mode of the server behind the pooler; ADMIN_URL of the migrating user.
database_settings() {
  if [ -z "${DATABASE_URL:-}" ]; then
    [ -n "${ASTRA_PG_BIN:-}" ] || die "scripts/setup ran with DATABASE_URL set and brought no Postgres: run it again, or set DATABASE_URL"
    POSTGRES_IS_OURS=true
    DB_HOST=127.0.0.1 DB_PORT=$POSTGRES_PORT DB_NAME=astra DB_TLS=disable
    ADMIN_URL="postgres://postgres:$PG_ADMIN_PASSWORD@127.0.0.1:$POSTGRES_PORT/astra?sslmode=disable"
    return
  fi
  POSTGRES_IS_OURS=false
  local pattern='^postgres(ql)?://[^@/]+@([^:/@]+)(:([0-9]+))?/([^?]+)(\?(.*))?$'
  [[ "$DATABASE_URL" =~ $pattern ]] || die "DATABASE_URL is malformed: postgres://user:password@host:port/database[?sslmode=require]"
  DB_HOST="${BASH_REMATCH[2]}" DB_PORT="${BASH_REMATCH[4]:-5432}" DB_NAME="${BASH_REMATCH[5]}"
  DB_TLS=prefer
  case "&${BASH_REMATCH[7]:-}&" in *"&sslmode="*) DB_TLS="$(sed 's/.*sslmode=\([a-z-]*\).*/\1/' <<<"${BASH_REMATCH[7]}")" ;; esac
  ADMIN_URL="$DATABASE_URL"
}

postgres_pid() { ours "$DEV/postgres/postmaster.pid" "$DEV/postgres"; }

start_postgres() {
  [ -z "$(postgres_pid)" ] || return 0
  free_port "$POSTGRES_PORT" Postgres
  if [ ! -f "$DEV/postgres/.made" ]; then make_cluster; fi
  # statements are not logged with their parameters: those hold what users wrote.
  ordinary_user "$ASTRA_PG_BIN/pg_ctl" -D "$DEV/postgres" -l "$DEV/log/postgres.log" -w -t 60 start -o "-p $POSTGRES_PORT \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 -c log_min_messages=warning \
    -c log_parameter_max_length=0 -c log_parameter_max_length_on_error=0" >/dev/null 2>&1 </dev/null 9>&- \
    || { tail -n 20 "$DEV/log/postgres.log" >&2; die "Postgres did not start; its log is $DEV/log/postgres.log"; }
}

make_cluster() {
  local log="$DEV/log/initdb.log" secret="$DEV/postgres.secret"
  rm -rf "$DEV/postgres"
  mkdir -m 700 "$DEV/postgres"
  : >"$DEV/log/postgres.log"
  (umask 077; printf '%s\n' "$PG_ADMIN_PASSWORD" >"$secret")
  owned_by_ordinary_user "$DEV/postgres" "$DEV/log/postgres.log" "$secret"
  # --no-sync only for the making; the running server syncs as always.
  ordinary_user "$ASTRA_PG_BIN/initdb" -D "$DEV/postgres" -U postgres --encoding=UTF8 --locale=C --auth=scram-sha-256 \
    --pwfile="$secret" --no-sync >"$log" 2>&1 </dev/null 9>&- || { cat "$log" >&2; die "initdb failed"; }
  rm -f "$secret"
  ordinary_user "$ASTRA_PG_BIN/postgres" --single -D "$DEV/postgres" postgres >>"$log" 2>&1 9>&- <<<'CREATE DATABASE astra' \
    || { cat "$log" >&2; die "the database astra could not be made"; }
  : >"$DEV/postgres/.made"
}

stop_postgres() { # fast | immediate
  [ -n "$(postgres_pid)" ] || return 0
  ordinary_user "$ASTRA_PG_BIN/pg_ctl" -D "$DEV/postgres" -m "$1" -w -t 60 stop >/dev/null 9>&- \
    || die "Postgres does not stop; its log is $DEV/log/postgres.log"
}
