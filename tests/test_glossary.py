"""docs/glossary.md lists retired words; no text that people read, no name in the code and no test uses one."""

import ast
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.core.management import load_command_class
from django.db.models import Model

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs/glossary.md"
APPS = ("accounts", "servers")
CODE = ("accounts", "servers", "lab_iam", "hostscripts/labhost")
TEXT_TOKENS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
PROGRAMS = {
    "login.bash": ["bash", "-p", "hostscripts/login.bash", "-c", "help"],
    "labhost": [sys.executable, "hostscripts/labhost-command.py", "--help"],
    "setup-gpu-server.bash": ["bash", "hostscripts/setup-gpu-server.bash", "--help"],
}


def _last_cells() -> list[str]:
    rows = re.findall(r"^\|(.+)\|$", GLOSSARY.read_text(), re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows if not set(row) <= set("|- ")]
    assert all(len(row) == 4 for row in cells), "each row has a term, a meaning, a place and retired words"
    return [row[3] for row in cells if row[0] != "Term" and row[3]]


RETIRED = [word for cell in _last_cells() for word in cell.split(", ")]
PHRASES = [word for word in RETIRED if not word.startswith("`")]
NAMES = {word.strip("`") for word in RETIRED if word.startswith("`")}
RETIRED_TEXT = re.compile(rf"(?<![\w/-])(?:{'|'.join(map(re.escape, PHRASES))})(?![\w-])", re.IGNORECASE)


def found_in(text: str) -> list[str]:
    """The retired phrases in `text`; line breaks count as spaces, and the names of the benches are allowed."""
    text = re.sub(r"lab bench \w+", "", re.sub(r"[\s#]+", " ", text))
    return [text[max(match.start() - 30, 0) : match.end() + 30] for match in RETIRED_TEXT.finditer(text)]


def test_the_glossary_is_read() -> None:
    assert {"she", "for ever", "sign of life"} <= set(PHRASES) and {"beneath", "KeySet", "say"} <= NAMES
    assert found_in("Once more she\nwaits") and found_in("kept for\n# ever") and not found_in("ash, forever, sheen")


@pytest.mark.parametrize(
    "path",
    sorted(path for app in (*APPS, "lab_iam") for path in (ROOT / app).rglob("templates/**/*.html")),
    ids=lambda path: path.name,
)
def test_templates(path: Path) -> None:
    assert found_in(re.sub(r"\{%.*?%\}|\{\{.*?\}\}", " ", path.read_text())) == []


def _model_texts(model: type[Model]) -> Iterator[str]:
    yield f"{model._meta.verbose_name}, {model._meta.verbose_name_plural}"
    for field in model._meta.get_fields():
        yield from (str(getattr(field, name, "")) for name in ("verbose_name", "help_text"))
        yield from (str(label) for _, label in getattr(field, "choices", None) or ())
    yield from (str(constraint.violation_error_message) for constraint in model._meta.constraints)


def _admin_texts(model_admin: admin.ModelAdmin) -> Iterator[str]:
    yield str(model_admin.search_help_text)
    for name in (*model_admin.list_display, *(model_admin.fields or ()), *(model_admin.actions or ())):
        yield str(getattr(getattr(model_admin, str(name), None), "short_description", ""))
    for item in model_admin.list_filter:
        yield str(getattr(item, "title", ""))


@pytest.mark.parametrize("model", [model for app in APPS for model in apps.get_app_config(app).get_models()])
def test_models_and_their_admin_pages(model: type[Model]) -> None:
    texts = list(_model_texts(model))
    if model_admin := admin.site._registry.get(model):
        texts += _admin_texts(model_admin)
    assert [hit for text in texts for hit in found_in(text)] == []


@pytest.mark.parametrize(
    ("app", "name"),
    [(app, path.stem) for app in APPS for path in sorted((ROOT / app / "management/commands").glob("[a-z]*.py"))],
)
def test_command_help(app: str, name: str) -> None:
    assert found_in(load_command_class(app, name).create_parser("manage.py", name).format_help()) == []


def _descriptions(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (str(part[name]) for name in ("summary", "description") if isinstance(part.get(name), str))
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _descriptions(inner)


def test_api_documentation() -> None:
    from drf_spectacular.generators import SchemaGenerator

    texts = list(_descriptions(SchemaGenerator().get_schema(request=None, public=True)))
    assert len(texts) > 10 and [hit for text in texts for hit in found_in(text)] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_of_host_programs(name: str) -> None:
    done = subprocess.run(PROGRAMS[name], cwd=ROOT, capture_output=True, text=True, timeout=20)
    help_text = done.stdout + done.stderr
    assert len(help_text) > 100 and found_in(help_text) == []


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "hostscripts").glob("*.*")]


@pytest.mark.parametrize(
    "path", sorted({*DOCUMENTS, ROOT / ".env.example", ROOT / "lab"} - {GLOSSARY}), ids=lambda path: path.name
)
def test_documents_and_host_scripts(path: Path) -> None:
    assert found_in(path.read_text()) == []


def sources() -> list[Path]:
    return sorted(path for part in CODE for path in (ROOT / part).rglob("*.py") if "migrations" not in path.parts)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_names_docstrings_comments_and_messages(path: Path) -> None:
    text = path.read_text()
    defined = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = {path.name, path.stem, path.parent.name, *(node.name for node in defined)}
    assert names & NAMES == set()
    with path.open("rb") as file:
        texts = [token.string for token in tokenize.tokenize(file.readline) if token.type in TEXT_TOKENS]
    assert found_in(" ".join(texts)) == []


TEST_SOURCES = sorted({*(ROOT / "tests").rglob("*.py")} - {Path(__file__)})


def _test_texts(path: Path) -> Iterator[str]:
    """Comments, docstrings, assertion messages, and the names of functions and classes as words."""
    with path.open("rb") as file:
        yield from (token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name.replace("_", " ")
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            yield ast.get_docstring(node) or ""
        if isinstance(node, ast.Assert) and node.msg:
            yield ast.unparse(node.msg)


@pytest.mark.parametrize("path", TEST_SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests(path: Path) -> None:
    assert [hit for text in _test_texts(path) for hit in found_in(text)] == []


def test_case_descriptions() -> None:
    assert found_in((ROOT / "tests/CASES.md").read_text()) == []
