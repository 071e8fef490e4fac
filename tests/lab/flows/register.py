"""Register a Container on a Server."""

from tests.lab.nvidia import DEVICES
from tests.lab.walk import Flow, Walk, body

FLOW = Flow("Register a Container on a Server")


@FLOW.step("1", "User: `ssh register@gpu17-manage lqchen` with the SSH key")
def ask(walk: Walk) -> str:
    done = walk.person.ssh("register@gpu17-manage", walk.user, timeout=120)
    walk.seen["register"] = done.stdout + done.stderr
    return "exit status 0"


@FLOW.step("2", "Server: sshd validates the key in /home/register/.ssh/authorized_keys")
def validated(walk: Walk) -> str:
    assert walk.journal("_COMM=sshd", "Accepted publickey for register from 172.16.2.1 ")
    lines = walk.server.file("/home/register/.ssh/authorized_keys").splitlines()
    forced = f'restrict,command="/home/register/register.bash {walk.user}" {body(walk.person.public_key)}'
    assert lines == [forced], lines
    return "Accepted publickey for register; the key proves one identity"


@FLOW.step("3", "Server: run the custom shell /home/register/register.bash as register")
def shell(walk: Walk) -> str:
    entry = walk.server.run("getent passwd register").stdout.strip()
    assert entry.endswith(":/home/register/register.bash"), entry
    assert walk.commands_by("register"), "register.bash did not call sudo"
    return entry.rpartition(":")[2]


@FLOW.step("4", "Server: run /root/new-lxc.bash as root")
def as_root(walk: Walk) -> str:
    assert walk.commands_by("register") == ["/root/new-lxc.bash --stdin"], walk.commands_by("register")
    return "sudo logged /root/new-lxc.bash"


@FLOW.step("5", "Server: curl IAM to know the port, subuid, .ssh/authorized_keys and .ssh/config")
def curled(walk: Walk) -> str:
    for path in ("port", "subuid", ".ssh/authorized_keys", ".ssh/config"):
        seen = walk.requests_from(walk.server.address, f"/user/{walk.user}/{path}")
        assert any("curl/" in line for line in seen), f"{path} was not requested"
    return "four requests by curl from 172.16.2.17"


@FLOW.step("6", "Server: create the user account on the host machine")
def account(walk: Walk) -> str:
    uid = walk.server.run(f"id -u {walk.user}").stdout.strip()
    assert int(uid) >= 1000
    return f"uid {uid}"


@FLOW.step("6a", "    add to the sudo group")
def groups(walk: Walk) -> str:
    assert "sudo" in walk.server.run(f"id -nG {walk.user}").stdout.split()
    password = walk.server.run(f"getent shadow {walk.user}").stdout.split(":")[1]
    assert password == "*", "the password is not locked"
    return "in sudo, with a locked password"


@FLOW.step("6b", "    set subuid and subgid")
def subuid(walk: Walk) -> str:
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = [line for line in walk.server.file(file).splitlines() if line.startswith(f"{walk.user}:")]
        assert lines == [f"{walk.user}:{walk.subuid}:65536"], lines
    return f"{walk.user}:{walk.subuid}:65536"


@FLOW.step("6c", "    save .ssh/authorized_keys")
def host_keys(walk: Walk) -> str:
    path = f"/home/{walk.user}/.ssh/authorized_keys"
    assert walk.server.file(path) == f"restrict,pty {body(walk.person.public_key)}\n"
    assert walk.server.status(path) == "root root 644", walk.server.status(path)
    return "root's, 644: read by the user, changed by nobody else"


@FLOW.step("6d", "    grant LXC virtual network permission in /etc/lxc/lxc-usernet")
def usernet(walk: Walk) -> str:
    lines = [line.split() for line in walk.server.file("/etc/lxc/lxc-usernet").splitlines()]
    bridge = f"lxc-u{walk.server.run(f'id -u {walk.user}').stdout.strip()}"
    assert [walk.user, "veth", bridge, "1"] in lines, lines
    return f"{walk.user} veth {bridge} 1"


@FLOW.step("7", "Server: clone a container from the template")
def clone(walk: Walk) -> str:
    return "into " + walk.rootfs


@FLOW.step("7a", "    decompress the template container")
def decompressed(walk: Walk) -> str:
    owner = walk.server.run(f"stat -c '%u:%g' {walk.rootfs}").stdout.strip()
    assert owner == f"{walk.subuid}:{walk.subuid}", owner
    sudo = walk.server.run(f"stat -c '%u %a' {walk.rootfs}/usr/bin/sudo").stdout.split()
    assert sudo == [str(walk.subuid), "4755"], sudo
    return "a Debian, owned by the mapped root, setuid bits kept"


@FLOW.step("7b", "    fill the LXC configuration file: subuid, subgid, rootfs, hostname, NVIDIA device mount points")
def configuration(walk: Walk) -> str:
    path = f"/home/{walk.user}/.local/share/lxc/{walk.user}/config"
    lines = walk.server.file(path).splitlines()
    for wanted in (
        f"lxc.idmap = u 0 {walk.subuid} 65536",
        f"lxc.idmap = g 0 {walk.subuid} 65536",
        f"lxc.rootfs.path = dir:{walk.rootfs}",
        "lxc.uts.name = gpu17",
        *(f"lxc.mount.entry = /dev/{name} dev/{name} none bind,optional,create=file 0 0" for name in DEVICES),
    ):
        assert wanted in lines, wanted
    assert walk.server.status(path).startswith("root "), walk.server.status(path)
    return "all five, in a file that only root writes"


@FLOW.step("8", "Server: lxc-start the container")
def started(walk: Walk) -> str:
    machine_id = walk.server.file(f"{walk.rootfs}/etc/machine-id").strip()
    assert len(machine_id) == 32, "the container has never booted"
    keys = walk.server.run(f"ls {walk.rootfs}/etc/ssh/").stdout
    assert "ssh_host_ed25519_key" in keys
    return "it booted: machine-id and SSH host keys of its own"


@FLOW.step("9", "Container: create the user account inside the container")
def inside(walk: Walk) -> str:
    entry = [
        line for line in walk.server.file(f"{walk.rootfs}/etc/passwd").splitlines() if line.startswith(f"{walk.user}:")
    ]
    assert len(entry) == 1 and entry[0].split(":")[2] == "1000", entry
    return entry[0]


@FLOW.step("9a", "    add to the sudo group")
def inside_group(walk: Walk) -> str:
    line = walk.server.run(f"grep ^sudo: {walk.rootfs}/etc/group").stdout.strip()
    assert walk.user in line.rpartition(":")[2].split(","), line
    return line


@FLOW.step("9b", "    save .ssh/authorized_keys and .ssh/config")
def inside_files(walk: Walk) -> str:
    folder = f"{walk.rootfs}/home/{walk.user}/.ssh"
    owner = walk.subuid + 1000
    assert body(walk.server.file(f"{folder}/authorized_keys")) == body(walk.person.public_key)
    assert walk.server.file(f"{folder}/config") == walk.person.config.read_text()
    for name in ("authorized_keys", "config"):
        seen = walk.server.run(f"stat -c '%u:%g %a' {folder}/{name}").stdout.strip()
        assert seen == f"{owner}:{owner} 600", seen
    return f"both owned by uid {owner}, which is 1000 inside, mode 600"


@FLOW.step("10", "Server: lxc-stop the container")
def stopped(walk: Walk) -> str:
    assert walk.container_state() == "STOPPED", walk.container_state()
    return "STOPPED"


@FLOW.step("11", "Server: set the default shell of the user to the custom shell /public/login.bash")
def login_shell(walk: Walk) -> str:
    entry = walk.server.run(f"getent passwd {walk.user}").stdout.strip()
    assert entry.endswith(":/public/login.bash"), entry
    return "/public/login.bash"
