take_lock
[ -f "$UNIT_FILE" ] || die "there is no $UNIT in the container"
limited 60 systemctl restart --no-block "$UNIT" || die "systemctl restart failed"
