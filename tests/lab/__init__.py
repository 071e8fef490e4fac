"""Boots the real parts of a laboratory on one machine: directory, portal, worker, GPU servers, people."""
