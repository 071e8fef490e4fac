"""What documents and help texts describe exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    path.stem for app in ("accounts", "servers") for path in (ROOT / app / "management/commands").glob("[a-z]*.py")
)
BUILT_IN = {"check", "migrate", "createsuperuser", "qcluster"}  # of Django and django-q2
# A path as documents write it: below the repository, or of labhost below hostscripts. NAME stands for any name.
PATH = re.compile(r"`((?:accounts|servers|lab_iam|hostscripts|labhost|tests|docs)/[\w./-]*|\.ci/\w+|\.env\.\w+)`")
PICTURE_BYTES = 150_000


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def lab_commands() -> set[str]:
    """The sub-commands of ./lab, read from its source."""
    text = text_of("lab")
    cases = re.findall(r"^    ([a-z |-]+)\)", text[text.index("case $command in") :], re.MULTILINE)
    return {word for case in cases for word in re.split(r"[ |]+", case) if not word.startswith("-")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_has_a_target(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = {path for path in PATH.findall(page.read_text()) if "NAME" not in path}
    assert [path for path in named if not ((ROOT / path).exists() or (ROOT / "hostscripts" / path).exists())] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) - {*COMMANDS, *BUILT_IN} == set()
    assert set(re.findall(r"\./lab ([a-z]+)", text)) - lab_commands() == set()


@pytest.mark.parametrize("title", ["A pasted key's way", "`start`"])
def test_the_code_walkthrough_has_ten_steps_that_name_modules(title: str) -> None:
    text = text_of("docs/design.md")
    walk = re.findall(r"^\d+\. .*", text[text.index(f"**{title}") :].split("\n\n")[1], re.MULTILINE)
    assert len(walk) == 10
    assert [step for step in walk if not PATH.search(step)] == []
    assert len(text.splitlines()) <= 80 and max(map(len, text.splitlines())) <= 120


def test_the_readme_shows_two_small_pictures() -> None:
    pictures = re.findall(r"!\[[^]]+\]\((docs/pictures/[\w-]+\.png)\)", text_of("README.md"))
    assert {Path(picture).name for picture in pictures} == {"my-page.png", "admin.png"}
    for picture in pictures:
        data = (ROOT / picture).read_bytes()
        assert len(data) <= PICTURE_BYTES
        assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (1280, 800)


def test_every_setting_is_explained_and_no_other() -> None:
    settings = text_of("lab_iam/settings.py")
    read = set(re.findall(r'(?:env|secret|env\.\w+)\(\s*"([A-Z][A-Z0-9_]+)"', settings))
    explained = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", text_of(".env.example"), re.MULTILINE))
    assert read and read - explained == set()
    assert {name for name in explained if name not in read and name.removesuffix("_FILE") not in read} == set()


def test_the_administrators_page_names_only_explained_settings() -> None:
    explained = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", text_of(".env.example"), re.MULTILINE))
    named = set(re.findall(r"`([A-Z][A-Z0-9]+_[A-Z0-9_]+)(?:=\S+)?`", text_of("docs/administrators.md")))
    foreign = {"LXC_DHCP_CONFILE"}  # of lxc-net
    assert {name for name in named - foreign if not {name, name.removesuffix("_FILE")} & explained} == set()
    assert "PORTAL_KEY_FILE" in named


def test_the_administrators_page_names_every_command() -> None:
    text = text_of("docs/administrators.md")
    assert [name for name in COMMANDS if name not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_helpful_help_text(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", name, "--help"],
        capture_output=True, text=True, cwd=ROOT, env={"DEBUG": "true", "PATH": "/usr/bin", "COLUMNS": "100"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    own = re.split(r"\n\n", done.stdout.partition("\noptions:")[0], maxsplit=1)[1]
    assert len(own) > 300 and "Exit status" in own, "less than a paragraph, or without its exit status"


def test_the_script_lists_each_of_its_commands() -> None:
    help_text = subprocess.run([ROOT / "lab", "help"], capture_output=True, text=True, check=True).stdout
    assert [name for name in lab_commands() if f"./lab {name}" not in help_text] == []


def test_an_unknown_command_is_a_one_line_error() -> None:
    done = subprocess.run([ROOT / "lab", "frobnicate"], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
