"""Runs the steps of a registration, a removal or a suspension; each step is safe to repeat."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from labhost.accounts import linux_accounts
from labhost.errors import Busy, LabhostError, coded
from labhost.host import Host, User, locks
from labhost.system import Account, Progress, failpoints

PASSING = ("disk_full", "os_error", "processes_left", "account_tool_failed")  # reasons why a retry may succeed


@dataclass
class Run:
    """One attempt for one person, whose lock is held."""

    host: Host
    user: User
    progress: Progress

    @property
    def account(self) -> Account:
        """The host account; Refused if it is gone."""
        return linux_accounts.account_of(self.host, self.user)

    @property
    def has_account(self) -> bool:
        return linux_accounts.passwd_entry(self.host, self.user) is not None


class Step(NamedTuple):
    name: str
    text: str  # what people read while it runs
    action: Callable[[Run], None]


def perform(
    run: Run,
    steps: Sequence[Step],
    *,
    prefix: str,
    note: Callable[[str], None],
    done: Collection[str] = (),
    go_on: Collection[str] = (),
) -> None:
    """Do what is not `done` yet. `note` gets each step's name after it succeeded; `prefix` is of the failpoints.

    The error of a step in `go_on` stops none of these steps: it is raised before the first other one, or at the end.
    """
    failed: LabhostError | OSError | None = None
    for number, step in enumerate(steps, 1):
        if step.name in done:
            continue
        if failed is not None and step.name not in go_on:
            raise failed
        run.progress.write(f"[{number}/{len(steps)}] {step.text}")
        failpoints.hit(f"before:{prefix}{step.name}")
        try:
            step.action(run)
        except (LabhostError, OSError) as error:
            if step.name not in go_on:
                raise
            run.progress.write(f"warning: {error}; going on with the rest")
            failed = failed or error
            continue
        failpoints.hit(f"unnoted:{prefix}{step.name}")
        note(step.name)
        failpoints.hit(f"{prefix}{step.name}")
    if failed is not None:
        raise failed


def incomplete(
    error: LabhostError | OSError, steps: Sequence[Step], done: Collection[str], *, reason: str
) -> LabhostError:
    """The error of work that could not finish; `cause` and the other parameters are those of what stopped it.

    Busy if that may pass by itself.
    """
    cause, left = coded(error), ", ".join(step.text for step in steps if step.name not in done)
    kind = Busy if isinstance(error, Busy) or cause.reason in PASSING else LabhostError
    params = {**cause.params, "cause": cause.reason, "left": left}
    return kind(f"{error}; not done yet: {left}; run it again", reason=reason, **params)


def with_accounts_locked(action: Callable[[Host, User], None]) -> Callable[[Run], None]:
    """A step that changes the shared account files."""

    def step(run: Run) -> None:
        with locks.accounts(run.host):
            action(run.host, run.user)

    return step
