"""Running background work: heartbeat, watchdog, queue, threads."""
