"""A real OpenLDAP server: slapd with StartTLS and LDAPS, its own certificate authority, people and a staff group."""

import contextlib
import datetime
import ipaddress
import os
import re
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ldap
import ldap.modlist
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab.processes import Daemon, wait_for_port

SLAPD = shutil.which("slapd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
BASE = "dc=mylab,dc=com"
PEOPLE = f"ou=people,{BASE}"
GROUPS = f"ou=groups,{BASE}"
STAFF_GROUP = f"cn=lab-admins,{GROUPS}"
IAM = f"cn=iam,{BASE}"
MANAGER = f"cn=manager,{BASE}"

# Marks in slapd's log, one for each of these operations.
CONNECTION, SEARCH, BIND = " ACCEPT from ", " SRCH base=", " method=128"

# People may only prove their passwords; the portal's account may read everything but those.
CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
sizelimit 500
database mdb
suffix "{base}"
rootdn "{manager}"
rootpw {password}
directory {folder}/database
maxsize 67108864
dbnosync
index objectClass,uid,entryUUID,member eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{iam}" read by * none
"""


class Directory:
    """Stored in `folder`; listens on `address`: `port` for plain and StartTLS, `tls_port` for LDAPS."""

    def __init__(self, folder: Path, address: str, port: int) -> None:
        self.folder, self.address, self.port = folder, address, port
        self.tls_port = 636 if port == 389 else port + 1
        self.url, self.tls_url = f"ldap://{address}:{port}", f"ldaps://{address}:{self.tls_port}"
        self.ca_file = folder / "ca.pem"
        self.daemon = Daemon("slapd", folder)

    def portal_settings(self) -> dict[str, str]:
        """The portal's environment variables for this directory over StartTLS."""
        return {
            "LDAP_URL": self.url,
            "LDAP_START_TLS": "true",
            "LDAP_CA_FILE": str(self.ca_file),
            "LDAP_BIND_DN": IAM,
            "LDAP_BIND_PASSWORD_FILE": str(self.folder / "iam_password"),
            "LDAP_USER_BASE": PEOPLE,
            "LDAP_STAFF_GROUP": STAFF_GROUP,
        }

    def start(self) -> None:
        """Start it. The first start also creates the portal's account and the empty groups."""
        if SLAPD is None:
            raise FileNotFoundError("slapd is missing: apt-get install --no-install-recommends slapd")
        is_new = not (self.folder / "database").exists()
        if is_new:
            self._write_files()
        urls = f"{self.url}/ {self.tls_url}/"
        argv = [SLAPD, "-d", "stats", "-f", str(self.folder / "slapd.conf"), "-h", urls]
        self.daemon.start(argv, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, cwd=self.folder)
        wait_for_port(self.address, self.port, self.daemon.log)
        if is_new:
            self._fill()

    def stop(self) -> None:
        self.daemon.stop()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It accepts connections and answers nothing."""
        pid = self.daemon.pid
        assert pid is not None, "slapd is not running"
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def add_user(self, name: str, full_name: str, password: str) -> None:
        self.add_users({name: (full_name, password)})

    def add_users(self, people: Mapping[str, tuple[str, str]]) -> None:
        """Add many people at once: name to full name and password."""
        with self._manager() as connection:
            for name, (full_name, password) in people.items():
                _add(
                    connection,
                    self.dn(name),
                    {
                        "objectClass": ["inetOrgPerson"],
                        "uid": [name],
                        "cn": [full_name],
                        "sn": [full_name.split()[-1]],
                        "userPassword": [password],
                    },
                )

    def remove_user(self, name: str) -> None:
        with self._manager() as connection:
            connection.delete_s(self.dn(name))

    def rename(self, name: str, full_name: str) -> None:
        self._replace(name, "cn", full_name)

    def set_password(self, name: str, password: str) -> None:
        self._replace(name, "userPassword", password)

    def disable(self, name: str) -> None:
        """Disable a person as administrators of OpenLDAP without overlays do: set a random password."""
        self.set_password(name, secrets.token_hex(16))

    def add_staff(self, name: str) -> None:
        with self._manager() as connection:
            connection.modify_s(STAFF_GROUP, [(ldap.MOD_ADD, "member", self.dn(name).encode())])

    def remove_staff(self, name: str) -> None:
        with self._manager() as connection:
            connection.modify_s(STAFF_GROUP, [(ldap.MOD_DELETE, "member", self.dn(name).encode())])

    def clear(self) -> None:
        """Remove all people, also from the staff group."""
        with self._manager() as connection:
            for dn, _ in connection.search_s(PEOPLE, ldap.SCOPE_ONELEVEL, attrlist=["1.1"]):
                connection.delete_s(dn)
            connection.modify_s(STAFF_GROUP, [(ldap.MOD_REPLACE, "member", MANAGER.encode())])

    def dn(self, name: str) -> str:
        return f"uid={name},{PEOPLE}"

    def binds_of(self, name: str) -> list[int]:
        """Result codes of all binds as this person, in order: 0 accepted, 49 wrong password (RFC 4511)."""
        log = self.daemon.log.read_text(errors="replace")
        dn = re.escape(self.dn(name))
        operations = re.findall(rf'(conn=\d+ op=\d+) BIND dn="{dn}" method=128', log, re.IGNORECASE)
        return [
            int(code)
            for operation in operations
            for code in re.findall(rf"{operation} RESULT tag=97 err=(\d+)", log)[:1]
        ]

    def count(self, mark: str) -> int:
        """How many times slapd has logged this mark: CONNECTION, SEARCH or BIND."""
        return self.daemon.log.read_text(errors="replace").count(mark)

    def _replace(self, name: str, attribute: str, value: str) -> None:
        with self._manager() as connection:
            connection.modify_s(self.dn(name), [(ldap.MOD_REPLACE, attribute, value.encode())])

    @contextlib.contextmanager
    def _manager(self) -> Iterator[Any]:
        connection = ldap.initialize(self.url)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, 10.0)
        connection.simple_bind_s(MANAGER, (self.folder / "manager_password").read_text())
        try:
            yield connection
        finally:
            connection.unbind_s()

    def _write_files(self) -> None:
        (self.folder / "database").mkdir(parents=True)
        for name in ("manager_password", "iam_password"):
            (self.folder / name).touch(mode=0o600)
            (self.folder / name).write_text(secrets.token_urlsafe(24))
        password = (self.folder / "manager_password").read_text()
        values = {"folder": self.folder, "base": BASE, "manager": MANAGER, "iam": IAM, "password": password}
        (self.folder / "slapd.conf").touch(mode=0o600)
        (self.folder / "slapd.conf").write_text(CONFIGURATION.format(**values))
        make_certificates(self.folder, [self.address, "ldap.mylab.com", "localhost"])

    def _fill(self) -> None:
        password = (self.folder / "iam_password").read_text()
        account = ["applicationProcess", "simpleSecurityObject"]
        with self._manager() as connection:
            _add(connection, BASE, {"objectClass": ["domain"], "dc": ["mylab"]})
            _add(connection, PEOPLE, {"objectClass": ["organizationalUnit"], "ou": ["people"]})
            _add(connection, GROUPS, {"objectClass": ["organizationalUnit"], "ou": ["groups"]})
            # A groupOfNames must have a member.
            group = {"objectClass": ["groupOfNames"], "cn": ["lab-admins"], "member": [MANAGER]}
            _add(connection, STAFF_GROUP, group)
            _add(connection, IAM, {"objectClass": account, "cn": ["iam"], "userPassword": [password]})


def _add(connection: Any, dn: str, attributes: Mapping[str, list[str]]) -> None:
    encoded = {name: [value.encode() for value in values] for name, values in attributes.items()}
    connection.add_s(dn, ldap.modlist.addModlist(encoded))


def make_certificates(folder: Path, names: list[str]) -> None:
    """Write ca.pem, server.pem and server.key: a new authority and its certificate for these names."""
    authority = ec.generate_private_key(ec.SECP256R1())
    server = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority of the lab")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[-1])])
    root = _certificate(issuer, issuer, authority.public_key())
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    leaf = _certificate(subject, issuer, server.public_key())
    leaf = leaf.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(root.sign(authority, hashes.SHA256()).public_bytes(pem))
    (folder / "server.pem").write_bytes(leaf.sign(authority, hashes.SHA256()).public_bytes(pem))
    (folder / "server.key").touch(mode=0o600)
    plain = serialization.NoEncryption()
    (folder / "server.key").write_bytes(server.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
