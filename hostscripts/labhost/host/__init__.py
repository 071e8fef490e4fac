"""This server: its configuration, its locks, and what it knows of each user."""
