"""IAM Updates SSH Keys: with a second key, when the container exists."""

import json

from tests.lab.waiting import eventually
from tests.lab.walk import Flow, Walk, body

FLOW = Flow("IAM Updates SSH Keys")
NEW_NAME = "Liqun Chen-Archer"
SECOND = "second"


@FLOW.step("1", "IAM: ask the background worker to update SSH keys on servers")
def ask(walk: Walk) -> str:
    walk.seen["pushes before"] = walk.rows("SELECT MAX(id) FROM servers_push")[0][0]
    walk.seen["second key"] = walk.person.make_key(SECOND)
    walk.lab.directory.rename(walk.user, NEW_NAME)
    page = f"/manage/ssh-key/{walk.user}"
    saved = walk.browser.submit(page, keys=walk.seen["second key"], password=walk.password)
    assert saved.url.endswith("/log/push-keys"), saved.url
    return "a second key is saved, and the name changed in the directory"


@FLOW.step("2", "Worker: wakes up")
def woken(walk: Walk) -> str:
    query = (
        "SELECT COUNT(*) FROM servers_push WHERE id > ? AND state = 'succeeded'"
        " AND revision = (SELECT number FROM accounts_revision)"
    )
    eventually(lambda: walk.rows(query, walk.seen["pushes before"])[0][0] >= 2, "a push to both servers")
    return "a push to each of 2 servers"


@FLOW.step("3", "Worker: query the full name of all users with the LDAP account for IAM, update the IAM database")
def names(walk: Walk) -> str:
    query = "SELECT display_name FROM accounts_user WHERE username = ?"
    eventually(lambda: walk.rows(query, walk.user) == [(NEW_NAME,)], "the new name in the portal")
    return NEW_NAME


@FLOW.step("4", "Worker: read all users' SSH public keys from the database and encode them as JSON")
def encoded(walk: Walk) -> str:
    revision, digest = walk.rows(
        "SELECT applied_revision, applied_digest FROM servers_serverstate s"
        " JOIN servers_server v ON v.id = s.server_id WHERE v.name = 'gpu17'"
    )[0]
    assert revision == walk.rows("SELECT number FROM accounts_revision")[0][0]
    assert len(digest) == 64
    return f"revision {revision}, sha256 {digest[:12]}…"


@FLOW.step("5", "Worker: `ssh iam@172.16.2.xxx` with the IAM SSH key to each server and send the JSON")
def sent(walk: Walk) -> str:
    for server in walk.lab.servers.values():
        lines = walk.journal("_COMM=sshd", "Accepted publickey for iam from 172.16.2.[0-9]+ ", server)
        assert lines, f"nobody logged in to {server.name}"
    return "gpu17 and gpu18 were visited"


@FLOW.step("6", "Server: sshd validates the key in /home/iam/.ssh/authorized_keys")
def validated(walk: Walk) -> str:
    key = walk.server.file("/home/iam/.ssh/authorized_keys").split()
    assert key[0] == "restrict", key
    fingerprint = walk.server.run("ssh-keygen -lf /home/iam/.ssh/authorized_keys").stdout.split()[1]
    assert walk.journal("_COMM=sshd", f"Accepted publickey for iam from .* {fingerprint.replace('+', '[+]')}")
    return fingerprint


@FLOW.step("7", "Server: run the custom shell /home/iam/iam-shell.bash as iam")
def shell(walk: Walk) -> str:
    assert walk.server.run("getent passwd iam").stdout.strip().endswith(":/home/iam/iam-shell.bash")
    return "/home/iam/iam-shell.bash"


@FLOW.step("8", "Server: run /home/iam/set_authorized_keys.py as root")
def as_root(walk: Walk) -> str:
    assert "/home/iam/set_authorized_keys.py" in walk.commands_by("iam"), walk.commands_by("iam")
    return "sudo logged /home/iam/set_authorized_keys.py"


@FLOW.step("9", "Server: write SSH public keys to each user account")
def written(walk: Walk) -> str:
    row = walk.rows(
        "SELECT results FROM servers_push s JOIN servers_server v ON v.id = s.server_id"
        " WHERE v.name = 'gpu17' ORDER BY s.id DESC LIMIT 1"
    )
    result = json.loads(row[0][0])[walk.user]
    assert {result["host"], result["container"]} <= {"written", "unchanged"}, result
    return f"the server answered: host {result['host']}, container {result['container']}"


def both_keys(walk: Walk) -> set[str]:
    return {body(walk.person.public_key), body(walk.seen["second key"])}


@FLOW.step("9a", "    of the host: /home/lqchen/.ssh/authorized_keys")
def on_host(walk: Walk) -> str:
    path = f"/home/{walk.user}/.ssh/authorized_keys"
    lines = walk.server.file(path).splitlines()
    assert {body(line.removeprefix("restrict,pty ")) for line in lines} == both_keys(walk), lines
    assert walk.server.status(path) == "root root 644"
    return "2 keys, root's, 644"


@FLOW.step("9b", "    of the container: …/lqchen/rootfs/home/lqchen/.ssh/authorized_keys")
def in_container(walk: Walk) -> str:
    path = f"{walk.rootfs}/home/{walk.user}/.ssh/authorized_keys"
    assert {body(line) for line in walk.server.file(path).splitlines()} == both_keys(walk)
    owner = walk.subuid + 1000
    assert walk.server.run(f"stat -c '%u:%g %a' {path}").stdout.strip() == f"{owner}:{owner} 600"
    walk.person.ssh("gpu17", "true", key=SECOND)
    return "2 keys, and the second one opens a session"


@FLOW.step("10", "Server: merge all users' keys and write them to /home/register/.ssh/authorized_keys")
def merged(walk: Walk) -> str:
    for server in walk.lab.servers.values():
        lines = server.file("/home/register/.ssh/authorized_keys").splitlines()
        forced = f'restrict,command="/home/register/register.bash {walk.user}" '
        assert {f"{forced}{key}" for key in both_keys(walk)} <= set(lines), lines
    return "both keys on both servers, each tied to its person"
