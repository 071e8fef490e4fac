"""The reasons of labhost's errors, read from its source.

`python -m tests.hostscripts.reasons` writes them into docs/protocol.md; tests/servers/test_protocol.py compares.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/protocol.md"
BEGIN, END = "<!-- reasons: written by python -m tests.hostscripts.reasons -->\n", "<!-- end of reasons -->\n"
KINDS = ROOT / "hostscripts/labhost/errors.py"


def table() -> str:
    """Markdown: reason, params, and the English text on the host."""
    found: dict[str, tuple[set[str], str]] = {}
    for path in sorted((ROOT / "hostscripts/labhost").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for reason, params, text in (*_calls(tree), *_defaults(tree)):
            names, first = found.setdefault(reason, (set(), text))
            names |= params
            found[reason] = names, first or text
    rows = [
        f"| `{reason}` | {', '.join(sorted(names))} | {text.replace('|', '&#124;')} |"
        for reason, (names, text) in sorted(found.items())
    ]
    return "\n".join(["| reason | params | text on the host |", "|---|---|---|", *rows]) + "\n"


def in_page() -> str:
    """The table as docs/protocol.md has it."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


def kinds() -> set[str]:
    """The codes of labhost's errors."""
    classes = [node for node in ast.parse(KINDS.read_text()).body if isinstance(node, ast.ClassDef)]
    values = [item.value for node in classes for item in node.body if isinstance(item, ast.Assign)]
    return {value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)}


def _calls(tree: ast.Module) -> Iterator[tuple[str, set[str], str]]:
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.Call):
                continue
            reason = next((word.value for word in node.keywords if word.arg == "reason"), None)
            if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                params = {word.arg for word in node.keywords if word.arg and word.arg != "reason"}
                yield reason.value, params, _text(function, node)


def _defaults(tree: ast.Module) -> Iterator[tuple[str, set[str], str]]:
    """`reason: str = "slug"` of an error's own class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for argument, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                if argument.arg == "reason" and isinstance(value, ast.Constant) and value.value:
                    yield str(value.value), set(), ""


def _text(function: ast.AST, call: ast.Call) -> str:
    """The first argument, or the last value assigned to its name before."""
    first: ast.expr | None = call.args[0] if call.args else None
    if isinstance(first, ast.Name):
        assigned = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and node.lineno < call.lineno and ast.unparse(node.targets[0]) == first.id
        ]
        first = max(assigned, key=lambda value: value.lineno, default=None)
    if isinstance(first, ast.Constant):
        return str(first.value)
    if isinstance(first, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in first.values)
    return ""


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
