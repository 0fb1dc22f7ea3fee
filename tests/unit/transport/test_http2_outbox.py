"""What leaves, when, and how much of it: the client's windows seen from where answers wait."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.transport.doh import NOT_FOUND, DohTerms
from resolver.transport.http2_frames import DEFAULT_WINDOW, FRAME_OCTETS, MAX_WINDOW, ConnectionFault, Frame
from resolver.transport.http2_heads import ReplyHeads
from resolver.transport.http2_outbox import FLUSH_OCTETS, Outbox

HEADS = ReplyHeads(DohTerms())


class Line:
    """What was written."""

    def __init__(self) -> None:
        self.is_blocked = False
        self.octets = b""

    def write(self, octets: bytes) -> None:
        self.octets += octets

    def now(self) -> float:
        return 0.0

    def settle(self) -> None:
        pass

    def take(self) -> list[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of each frame."""
        frames, octets, self.octets = [], self.octets, b""
        while octets:
            end = 9 + int.from_bytes(octets[:3], "big")
            frames.append((octets[3], octets[4], int.from_bytes(octets[5:9], "big"), octets[9:end]))
            octets = octets[end:]
        return frames


def content(frames: list[tuple[int, int, int, bytes]], stream: int) -> bytes:
    return b"".join(payload for kind, _, of, payload in frames if (kind, of) == (Frame.DATA, stream))


def test_small_and_large_answers_have_the_same_head() -> None:
    """Whether they leave by the short way or the long one; the first block says that there is no dynamic table."""
    line = Line()
    outbox = Outbox(HEADS, line)
    decoder = hpack.Decoder()
    for stream in (1, 3):
        outbox.reply(stream, bytes(100))
    outbox.refuse(5, NOT_FOUND)
    outbox.flush()
    frames = line.take()
    heads = [decoder.decode(payload, raw=True) for kind, _, _, payload in frames if kind == Frame.HEADERS]
    assert heads[0] == heads[1]
    assert decoder.header_table_size == 0
    assert dict(heads[2])[b":status"] == b"404"
    assert [content(frames, stream) for stream in (1, 3)] == [bytes(100)] * 2


def test_an_answer_goes_as_far_as_both_windows() -> None:
    """The lesser of them counts; neither is ever overrun."""
    line = Line()
    outbox = Outbox(HEADS, line)
    outbox.reply(1, bytes(60_000))
    outbox.reply(3, bytes(60_000))
    outbox.flush()
    frames = line.take()
    assert [len(content(frames, stream)) for stream in (1, 3)] == [60_000, DEFAULT_WINDOW - 60_000]
    assert max(len(payload) for _, _, _, payload in frames) == FRAME_OCTETS
    assert (len(outbox), outbox.owed, 3 in outbox, 1 in outbox) == (1, 120_000 - DEFAULT_WINDOW, True, False)
    outbox.open(10)
    outbox.pump()
    outbox.flush()
    assert len(content(line.take(), 3)) == 10
    outbox.drop(3)
    outbox.open(100_000)
    outbox.pump()
    outbox.flush()
    assert line.take() == []


def test_nothing_is_added_for_who_does_not_read() -> None:
    """What he is owed waits."""
    line = Line()
    outbox = Outbox(HEADS, line)
    outbox.open(MAX_WINDOW - DEFAULT_WINDOW)
    outbox.resize(MAX_WINDOW)
    line.is_blocked = True
    outbox.reply(1, bytes(2 * FRAME_OCTETS))
    assert outbox.owed == 2 * FRAME_OCTETS
    line.is_blocked = False
    outbox.pump()
    assert outbox.owed == 0


def test_much_is_written_at_once_and_too_much_is_not() -> None:
    """Until it is enough for one write."""
    line = Line()
    outbox = Outbox(HEADS, line)
    outbox.open(10**6)
    while not outbox.is_full:
        assert line.octets == b""
        outbox.reply(1, bytes(1000))
    outbox.flush()
    assert FLUSH_OCTETS <= len(line.octets) < FLUSH_OCTETS + 2000


def test_no_window_runs_over() -> None:
    """RFC 9113 §6.9.1 and §6.9.2."""
    outbox = Outbox(HEADS, Line())
    assert outbox.open_stream(1, MAX_WINDOW - DEFAULT_WINDOW)
    with pytest.raises(ConnectionFault):
        outbox.resize(DEFAULT_WINDOW + 1)
    assert not outbox.open_stream(1, 1)
    with pytest.raises(ConnectionFault):
        Outbox(HEADS, Line()).open(MAX_WINDOW)


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=6), st.data())
def test_however_the_windows_open_all_of_it_arrives(sizes: list[int], data: st.DataObject) -> None:
    """Every octet once, in order, never one past a window."""
    line = Line()
    outbox = Outbox(HEADS, line)
    answers = {2 * n + 1: bytes([n]) * size for n, size in enumerate(sizes)}
    first = data.draw(st.integers(0, 70_000))
    outbox.resize(first)
    allowed = {stream: first for stream in answers}
    in_all = DEFAULT_WINDOW
    got = dict.fromkeys(answers, b"")
    for stream, answer in answers.items():
        outbox.reply(stream, answer)
    for _ in range(100):
        outbox.flush()
        frames = line.take()
        for stream in answers:
            got[stream] += content(frames, stream)
            assert len(got[stream]) <= allowed[stream]
        assert sum(map(len, got.values())) <= in_all
        if not outbox:
            break
        more = data.draw(st.integers(5_000, 60_000))
        outbox.open(more)
        in_all += more
        stream = next(each for each in answers if each in outbox)
        assert outbox.open_stream(stream, more)
        allowed[stream] += more
        outbox.pump()
    assert got == answers
