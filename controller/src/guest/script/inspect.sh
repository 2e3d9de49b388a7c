# All facts in one look. Free text is base64.
say init "$(init_state)"
if has_default_route; then say default_route 1; fi
if has_name_server; then say resolves 1; fi
if [ -f "$R/etc/os-release" ]; then sed -n 's/^PRETTY_NAME=//p' "$R/etc/os-release" | say64 os; fi

host_key
if have sshd || have dropbear; then
  if [ -n "$SSH_KEY" ] && grep -qF "$SSH_KEY" "$AUTHORIZED" 2>/dev/null; then say ssh_key 1; else say ssh_key 0; fi
fi

if [ -d "$MINE" ]; then
  say state 1
  if [ -f "$MINE/personalised" ]; then say personalised 1; fi
  phase=$(setup_phase)
  if [ "$phase" != none ] && [ "$phase" != prepared ]; then
    say setup.hash "$(cat "$SETUP/hash")"
    say setup.attempt "$(cat "$SETUP/attempt")"
    read -r _ _ at <"$SETUP/started"
    say setup.started "$at"
    say setup.phase "$phase"
    masked tail -c 16384 2>/dev/null | say64 setup.tail
  fi
fi

if [ -f "$UNIT_FILE" ]; then
  say vllm.unit_hash "$(sed -n 's/^ArgsHash=//p' "$UNIT_FILE")"
  if [ -x "$R$(sed -n 's/^Executable=//p' "$UNIT_FILE")" ]; then say vllm.executable 1; fi
  if has_systemd; then
    shown='-p ActiveState -p SubState -p NRestarts -p MainPID -p ExecMainCode -p ExecMainStatus -p ActiveEnterTimestamp'
    # shellcheck disable=SC2086
    show=$(limited 10 systemctl show --timestamp=unix $shown "$UNIT" 2>/dev/null) ||
      show=$(limited 10 systemctl show $shown "$UNIT" 2>/dev/null)
    printf '%s\n' "$show" | sed -n 's/^\([A-Za-z]*=\)/vllm.show.\1/p'
    pid=$(printf '%s\n' "$show" | sed -n 's/^MainPID=//p')
    if [ "${pid:-0}" -gt 0 ] && [ -r "/proc/$pid/environ" ]; then
      say vllm.running_hash "$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^PHOENIX_ARGS_HASH=//p')"
    fi
    # What an engine with other arguments said is no cause: those lines are older than the unit.
    since=@$(stat -c %Y "$UNIT_FILE")
    limited 10 journalctl -u "$UNIT" --since "$since" -n 80 -o cat --no-pager 2>/dev/null | tail -c 12288 | say64 vllm.journal
    # A root cause stands above tracebacks that are longer than a tail, and above the lines of the next try.
    limited 10 journalctl -u "$UNIT" --since "$since" -n 1000 -o cat --no-pager 2>/dev/null |
      grep -aE '[a-z]Error|[Ee]rror:|error while|gated repo|Not Found for url|is restricted|died unexpectedly|Application startup complete' |
      grep -avE 'raise [A-Za-z]*Error|during handling' | cut -c 1-600 | tail -n 24 | say64 vllm.complaints
  fi
fi

if [ -f "$R/proc/driver/nvidia/version" ]; then head -c 1024 "$R/proc/driver/nvidia/version" | say64 host_driver; fi
for f in "$R"/proc/driver/nvidia/gpus/*/information; do
  if [ -f "$f" ]; then
    address=${f%/information}
    say minor "${address##*/} $(sed -n 's/^Device Minor:[[:space:]]*//p' "$f")"
  fi
done
for f in "$R"/dev/nvidia[0-9]*; do
  if [ -e "$f" ]; then say gpu_device "${f##*/nvidia}"; fi
done
if have nvidia-smi; then
  if gpus=$(limited 20 nvidia-smi --query-gpu=uuid,pci.bus_id,memory.total,driver_version,name --format=csv,noheader,nounits 2>&1); then
    printf '%s\n' "$gpus" | sed 's/^/gpu=/'
  else
    printf '%s' "$gpus" | head -c 1024 | say64 nvidia_error
  fi
fi
if have docker; then
  driver=$(limited 10 docker info --format '{{.Driver}}' 2>/dev/null) && printf '%s' "$driver" | say64 docker_storage
fi
say end 1
