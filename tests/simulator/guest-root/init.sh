#!/bin/bash
# The guest's process 1: finishes what only the inner namespaces may do, says that it is up, then sits and reaps. Its standard input is a pipe
# that the simulator holds: when that closes, however the simulator ended, so does process 1, and with it everything in the guest.
mount -t proc proc /proc || exit 1
if [ -d /proc/driver ]; then mount --bind /.seam/driver /proc/driver || exit 1; fi
hostname=$(</.seam/hostname)
# The system call, since the file in /proc is the machine's root's alone; not every machine has the command.
if [ -x /.host/usr/bin/hostname ]; then /.host/usr/bin/hostname "$hostname" 2>/dev/null; fi
[ "$(</proc/sys/kernel/hostname)" = "$hostname" ] || printf '%s' "$hostname" 2>/dev/null >/proc/sys/kernel/hostname
printf '%s\n' "$hostname" >/etc/hostname
cat /.seam/hosts >/etc/hosts
rm -f /etc/resolv.conf
cat /.seam/resolv.conf >/etc/resolv.conf
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
mkdir -p /run/lock /run/systemd/system /run/systemd/transient /run/user /var/log
ln -sfn /run /var/run
: >/run/systemd/notify
ln -sfn /run/lock /var/lock
if [ -x /.host/usr/sbin/ip ]; then /.host/usr/sbin/ip link set lo up 2>/dev/null; fi
echo up
exec >/dev/null 2>&1
while IFS= read -r _; do :; done
