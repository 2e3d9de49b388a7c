# What all scripts share. R is the root of the file system (empty but in tests), KEY names our state in this guest.
STATE=$R/var/lib/phoenix
MINE=$STATE/$KEY
SETUP=$MINE/setup
UNIT=phoenix-vllm.service
UNIT_FILE=$R/etc/systemd/system/$UNIT
ENV_FILE=$R/etc/phoenix/vllm.env
LOCK=$R/run/phoenix.lock
# What a setup run needs and nobody else may see. In memory: /run is, in whatever init mounts it.
PRIVATE=$R/run/phoenix-setup

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf '%s=%s\n' "$1" "$2"; }
say64() { printf '%s=' "$1"; base64 | tr -d '\n'; echo; }
die() { echo "$*"; exit 1; }

# limited SECONDS COMMAND…: no command that talks to a daemon or a driver may hang the console.
limited() {
  if have timeout; then timeout "$@"; else shift; "$@"; fi
}

has_systemd() {
  if [ -d "$R/run/systemd/system" ]; then return 0; fi
  have systemctl || return 1
  case $(limited 10 systemctl is-system-running 2>/dev/null) in
    initializing|starting|running|degraded|maintenance|stopping) return 0 ;;
  esac
  return 1
}

# The start time of a process, which together with its number names it.
started_at() {
  s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  s=${s##*) }
  # shellcheck disable=SC2086
  set -- $s
  shift 19
  echo "$1"
}

is_alive() { [ -n "$1" ] && [ -n "$2" ] && [ "$(started_at "$1")" = "$2" ]; }

# Over SSH each connection has a loop of its own: one that was cut off must not keep the others out, so it lets go after each script.
hold_lock() {
  if [ -n "$ALONE" ]; then trap 'rm -f "$LOCK"' EXIT; fi
}

# One session at a time. The loop's own process holds it, so that it passes to whoever takes over the loop.
take_lock() {
  mkdir -p "$R/run"
  mine="$$ $(started_at $$)"
  for try in 1 2; do
    if (set -C; echo "$mine" >"$LOCK") 2>/dev/null; then hold_lock; return 0; fi
    read -r pid start <"$LOCK" 2>/dev/null
    if [ "$pid $start" = "$mine" ]; then hold_lock; return 0; fi
    if is_alive "$pid" "$start"; then
      echo "process $pid"
      exit 75
    fi
    rm -f "$LOCK"
  done
  die "cannot take $LOCK"
}

# place SLOT PATH MODE SHA256: a file that came along, whole or not at all.
place() {
  eval "v=\$f$1"
  # shellcheck disable=SC2154
  (umask 077; printf %s "$v" | base64 -d >"$2.new") || die "cannot write $2"
  sum=$(sha256sum <"$2.new")
  if [ "${sum%% *}" != "$4" ]; then
    rm -f "$2.new"
    die "$2 arrived damaged"
  fi
  if ! chmod "$3" "$2.new" || ! mv -f "$2.new" "$2"; then die "cannot write $2"; fi
}

# State under another key came with a clone.
forget_others() {
  for d in "$STATE"/* "$STATE"/.[!.]*; do
    if [ "$d" != "$MINE" ] && [ -e "$d" ]; then rm -rf "$d"; fi
  done
  (umask 077; mkdir -p "$MINE") || die "cannot make $MINE"
}

# The host key that a client is shown first: type and key, without the comment.
host_key() {
  f=$R/etc/ssh/ssh_host_ed25519_key.pub
  if [ -f "$f" ]; then
    read -r type key _ <"$f"
    say host_key "$type $key"
  fi
}

# Our key is the only one of an operator's that root lets in; keys of others are theirs. Without SSH_KEY none of an operator's stays.
AUTHORIZED=$R/root/.ssh/authorized_keys
authorize() {
  if [ -z "$SSH_KEY" ] && [ ! -f "$AUTHORIZED" ]; then return 0; fi
  if [ -n "$SSH_KEY" ] && ! (umask 077; mkdir -p "$R/root/.ssh"); then die "cannot make $R/root/.ssh"; fi
  {
    if [ -f "$AUTHORIZED" ]; then grep -v '[[:space:]]phoenix-hypervisor:' "$AUTHORIZED"; fi
    if [ -n "$SSH_KEY" ]; then printf '%s\n' "$SSH_KEY"; fi
  } >"$AUTHORIZED.new" || die "cannot write $AUTHORIZED"
  if cmp -s "$AUTHORIZED.new" "$AUTHORIZED"; then
    rm -f "$AUTHORIZED.new"
  else
    if ! chmod 0600 "$AUTHORIZED.new" || ! mv -f "$AUTHORIZED.new" "$AUTHORIZED"; then die "cannot write $AUTHORIZED"; fi
  fi
}

# The first word is what the run is at: none, prepared, running, lost, or a result.
setup_phase() {
  if [ ! -d "$SETUP" ]; then echo none
  elif [ -f "$SETUP/result" ]; then cat "$SETUP/result"
  elif [ ! -f "$SETUP/started" ]; then echo prepared
  else
    read -r pid start at <"$SETUP/started"
    if is_alive "$pid" "$start"; then cat "$SETUP/phase" 2>/dev/null || echo running
    # It may have ended between the two looks.
    elif [ -f "$SETUP/result" ]; then cat "$SETUP/result"
    else echo lost
    fi
  fi
}

# masked COMMAND…: what the command prints of the log, without values that must not be seen; nothing where they can't be told any more.
# As long as they stand in the log only whole lines are shown: half a value is not recognized.
masked() {
  if [ ! -f "$SETUP/unmasked" ]; then "$@" <"$SETUP/log"
  elif [ -f "$PRIVATE/masks" ]; then head -n "$(wc -l <"$SETUP/log")" "$SETUP/log" | LC_ALL=C sed -f "$PRIVATE/masks" | "$@"
  # It may have ended between the two looks.
  elif [ ! -f "$SETUP/unmasked" ]; then "$@" <"$SETUP/log"
  else echo '(The log is not shown: it may hold values of Secrets, and what masks them went with the stop of the container.)'
  fi
}

# mask_log: leaves a log on disk that may be read, or fails.
mask_log() {
  [ -f "$SETUP/unmasked" ] || return 0
  LC_ALL=C sed -f "$PRIVATE/masks" "$SETUP/log" >"$SETUP/log.new" 2>/dev/null || return 1
  mv -f "$SETUP/log.new" "$SETUP/log" && rm -f "$SETUP/unmasked"
}

setup_is_running() {
  case $(setup_phase) in running*|verifying*) return 0 ;; esac
  return 1
}

init_state() {
  if has_systemd; then
    s=$(limited 10 systemctl is-system-running 2>/dev/null)
    echo "${s:-unknown}"
  else
    echo none
  fi
}

has_default_route() {
  if have ip; then
    { ip -4 route show; ip -6 route show; } 2>/dev/null | grep -q '^default'
  else
    while read -r _ to _ _ _ _ _ mask _; do
      if [ "$to" = 00000000 ] && [ "$mask" = 00000000 ]; then return 0; fi
    done <"$R/proc/net/route"
    return 1
  fi
}

has_name_server() {
  grep -q '^[[:space:]]*nameserver[[:space:]]' "$R/etc/resolv.conf" 2>/dev/null
}

# wait_for SECONDS COMMAND…: until it succeeds, the time is over, or somebody else joins the console.
wait_for() {
  W=
  trap 'W=1' WINCH
  over=$(($(date +%s) + $1))
  shift
  tries=0
  while ! "$@"; do
    if [ -n "$W" ] || [ "$(date +%s)" -ge "$over" ]; then return 1; fi
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then sleep 1; else sleep 0.1 2>/dev/null || sleep 1; fi
  done
}
