"""One ready answer: what it may hold, and how it is written down."""

import struct
from collections.abc import Callable
from types import ModuleType

import pytest

Hot = Callable[[str], ModuleType]
NEVER = float("inf")


@pytest.mark.parametrize(
    ("reply", "until", "ttls", "prefix", "tail"),
    [
        (bytes(4095), NEVER, (), b"", b""),
        (b"said", NEVER, (), b"hit", b""),
        (b"said", NEVER, (), bytes(4), b""),
        (b"said", NEVER, (), b"hit:", bytes(4097)),
        (b"said", 5.0, (), b"", b""),
        (b"said", 5.0, ((1, 7),), b"", b""),
        (b"said", 5.0, ((-1, 7),), b"", b""),
        (b"said", 5.0, ((0, -1),), b"", b""),
        (b"said", 5.0, ((0, 1 << 31),), b"", b""),
    ],
)
def test_what_is_no_answer_is_refused(
    hot: Hot, reply: bytes, until: float, ttls: tuple[tuple[int, int], ...], prefix: bytes, tail: bytes
) -> None:
    """The compiled loop copies by these sizes without asking again."""
    with pytest.raises(ValueError, match=r"too long|TTL"):
        hot("_ready_cy").Ready(reply, 3, until, 0.0, ttls, prefix, tail)


@pytest.mark.parametrize(("now", "left"), [(10.0, 300), (10.99, 300), (11.0, 299), (50.5, 260), (99.9, 211)])
def test_it_is_brought_up_to_date_until_it_ends(hot: Hot, now: float, left: int) -> None:
    """From what it was, to the second; at its end it holds no longer."""
    ready = hot("_ready_cy").Ready(b"said" + (300).to_bytes(4, "big"), 3, 100.0, 10.0, ((4, 300),), b"", b"")

    assert ready.turn(now)
    assert ready.reply == b"said" + left.to_bytes(4, "big")
    assert now < ready.due <= 100.0 or ready.turn(ready.due)
    assert not ready.turn(100.0)


@pytest.mark.parametrize("tail", [b"", b"t", b"tail-----"])
def test_it_is_written_down_as_memos_read_it(hot: Hot, tail: bytes) -> None:
    """Head, key, reply, TTLs, end of the hit record, up to a multiple of eight octets."""
    module = hot("_ready_cy")
    ready = module.Ready(b"reply---", 3, 100.0, 10.0, ((0, 300), (4, 7)), b"hit:", tail)

    record = ready.record(b"key")

    head = struct.pack("<ddIHHHH", 100.0, 10.0, 3, 3, 8, 2, len(tail)) + b"hit:"
    parts = b"key" + b"reply---" + struct.pack("<IIII", 0, 300, 4, 7) + tail
    assert record.rstrip(b"\0") == (head + parts).rstrip(b"\0")
    assert len(record) % 8 == 0
    assert len(record) - len(head + parts) in range(8)
    assert module.Ready(b"reply", 3, NEVER, 0.0, (), b"", b"").record(b"k")[28:32] == bytes(4)
