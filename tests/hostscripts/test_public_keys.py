"""Cases K1-K5 on the host, as if the portal checked nothing, and the line of a key in each file."""

import base64
import subprocess
from pathlib import Path

import pytest
from labhost.keys import public_keys
from labhost.keys.public_keys import BadKey, PublicKey

from tests.hostscripts import public_keys as samples

GOOD = [
    samples.ed25519(),
    samples.sk_ed25519(),
    samples.ecdsa("nistp256", 32),
    samples.ecdsa("nistp384", 48),
    samples.ecdsa("nistp521", 66),
    samples.ecdsa("nistp256", 32, "sk-ecdsa-sha2-nistp256@openssh.com", tail=samples.string(b"ssh:")),
    samples.rsa(3072),
    samples.rsa(4096),
]


@pytest.mark.parametrize("entry", GOOD, ids=lambda entry: entry["type"])
def test_k1_every_allowed_type_is_accepted(entry: dict[str, str]) -> None:
    assert public_keys.check_entry(entry) == PublicKey(entry["type"], entry["blob"], entry["comment"])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_k1_the_fingerprint_equals_the_one_of_ssh_keygen(tmp_path: Path, kind: str) -> None:
    size = ["-b", "3072"] if kind == "rsa" else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-f", tmp_path / "key"], check=True, timeout=60)
    [key], _ = public_keys.judge_lines((tmp_path / "key.pub").read_text())
    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[1] == key.fingerprint


COMMENTS = {
    "two\nlines": "two?lines",
    "a\rb": "a?b",
    "\x1b[2J\x85": "?[2J?",
    "x" * 2000: "x" * public_keys.COMMENT_MOST,
    "\u2028\ud800": "??",
    "caf\u00e9 \U0001fae9 \U0001ccd5": "caf\u00e9 \U0001fae9 \U0001ccd5",  # of Unicode 16: new to many Pythons
}


@pytest.mark.parametrize("comment", COMMENTS, ids=ascii)
def test_k3_z4_any_comment_is_accepted_and_written_as_one_printable_line(comment: str) -> None:
    key = public_keys.check_entry(samples.ed25519() | {"comment": comment})
    assert key.comment == comment, "the digest covers what the portal sent"
    assert public_keys.render_container([key]) == f"{key.type} {key.blob} {COMMENTS[comment]}\n"


def _raw(entry: dict[str, str]) -> bytes:
    return base64.b64decode(entry["blob"])


def _with(entry: dict[str, str], data: bytes) -> dict[str, str]:
    return entry | {"blob": base64.b64encode(data).decode()}


@pytest.mark.parametrize("entry", GOOD, ids=lambda entry: entry["type"])
def test_k4_a_truncated_key_or_one_with_trailing_bytes_is_refused(entry: dict[str, str]) -> None:
    for cut in (1, 5, len(_raw(entry)) - 3):
        with pytest.raises(BadKey):
            public_keys.check_entry(_with(entry, _raw(entry)[:-cut]))
    with pytest.raises(BadKey, match="after the key"):
        public_keys.check_entry(_with(entry, _raw(entry) + b"\0"))


def test_k4_a_type_that_differs_from_the_blob_is_refused() -> None:
    with pytest.raises(BadKey, match="differs"):
        public_keys.check_entry(samples.ed25519() | {"type": "ssh-rsa"})
    with pytest.raises(BadKey, match="curve"):
        public_keys.check_entry(samples.ecdsa("nistp256", 32, "ecdsa-sha2-nistp384"))


NOT_CANONICAL = [lambda blob: blob + "=", lambda blob: blob[:10] + "\n" + blob[10:], lambda blob: " " + blob, str.lower]


@pytest.mark.parametrize("change", NOT_CANONICAL)
def test_k4_base64_must_be_canonical(change) -> None:  # type: ignore[no-untyped-def]
    entry = samples.rsa(3072)
    with pytest.raises(BadKey):
        public_keys.check_entry(entry | {"blob": change(entry["blob"])})


@pytest.mark.parametrize("bits", [1024, 2048, 3071])
def test_k5_a_short_rsa_key_is_refused(bits: int) -> None:
    with pytest.raises(BadKey, match=f"{bits} bits"):
        public_keys.check_entry(samples.rsa(bits))


@pytest.mark.parametrize("exponent", [1, 4])
def test_k5_an_insecure_rsa_exponent_is_refused(exponent: int) -> None:
    with pytest.raises(BadKey):
        public_keys.check_entry(samples.rsa(3072, exponent=exponent))


@pytest.mark.parametrize("kind", ["ssh-dss", "ssh-ed25519-cert-v01@openssh.com", 'restrict,command="id" ssh-ed25519'])
def test_k5_other_types_are_refused(kind: str) -> None:
    entry = {"type": kind, "blob": samples.blob(samples.string(kind.encode())), "comment": ""}
    with pytest.raises(BadKey, match="not allowed"):
        public_keys.check_entry(entry)


@pytest.mark.parametrize("entry", [None, [], "key", {}, {"type": "ssh-ed25519"}, samples.ed25519() | {"options": "x"}])
def test_an_entry_is_exactly_type_blob_and_comment(entry: object) -> None:
    with pytest.raises(BadKey):
        public_keys.check_entry(entry)


def test_keys_beyond_the_limit_are_refused_and_repeated_ones_count_once() -> None:
    many = [samples.ed25519(seed) for seed in range(public_keys.KEYS_MOST + 2)]
    keys, refused = public_keys.judge_entries(many + many)
    assert [key.blob for key in keys] == [entry["blob"] for entry in many[:-2]]
    assert {blob: error.reason for blob, error in refused.items()} == dict.fromkeys(
        (entry["blob"] for entry in many[-2:]), "keys_too_many"
    )
    assert len(public_keys.judge_entries([samples.ed25519()] * 3)[0]) == 1


def test_z4_a_bad_key_costs_no_other_key() -> None:
    bad = [samples.rsa(1024), {"type": "ssh-ed25519", "blob": 5}, "nonsense", samples.ed25519(2) | {"from": "x"}]
    keys, refused = public_keys.judge_entries([samples.ed25519(1), *bad, samples.ed25519(3)])
    assert [key.blob for key in keys] == [samples.ed25519(seed)["blob"] for seed in (1, 3)]
    assert {blob: error.reason for blob, error in refused.items()} == {
        samples.rsa(1024)["blob"]: "key_size",
        "": "key_fields",
        samples.ed25519(2)["blob"]: "key_fields",
    }


def test_z4_lines_of_the_portals_page_are_judged_one_by_one() -> None:
    entry = samples.ed25519(1)
    text = f"{entry['type']} {entry['blob']} two\x85parts\u2028\nssh-ed25519 AAAA\nx\n"
    keys, refused = public_keys.judge_lines(text)
    assert [key.comment for key in keys] == ["two\x85parts\u2028"] and refused.keys() == {"AAAA", ""}


def test_the_fingerprint_of_a_refused_key() -> None:
    entry = samples.ed25519(1)
    assert public_keys.fingerprint_of(entry["blob"]) == public_keys.check_entry(entry).fingerprint
    assert [public_keys.fingerprint_of(blob) for blob in ("", "A", "\ud800")] == ["", "", ""]


def test_lines_are_rebuilt_from_the_parts() -> None:
    [key], _ = public_keys.judge_entries([samples.ed25519()])
    assert public_keys.render_host([key]) == f"restrict,pty ssh-ed25519 {key.blob}\n"
    assert public_keys.render_container([key]) == f"ssh-ed25519 {key.blob} laptop 1\n"
    assert public_keys.render_iam(key) == f"restrict ssh-ed25519 {key.blob} lab-iam\n"
    command = 'restrict,command="/home/register/register.bash lqchen"'
    assert public_keys.KeyMap(lqchen=(key,)).render_register() == f"{command} ssh-ed25519 {key.blob}\n"


def test_k3_n_keys_give_n_lines_in_every_file() -> None:
    held, _ = public_keys.judge_entries(GOOD)
    for text in (
        public_keys.render_host(held),
        public_keys.render_container(held),
        public_keys.KeyMap(a=held).render_register(),
    ):
        assert len(text.splitlines()) == len(GOOD) and text.endswith("\n")
