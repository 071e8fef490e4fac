"""tests/CASES.md and the case ids in the names of the tests agree."""

import ast
import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
IDS = re.compile(r"test_((?:[a-z]{1,2}[0-9]{1,2}_)+)")


def used() -> set[str]:
    """The ids in the names of all tests: `y3` and `y4` in `test_y3_y4_a_push`."""
    trees = (ast.parse(path.read_text()) for path in sorted(TESTS.rglob("test_*.py")))
    functions = (node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    found = filter(None, map(IDS.match, functions))
    return {case for match in found for case in match[1].strip("_").split("_")}


def explained() -> list[str]:
    return re.findall(r"^- \*\*(\w+)\*\* \S", (TESTS / "CASES.md").read_text(), re.MULTILINE)


def test_every_case_id_is_explained_and_has_a_test() -> None:
    cases = set(explained())
    assert len(used()) > 50
    assert (sorted(used() - cases), sorted(cases - used())) == ([], [])


def test_every_case_is_explained_once() -> None:
    assert [case for case, count in Counter(explained()).items() if count > 1] == []
