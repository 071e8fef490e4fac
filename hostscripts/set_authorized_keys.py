#!/usr/bin/python3 -IS
"""/home/iam/set_authorized_keys.py: run as root by `iam`; writes everybody's public keys."""

import sys

sys.path.insert(0, "/usr/local/lib/lab-iam")

from labhost.protocol.session import main

sys.exit(main() if len(sys.argv) == 1 else 2)
