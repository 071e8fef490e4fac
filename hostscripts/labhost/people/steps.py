"""Runs the steps of a registration, a removal or a suspension; each step is safe to repeat."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from labhost.accounts import linux_accounts
from labhost.host import Host, User, locks
from labhost.system import Account, Progress, failpoints


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
    run: Run, steps: Sequence[Step], *, prefix: str, note: Callable[[str], None], done: Collection[str] = ()
) -> None:
    """Do what is not `done` yet. `note` gets each step's name after it succeeded; `prefix` is of the failpoints."""
    for number, step in enumerate(steps, 1):
        if step.name in done:
            continue
        run.progress.write(f"[{number}/{len(steps)}] {step.text}")
        failpoints.hit(f"before:{prefix}{step.name}")
        step.action(run)
        failpoints.hit(f"unnoted:{prefix}{step.name}")
        note(step.name)
        failpoints.hit(f"{prefix}{step.name}")


def with_accounts_locked(action: Callable[[Host, User], None]) -> Callable[[Run], None]:
    """A step that changes the shared account files."""

    def step(run: Run) -> None:
        with locks.accounts(run.host):
            action(run.host, run.user)

    return step
