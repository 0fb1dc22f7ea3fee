"""How a frame begins, and what padding leaves of it."""

import pytest

from resolver.transport.http2_frames import (
    HEADER,
    HEADER_OCTETS,
    START_OCTETS,
    Code,
    ConnectionFault,
    Frame,
    start,
    unpadded,
)


@pytest.mark.parametrize("octets", [0, 1, 255, 256, 65_535, 2**24 - 1])
def test_what_is_written_is_what_is_read(octets: int) -> None:
    """Length, kind and flags (RFC 9113 §4.1)."""
    begun = start(octets, Frame.DATA, 0x81)
    high, low, kind, flags, stream = HEADER.unpack(begun + b"\0\0\0\7")
    assert (high << 8 | low, kind, flags, stream) == (octets, Frame.DATA, 0x81, 7)
    assert (len(begun), HEADER.size) == (START_OCTETS, HEADER_OCTETS)


@pytest.mark.parametrize(
    ("payload", "left"), [(b"\0", b""), (b"\0ab", b"ab"), (b"\1ab", b"a"), (b"\2ab", b""), (b"\xff" + bytes(255), b"")]
)
def test_padding_is_taken_off(payload: bytes, left: bytes) -> None:
    """It may be all that there is (RFC 9113 §6.1)."""
    assert unpadded(payload) == left


@pytest.mark.parametrize(
    ("payload", "code"), [(b"", Code.FRAME_SIZE_ERROR), (b"\1", Code.PROTOCOL_ERROR), (b"\3ab", Code.PROTOCOL_ERROR)]
)
def test_more_padding_than_octets_is_a_fault(payload: bytes, code: Code) -> None:
    """RFC 9113 §6.1, and §4.2 for what is too short."""
    with pytest.raises(ConnectionFault) as caught:
        unpadded(payload)
    assert caught.value.code is code
