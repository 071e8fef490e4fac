"""The part of Lab IAM that runs as root on a GPU server. Standard library only, and nothing of the portal."""

__version__ = "1.0.0"
