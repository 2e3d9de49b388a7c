take_lock
if [ -f "$UNIT_FILE" ]; then
  limited 120 systemctl disable --quiet --now "$UNIT" || die "systemctl disable --now failed"
  rm -f "$UNIT_FILE"
  limited 60 systemctl daemon-reload
fi
rm -rf "$R/etc/phoenix"
