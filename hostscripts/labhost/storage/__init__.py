"""Root file systems of containers, templates and snapshots on disk."""
