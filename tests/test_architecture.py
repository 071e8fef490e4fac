"""The import rules, read from the source: imports only go down, from room to room and within one."""

import ast
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
APPS = ("accounts", "servers")
PORTAL = (*APPS, "lab_iam")

# The rooms of each part, bottom first: a room may import itself and earlier ones. Add new rooms here.
LABHOST = (
    "errors", "system", "host", "network", "lxc", "accounts", "storage", "keys", "portal", "protocol", "gpu",
    "container", "people", "shell", "admin", "cli",
)  # fmt: skip
ACCOUNTS = (
    "names", "numbers", "sshkeys", "signals", "directory", "models", "services", "lockout", "backends", "checks",
    "forms", "dashboard", "admin", "views", "urls", "management", "apps",
)  # fmt: skip
SERVERS = (
    "disks", "revoked_keys", "protocol", "push_requests", "message_texts", "messages", "ssh_config", "processes", "ssh", "models", "services.tokens", "services.remote", "services.worker",
    "services.status", "services.push", "services.fleet", "services.containers", "read_access", "checks", "serializers",
    "templatetags", "dashboard", "plain_text", "api", "views", "urls", "admin", "tasks", "management", "apps",
)  # fmt: skip
LAB_IAM = ("network", "formats", "dashboard", "settings", "middleware", "checks", "admin", "urls", "wsgi", "apps")
PARTS = {"labhost": LABHOST, "accounts": ACCOUNTS, "servers": SERVERS, "lab_iam": LAB_IAM}
FOLDERS = {"labhost": ROOT / "hostscripts/labhost"} | {name: ROOT / name for name in PORTAL}

# Standard library alone: no Django, no database, no sockets. sshkeys has its own exception below.
PURE = {
    "accounts.names", "accounts.numbers", "accounts.sshkeys", "servers.disks", "servers.revoked_keys", "servers.protocol", "servers.push_requests", "servers.message_texts", "servers.messages", "servers.ssh_config",
    "servers.ssh.host_keys", "servers.ssh.stderr", "servers.processes.lease_holder",
}  # fmt: skip
# The only importers of an outside library each, a module or a folder; they know neither the database nor any verb.
EDGES = {"accounts.directory", "servers.ssh", "servers.processes"}
OWNERS = {
    "ldap": "accounts/directory.py",
    "django_auth_ldap": "accounts/directory.py",
    "fabric": "servers/ssh/",
    "paramiko": "servers/ssh/",
    "invoke": "servers/ssh/",
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
    """Dotted names of all imports of a file, wherever they are; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@cache
def modules(part: str) -> dict[str, Path]:
    """Dotted names of the modules of a part, and their files."""
    base = FOLDERS[part].parent
    found = {}
    for path in files(str(FOLDERS[part].relative_to(ROOT))):
        words = (ROOT / path).relative_to(base).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


def imported_modules(part: str, path: Path) -> set[str]:
    """Modules of the same part: of `from a.b import c` a.b.c if that is a module, else a.b."""
    names = {name for name in imports(path) if name in modules(part)}
    return {name for name in names if not any(other.startswith(name + ".") for other in names)}


def room(part: str, module: str) -> str:
    """The room of a module: the longest entry in the part's list that is a prefix of it."""
    inner = module.removeprefix(f"{part}.")
    matching = [name for name in PARTS[part] if inner == name or inner.startswith(name + ".")]
    return max(matching, key=len, default="")


def every_module() -> list[tuple[str, str]]:
    return [(part, module) for part in PARTS for module in modules(part) if module not in (part, "servers.services")]


def within(module: str, group: set[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in group)


@pytest.mark.parametrize(("part", "module"), every_module(), ids=lambda value: value)
def test_imports_only_go_down(part: str, module: str) -> None:
    mine = room(part, module)
    assert mine, f"{module} is in no room: add it to the list above"
    allowed = PARTS[part].index(mine)
    upward = {
        name
        for name in imported_modules(part, modules(part)[module])
        if name != part and PARTS[part].index(room(part, name)) > allowed
    }
    assert upward == set()


@pytest.mark.parametrize("part", PARTS)
def test_there_are_no_circular_imports(part: str) -> None:
    graph = {module: imported_modules(part, path) - {module} for module, path in modules(part).items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circular imports: {error.args[1]}")


@pytest.mark.parametrize(("part", "module"), every_module(), ids=lambda value: value)
def test_every_module_has_a_one_line_docstring(part: str, module: str) -> None:
    text = (ROOT / modules(part)[module]).read_text()
    assert not text or ast.get_docstring(ast.parse(text)), module


@pytest.mark.parametrize("path", files("accounts"), ids=str)
def test_accounts_never_imports_servers(path: Path) -> None:
    assert "servers" not in tops(path)


def test_the_project_has_no_models_and_knows_the_apps_only_by_their_addresses() -> None:
    assert not (ROOT / "lab_iam/models.py").exists()
    for path in files("lab_iam"):
        known = {name for name in imports(path) if name.split(".")[0] in APPS}
        allowed = {"accounts.numbers"} if path.name == "settings.py" else set()
        assert {".".join(name.split(".")[:2]) for name in known} <= allowed, path


def app_modules() -> list[str]:
    return [module for part, module in every_module() if part in APPS]


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_import_neither_django_nor_the_network(module: str) -> None:
    part = module.split(".")[0]
    path = modules(part)[module]
    outside = {"cryptography"} if path.name == "sshkeys.py" else set()
    assert tops(path) - set(sys.stdlib_module_names) - set(APPS) <= outside
    assert not tops(path) & NETWORK
    assert {name for app in APPS for name in imported_modules(app, path)} <= PURE


@pytest.mark.parametrize("module", [name for name in app_modules() if within(name, EDGES)])
def test_edges_import_neither_database_nor_verbs(module: str) -> None:
    path = modules(module.split(".")[0])[module]
    known = {name for app in APPS for name in imported_modules(app, path)}
    assert all(name in PURE or within(name, EDGES) for name in known)
    assert not [name for name in imports(path) if name.startswith("django.db")]


@pytest.mark.parametrize("module", [name for name in app_modules() if ".models" in name])
def test_models_import_only_models_and_pure_modules(module: str) -> None:
    path = modules(module.split(".")[0])[module]
    known = {name for app in APPS for name in imported_modules(app, path)}
    assert all(name in PURE or ".models" in name for name in known)
    assert not tops(path) & NETWORK


@pytest.mark.parametrize("module", [name for name in app_modules() if ".services" in name])
def test_services_import_no_pages(module: str) -> None:
    names = imports(modules(module.split(".")[0])[module])
    assert [name for name in names if name.startswith(("django.http", "django.shortcuts", "rest_framework"))] == []


@pytest.mark.parametrize("path", files(*PORTAL), ids=str)
def test_each_outside_library_is_imported_in_one_place(path: Path) -> None:
    assert {library for library in tops(path) & set(OWNERS) if not str(path).startswith(OWNERS[library])} == set()


@pytest.mark.parametrize("path", files(*PORTAL), ids=str)
def test_the_portal_imports_neither_host_scripts_nor_tests(path: Path) -> None:
    assert not tops(path) & {"labhost", "hostscripts", "tests", "pytest"}


@pytest.mark.parametrize("path", files("hostscripts"), ids=str)
def test_host_scripts_import_only_the_standard_library_and_labhost(path: Path) -> None:
    assert tops(path) - set(sys.stdlib_module_names) - {"labhost"} == set()


@pytest.mark.parametrize("path", files("hostscripts"), ids=str)
def test_only_lxc_py_names_the_programs_of_lxc(path: Path) -> None:
    assert path.name == "lxc.py" or "/usr/bin/lxc-" not in (ROOT / path).read_text()


@pytest.mark.parametrize("path", files(*PORTAL, "hostscripts"), ids=str)
def test_there_are_no_star_imports_and_no_nameless_modules(path: Path) -> None:
    assert not [name for name in imports(path) if name.endswith(".*")]
    assert path.stem not in {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", files(*PORTAL, "hostscripts"), ids=str)
def test_no_code_checks_whether_it_is_being_tested(path: Path) -> None:
    source = (ROOT / path).read_text()
    assert "pytest" not in source and "TESTING" not in source
