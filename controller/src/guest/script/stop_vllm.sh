take_lock
if [ -f "$UNIT_FILE" ]; then
  limited 120 systemctl disable --quiet --now "$UNIT" || die "systemctl disable --now failed"
fi
