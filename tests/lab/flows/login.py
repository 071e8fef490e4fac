"""Login the Container."""

from tests.lab.walk import Flow, Walk

FLOW = Flow("Login the Container")


@FLOW.step("1", "User: `ssh gpu17` with the SSH key")
def ask(walk: Walk) -> str:
    done = walk.person.ssh("gpu17", "id -un; hostname; cat /proc/self/uid_map; sudo -n id -u; echo $0; nproc")
    walk.seen["login"] = done.stdout.splitlines()
    return f"{walk.seen['login'][0]}@{walk.seen['login'][1]}"


@FLOW.step("2", "Server: forward 172.16.2.17:22031 to the container's port 22")
def forwarded(walk: Walk) -> str:
    counters = walk.server.run(f"iptables -t nat -vnxL LAB-IAM-PRE | grep 'dpt:{walk.port} '").stdout.split()
    assert int(counters[0]) >= 1, counters
    return f"{counters[0]} connection(s) through the rule"


@FLOW.step("3", "Container: sshd validates the key in /home/lqchen/.ssh/authorized_keys")
def validated(walk: Walk) -> str:
    log = walk.person.ssh("gpu17", "sudo journalctl -b -o cat --no-pager _COMM=sshd").stdout
    assert f"Accepted publickey for {walk.user} from 172.16.2.1 " in log, log
    return "the container's own sshd accepted it, and saw the user's real address"


@FLOW.step("4", "Container: run the user shell, e.g. bash")
def shell(walk: Walk) -> str:
    name, host, uid_map, root, shell, _ = walk.seen["login"]
    assert (name, host, root) == (walk.user, "gpu17", "0"), walk.seen["login"]
    assert uid_map.split() == ["0", str(walk.subuid), "65536"], uid_map
    assert shell.endswith("bash"), shell
    return "bash as lqchen, passwordless sudo, inside the user's own id map"
