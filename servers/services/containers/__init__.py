"""Jobs that register, suspend or remove a person's container, and its limits."""
