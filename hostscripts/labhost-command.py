#!/usr/bin/python3 -IS
"""/usr/local/sbin/labhost: the command that the entry points run as root."""

import os
import sys

sys.path.insert(0, "/usr/local/lib/lab-iam")

from labhost.cli import main

code = main(sys.argv[1:])
try:
    sys.stdout.flush()
except OSError:
    code = code or 1  # nobody reads the answer
os._exit(code)  # at once, without tearing down the interpreter: somebody waits
