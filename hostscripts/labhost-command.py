#!/usr/bin/python3 -IS
"""/usr/local/sbin/labhost: what the entry points call as root."""

import os
import sys

sys.path.insert(0, "/usr/local/lib/lab-iam")

from labhost.cli import main

code = main(sys.argv[1:])
try:
    sys.stdout.flush()
except OSError:
    code = code or 1  # nobody read the answer
os._exit(code)  # the interpreter is not taken to pieces first: somebody waits
