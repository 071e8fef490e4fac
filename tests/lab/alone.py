"""`./lab run`: only the portal and its worker, without root. Ctrl-C ends both."""

import os
import signal
import subprocess
import sys
import threading

from tests.lab.images import REPOSITORY

ADDRESS = "127.0.0.1:8000"


def serve() -> int:
    """Serve until it is stopped. Returns 1 if the address is in use or one of the two processes ends by itself."""
    env = {"DEBUG": "true", **os.environ}
    manage = [sys.executable, "manage.py"]
    subprocess.run([*manage, "migrate", "--verbosity", "0"], cwd=REPOSITORY, env=env, check=True)
    if not env.get("LDAP_URL") and not (REPOSITORY / ".env").exists():
        print("No directory is configured (LDAP_URL in .env): only local accounts can sign in.")
        print("Make one with: .venv/bin/python manage.py createsuperuser")
    parts = [
        subprocess.Popen([*manage, "runserver", "--noreload", ADDRESS], cwd=REPOSITORY, env=env),
        subprocess.Popen([*manage, "worker", "--grace", "5"], cwd=REPOSITORY, env=env),
    ]
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    print(f"http://{ADDRESS}/   (Ctrl-C ends it)", flush=True)
    while not ended.wait(0.3) and all(part.poll() is None for part in parts):
        pass
    for part in parts:
        part.terminate()
    for part in parts:
        try:
            part.wait(timeout=10)
        except subprocess.TimeoutExpired:
            part.kill()
    return 0 if ended.is_set() else 1
