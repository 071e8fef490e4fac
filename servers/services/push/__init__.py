"""Pushing keys to servers: what is sent, what must be confirmed first, and what came of it."""
