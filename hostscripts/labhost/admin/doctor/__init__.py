"""`labhost doctor`: inspects this server, checks it, and reports or fixes each finding."""

from dataclasses import dataclass

from labhost.admin.doctor import checks, fixes, inspection
from labhost.admin.doctor.checks import Finding
from labhost.errors import LabhostError
from labhost.host import Host, config
from labhost.protocol.answers import write_answer
from labhost.protocol.verbs import WrongUse, for_people
from labhost.system import Progress, log

ROUNDS = 3  # a fixed account may reveal more


@dataclass
class Report:
    fixed: list[Finding]
    findings: list[Finding]  # not fixed
    notes: list[str]

    @property
    def ok(self) -> bool:
        return not self.findings


@for_people()
def main(arguments: list[str], progress: Progress) -> int:
    """Exit status 0 if nothing is wrong (any more), 1 if problems remain."""
    if not set(arguments) <= {"--fix", "--json"} or len(set(arguments)) != len(arguments):
        raise WrongUse
    report = examine(config.load(), fix="--fix" in arguments)
    show(report, progress, fix="--fix" in arguments, as_json="--json" in arguments)
    return 0 if report.ok else 1


def examine(host: Host, *, fix: bool) -> Report:
    """What is wrong on this server; with `fix`, what is still wrong after fixing what needs no human."""
    fixed: list[Finding] = []
    failures: list[str] = []
    for rounds_left in range(ROUNDS if fix else 0, -1, -1):
        server = inspection.collect(host)
        findings = checks.run_checks(server)
        fixable = [item for item in findings if rounds_left and item.fix and item not in fixed]
        if not fixable:
            break
        for item in fixable:
            try:
                fixes.apply(host, item)
            except (LabhostError, OSError) as error:
                failures.append(f"{item.name or 'server'}: {error}")
            else:
                fixed.append(item)
                log.write(f"doctor: fixed: {item}")
    ignored = [f"host.conf: {name} is unknown and ignored" for name in host.unknown_settings]
    return Report([item for item in fixed if item not in findings], findings, [*ignored, *server.notes, *failures])


def show(report: Report, progress: Progress, *, fix: bool, as_json: bool) -> None:
    if as_json:
        value = {
            "version": 1,
            "ok": report.ok,
            "fixed": [item.as_json() for item in report.fixed],
            "findings": [item.as_json() for item in report.findings],
            "notes": report.notes,
        }
        write_answer(value)
        return
    lines = [*(f"fixed: {item}" for item in report.fixed), *map(str, report.findings)]
    for line in [*lines, *(f"note: {note}" for note in report.notes)]:
        progress.write(line)
    if report.ok:
        progress.write("all problems were fixed" if report.fixed else "no problems found")
    elif not fix and any(item.fix for item in report.findings):
        progress.write("next: labhost doctor --fix to fix what needs no human")
