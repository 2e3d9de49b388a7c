# Makes a clone a machine of its own. Each part may be repeated; the mark at the end says that all were done.
take_lock
forget_others
authorize
if [ -f "$MINE/personalised" ]; then host_key; exit 0; fi

restart_if_active() {
  if has_systemd; then limited 60 systemctl try-restart "$1" >/dev/null 2>&1; fi
  return 0
}

# Dropbear makes its own when they are missing.
rm -f "$R"/etc/dropbear/dropbear_*_host_key
if have ssh-keygen && [ -d "$R/etc/ssh" ]; then
  rm -f "$R"/etc/ssh/ssh_host_*_key "$R"/etc/ssh/ssh_host_*_key.pub
  ssh-keygen -A ${R:+-f "$R"} >/dev/null 2>&1 || die "ssh-keygen -A failed"
  restart_if_active ssh.service
  restart_if_active sshd.service
fi

# An id that is older than this boot came with the clone: a new container's is written as it first boots.
boot=$(stat -c %Y "$R/run/systemd/notify" 2>/dev/null)
written=$(stat -c %Y "$R/etc/machine-id" 2>/dev/null)
if [ -n "$boot" ] && [ -n "$written" ] && [ -s "$R/etc/machine-id" ] && [ "$written" -lt $((boot - 60)) ] && have systemd-machine-id-setup; then
  rm -f "$R/etc/machine-id" "$R/var/lib/dbus/machine-id"
  systemd-machine-id-setup ${R:+--root="$R"} >/dev/null 2>&1 || die "systemd-machine-id-setup failed"
  if [ -d "$R/var/lib/dbus" ]; then ln -s /etc/machine-id "$R/var/lib/dbus/machine-id"; fi
  restart_if_active systemd-journald.service
fi

if [ -e "$R/var/lib/docker/engine-id" ] || [ -e "$R/etc/docker/key.json" ]; then
  rm -f "$R/var/lib/docker/engine-id" "$R/etc/docker/key.json"
  restart_if_active docker.service
fi

rm -f "$R"/var/lib/dhcp/*.leases "$R"/var/lib/dhcpcd/*.lease "$R"/var/lib/dhcpcd/duid "$R"/var/lib/NetworkManager/*.lease
rm -f "$R/var/lib/systemd/random-seed" "$R/var/lib/urandom/random-seed" "$R"/var/lib/seedrng/seed.*
rm -f "$R/var/lib/systemd/credential.secret"

date +%s >"$MINE/personalised" || die "cannot write $MINE"
host_key
