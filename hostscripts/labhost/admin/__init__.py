"""The commands of the server's administrators."""
