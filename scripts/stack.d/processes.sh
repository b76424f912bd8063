# Sourced by scripts/stack: processes of ours, and ports.
# shellcheck shell=bash

# Two commands at once on one instance would start things twice.
lock() {
  exec 9>"$DEV/.lock"
  flock -w 120 9 || die "another scripts/stack is busy with $DEV"
}

# ours PIDFILE WORD: the process of a pid file, if it still is the one that we started (its command line holds WORD).
ours() {
  local pid
  pid="$(head -n 1 "$1" 2>/dev/null)" || return 0
  [[ "$pid" =~ ^[0-9]+$ ]] || return 0
  if ps -o args= -p "$pid" 2>/dev/null | grep -qF -- "$2"; then printf '%s' "$pid"; fi
}

# gone PID TENTHS: waits until a process has ended (or is a zombie that somebody has yet to collect).
gone() {
  local i
  for ((i = 0; i < $2 * 5; i++)); do
    case "$(ps -o stat= -p "$1" 2>/dev/null)" in '' | Z*) return 0 ;; esac
    sleep 0.02
  done
  return 1
}

# released PORT: a killed process is gone a moment before its sockets are.
released() {
  local i
  for ((i = 0; i < 100; i++)); do
    listens "$1" || return 0
    sleep 0.05
  done
}

free_port() { # PORT WHAT
  listens "$1" || return 0
  die "port $1 ($2) is taken by another program. Stop that, or set ASTRA_PORT to the first of four free ports (it is $ASTRA_PORT now)"
}

# wait_for_port PORT PID LOG WHAT: until it listens; when the process ends before, its log is shown.
wait_for_port() {
  local i
  for ((i = 0; i < 300; i++)); do
    listens "$1" && return
    { [ -n "$2" ] && kill -0 "$2" 2>/dev/null; } || { tail -n 20 "$3" >&2; die "$4 ended at its start; its log is $3"; }
    sleep 0.05
  done
  die "$4 does not listen on port $1 after 15 s; its log is $3"
}

# Postgres and PgBouncer refuse to run as root. Then they run as nobody, who keeps one right of root's: to read where only root may
# (the cache and this folder are often under /root). Its own securebits: Postgres asks access(2), which would drop that right.
ordinary_user() {
  if [ "$(id -u)" != 0 ]; then "$@"; return; fi
  setpriv --securebits=+no_setuid_fixup --reuid=nobody --regid="$(id -g nobody)" --clear-groups \
    --inh-caps=-all,+dac_override --ambient-caps=-all,+dac_override "$@"
}
owned_by_ordinary_user() { [ "$(id -u)" != 0 ] || chown -R "nobody:$(id -g nobody)" "$@"; }
