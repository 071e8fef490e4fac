"""The operating system: files, child processes, mounts, logind, names and text. Knows nothing of containers."""
