"""Which keys and containers are on which server, as the servers confirmed it."""
