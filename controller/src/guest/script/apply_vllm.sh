# f1 the unit, f2 the environment. WANTED is the hash that the running engine must carry.
take_lock
has_systemd || die "vLLM is run by systemd, and the container's init is another"
mkdir -p "$R/etc/systemd/system"
(umask 077; mkdir -p "$R/etc/phoenix") || die "cannot make $R/etc/phoenix"
# differs SLOT PATH
differs() {
  eval "v=\$f$1"
  [ "$(base64 <"$2" 2>/dev/null | tr -d '\n')" != "$v" ]
}
changed=
if [ ! -f "$ENV_FILE" ] || differs 2 "$ENV_FILE"; then
  place 2 "$ENV_FILE" 0600 "$SUM2"
  changed=1
fi
if [ ! -f "$UNIT_FILE" ] || differs 1 "$UNIT_FILE"; then
  place 1 "$UNIT_FILE" 0644 "$SUM1"
  changed=1
fi
if [ -n "$changed" ]; then limited 60 systemctl daemon-reload || die "systemctl daemon-reload failed"; fi
limited 60 systemctl enable --quiet "$UNIT" 2>&1 || die "systemctl enable failed"

# The files may have been written by a run that was cut off before the restart: the engine itself says what it was started with.
if [ -z "$changed" ]; then
  case $(limited 10 systemctl is-active "$UNIT" 2>/dev/null) in
    active|activating|reloading) ;;
    *) changed=1 ;;
  esac
  pid=$(limited 10 systemctl show -p MainPID "$UNIT" 2>/dev/null | sed -n 's/^MainPID=//p')
  if [ "${pid:-0}" -gt 0 ] && [ -r "/proc/$pid/environ" ]; then
    running=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^PHOENIX_ARGS_HASH=//p')
    if [ -n "$running" ] && [ "$running" != "$WANTED" ]; then changed=1; fi
  fi
fi
if [ -n "$changed" ]; then limited 60 systemctl restart --no-block "$UNIT" || die "systemctl restart failed"; fi
