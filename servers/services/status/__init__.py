"""Which keys and containers are where, as the servers last confirmed."""
