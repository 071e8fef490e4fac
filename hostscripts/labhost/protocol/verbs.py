"""How a verb of labhost runs: for people (lines, an exit status), or for the portal (a framed request, JSON back)."""

import sys
from collections.abc import Callable
from functools import wraps
from math import inf

from labhost.errors import LabhostError
from labhost.protocol import answers, frame, seats
from labhost.protocol.answers import Answer, Request
from labhost.system import Progress

Verb = Callable[[list[str]], int]
Work = Callable[[list[str], Progress], int | None]


class WrongUse(Exception):
    """The arguments are not those of the verb; cli.py prints the usage."""


def for_people(least: int = 0, most: float = inf) -> Callable[[Work], Verb]:
    """A verb with so many arguments that prints lines. It may return an exit status; None means done."""

    def decorate(work: Work) -> Verb:
        @wraps(work)
        def verb(arguments: list[str]) -> int:
            if not least <= len(arguments) <= most:
                raise WrongUse
            progress = Progress(sys.stdout)
            return report(lambda: work(arguments, progress), progress)

        return verb

    return decorate


def report(
    work: Callable[[], int | None], progress: Progress, exit_status: Callable[[LabhostError], int] = lambda _: 1
) -> int:
    """Run `work`, print its error as one line, and return the exit status."""
    try:
        return work() or 0
    except WrongUse:
        raise
    except Exception as error:
        shown = answers.to_refusal(error)
        progress.error(str(shown))
        return exit_status(shown)


def for_portal(arguments: list[str], work: Callable[[Request], Answer]) -> Verb:
    """A verb with exactly these arguments that answers a request of the portal."""

    def verb(given: list[str]) -> int:
        if given != arguments:
            raise WrongUse
        return answer_portal(work)

    return verb


def answer_portal(work: Callable[[Request], Answer]) -> int:
    """Read one request from standard input and write the answer to standard output."""
    version = frame.VERSION
    try:
        with seats.hold(seats.REQUESTS):
            request = frame.read_request(0)
        version = request["version"]
        answer = {**work(request), "version": version}
    except Exception as error:
        answer = answers.refusal(error, version)
    return 0 if answers.write_answer(answer) and answer["ok"] else 1
