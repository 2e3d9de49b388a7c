# HASH, ATTEMPT, LIMIT name the run; f1 the runner, f2 the script, f3 its verification (if HAS_VERIFY), f4 the environment, f5 what masks
# secret values in the log (if HAS_MASKS).
take_lock
forget_others
if setup_is_running; then exit 0; fi
have timeout || die "the command timeout is missing in the container"
if [ "$(cat "$SETUP/hash" 2>/dev/null)" = "$HASH" ] && [ "$(cat "$SETUP/attempt" 2>/dev/null)" = "$ATTEMPT" ]; then
  # This very run was; or it was prepared and the connection lost before it was started.
  if [ -f "$SETUP/started" ]; then exit 0; fi
else
  new=$MINE/setup.new
  rm -rf "$new"
  (umask 077; mkdir "$new") || die "cannot make $new"
  place 1 "$new/runner" 0700 "$SUM1"
  place 2 "$new/script" 0700 "$SUM2"
  if [ -n "$HAS_VERIFY" ]; then place 3 "$new/verify" 0700 "$SUM3"; fi
  if [ -n "$HAS_MASKS" ]; then : >"$new/unmasked"; fi
  echo "$LIMIT" >"$new/timeout"
  : >"$new/log"
  echo "$ATTEMPT" >"$new/attempt"
  echo "$HASH" >"$new/hash"
  # The last log is kept, as far as it may be read.
  if [ -f "$SETUP/started" ] && mask_log; then
    read -r _ _ at <"$SETUP/started"
    echo "$(cat "$SETUP/attempt") $at $(setup_phase)" >"$MINE/previous"
    mv -f "$SETUP/log" "$MINE/previous.log"
  fi
  rm -rf "$SETUP"
  mv "$new" "$SETUP" || die "cannot write $SETUP"
fi

# In memory, each file whole or not at all: a run that a lost connection has started may be reading them.
(umask 077; mkdir -p "$PRIVATE") || die "cannot make $PRIVATE"
if [ -n "$HAS_MASKS" ]; then place 5 "$PRIVATE/masks" 0600 "$SUM5"; fi
place 4 "$PRIVATE/environment" 0600 "$SUM4"

patience=100
if has_systemd && have systemd-run; then
  systemctl reset-failed phoenix-setup.service >/dev/null 2>&1
  # A refusal may only say that the unit is there already: started by a connection that broke before the run had begun.
  said=$(limited 30 systemd-run --unit=phoenix-setup --description='Phoenix setup' --collect --quiet \
    --property=OOMPolicy=continue -- /bin/sh "$SETUP/runner" "$SETUP" "$PRIVATE" 2>&1) || patience=20
elif have setsid; then
  setsid /bin/sh "$SETUP/runner" "$SETUP" "$PRIVATE" </dev/null >/dev/null 2>&1 &
else
  nohup /bin/sh "$SETUP/runner" "$SETUP" "$PRIVATE" </dev/null >/dev/null 2>&1 &
fi
tries=0
while [ ! -f "$SETUP/started" ]; do
  tries=$((tries + 1))
  if [ $tries -gt $patience ]; then die "the setup run did not begin: $said"; fi
  sleep 0.1 2>/dev/null || sleep 1
done
