"""Jobs that register, suspend or remove a person's container, and what it may use."""
