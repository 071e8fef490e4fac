"""Start the Container."""

from tests.lab.nvidia import LIBRARIES, VERSION
from tests.lab.walk import Flow, Walk

FLOW = Flow("Start the Container")


@FLOW.step("1", "User: `ssh gpu17-manage` with the SSH key")
def ask(walk: Walk) -> str:
    path = f"/user/{walk.user}/port"
    walk.seen["asked before"] = len(walk.requests_from(walk.server.address, path))
    done = walk.person.ssh("gpu17-manage", timeout=120)
    walk.seen["start"] = done.stdout
    return (done.stdout.strip().splitlines() or ["exit status 0"])[-1]


@FLOW.step("2", "Server: sshd validates the key in /home/lqchen/.ssh/authorized_keys")
def validated(walk: Walk) -> str:
    assert walk.journal("_COMM=sshd", f"Accepted publickey for {walk.user} from 172.16.2.1 ")
    return f"Accepted publickey for {walk.user}"


@FLOW.step("3", "Server: do_start() in the custom shell /public/login.bash")
def do_start(walk: Walk) -> str:
    assert "do_start()" in walk.server.file("/public/login.bash")
    commands = walk.commands_by(walk.user)
    assert commands[-1] == "/usr/local/sbin/labhost user start", commands
    return "sudo logged its one helper"


@FLOW.step("4", "Server: curl http://iam.mylab.com/user/lqchen/port to know the port number")
def curled(walk: Walk) -> str:
    asked = walk.requests_from(walk.server.address, f"/user/{walk.user}/port")
    assert len(asked) > walk.seen["asked before"], "start did not request the port"
    return f"answered {walk.port}"


@FLOW.step("4b", "Server: lxc-start and wait until the container is up")
def up(walk: Walk) -> str:
    assert walk.container_state() == "RUNNING", walk.container_state()
    return "RUNNING"


@FLOW.step("5", "Server: check if the NVIDIA driver inside the container matches the host's")
def driver(walk: Walk) -> str:
    host = walk.server.run(f"readlink /{LIBRARIES}/libcuda.so.1").stdout.strip()
    assert host == f"libcuda.so.{VERSION}", host
    return f"host {VERSION}, the container had none"


@FLOW.step("5a", "    if not, install the same version of the driver inside the container (a stand-in installer)")
def installed(walk: Walk) -> str:
    inside = walk.server.run(f"readlink {walk.rootfs}/{LIBRARIES}/libcuda.so.1").stdout.strip()
    assert inside == f"libcuda.so.{VERSION}", inside
    ran_in = walk.server.file(f"{walk.rootfs}/var/log/nvidia-installer.log").split()
    assert ran_in[:3] == ["0", str(walk.subuid), "65536"], ran_in
    return f"{VERSION} inside, installed by a process in the container's user namespace"


@FLOW.step("6", "Server: lxc-info to know the IP of the container")
def address(walk: Walk) -> str:
    walk.seen["address"] = (walk.lxc_info("-iH").split() or [""])[0]
    assert walk.seen["address"].startswith("10.0.3."), walk.seen["address"]
    return str(walk.seen["address"])


@FLOW.step("7", "Server: iptables map 172.16.2.17:22031 to the container's port 22")
def mapped(walk: Walk) -> str:
    rules = walk.server.run("iptables-save -t nat").stdout.splitlines()
    target = f"--dport {walk.port} -j DNAT --to-destination {walk.seen['address']}:22"
    found = [rule for rule in rules if target in rule and f"-d {walk.server.address}/32" in rule]
    assert found, rules
    return found[0]
