"""The servers themselves: added, deployed, tested and asked what they hold."""
