#!/usr/bin/python3 -I
"""/usr/local/sbin/labhost: what the entry points call as root."""

import sys

sys.path.insert(0, "/usr/local/lib/lab-iam")

from labhost.cli import main

sys.exit(main(sys.argv[1:]))
