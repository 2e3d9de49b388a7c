setup_is_over() { ! setup_is_running; }
wait_for "$LIMIT" setup_is_over
exit 0
