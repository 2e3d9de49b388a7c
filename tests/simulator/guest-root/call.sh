#!/bin/bash
# What stands in for the commands that would touch the world outside the guest (apt-get, systemctl, docker, nvidia-smi, curl…): hands its name, arguments
# and environment to the simulator and plays back what that answers. Two named pipes: `reply` brings lines (o: standard output, O: the same without
# its newline, e: standard error, x: exit status), `alive` tells the simulator by its closing that this process is gone.
seam=/.seam/calls
id=$BASHPID.$SRANDOM
umask 077
printf '%s\0' "$PWD" "$0" "$@" >"$seam/$id.args" && env -0 >"$seam/$id.env" && mkfifo "$seam/$id.reply" "$seam/$id.alive" || exit 125
if [[ ${0##*/} == gpg && ! -t 0 ]]; then cat >"$seam/$id.stdin"; fi
# Servers that a real SIGTERM ends in good order.
case ${0##*/} in vllm | dockerd | sshd) trap 'exit 0' TERM ;; esac
exec 8<>"$seam/$id.reply" 9<>"$seam/$id.alive"
printf '%s\n' "$id" >/.seam/calls.pipe
while IFS= read -r line <&8; do
    case $line in
    o*) printf '%s\n' "${line:1}" ;;
    O*) printf '%s' "${line:1}" ;;
    e*) printf '%s\n' "${line:1}" >&2 ;;
    x*) exit "${line:1}" ;;
    esac
done
exit 125
