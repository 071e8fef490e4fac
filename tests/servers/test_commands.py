"""The commands without a terminal, over real SSH."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from accounts.models import AuditEvent, User
from accounts.services.keys import add_keys
from servers.management import terminal
from servers.models import ContainerJob, Push, Server
from servers.services.containers import jobs
from servers.services.push import runner
from servers.ssh import host_keys, portal_key
from tests.accounts.keys import line
from tests.servers.conftest import OTHER, make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))


def run(*words: str, **options: Any) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out, **options)
    return out.getvalue()


def refused(*words: str) -> tuple[int, str]:
    """Exit status and error of a command that must fail."""
    with pytest.raises(CommandError) as error:
        run(*words)
    assert len(str(error.value).splitlines()) == 1
    return error.value.returncode, str(error.value)


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A person at a terminal who gives this answer."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr("builtins.input", lambda _: text)


class TestCreatePortalKey:
    def test_a_new_key_is_printed_and_audited(self, settings: Settings, key_file: Path) -> None:
        settings.PORTAL_KEY_FILE = key_file
        assert run("create_portal_key").strip() == portal_key.public_line(key_file)
        assert AuditEvent.objects.get(verb="portal.key_created").actor == terminal.ACTOR

    def test_an_existing_key_stays(self, settings: Settings, key_file: Path) -> None:
        settings.PORTAL_KEY_FILE = key_file
        first = portal_key.create(key_file)
        assert refused("create_portal_key") == (1, f"{key_file} exists already; use --force to replace it.")
        code, words = refused("create_portal_key", "--force")
        assert code == 2 and "--yes" in words and portal_key.public_line(key_file) == first
        run("create_portal_key", "--force", "--yes")
        assert portal_key.public_line(key_file) != first

    def test_answering_no_changes_nothing(
        self, settings: Settings, key_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.PORTAL_KEY_FILE = key_file
        first = portal_key.create(key_file)
        answer(monkeypatch, "")
        assert refused("create_portal_key", "--force") == (1, "Nothing was changed.")
        assert portal_key.public_line(key_file) == first

    def test_a_read_only_folder_is_a_one_line_error(self, settings: Settings) -> None:
        settings.PORTAL_KEY_FILE = Path("/proc/nowhere/key")
        assert refused("create_portal_key")[0] == 1


class TestAddServer:
    def arguments(self, farm: Farm, *more: str) -> list[str]:
        return ["add_server", "gpu17", ADDRESSES[0], "--ssh-port", str(farm.port), *more]

    def test_with_yes_the_shown_key_is_pinned(self, farm: Farm) -> None:
        out = run(*self.arguments(farm, "--yes"))
        assert host_keys.fingerprint(farm.host_key) in out
        assert Server.objects.get(name="gpu17").host_key == farm.host_key

    def test_with_the_right_fingerprint_there_is_no_question(self, farm: Farm) -> None:
        run(*self.arguments(farm, "--fingerprint", host_keys.fingerprint(farm.host_key)))
        assert Server.objects.get().host_key == farm.host_key

    def test_y5_with_another_fingerprint_nothing_is_added(self, farm: Farm) -> None:
        code, words = refused(*self.arguments(farm, "--fingerprint", host_keys.fingerprint(OTHER)))
        assert code == 1 and "nothing was added" in words and not Server.objects.exists()

    def test_without_a_terminal_there_is_no_question(self, farm: Farm) -> None:
        code, words = refused(*self.arguments(farm))
        assert code == 2 and "--fingerprint" in words and not Server.objects.exists()

    def test_answering_yes_adds_the_server(self, farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
        answer(monkeypatch, "y")
        run(*self.arguments(farm))
        assert Server.objects.exists()

    def test_an_existing_name_is_refused(self, farm: Farm) -> None:
        make_server(farm)
        assert refused(*self.arguments(farm, "--yes"))[0] == 1

    def test_a_server_that_does_not_answer_is_refused(self, farm: Farm) -> None:
        code, words = refused("add_server", "gpu17", "127.0.0.99", "--ssh-port", str(farm.port), "--yes")
        assert code == 1 and "refused" in words

    def test_a_wrong_name_is_refused_before_a_connection(self, farm: Farm) -> None:
        code, words = refused("add_server", "GPU 17", "127.0.0.99", "--ssh-port", str(farm.port), "--yes")
        assert code == 1 and "Use lower-case letters" in words


class TestPushKeys:
    @pytest.fixture
    def gpu17(self, farm: Farm, alice: User) -> Server:
        add_keys(actor="alice", user=alice, pasted=line())
        return make_server(farm)

    def test_one_line_per_server_shows_the_result(self, farm: Farm, gpu17: Server) -> None:
        out = run("push_keys").splitlines()
        assert out[0].startswith("gpu17: succeeded, revision 1, 0 written, 0 unchanged (")
        assert out[1] == "1 of 1 server up to date"
        assert farm.register_file()

    def test_servers_that_are_up_to_date_are_skipped_without_force(self, farm: Farm, gpu17: Server) -> None:
        run("push_keys")
        run("push_keys")
        assert Push.objects.count() == 1
        run("push_keys", "gpu17", "--force", "--wait")
        assert Push.objects.count() == 2

    def test_d10_a_forced_push_that_failed_is_not_a_success(self, farm: Farm, gpu17: Server) -> None:
        run("push_keys")
        Server.objects.update(address="127.0.0.99")
        assert refused("push_keys", "--force") == (1, "Not up to date: gpu17.")

    def test_d10_a_forced_push_that_the_worker_has_not_finished_is_not_a_success(
        self, farm: Farm, gpu17: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("push_keys")
        monkeypatch.setattr(runner, "push_due", lambda **_: [])  # as when the worker holds the server
        assert refused("push_keys", "--force") == (1, "Not up to date: gpu17.")
        assert run("push_keys").splitlines() == ["1 of 1 server up to date"], "the keys themselves are there"

    def test_y1_one_dead_server_is_named_and_the_exit_status_is_1(self, farm: Farm, gpu17: Server) -> None:
        make_server(farm, 1, address="127.0.0.99")
        assert refused("push_keys") == (1, "Not up to date: gpu18.")
        gpu17.refresh_from_db()
        assert gpu17.state.applied_revision == 1

    def test_a_server_that_waits_for_its_next_retry_is_retried_now(self, farm: Farm, gpu17: Server) -> None:
        Server.objects.update(address="127.0.0.99")
        refused("push_keys")
        Server.objects.update(address=ADDRESSES[0])
        assert "succeeded" in run("push_keys")

    def test_only_the_named_servers_are_pushed_to(self, farm: Farm, gpu17: Server) -> None:
        other = make_server(farm, 1)
        run("push_keys", "gpu17")
        other.refresh_from_db()
        assert other.state.applied_revision == 0 and farm.commands(ADDRESSES[1]) == []

    def test_an_unknown_or_disabled_server_is_a_usage_error(self, farm: Farm, gpu17: Server) -> None:
        code, words = refused("push_keys", "gpu99")
        assert code == 2 and "gpu17" in words
        Server.objects.update(enabled=False)
        assert refused("push_keys", "gpu17")[0] == 2

    def test_json_is_one_object(self, farm: Farm, gpu17: Server) -> None:
        result = json.loads(run("push_keys", "--json"))
        assert result == {"revision": 1, "servers": {"gpu17": {"revision": 1, "error": "", "ok": True}}}


class TestRegisterContainer:
    @pytest.fixture
    def gpu17(self, farm: Farm, transactional_db: None) -> Server:
        (farm.folder / ADDRESSES[0] / "may_register").touch()
        return make_server(farm)

    def test_the_progress_and_the_result_are_printed(self, gpu17: Server, alice: User) -> None:
        out = run("register_container", "gpu17", "alice").splitlines()
        assert out[0].startswith("[1/3] fetch") and out[-1] == "alice registered on gpu17"

    def test_the_reason_of_a_refusal_is_printed(self, farm: Farm, gpu17: Server, alice: User) -> None:
        (farm.folder / ADDRESSES[0] / "may_register").unlink()
        assert refused("register_container", "gpu17", "alice") == (1, "gpu17: The template is missing.")

    def test_unknown_names_are_a_usage_error(self, gpu17: Server, alice: User) -> None:
        assert refused("register_container", "gpu17", "nobody")[0] == 2
        assert refused("register_container", "gpu99", "alice")[0] == 2

    def test_the_workers_progress_is_followed(
        self, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = jobs.request_registration

        def taken_by_the_worker(**words: Any) -> ContainerJob:
            order = real(**words)
            jobs.run_waiting()
            return order

        monkeypatch.setattr(jobs, "request_registration", taken_by_the_worker)
        assert "[3/3] clone" in run("register_container", "gpu17", "alice")


class TestRemoveContainer:
    @pytest.fixture
    def gpu17(self, farm: Farm, transactional_db: None, alice: User) -> Server:
        (farm.folder / ADDRESSES[0] / "may_register").touch()
        server = make_server(farm)
        run("register_container", "gpu17", "alice")
        return server

    def test_the_progress_and_the_result_are_printed(self, gpu17: Server) -> None:
        out = run("remove_container", "gpu17", "alice", "--yes").splitlines()
        assert out == ["[1/1] putting aside", "alice removed from gpu17"]

    def test_purge_is_confirmed_and_passed_on(self, gpu17: Server) -> None:
        assert "deleting" in run("remove_container", "gpu17", "alice", "--yes", "--purge")

    def test_without_a_terminal_there_is_no_question_and_nothing_is_queued(self, farm: Farm, gpu17: Server) -> None:
        code, words = refused("remove_container", "gpu17", "alice")
        assert code == 2 and "--yes" in words and "remove" not in farm.commands()

    def test_a_removal_from_a_server_that_does_not_answer_is_retried_later(self, gpu17: Server) -> None:
        Server.objects.update(address="127.0.0.99")
        assert refused("remove_container", "gpu17", "alice", "--yes")[0] == 1
        assert ContainerJob.objects.filter(kind="remove", state="queued").count() == 1

    def test_unknown_names_are_a_usage_error(self, gpu17: Server) -> None:
        assert refused("remove_container", "gpu17", "nobody", "--yes")[0] == 2
        assert refused("remove_container", "gpu99", "alice", "--yes")[0] == 2


class TestDeployServer:
    def test_without_a_terminal_there_is_no_question_for_the_password(self, farm: Farm) -> None:
        make_server(farm)
        code, words = refused("deploy_server", "gpu17")
        assert code == 2 and "--identity" in words and "--password-stdin" in words

    def test_a_missing_template_is_a_usage_error(self, farm: Farm) -> None:
        make_server(farm)
        assert refused("deploy_server", "gpu17", "--identity", "k", "--template", "/nowhere.tar.zst")[0] == 2

    def test_y5_nothing_is_sent_to_another_host_key(self, farm: Farm) -> None:
        make_server(farm, host_key=OTHER)
        words = ["deploy_server", "gpu17", "--user", farm.user, "--identity", str(farm.iam_key)]
        assert "host key has changed" in refused(*words)[1] and farm.commands() == []

    def test_a_wrong_password_is_a_one_line_error(self, farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
        make_server(farm)
        monkeypatch.setattr(sys, "stdin", io.StringIO("wrong\n"))
        code, words = refused("deploy_server", "gpu17", "--password-stdin")
        assert code == 1 and "Login as root was refused" in words and "wrong" not in words


def test_wrong_options_exit_with_status_2() -> None:
    env = {"DEBUG": "true", "PATH": os.environ["PATH"], "DATABASE_URL": "sqlite://:memory:"}
    words = [sys.executable, "manage.py", "add_server", "gpu17"]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "address" in done.stderr
