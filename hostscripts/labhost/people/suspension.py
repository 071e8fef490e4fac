"""Suspends a person who was locked out: sessions end and the container stops; account, files and numbers stay.

Nothing waits for the person: what they hold ends with their sessions, and a step that fails stops none of the others.
"""

from collections.abc import Sequence

from labhost.errors import LabhostError
from labhost.host import Host, user_state
from labhost.people import shutdown, steps
from labhost.people.steps import Run, Step
from labhost.system import Progress, check_name, log


def suspend(host: Host, name: str, progress: Progress, revision: int = 0) -> None:
    """Safe to repeat. `revision`: of the portal's keys when the person was locked out; later keys end the suspension.

    The error of a run that could not finish says what is not done yet; NotRegistered if there is nothing to suspend.
    """
    run = Run(host, shutdown.find(host, check_name(name)), progress)
    done: list[str] = []
    cut_off = shutdown.cut_off(revision)
    problem = _perform(run, cut_off, done)
    with shutdown.lock(host, name) as busy:
        rest = (Step("note", "recording that the container is stopped", _note), *shutdown.STEPS)
        problem = _perform(run, rest if busy is None else shutdown.STEPS, done) or problem or busy
    if problem is not None:
        log.write(f"{name}: suspension is incomplete: {problem}", warning=True)
        raise steps.incomplete(problem, (*cut_off, *rest), done, reason="suspension_incomplete") from problem
    log.write(f"{name}: suspended")


def _perform(run: Run, some: Sequence[Step], done: list[str]) -> LabhostError | OSError | None:
    """All of these steps; the first error."""
    try:
        steps.perform(run, some, prefix="suspend:", note=done.append, go_on=[step.name for step in some])
    except (LabhostError, OSError) as error:
        return error
    return None


def _note(run: Run) -> None:
    """Under the lock: another command may have changed the state meanwhile."""
    user = user_state.load_user(run.host, run.user.name)
    if user is not None:
        run.user = user
        user.desired_state = "stopped"
        user_state.save_user(run.host, user)
