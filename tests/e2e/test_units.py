"""systemd accepts every unit that is installed or in the administrator guide."""

import re

from tests.lab.images import REPOSITORY
from tests.lab.lab import Lab

OF_A_SERVER = ("lab-iam-containers.service", "lab-iam-reconcile.service", "lab-iam-reconcile.timer")
PROGRAMS = "/srv/lab-iam/app/.venv/bin"


def units_of_the_guide() -> dict[str, str]:
    guide = (REPOSITORY / "docs/administrators.md").read_text()
    found = re.findall(r"^# /etc/systemd/system/(\S+)\n(.*?)(?=\n# /etc|^```)", guide, re.DOTALL | re.MULTILINE)
    return dict(found)


def test_systemd_reports_nothing_about_any_unit(lab: Lab) -> None:
    machine, given = lab.servers["gpu18"], units_of_the_guide()
    assert sorted(given) == ["lab-iam-web.service", "lab-iam-worker.service"]
    machine.run(f"for name in python gunicorn; do install -D /bin/true {PROGRAMS}/$name; done; mkdir -p /run/guide")
    for name, text in given.items():
        machine.run(f"cat > /run/guide/{name}", stdin=text)
    try:
        machine.run("sed s/KillMode/KilMode/ /run/guide/lab-iam-worker.service > /run/guide/wrong.service")
        assert "KilMode" in machine.run("systemd-analyze verify /run/guide/wrong.service 2>&1", check=False).stdout
        words = [*OF_A_SERVER, *(f"/run/guide/{name}" for name in given)]
        done = machine.run(f"systemd-analyze verify {' '.join(words)} 2>&1", check=False)
        assert (done.returncode, done.stdout) == (0, "")
    finally:
        machine.run("rm -r /run/guide /srv/lab-iam")
