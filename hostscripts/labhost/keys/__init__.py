"""SSH public keys: checked, stored as last pushed, written as authorized_keys."""
