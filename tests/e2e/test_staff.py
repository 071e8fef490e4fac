"""What staff do, on the real servers: the admin's actions, and the commands behind them."""

import hashlib
import re
from pathlib import Path

from tests.lab import images
from tests.lab.browser import Browser
from tests.lab.lab import PEOPLE, STAFF, Lab
from tests.lab.people import browser, join
from tests.lab.waiting import eventually

SERVERS = "/admin/servers/server/"
# An empty zstd frame (RFC 8878, section 3.1.2): the archive stays valid, and its checksum changes.
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00more"


def _staff_browser(lab: Lab) -> Browser:
    page = browser(lab)
    page.sign_in(STAFF, PEOPLE[STAFF][1])
    return page


def _act(page: Browser, action: str, *servers: str, **fields: str) -> str:
    """Select servers in the admin and run an action on them. Returns the message."""
    listed = page.get(SERVERS).text
    keys = [_number(listed, server) for server in servers]
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', listed)
    assert token is not None
    data = {"csrfmiddlewaretoken": token[1], "action": action, "_selected_action": keys, **fields}
    return page.session.post(page.address + SERVERS, data=data, timeout=60).text


def _number(listed: str, server: str) -> str:
    found = re.search(rf'href="{SERVERS}(\d+)/change/[^"]*">{server}<', listed)
    assert found is not None, f"{server} is not on the list"
    return found[1]


def _messages(answer: str) -> list[str]:
    return re.findall(r'<li class="(?:success|warning|error|info)">(.*?)</li>', answer, re.DOTALL)


def test_the_admin_tests_connections_and_queues_pushes(lab: Lab) -> None:
    join(lab, "alice")
    page = _staff_browser(lab)
    answer = _act(page, "test_connection", "gpu17", "gpu18")
    for server in ("gpu17", "gpu18"):
        assert f"{server}: answers as {server}" in answer, _messages(answer)
    assert "2 pushes queued." in _act(page, "push_now", "gpu17", "gpu18")
    pushed = re.compile(rf"<td[^>]*>{STAFF}</td>")
    eventually(lambda: len(pushed.findall(page.get("/admin/servers/push/").text)) >= 2, "both pushes on their page")


def test_the_admin_registers_a_container(lab: Lab) -> None:
    join(lab, "charlie")
    page = _staff_browser(lab)
    asked = _act(page, "register_container", "gpu17")
    assert "Register a person" in asked and 'name="name"' in asked
    page_after = _act(page, "register_container", "gpu17", confirmed="yes", name="charlie")
    assert "charlie on gpu17: registration queued" in page_after
    account = lab.servers["gpu17"]
    entry = "getent passwd charlie"
    eventually(lambda: account.run(entry, check=False).stdout.strip().endswith("/public/login.bash"), "a shell", 60)
    row = re.compile(r'class="field-user[^>]*>.*?charlie.*?gpu17.*?Succeeded', re.DOTALL)
    eventually(lambda: row.search(page.get("/admin/servers/containerjob/").text) is not None, "the job's end", 20)
    charlie = lab.people["charlie"]
    (charlie.folder / ".ssh/known_hosts").unlink(missing_ok=True)  # of an earlier container
    charlie.ssh("gpu17-manage")
    assert charlie.ssh("gpu17", "id -un").stdout.strip() == "charlie"
    charlie.ssh("gpu17-manage", "stop")


def test_the_command_registers_a_container_and_shows_its_progress(lab: Lab) -> None:
    join(lab, "charlie")
    done = lab.portal.manage("register_container", "gpu18", "charlie")
    assert "charlie registered on gpu18" in done.stdout
    again = lab.portal.manage("register_container", "gpu18", "charlie")
    assert again.returncode == 0
    unknown = lab.portal.manage("register_container", "gpu18", "nobody-here", check=False)
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[-1] == "CommandError: There is no person nobody-here at the portal."


def test_deploy_server_copies_a_new_template(lab: Lab, tmp_path: Path) -> None:
    archive = tmp_path / "template.tar.zst"
    archive.write_bytes(images.template().read_bytes() + SKIPPABLE)
    key = lab.folder / "root-of-gpu18"
    words = ["--user", "root", "--identity", str(key), "--template", str(archive)]
    done = lab.portal.manage("deploy_server", "gpu18", *words)
    assert "Copying the template: 100 %" in done.stdout
    machine, target = lab.servers["gpu18"], "/var/lib/lab-iam/template.tar.zst"
    assert machine.run(f"sha256sum {target}").stdout.split()[0] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert machine.run(f"stat -L -c '%U %G %a' {target}").stdout.strip() == "root root 600"
    assert machine.run("ls -d /var/tmp/lab-iam.*", check=False).stdout == "", "the upload's folder stays behind"
