"""What changes people, keys, numbers and the revision; each in one transaction, with an audit row."""
