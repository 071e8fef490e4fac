"""The framed JSON protocol that the portal speaks with this server."""
