import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import sshkeys
from accounts.sshkeys import KeyRefused, PrivateKeyPasted, parse
from tests.accounts import keys

MAKERS = {
    "ed25519": lambda: keys.line(),
    "ecdsa-256": lambda: keys.generated("ecdsa", 256)[0],
    "ecdsa-384": lambda: keys.generated("ecdsa", 384)[0],
    "ecdsa-521": lambda: keys.generated("ecdsa", 521)[0],
    "rsa-3072": lambda: keys.generated("rsa", 3072)[0],
    "rsa-4096": lambda: keys.generated("rsa", 4096)[0],
    "sk-ed25519": keys.sk_ed25519,
    "sk-ecdsa": keys.sk_ecdsa,
}


def refusal(pasted: str) -> str:
    with pytest.raises(KeyRefused) as caught:
        parse(pasted)
    return str(caught.value)


@pytest.mark.parametrize("kind", MAKERS)
def test_k1_good_keys_are_accepted_and_their_fingerprint_is_that_of_ssh_keygen(kind: str) -> None:
    line = MAKERS[kind]()
    [key] = parse(line)
    assert key.line == line
    assert key.fingerprint == keys.fingerprint(line)


@pytest.mark.parametrize(
    "prefix",
    [
        'command="/bin/sh"',
        'from="10.0.0.1"',
        'environment="A=b c"',
        "cert-authority",
        "restrict",
        "no-pty,restrict",
        'principals="root"',
        "@revoked *",
    ],
)
def test_k2_option_prefix_is_refused(prefix: str) -> None:
    assert "options before the key" in refusal(f"{prefix} {keys.line()}")


@pytest.mark.parametrize("character", "\r\v\f\0\x1b\x7f\t\x85\u2028\u2029\u202e\u200b\ud800")
def test_k3_a_control_character_inside_a_line_is_refused(character: str) -> None:
    type_, blob, comment = keys.line().split()
    assert "plain text" in refusal(f"{type_} {blob} {comment[:2]}{character}{comment[2:]}")


def test_k3_a_carriage_return_cannot_smuggle_a_second_line() -> None:
    refusal(f'{keys.line()}\rcommand="id" {keys.line(1)}')


def test_k3_n_keys_give_n_lines() -> None:
    found = parse("\n".join(keys.line(number) for number in range(3)))
    assert [key.line for key in found] == [keys.line(number) for number in range(3)]
    assert all("\n" not in key.line for key in found)


def test_the_same_key_twice_is_one_key() -> None:
    assert len(parse(f"{keys.line()}\n{keys.line()} again")) == 1


@pytest.mark.parametrize("other", ["ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"])
def test_k4_type_and_blob_disagree(other: str) -> None:
    _, blob, _ = keys.line().split()
    assert "copy" in refusal(f"{other} {blob}")


@pytest.mark.parametrize("kind", MAKERS)
def test_k4_truncated_or_with_trailing_bytes(kind: str) -> None:
    type_, blob = MAKERS[kind]().split()[:2]
    raw = base64.b64decode(blob)
    for changed in (raw[:-1], raw[:20], raw[:5], raw + b"\0", raw + keys.string(b"more"), b""):
        refusal(f"{type_} {base64.b64encode(changed).decode()}")


def test_k4_base64_must_be_canonical() -> None:
    type_, blob, _ = keys.line().split()
    for spoilt in (blob[:-1], blob + "=", blob[:10] + "!" + blob[11:], blob[:10] + " " + blob[10:]):
        refusal(f"{type_} {spoilt}")


def test_k4_base64_with_unused_bits_set() -> None:
    """The blob of ecdsa-521 ends in "=="; other values of the unused bits before it decode to the same key."""
    type_, blob, *_ = keys.generated("ecdsa", 521)[0].split()
    assert blob.endswith("==")
    other = blob[:-3] + chr(ord(blob[-3]) + 1) + "=="
    assert base64.b64decode(other) == base64.b64decode(blob)
    refusal(f"{type_} {other}")


def test_k4_a_point_that_is_not_on_the_curve() -> None:
    type_, blob = keys.sk_ecdsa().split()[:2]
    raw = bytearray(base64.b64decode(blob))
    raw[-20] ^= 1
    refusal(f"{type_} {base64.b64encode(bytes(raw)).decode()}")


@pytest.mark.parametrize("application", [b"", b"https://example.org", b"ssh:" + b"x" * 300, "ssh:é".encode()])
def test_k4_a_security_key_of_another_application(application: bytes) -> None:
    refusal(keys.sk_ed25519(application))
    refusal(keys.sk_ecdsa(application))


def test_k5_dsa_is_refused() -> None:
    assert "DSA" in refusal(keys.as_line("ssh-dss", b"\x01" * 129, b"\x01" * 21, b"\x01" * 129, b"\x01" * 129))


@pytest.mark.parametrize("bits", [1024, 2048])
def test_k5_a_short_rsa_key_is_refused(bits: int) -> None:
    assert f"{bits} bits" in refusal(keys.generated("rsa", bits)[0])


def test_k5_a_certificate_is_refused() -> None:
    _, blob, _ = keys.line().split()
    assert "certificates" in refusal(f"ssh-ed25519-cert-v01@openssh.com {blob}")


PUTTY = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\nAAAAINotReal\n"


PRIVATE = {
    "openssh": lambda: keys.private(),
    "openssh rsa": lambda: keys.private("rsa", 3072),
    "only the body": lambda: "\n".join(keys.private().splitlines()[1:-1]),
    "after a public one": lambda: f"{keys.line()}\n{keys.private()}",
    "pem rsa": lambda: "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "pem ec": lambda: "-----BEGIN EC PRIVATE KEY-----\nMHcC\n",
    "pkcs8": lambda: "-----BEGIN PRIVATE KEY-----\nMC4C\n",
    "pkcs8 encrypted": lambda: "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIF\n",
    "ssh2": lambda: "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n",
    "putty": lambda: PUTTY,
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_k6_a_private_key_is_refused_with_a_warning_and_not_repeated(kind: str) -> None:
    pasted = PRIVATE[kind]()
    with pytest.raises(PrivateKeyPasted) as caught:
        parse(pasted)
    message = str(caught.value)
    assert "PRIVATE" in message and "ssh-keygen -y" in message and "puttygen" in message
    assert not [line for line in pasted.splitlines() if len(line) > 8 and line in message]


def test_k6_a_comment_that_mentions_a_private_key_is_accepted() -> None:
    assert len(parse(keys.line(comment="for my private key"))) == 1


@pytest.mark.parametrize(
    ("form", "command"),
    [
        ("RFC4716", "ssh-keygen -i -f"),
        ("PKCS8", "ssh-keygen -i -m PKCS8 -f"),
        ("PEM", "ssh-keygen -i -m PEM -f"),
    ],
)
def test_k7_other_formats_are_refused_with_the_command_that_converts_them(form: str, command: str) -> None:
    assert f"{command} FILE" in refusal(keys.converted(keys.generated("rsa", 3072)[0], form))


def test_k7_putty_is_refused_with_the_command_that_converts_it() -> None:
    assert "puttygen FILE.ppk -O public-openssh" in refusal(PUTTY)


def test_k8_a_normal_paste_is_accepted() -> None:
    pasted = f"\ufeff# my keys\r\n\r\n   {keys.line()}  \r\n\t# old\r\n{keys.line(1)}\r\n\r\n"
    assert [key.line for key in parse(pasted)] == [keys.line(), keys.line(1)]


def test_k8_a_comment_may_have_several_words_and_letters_of_any_script() -> None:
    type_, blob, _ = keys.line().split()
    assert parse(f"{type_} {blob} Łukasz   на ноутбуке")[0].comment == "Łukasz на ноутбуке"
    assert parse(f"{type_} {blob}")[0].comment == ""


@pytest.mark.parametrize(
    "pasted",
    [
        "ssh-ed25519 " + "A" * 1_000_000,
        "\n" * 10_000,
        (keys.line() + "\n") * 10_000,
        "ssh-rsa " + "A" * 60_000,
        "#" * 1_000_000,
        "ssh-ed25519 " * 5_000,
    ],
    ids=["1 MB line", "10,000 blank lines", "10,000 keys", "60 KB line", "1 MB comment", "words"],
)
def test_k9_a_huge_paste_is_refused_fast(pasted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    real = sshkeys.parse_line
    monkeypatch.setattr(sshkeys, "parse_line", lambda text: parsed.append(text) or real(text))  # type: ignore[func-returns-value]
    assert refusal(pasted)
    assert len(parsed) <= 1, "it is refused because of its size"


def test_k9_a_paste_has_no_more_keys_than_a_person_may_have() -> None:
    lines = [keys.as_line("ssh-ed25519", number.to_bytes(32, "big")) for number in range(sshkeys.MAX_KEYS + 1)]
    assert len(parse("\n".join(lines[:-1]))) == sshkeys.MAX_KEYS
    assert "Too many keys" in refusal("\n".join(lines))


def test_each_bad_line_is_reported_and_nothing_is_accepted() -> None:
    with pytest.raises(KeyRefused) as caught:
        parse(f"{keys.line()}\nssh-dss AAAA\n\nhello")
    first, second = caught.value.reasons
    assert first.startswith("Line 2: DSA") and second.startswith("Line 4: ")


@pytest.mark.parametrize("pasted", ["", "   ", "# nothing", "hello", "ssh-ed25519", "ssh-ed25519 "])
def test_a_paste_without_a_key_is_refused(pasted: str) -> None:
    refusal(pasted)


@given(st.text(max_size=400))
def test_any_text_is_refused_or_parsed_to_keys(pasted: str) -> None:
    try:
        words = [key.line for key in parse(pasted)]
    except KeyRefused as refused:
        words = list(refused.reasons)
    assert words and all("\n" not in text for text in words)


@given(st.binary(max_size=120), st.sampled_from(sorted(sshkeys.TYPES)), st.text(max_size=40))
def test_any_accepted_blob_can_be_parsed_again(raw: bytes, type_: str, comment: str) -> None:
    blob = base64.b64encode(keys.string(type_.encode()) + raw).decode()
    try:
        [key] = parse(f"{type_} {blob} {comment}")
    except (KeyRefused, ValueError):
        return
    assert parse(key.line) == [key] and len(key.line.splitlines()) == 1


@given(st.data())
def test_k4_one_changed_character_never_gives_the_same_key(data: st.DataObject) -> None:
    line = keys.line()
    position = data.draw(st.integers(0, len(line.split(" ")[0]) + 1 + len(line.split(" ")[1]) - 1))
    character = data.draw(st.characters(codec="utf-8").filter(lambda c: c != line[position]))
    changed = line[:position] + character + line[position + 1 :]
    try:
        found = parse(changed)
    except KeyRefused:
        return
    assert [key.blob for key in found] != [line.split(" ")[1]]
