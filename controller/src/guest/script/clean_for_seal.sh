# What must not be in a template: it would be in every clone.
take_lock
if setup_is_running; then die "a setup run is under way"; fi
rm -rf "$STATE" "$PRIVATE" "$R/etc/phoenix"
for home in "$R/root" "$R"/home/*; do
  for file in .bash_history .ash_history .sh_history .zsh_history .python_history .lesshst .viminfo .wget-hsts; do
    rm -f "$home/$file"
  done
done
if has_systemd && have journalctl; then
  limited 60 journalctl --rotate >/dev/null 2>&1
  limited 60 journalctl --vacuum-time=1s >/dev/null 2>&1
fi
# Empty, not missing: systemd then makes a new one at the next boot.
if [ -f "$R/etc/machine-id" ]; then : >"$R/etc/machine-id"; fi
if [ -f "$R/var/lib/dbus/machine-id" ] && [ ! -L "$R/var/lib/dbus/machine-id" ]; then rm -f "$R/var/lib/dbus/machine-id"; fi
rm -f "$R/var/lib/systemd/random-seed" "$R/var/lib/systemd/credential.secret"
sync
