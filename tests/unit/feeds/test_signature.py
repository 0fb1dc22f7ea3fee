"""Signatures of minisign: made by the program itself, and every way in which one can be wrong."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.feeds.copies import FeedError
from resolver.feeds.signature import MOST_SIGNATURE_OCTETS, SignatureError, check_key, verify

# Made by minisign 0.11, with a key that signed nothing else.
LIST = b"a.example\n"
KEY = "RWT2oJkQ3mA9HkBihShwU8jEJVS6UI2DEUF8mJIdUgCXx6nbGcyJm3BV"
PREHASHED = """\
untrusted comment: signature from minisign secret key
RUT2oJkQ3mA9HuQzFxGUqatFGMNiI9J00YtIYC6yt15ntqGwa85Q76SCHXEmKeZhX11XZTkIyQs7myP+jQPEmtjasKz/uEFUuwA=
trusted comment: hello é
eR66IOR6vaxyCS+le+sPreuhBRwdj7/ysUWm4TPGJt0dSfCvRk+RmIWfeh/tXeBnQooqBnDJCiPIaILRwxoFBg==
""".encode()
LEGACY = b"""\
untrusted comment: signature from minisign secret key
RWT2oJkQ3mA9Hn1AXHkXGGaozxa1v5Z7+mmvuJsC+z0/ABbhYCLiJ7/Hc5VYtCTTr5ent9KmfXXoWm5kaOyGNmytfpLTmvF2BQw=
trusted comment: old
ZNaGxc25ptKTz1M4pnvwezC0ExDEcwiKj2CFTTDRGnDtORGSgAf76HuexbzRqgn5mZEG3YzqFSI+Bxd5/rzFAA==
"""
OTHER_KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"

SIGNATURES = pytest.mark.parametrize("signature", [PREHASHED, LEGACY], ids=["prehashed", "legacy"])


def lines_of(signature: bytes) -> list[bytes]:
    return signature.splitlines()


def with_line(signature: bytes, number: int, line: bytes) -> bytes:
    return b"\n".join([*lines_of(signature)[:number], line, *lines_of(signature)[number + 1 :]])


def with_bit_turned(line: bytes, bit: int) -> bytes:
    octets = bytearray(base64.b64decode(line))
    octets[bit // 8] ^= 1 << bit % 8
    return base64.b64encode(octets)


@pytest.mark.parametrize(("signature", "comment"), [(PREHASHED, "hello é"), (LEGACY, "old")])
def test_what_the_program_signed_is_signed(signature: bytes, comment: str) -> None:
    """With both algorithms; the signed comment is what is returned."""
    assert verify(LIST, signature, KEY) == comment


@SIGNATURES
def test_what_is_not_signed_does_not_matter(signature: bytes) -> None:
    """The first comment is anybody's, and lines may end as they do elsewhere."""
    changed = with_line(signature, 0, b"untrusted comment: of somebody").replace(b"\n", b"\r\n")

    assert verify(LIST, changed, f" {KEY}\n") == verify(LIST, signature, KEY)


@SIGNATURES
@pytest.mark.parametrize("octets", [b"", LIST[:-1], LIST + b"b.example\n", LIST.upper(), b"\0" * len(LIST)])
def test_another_list_is_not_signed(signature: bytes, octets: bytes) -> None:
    """Whoever changed the list is told of."""
    with pytest.raises(SignatureError, match="not of this list and this key; if its publisher has a new key, write"):
        verify(octets, signature, KEY)


@SIGNATURES
@pytest.mark.parametrize("comment", [b"", b"new", b"hello", b"ol", b"old ", b"timestamp:1"])
def test_another_trusted_comment_is_not_signed(signature: bytes, comment: bytes) -> None:
    """The comment is held by the second signature."""
    with pytest.raises(SignatureError, match="not of this list"):
        verify(LIST, with_line(signature, 2, b"trusted comment: " + comment), KEY)


def test_the_comment_of_one_signature_does_not_go_with_another() -> None:
    """The second signature is over the first one too."""
    mixed = b"\n".join([*lines_of(LEGACY)[:2], *lines_of(PREHASHED)[2:]])

    with pytest.raises(SignatureError, match="not of this list"):
        verify(LIST, mixed, KEY)


@SIGNATURES
def test_the_signature_of_another_key_is_refused(signature: bytes) -> None:
    """By its id, and by itself where the id is made to fit."""
    key = base64.b64decode(OTHER_KEY)
    posing = base64.b64encode(base64.b64decode(KEY)[:10] + key[10:]).decode()

    for other in (OTHER_KEY, posing):
        with pytest.raises(SignatureError, match="not of this list and this key"):
            verify(LIST, signature, other)


@SIGNATURES
def test_the_other_algorithm_does_not_verify(signature: bytes) -> None:
    """A signature of a digest is none of a list that happens to be that digest, nor the other way round."""
    octets = base64.b64decode(lines_of(signature)[1])
    turned = {b"Ed": b"ED", b"ED": b"Ed"}[octets[:2]] + octets[2:]

    with pytest.raises(SignatureError, match="not of this list"):
        verify(LIST, with_line(signature, 1, base64.b64encode(turned)), KEY)


@SIGNATURES
def test_no_part_of_a_signature_is_one(signature: bytes) -> None:
    """Cut anywhere but behind its last character."""
    for length in range(len(signature) - 1):
        with pytest.raises(SignatureError):
            verify(LIST, signature[:length], KEY)


@SIGNATURES
@given(st.data())
def test_no_bit_of_a_signature_can_be_turned(signature: bytes, data: st.DataObject) -> None:
    """Of the algorithm, the key id, either signature."""
    number = data.draw(st.sampled_from([1, 3]))
    line = lines_of(signature)[number]
    bit = data.draw(st.integers(0, len(base64.b64decode(line)) * 8 - 1))

    with pytest.raises(SignatureError):
        verify(LIST, with_line(signature, number, with_bit_turned(line, bit)), KEY)


@given(st.integers(0, 42 * 8 - 1))
def test_no_bit_of_a_key_can_be_turned(bit: int) -> None:
    """It is another key then, or none."""
    with pytest.raises(SignatureError):
        verify(LIST, PREHASHED, with_bit_turned(KEY.encode(), bit).decode())


@given(st.binary() | st.lists(st.sampled_from([*lines_of(PREHASHED), *lines_of(LEGACY)])).map(b"\n".join), st.binary())
def test_any_octets_are_a_signature_or_a_signature_error(signature: bytes, octets: bytes) -> None:
    """No third way, and none of this list by chance."""
    with pytest.raises(SignatureError):
        verify(octets + b"\n\n", signature, KEY)


@given(st.text())
def test_any_text_is_a_key_or_a_signature_error(key: str) -> None:
    """A configuration may hold anything."""
    with pytest.raises(SignatureError, match="the public key cannot be read"):
        check_key(key)


@pytest.mark.parametrize("key", ["", "RW", KEY[:-1], KEY + "A", "é" * 56, "RUT" + KEY[3:], KEY[:20] + "\n" + KEY[20:]])
def test_a_key_that_cannot_be_read_says_what_one_is(key: str) -> None:
    """The mend stands in the message."""
    with pytest.raises(SignatureError, match="write the line of 56 characters that begins with RW"):
        verify(LIST, PREHASHED, key)


def test_a_good_key_passes() -> None:
    """With or without the end of its line."""
    check_key(KEY)
    check_key(KEY + "\n")


def test_a_signature_file_has_a_size_limit() -> None:
    """Whatever is in it."""
    long = with_line(PREHASHED, 0, b"untrusted comment: " + b"x" * MOST_SIGNATURE_OCTETS)

    with pytest.raises(SignatureError, match="more than 16384 octets"):
        verify(LIST, long, KEY)


def test_a_signature_error_is_a_feed_error() -> None:
    """Who fetches catches one family."""
    assert issubclass(SignatureError, FeedError)


@pytest.mark.parametrize("algorithm", [[], ["-l"]], ids=["prehashed", "legacy"])
@pytest.mark.parametrize("octets", [b"", LIST, bytes(range(256)) * 1000], ids=["empty", "small", "binary"])
def test_the_program_and_this_one_agree(
    tmp_path: Path, peer: Callable[[str], str], algorithm: list[str], octets: bytes
) -> None:
    """What minisign signs today, with a new key, verifies here."""
    minisign = peer("minisign")
    (tmp_path / "list").write_bytes(octets)
    for arguments in (
        ["-G", "-W", "-p", "key.pub", "-s", "key"],
        ["-S", *algorithm, "-s", "key", "-m", "list", "-t", "the comment"],
    ):
        subprocess.run([minisign, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=10)
    key = (tmp_path / "key.pub").read_text().splitlines()[1]
    signature = (tmp_path / "list.minisig").read_bytes()

    assert verify(octets, signature, key) == "the comment"
    with pytest.raises(SignatureError):
        verify(octets + b"x", signature, key)
