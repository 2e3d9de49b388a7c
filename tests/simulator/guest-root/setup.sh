#!/usr/bin/env bash
# Outer half of a guest's start. Runs as root of a fresh user, mount and pid namespace that `unshare` made, with the host's files still in
# view: builds the guest's view of the file system, leaves the host's behind with pivot_root, and goes on as the guest's init in a second set
# of namespaces. The second user namespace is what locks the mounts made here: nothing inside can remount the host's files writable.
#
# usage: setup.sh ROOT SEAM
#   ROOT  the guest's own files (its disk)
#   SEAM  the folder shared with the simulator: stand-in script, calls, devices, /proc/driver
set -eu
root=$1 seam=$2

# Makes what was bound at $1 read-only, keeping the flags that the host's mount carries (dropping one is refused).
read_only() {
    local at options flag keep
    while read -r _ _ _ _ at options _; do
        case $at in
        "$1" | "$1"/*) ;;
        *) continue ;;
        esac
        keep=
        for flag in ${options//,/ }; do
            case $flag in
            nosuid | nodev | noexec | noatime | nodiratime | relatime) keep=$keep,$flag ;;
            esac
        done
        mount -o "remount,bind,ro$keep" "$at"
    done </proc/self/mountinfo
}

host_folder() {
    mkdir -p "$root$2"
    mount --rbind "$1" "$root$2"
    read_only "$root$2"
}

mount --bind "$root" "$root"
host_folder /usr /.host/usr
for folder in /usr/lib /usr/lib32 /usr/lib64 /usr/libx32 /usr/libexec; do
    if [ -d "$folder" ] && [ ! -L "$folder" ]; then host_folder "$folder" "$folder"; fi
done
# Where /lib and its kin are no links into /usr, or libraries live elsewhere altogether.
for folder in /lib /lib32 /lib64 /libx32 /nix/store /gnu/store; do
    if [ -d "$folder" ] && [ ! -L "$folder" ]; then host_folder "$folder" "$folder"; fi
done
mkdir -p "$root/.seam"
mount --bind "$seam" "$root/.seam"
read_only "$root/.seam"
mount --bind "$seam/calls" "$root/.seam/calls"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
# Passed-through devices are character devices that answer like /dev/null; that they are there is what counts.
while read -r device; do
    case $device in /dev/*) ;; *) continue ;; esac
    mkdir -p "$root${device%/*}"
    : >"$root$device"
    mount --bind /dev/null "$root$device"
done <"$seam/devices"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t proc proc "$root/proc"

cd "$root"
mkdir -p .old
pivot_root . .old
cd /
PATH=/usr/sbin:/usr/bin
umount -l /.old
rmdir /.old
exec unshare --user --map-root-user --mount --pid --fork --kill-child --uts --ipc --net --propagation private -- /bin/bash /.seam/init.sh
