#!/bin/bash
# What getty and login show on a container's tty. Passwords belong to real containers; here none is right.
# shellcheck source=/dev/null
. /etc/os-release
tty=${CONSOLE_TTY:-tty1}
while :; do
    printf '\r\n%s %s %s\n\n' "${PRETTY_NAME% (*}" "$HOSTNAME" "$tty"
    while :; do
        printf '%s login: ' "$HOSTNAME"
        IFS= read -r name || exit 1
        [ -z "$name" ] || break
    done
    printf 'Password: '
    IFS= read -rs _ || exit 1
    sleep 0.3
    printf '\n\nLogin incorrect\n'
done
