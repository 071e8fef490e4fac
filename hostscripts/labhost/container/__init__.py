"""A user's container: configured, provisioned, started, stopped, replaced, snapshotted."""
