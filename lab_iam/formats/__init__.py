"""How dates and times are shown."""
