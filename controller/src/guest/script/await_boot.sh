is_booted() {
  case $(init_state) in running|degraded|none) ;; *) return 1 ;; esac
  # a container without a way out is not expected to find one
  [ -z "$NETWORK" ] || { has_default_route && has_name_server; }
}
wait_for "$LIMIT" is_booted
exit 0
