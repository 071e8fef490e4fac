"""The commands of the login shell."""
