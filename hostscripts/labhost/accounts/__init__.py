"""Linux accounts, subordinate ids and what remains of removed ones."""
