"""Many processes, in each of which several people sign in for the first time (C1).

`python -m tests.accounts.first_sign_ins HOW PROCESSES EACH`, in the portal's environment. HOW is `page` (the whole
path: sign-in page, directory, session) or `service` (what follows after the directory accepted the password). Prints
each error; the exit status is the number of processes with errors.
"""

import functools
import multiprocessing
import os
import sys
import traceback
from multiprocessing.synchronize import Barrier
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from django.test import Client


def name_of(process: int, number: int) -> str:
    return f"p{process:02}x{number:02}"


def password_of(name: str) -> str:
    return f"{name}-s3cret"


def by_page(name: str) -> None:
    browser = client()
    browser.cookies.clear()
    answer = browser.post("/login/", {"username": name, "password": password_of(name)})
    assert answer.status_code == 302, f"{answer.status_code}: {answer.content[:2000]!r}"


@functools.cache
def client() -> "Client":
    """A client for all processes, created before they fork, with the whole site loaded once."""
    from django.db import connections
    from django.test import Client

    browser = Client()
    assert browser.get("/login/").status_code == 200
    connections.close_all()
    return browser


def by_service(name: str) -> None:
    from accounts.directory import Person
    from accounts.services import people

    assert people.admit(Person(name, f"id-of-{name}", f"Person {name}")) is not None


def sign_all_in(how: str, process: int, each: int, barrier: Barrier) -> None:
    barrier.wait(60)
    failed = 0
    for number in range(each):
        try:
            {"page": by_page, "service": by_service}[how](name_of(process, number))
        except Exception:
            failed += 1
            traceback.print_exc()
    sys.exit(min(failed, 100))


def main(how: str, processes: int, each: int) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lab_iam.settings")
    django.setup()
    if how == "page":
        client()
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(processes)
    children = [fork.Process(target=sign_all_in, args=(how, number, each, barrier)) for number in range(processes)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return sum(child.exitcode != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
