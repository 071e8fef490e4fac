"""Registering, suspending and removing a user on this server."""
