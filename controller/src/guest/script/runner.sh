#!/bin/sh
# Runs a setup script once, with a limit, then its verification, and leaves the result in a file. Detached from whoever started it.
# Its folder is on disk; what is secret is in another, in memory.
d=$1
private=$2
cd / || exit 1
umask 022

started_at() {
  s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  s=${s##*) }
  # shellcheck disable=SC2086
  set -- $s
  shift 19
  echo "$1"
}

# The first to link its claim is the one that runs.
claim=$d/started.$$
echo "$$ $(started_at $$) $(date +%s)" >"$claim"
ln "$claim" "$d/started" 2>/dev/null
claimed=$?
rm -f "$claim"
[ $claimed -eq 0 ] || exit 0

put() { echo "$2" >"$d/$1.new" && mv -f "$d/$1.new" "$d/$1"; }
# The log as it may be read, and nothing secret left.
tidy() {
  if [ -f "$d/unmasked" ] && LC_ALL=C sed -f "$private/masks" "$d/log" >"$d/log.new"; then
    mv -f "$d/log.new" "$d/log" && rm -f "$d/unmasked"
  fi
  rm -rf "$private"
}
finish() {
  tidy
  put result "$1 $(date +%s)"
  exit 0
}
# An orderly stop of the container.
trap 'tidy; exit 1' HUP INT TERM

export HOME="${HOME:-/root}" USER=root LOGNAME=root DEBIAN_FRONTEND=noninteractive
case :${PATH:-}: in
  *:/usr/sbin:*) ;;
  *) PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ;;
esac
export PATH
limit=$(cat "$d/timeout")
bounded=$(command -v timeout)

# run FILE: leaves its exit status in $code, or the word timeout.
run() {
  begun=$(date +%s)
  read -r line <"$1"
  case $line in
    '#!'*) set -- "$1" ;;
    *) set -- /bin/sh "$1" ;;
  esac
  set -- "$bounded" -k 10 "$limit" "$@"
  # In a shell of its own: no variable of the environment may become one of this script.
  (
    . "$private/environment" || exit 1
    exec "$@"
  ) >>"$d/log" 2>&1 </dev/null
  code=$?
  case $code in
    # 124 by the limit, 137 where a kill was needed; below the limit these are the script's own.
    124|137) if [ $(($(date +%s) - begun)) -ge "$limit" ]; then code=timeout; fi ;;
  esac
}

put phase running
run "$d/script"
case $code in
  0) ;;
  timeout) finish timeout ;;
  *) finish "exited $code" ;;
esac
if [ -f "$d/verify" ]; then
  put phase verifying
  run "$d/verify"
  case $code in
    0) ;;
    timeout) finish 'unverified 124' ;;
    *) finish "unverified $code" ;;
  esac
fi
finish verified
