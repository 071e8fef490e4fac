from pathlib import Path

from tests.lab.report import summary

REPORT = """<?xml version="1.0"?><testsuites><testsuite tests="4" failures="1" errors="1" skipped="1" time="2.6">
<testcase classname="tests.a" name="test_x"><failure message="no"/></testcase>
<testcase classname="tests.a" name="test_y"><skipped message="no kernel for it"/></testcase>
<testcase classname="tests.a" name="test_z"/></testsuite></testsuites>"""


def test_the_report_counts_and_names_skipped_tests(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert summary(tmp_path / "report.xml").splitlines() == [
        "4 tests in 3 s: 1 passed, 2 failed, 1 skipped",
        "  skipped: tests.a::test_y: no kernel for it",
    ]
