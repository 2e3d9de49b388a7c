is_booted() {
  case $(init_state) in running|degraded|none) ;; *) return 1 ;; esac
  has_default_route && has_name_server
}
wait_for "$LIMIT" is_booted
exit 0
