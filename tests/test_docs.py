"""What the documents and helps promise is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    path.stem for app in ("accounts", "servers") for path in (ROOT / app / "management/commands").glob("[a-z]*.py")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_setting_is_explained_and_no_other() -> None:
    settings = (ROOT / "lab_iam/settings.py").read_text()
    read = set(re.findall(r'(?:env|secret|env\.\w+)\(\s*"([A-Z][A-Z0-9_]+)"', settings))
    explained = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert read and read - explained == set()
    assert {name for name in explained if name not in read and name.removesuffix("_FILE") not in read} == set()


def test_the_administrators_page_names_every_command() -> None:
    text = (ROOT / "docs/administrators.md").read_text()
    assert [name for name in COMMANDS if name not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_worth_reading(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", name, "--help"],
        capture_output=True, text=True, cwd=ROOT, env={"DEBUG": "true", "PATH": "/usr/bin", "COLUMNS": "100"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    own = re.split(r"\n\n", done.stdout.partition("\noptions:")[0], maxsplit=1)[1]
    assert len(own) > 300 and "Exit status" in own, "says less than a paragraph, or nothing of its exit status"


def test_the_script_explains_each_of_its_commands() -> None:
    text = (ROOT / "lab").read_text()
    cases = text[text.index("case $command in") :]
    commands = set(re.findall(r"^    ([a-z |]+)\)", cases, re.MULTILINE))
    words = {word for case in commands for word in re.split(r"[ |]+", case)} - {"help", ""}
    help_text = subprocess.run([ROOT / "lab", "help"], capture_output=True, text=True, check=True).stdout
    assert [word for word in words if f"./lab {word}" not in help_text] == []


def test_an_unknown_word_is_refused_in_one_line() -> None:
    done = subprocess.run([ROOT / "lab", "frobnicate"], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
