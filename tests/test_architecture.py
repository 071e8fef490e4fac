"""The import rules of the house, read from the source: doors -> services -> models, pure modules and edges."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
APPS = ("accounts", "servers")
PORTAL = (*APPS, "lab_iam")

# What each module of an app is. A new one must be put in its place here.
PURE = {"names", "numbers", "sshkeys", "protocol", "ssh_config", "hostkeys", "lines", "holders"}
EDGES = {"directory", "remote", "dialing", "iam_key", "sessions", "cluster", "broker"}
MODELS = {"models", "signals"}
DOORS = {
    "access", "admin", "api", "apps", "backends", "checks", "forms", "lockout", "panel", "serializers", "tasks",
    "text", "urls", "views", "management",
}  # fmt: skip

# Who alone may import an outside library.
OWNERS = {
    "ldap": "accounts/directory.py",
    "django_auth_ldap": "accounts/directory.py",
    "fabric": "servers/remote.py",
    "paramiko": "servers/remote.py",
    "invoke": "servers/remote.py",
}
NETWORK = {"socket", "ssl", "http", "urllib", "smtplib", "asyncio", "subprocess"}


def files(*folders: str) -> list[Path]:
    return [
        path.relative_to(ROOT)
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "migrations" not in path.parts and "__pycache__" not in path.parts
    ]


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of all that a file imports, wherever in it; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.parts[: len(path.parts) - node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def kind(path: Path) -> str:
    part = path.parts[1].removesuffix(".py")
    for name, members in (("pure", PURE), ("edge", EDGES), ("models", MODELS), ("door", DOORS)):
        if part in members:
            return name
    return "service" if part == "services" else "unknown"


def kinds_imported(path: Path) -> set[str]:
    """The kinds of app modules that a file imports."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] in APPS and len(parts) > 1 and ((ROOT / parts[0] / parts[1]).is_dir() or is_module(parts)):
            found.add(kind(Path(parts[0], parts[1])))
    return found


def is_module(parts: list[str]) -> bool:
    return (ROOT / parts[0] / f"{parts[1]}.py").is_file()


def of_kind(wanted: str) -> list[Path]:
    return [path for path in files(*APPS) if path.name != "__init__.py" and kind(path) == wanted]


def test_every_module_has_its_place() -> None:
    assert of_kind("unknown") == []
    assert all(of_kind(name) for name in ("pure", "edge", "models", "door", "service"))


@pytest.mark.parametrize("path", files("accounts"), ids=str)
def test_accounts_never_imports_servers(path: Path) -> None:
    assert "servers" not in tops(path)


def test_the_project_has_no_models_and_knows_the_apps_only_by_their_addresses() -> None:
    assert not (ROOT / "lab_iam/models.py").exists()
    for path in files("lab_iam"):
        known = {name for name in imports(path) if name.split(".")[0] in APPS}
        allowed = {"accounts.numbers"} if path.name == "settings.py" else set()
        assert {".".join(name.split(".")[:2]) for name in known} <= allowed, path


@pytest.mark.parametrize("path", of_kind("pure"), ids=str)
def test_pure_modules_know_neither_django_nor_the_network(path: Path) -> None:
    outside = {"cryptography"} if path.name == "sshkeys.py" else set()
    assert tops(path) - set(sys.stdlib_module_names) - set(APPS) <= outside
    assert not tops(path) & NETWORK
    assert kinds_imported(path) <= {"pure"}


@pytest.mark.parametrize("path", of_kind("edge"), ids=str)
def test_edges_know_neither_database_nor_verbs(path: Path) -> None:
    assert kinds_imported(path) <= {"pure", "edge"}
    assert not [name for name in imports(path) if name.startswith("django.db")]


@pytest.mark.parametrize("path", of_kind("models"), ids=str)
def test_models_know_only_models_and_pure_modules(path: Path) -> None:
    assert kinds_imported(path) <= {"pure", "models"}
    assert not tops(path) & NETWORK


@pytest.mark.parametrize("path", of_kind("service"), ids=str)
def test_services_know_no_doors(path: Path) -> None:
    assert kinds_imported(path) <= {"pure", "edge", "models", "service"}
    web = [name for name in imports(path) if name.startswith(("django.http", "django.shortcuts", "rest_framework"))]
    assert web == []


@pytest.mark.parametrize("path", files(*PORTAL), ids=str)
def test_each_outside_library_has_one_importer(path: Path) -> None:
    assert {library for library in tops(path) & set(OWNERS) if str(path) != OWNERS[library]} == set()


@pytest.mark.parametrize("path", files(*PORTAL), ids=str)
def test_the_portal_imports_neither_host_scripts_nor_tests(path: Path) -> None:
    assert not tops(path) & {"labhost", "hostscripts", "tests", "pytest"}


@pytest.mark.parametrize("path", files("hostscripts"), ids=str)
def test_host_scripts_import_only_the_standard_library_and_themselves(path: Path) -> None:
    relative = {name for name in tops(path) if name == "hostscripts"}
    assert tops(path) - set(sys.stdlib_module_names) - {"labhost", *relative} == set()


@pytest.mark.parametrize("path", files(*PORTAL, "hostscripts"), ids=str)
def test_no_star_imports_and_no_modules_without_a_name(path: Path) -> None:
    assert not [name for name in imports(path) if name.endswith(".*")]
    assert path.stem not in {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", files(*PORTAL, "hostscripts"), ids=str)
def test_no_code_asks_whether_it_is_being_tested(path: Path) -> None:
    source = (ROOT / path).read_text()
    assert "pytest" not in source and "TESTING" not in source
