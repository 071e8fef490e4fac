"""`labhost doctor`: facts are collected, compared with what should be, and each difference is told with its fix."""

import json
import sys
from dataclasses import dataclass

from labhost.admin.doctor import checks, fixes, inspection
from labhost.admin.doctor.checks import Finding
from labhost.errors import LabhostError
from labhost.host.config import Host
from labhost.system import log
from labhost.system.progress import Progress

ROUNDS = 3  # a corrected account may show what was hidden behind it


@dataclass
class Report:
    fixed: list[Finding]
    left: list[Finding]
    notes: list[str]

    @property
    def ok(self) -> bool:
        return not self.left


def examine(host: Host, *, fix: bool) -> Report:
    """What is wrong on this server; with `fix` after having corrected what can be corrected without a human."""
    fixed: list[Finding] = []
    seen = inspection.collect(host)
    left = checks.run_checks(seen)
    failures: list[str] = []
    for _ in range(ROUNDS if fix else 0):
        curable = [item for item in left if item.remedy and item not in fixed]
        if not curable:
            break
        for item in curable:
            try:
                fixes.apply(host, item)
            except (LabhostError, OSError) as error:
                failures.append(f"{item.who or 'server'}: {error}")
            else:
                fixed.append(item)
                log.write(f"doctor: corrected: {item}")
        seen = inspection.collect(host)
        left = checks.run_checks(seen)
    return Report(
        [item for item in fixed if item not in left], left, [*_ignored_settings(host), *seen.notes, *failures]
    )


def _ignored_settings(host: Host) -> list[str]:
    return [f"host.conf: {name} is unknown and ignored" for name in host.unknown_settings]


def show(report: Report, progress: Progress, *, fix: bool, as_json: bool) -> None:
    if as_json:
        value = {
            "version": 1,
            "ok": report.ok,
            "fixed": [item.as_json() for item in report.fixed],
            "differences": [item.as_json() for item in report.left],
            "notes": report.notes,
        }
        sys.stdout.write(json.dumps(value) + "\n")
        return
    for item in report.fixed:
        progress.write(f"fixed: {item}")
    for item in report.left:
        progress.write(str(item))
    for note in report.notes:
        progress.write(f"note: {note}")
    if report.ok:
        progress.write("nothing is wrong" if not report.fixed else "nothing is wrong any more")
    elif not fix and any(item.remedy for item in report.left):
        progress.write("to have corrected what needs no human: labhost doctor --fix")
