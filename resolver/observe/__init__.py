"""What happened, made countable: hits as bytes, the spool they wait in, shared counters, Prometheus exposition."""
