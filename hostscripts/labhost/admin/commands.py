"""The verbs of the server's administrators, who are root: words checked, questions asked, then done."""

import os
import sys
from typing import Any

from labhost.admin import doctor
from labhost.container import autostart, lifecycle
from labhost.errors import NotRegistered, Refused
from labhost.host import config, user_state
from labhost.people import removal, suspension
from labhost.protocol.frame import require
from labhost.system.names import check_name
from labhost.system.progress import Progress

WRONG = 2


def remove(words: list[str], progress: Progress) -> int:
    options, names = {word for word in words if word.startswith("--")}, [w for w in words if not w.startswith("--")]
    if len(names) != 1 or not options <= {"--purge", "--yes"}:
        return WRONG
    name, purge = check_name(names[0]), "--purge" in options
    what = "and delete all files" if purge else "and keep the files"
    if "--yes" not in options:
        _confirm(f"remove {name}'s container and account {what}?")
    removed = removal.remove(config.load(), name, progress, purge=purge)
    progress.line(f"{name} is removed; files: {', '.join(removed.kept) or 'none are kept'}")
    return 0


def remove_request(request: dict[str, Any]) -> dict[str, Any]:
    """The portal's `remove`: {"user", "purge"}. It may be repeated."""
    name, purge = require(request, user=str, purge=bool)
    removed = removal.remove(config.load(), check_name(name), Progress(sys.stderr), purge=purge)
    return {"ok": True, "user": name, "kept": removed.kept}


def suspend_request(request: dict[str, Any]) -> dict[str, Any]:
    """The portal's `suspend`, for a person who was locked out: {"user"}. It may be repeated."""
    (name,) = require(request, user=str)
    suspension.suspend(config.load(), check_name(name), Progress(sys.stderr))
    return {"ok": True, "user": name}


def autostart_containers(words: list[str], progress: Progress) -> int:
    """Without a name all containers that are wanted running."""
    if len(words) > 1:
        return WRONG
    host = config.load()
    if words:
        autostart.start_one(host, check_name(words[0]), progress)
    else:
        autostart.start_all(host, progress)
    return 0


def run_doctor(words: list[str], progress: Progress) -> int:
    """Exit status 0 if nothing is wrong (any more), 1 if differences remain."""
    if not set(words) <= {"--fix", "--json"} or len(set(words)) != len(words):
        return WRONG
    report = doctor.examine(config.load(), fix="--fix" in words)
    doctor.show(report, progress, fix="--fix" in words, as_json="--json" in words)
    return 0 if report.ok else 1


def start(words: list[str], progress: Progress) -> int:
    host, user = _person(words)
    lifecycle.start(host, user, progress)
    return 0


def stop(words: list[str], progress: Progress) -> int:
    host, user = _person(words)
    lifecycle.stop(host, user, progress)
    return 0


def _person(words: list[str]) -> tuple[config.Host, user_state.User]:
    host = config.load()
    name = check_name(words[0] if len(words) == 1 else "")
    user = user_state.load_user(host, name)
    if user is None or not user.registered:
        raise NotRegistered(f"{name} has no container here")
    return host, user


def _confirm(question: str) -> None:
    """Refused unless somebody at a terminal says yes."""
    if not os.isatty(0):
        raise Refused(f"nobody can be asked here ({question}); say it with --yes")
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was changed")
