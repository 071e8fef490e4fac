#!/usr/bin/python3 -I
"""/home/iam/set_authorized_keys.py: run as root by `iam`; writes the pushed public keys of everybody."""

import sys

sys.path.insert(0, "/usr/local/lib/lab-iam")

from labhost.cli import main

sys.exit(main(["set-keys", *sys.argv[1:]]))
