"""Which groups need no password for sudo: the real cvtsudoers reads policies written here."""

import json
import subprocess
from pathlib import Path

import pytest
from labhost.admin import sudoers

from tests.hostscripts.conftest import SCRIPTS

WITH_PASSWORD = "root ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL:ALL) ALL\n"


def free(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "sudoers"
    path.write_text(text)
    words = ["cvtsudoers", "-e", "-f", "json", str(path)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    return sudoers.without_password(json.loads(shown.stdout), ["sudo", "people"])


def test_debians_sudo_policy_requires_a_password(tmp_path: Path) -> None:
    assert free(tmp_path, WITH_PASSWORD) == []


NOPASSWD = [
    "%sudo ALL=(ALL) NOPASSWD: ALL\n",
    "%sudo ALL=(ALL) NOPASSWD: /usr/bin/id\n",
    "User_Alias STAFF = %sudo, bob\nSTAFF ALL=(ALL) NOPASSWD: ALL\n",
    "Defaults:%sudo !authenticate\n",
]


@pytest.mark.parametrize("line", NOPASSWD)
def test_a_group_without_a_password_is_found(tmp_path: Path, line: str) -> None:
    assert free(tmp_path, WITH_PASSWORD + line) == ["sudo"]


@pytest.mark.parametrize("line", ["ALL ALL=(ALL) NOPASSWD: ALL\n", "Defaults !authenticate\n"])
def test_a_rule_for_all_is_for_every_group(tmp_path: Path, line: str) -> None:
    assert free(tmp_path, WITH_PASSWORD + line) == ["people", "sudo"]


@pytest.mark.parametrize("line", ["%admins ALL=(ALL) NOPASSWD: ALL\n", "bob ALL=(ALL) NOPASSWD: ALL\n"])
def test_rules_for_others_do_not_count(tmp_path: Path, line: str) -> None:
    assert free(tmp_path, WITH_PASSWORD + line) == []


def test_p1_the_rules_of_lab_iam_give_these_groups_nothing(tmp_path: Path) -> None:
    assert free(tmp_path, WITH_PASSWORD + (SCRIPTS / "lab-iam.sudoers").read_text()) == []
