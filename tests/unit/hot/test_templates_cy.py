"""Answers with gaps: filled as the name demands, for the questions that they are kept for and no others."""

import struct
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.build import mutations, opt, option, query, wire
from tests.support.plain import load_uncompiled
from tests.support.window import ALICE, BOB, SLOTS, STAMP, Window

Hot = Callable[[str], ModuleType]
PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CHAT, CDN, TALK, NESTED = (
    wire(name) for name in ("chat.example", "cdn.chat.example", "talk.example", "a.talk.example")
)
LISTED = {CHAT: 1, CDN: 2, TALK: 3, NESTED: 3, wire("only.example"): 4}
POINTED = b"\xc0\x0c" + b"..........".replace(b".", b"-") + b"\xc0\x0c" + b"rest"


class Behind:
    """A window with a memo that has templates for claim sets 1, 3 and 4, of type A without OPT, and 3 with DO."""

    def __init__(self, hot: Hot) -> None:
        batch, templates, names = hot("_batch_cy"), hot("_templates_cy"), hot("_names_cy")
        self.window = Window(batch)
        self.memo = batch.ViewMemo(100, names.NameTable(names.build(LISTED)))
        counts = b"\0\1\0\0\0\1\0\0"
        parts = (b"7\tphones\tudp\t", b"\tA\tsuffix ", b"\tNXDOMAIN")
        for claim_set, offset, covers_itself in ((1, 0, True), (1, 1, True), (3, 1, True), (3, 0, True), (4, 0, False)):
            key = templates.template_key(claim_set, offset, 1, templates.NO_OPT)
            self.memo.file(key, templates.Template(3, counts, POINTED, True, covers_itself, claim_set, parts))
        said = templates.Template(0, b"\0\1" + bytes(6), b"flat", False, True, 5, parts)
        self.memo.file(templates.template_key(3, 1, 28, templates.WITH_DO), said)
        self.memo.file(templates.template_key(1, 1, 28, templates.NO_OPT), None)

    def answer(self, *datagrams: bytes, who: bytes = ALICE) -> tuple[list[bytes], list[int], bytes]:
        """(replies, slots passed on, hit records) of one batch."""
        n = self.window.receive([(who, octets) for octets in datagrams])
        hits = self.window.batch.answer({ALICE: self.memo}, n, 0.0, STAMP)
        sent, passed, hit_count = self.window.batch.outcome()
        replies = [octets for _, _, octets, _ in self.window.send()]
        assert (sent, hit_count) == (len(replies), len(replies))
        return replies, passed, hits


@pytest.mark.parametrize(
    ("name", "offset", "text"),
    [
        ("w.chat.example", 2, b"w.chat.example"),
        ("chat.example", 0, b"chat.example"),
        ("A-b_9.W.cHat.EXAMPLE", 8, b"a-b_9.w.chat.example"),
        (f"{'y' * 63}.{'z' * 63}.{'y' * 63}.{'z' * 40}.chat.example", 233, None),
    ],
)
def test_the_gaps_are_filled_with_the_name(hot: Hot, name: str, offset: int, text: bytes | None) -> None:
    """The question comes back as it was written; pointers and the hit's text tell the listed name."""
    behind = Behind(hot)
    asked = query(name, flags=0x0110)

    (reply,), passed, hit = behind.answer(asked)

    text = text or name.encode()
    pointer = (0xC00C + offset).to_bytes(2, "big")
    assert reply == asked[:2] + b"\x81\x93\0\1\0\0\0\1\0\0" + asked[12:] + POINTED.replace(b"\xc0\x0c", pointer)
    tail = b"7\tphones\tudp\t" + text + b"\tA\tsuffix " + b"chat.example" + b"\tNXDOMAIN"
    sockaddr = behind.window.sockaddr(ALICE)
    assert hit == struct.pack("<I", 36 + len(tail)) + STAMP + sockaddr + tail
    assert passed == []
    assert behind.window.counts.tolist() == [0, 1, *[0] * 14]


def test_an_answer_without_pointers_is_given_as_it_is(hot: Hot) -> None:
    """A refusal says nothing of the name; the OPT is that of the kind that was asked with."""
    behind = Behind(hot)
    asked = query("x.talk.example", 28, additional=(opt(do=True, octets=4096),))

    (reply,), _, _ = behind.answer(asked)

    assert reply == asked[:2] + b"\x81\x80\0\1" + bytes(6) + asked[12:-11] + b"flat"
    assert behind.window.counts[5] == 1


PASSED_ON = {
    "not listed": query("w.example"),
    "the root": query(b"\0"),
    "another claim set above": query("x.cdn.chat.example"),
    "no template of its claim set": query("cdn.chat.example"),
    "below what is only itself": query("x.only.example"),
    "another type": query("w.chat.example", 65),
    "known to have none": query("w.chat.example", 28),
    "another class": query("w.chat.example", rclass=3),
    "a response": query("w.chat.example", flags=0x8100),
    "another opcode": query("w.chat.example", flags=0x2100),
    "an OPT": query("w.chat.example", additional=(opt(),)),
    "an option": query("x.talk.example", 28, additional=(opt(option(10, b"12345678"), do=True),)),
    "an EDNS version": query("x.talk.example", 28, additional=(opt(do=True, version=1),)),
    "an OPT below a name": query("x.talk.example", 28, additional=(opt(do=True, owner=b"\1x\0"),)),
    "no OPT but another record": query("x.talk.example", 28, additional=(b"\0\0\x01" + opt(do=True)[3:],)),
    "two questions": query("w.chat.example")[:4] + b"\0\2" + query("w.chat.example")[6:],
    "an answer in the query": query("w.chat.example")[:6] + b"\0\1" + query("w.chat.example")[8:],
    "too long": query("w.chat.example") + b"\0",
    "too short": query("w.chat.example")[:-1],
    "a dot in a label": query(b"\3a.b" + CHAT),
    "a slash in a label": query(b"\3a/b" + CHAT),
    "a zero in a label": query(b"\3a\0b" + CHAT),
    "a tab in a label": query(b"\3a\tb" + CHAT),
    "no first label": query(b"\0" + CHAT),
    "a label of 64 octets": query(b"\x40" + b"a" * 64 + CHAT),
    "a pointer": query(b"\1w\xc0\x0c"),
    "a name of 256 octets": query(b"".join(b"\x3f" + b"a" * 63 for _ in range(3)) + b"\x31" + b"a" * 49 + CHAT),
    "a header alone": query("w.chat.example")[:12],
}


def test_letter_case_is_free_below_a_name_that_was_asked_below_before(hot: Hot) -> None:
    """The question comes back as it was written, each time; hits tell the name in lower case."""
    behind = Behind(hot)
    asked = [query(name) for name in ("v.w.chat.example", "U.w.cHAT.example", "t-_.W.CHAT.EXAMPLE", "s.w.chat.example")]

    replies, passed, hits = behind.answer(*asked)

    assert passed == []
    assert [reply[12 : len(octets)] for reply, octets in zip(replies, asked, strict=True)] == [a[12:] for a in asked]
    assert [hits.count(b"\t%b.w.chat.example\t" % label) for label in (b"v", b"u", b"t-_", b"s")] == [1] * 4


def test_types_that_differ_as_letters_do_are_kept_apart(hot: Hot) -> None:
    """HTTPS is 65, an A, and 97 an a: what is kept for one is not said for the other."""
    behind, templates = Behind(hot), hot("_templates_cy")
    said = templates.Template(0, b"\0\1" + bytes(6), b"https", False, True, 6, (b"", b"", b""))
    behind.memo.file(templates.template_key(1, 1, 65, templates.NO_OPT), said)

    for first, second in (("a", "b"), ("c", "d")):
        replies, passed, _ = behind.answer(query(f"{first}.chat.example", 65), query(f"{second}.chat.example", 97))
        assert (len(replies), passed) == (1, [1])
        assert replies[0].endswith(b"\0\x41\0\1https")


def test_flags_are_answered_as_they_were_asked(hot: Hot) -> None:
    """RD and CD come back, AD does not, whatever was asked below the same name before."""
    behind = Behind(hot)
    flags = (0x0000, 0x0100, 0x0110, 0x0120, 0x0010, 0x0100)

    replies, _, _ = behind.answer(*[query(f"n{k}.chat.example", flags=asked) for k, asked in enumerate(flags)])

    assert [reply[2:4].hex() for reply in replies] == ["8083", "8183", "8193", "8183", "8093", "8183"]


def test_a_long_first_label_is_answered_up_to_the_limits_of_a_name(hot: Hot) -> None:
    """Below a name of 200 octets that was asked below before: 255 octets in all, 63 a label."""
    behind = Behind(hot)
    parent = wire(f"{'y' * 63}.{'z' * 63}.{'y' * 57}.chat.example")
    names = [bytes((octets,)) + b"a" * octets + parent for octets in (1, 54, 55, 63)]

    replies, passed, _ = behind.answer(*[query(name) for name in names])

    assert len(parent) == 200
    assert (len(replies), passed) == (2, [2, 3])


@pytest.mark.parametrize("what", PASSED_ON)
def test_all_else_is_passed_on(hot: Hot, what: str) -> None:
    """The octets stay as they came, and nothing is counted or recorded; what stands beside it is answered."""
    behind = Behind(hot)
    asked = PASSED_ON[what]
    for number in range(2):  # the second time below a parent that is known by then
        replies, passed, _ = behind.answer(query(f"v{number}.chat.example"), asked, query(f"u{number}.talk.example"))

        assert len(replies) == 2
        assert passed == [1]
        assert behind.window.arena[4096 : 4096 + len(asked)] == asked
        assert sum(behind.window.counts) == 2 * (number + 1)


def test_a_listed_name_below_another_is_answered_where_both_are_held_alike(hot: Hot) -> None:
    """Claim set 3 holds talk.example and a.talk.example with all below them; the longer one is named."""
    behind = Behind(hot)

    replies, passed, hits = behind.answer(query("a.talk.example"), query("x.a.talk.example"), query("y.a.talk.example"))

    assert passed == []
    assert [reply[len(reply) - len(POINTED) :][:2] for reply in replies] == [b"\xc0\x0c", b"\xc0\x0e", b"\xc0\x0e"]
    assert hits.count(b"suffix a.talk.example\t") == 3


def test_a_question_met_again_soon_is_learned_where_that_pays(hot: Hot) -> None:
    """What was filled in is learned as a whole, with its hit record."""
    behind = Behind(hot)
    asked = query("w.chat.example")

    answers = [behind.answer(asked) for _ in range(3)]

    assert answers[1:] == answers[:-1]
    if not hot("_templates_cy").fills_batches():
        assert asked[2:] in behind.memo.young


def test_where_nothing_is_listed_is_known_by_heart(hot: Hot) -> None:
    """Of names below the same parent that is listed which is, and the others are passed on."""
    behind = Behind(hot)
    packets = [query(f"{label}.example") for label in ("a", "b", "chat", "talk", "b")]

    assert behind.answer(*packets)[1] == behind.answer(*packets)[1] == [0, 1, 4]


def test_who_is_not_known_is_passed_on(hot: Hot) -> None:
    """Templates are those of a view."""
    assert Behind(hot).answer(query("w.chat.example"), who=BOB)[1] == [0]


def test_templates_are_bounded(hot: Hot) -> None:
    """Past the bound they are learned anew."""
    batch, templates, names = hot("_batch_cy"), hot("_templates_cy"), hot("_names_cy")
    memo = batch.ViewMemo(10, names.NameTable(names.build({})))
    for number in range(batch.TEMPLATES):
        memo.file(number, None)
    assert memo.has_filed(0)

    memo.file(batch.TEMPLATES, None)

    assert [number for number in range(batch.TEMPLATES + 1) if memo.has_filed(number)] == [batch.TEMPLATES]
    assert templates.template_key(1, 0, 1, 0) != templates.template_key(0, 1, 1, 0)


def test_random_names_below_a_listed_one_take_no_room(hot: Hot) -> None:
    """However many are asked for, what the view holds stays within its bound, and templates stay."""
    batch = hot("_batch_cy")
    behind = Behind(hot)
    behind.memo.put(b"another's", batch.Ready(b"said", 0, float("inf"), 0.0, (), b"", b""))
    answered = 0
    for number in range(0, 2000, SLOTS):
        replies, _, _ = behind.answer(*[query(f"n{number + k}.p{number + k}.chat.example") for k in range(SLOTS)])
        answered += len(replies)
        assert behind.memo.size() <= 102
    assert answered >= 1990  # one may seem to be met again


@pytest.mark.parametrize(
    "change",
    [{"counts": b"\0" * 7}, {"rest": b"x" * 242}, {"rest": b"x" * 13}, {"parts": (b"", b"x" * 4096, b"")}],
    ids=["short counts", "too long", "no room for pointers", "a hit too long"],
)
def test_what_does_not_fit_is_no_template(hot: Hot, change: dict[str, object]) -> None:
    """The compiled loop copies by these sizes without asking again."""
    fields = {"counts": bytes(8), "rest": b"x" * 14, "parts": (b"", b"", b"")} | change
    with pytest.raises(ValueError, match="too long for a slot, or no answer's parts"):
        hot("_templates_cy").Template(3, fields["counts"], fields["rest"], True, True, 0, fields["parts"])


QUERIES = [
    query("w.chat.example"), query("chat.example"), query("a.b.talk.example", 28, additional=(opt(do=True),)),
    query("x.a.talk.example"), query("x.cdn.chat.example"), query("aaaa.only.example"),
    query("w" * 48 + ".chat.example"),
]  # fmt: skip


@PROPERTY
@given(batches=st.lists(st.lists(mutations(QUERIES), min_size=1, max_size=SLOTS), min_size=1, max_size=4))
def test_both_builds_answer_alike(hot: Hot, batches: list[list[bytes]]) -> None:
    """Damaged queries too: the same replies, passed on, hits and counts. None is asked twice."""
    built, plain = Behind(hot), Behind(lambda name: load_uncompiled(f"resolver.hot.{name}"))
    met: set[bytes] = set()
    for batch in batches:
        datagrams = list({octets[2:]: octets for octets in batch if octets[2:] not in met}.values())
        met.update(octets[2:] for octets in datagrams)
        assert built.answer(*datagrams) == plain.answer(*datagrams)
    assert built.window.counts.tolist() == plain.window.counts.tolist()
