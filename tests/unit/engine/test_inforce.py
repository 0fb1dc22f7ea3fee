"""The policy in force: one generation, the views of this moment, and memos that never outlive them."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.engine.inforce import IdentityTerms, PolicyInForce
from resolver.hot._batch_cy import NEVER, Ready, ViewMemo
from resolver.policy.client import Client, Credentials, Transport
from resolver.policy.documents import Action
from resolver.policy.generation import Generation, View
from resolver.policy.judge import judge_query
from resolver.policy.register import Device, Entry, Means, Proof, Register, digest_of, write_register
from resolver.policy.terms import FOREVER, ZoneKind
from resolver.policy.zone import Rule
from tests.support.build import Ban, Spared, Zone, own, policy, wire
from tests.support.clock import START_AT
from tests.support.house import Held, app, generation

CHAT = app("chat", "chat.example")
GROUPS = {"phones": ["198.51.100.0/24"], "desk": ["203.0.113.0/24"]}
PHONE, DESK, NOBODY = bytes([198, 51, 100, 7]), bytes([203, 0, 113, 7]), bytes([192, 0, 2, 7])


def ready() -> Ready:
    return Ready(b"reply", 0, NEVER, 0.0, (), b"", b"")


def in_force(*orders: Held, ready_answers: int = 1000) -> PolicyInForce:
    return PolicyInForce(generation(*orders, groups=GROUPS), START_AT, ready_answers)


def who(address: bytes, **how: Any) -> Client:
    return Client(address, bytes(28), Transport.UDP, **how)


def view_of(policy: PolicyInForce, address: bytes, at: float) -> View:
    return policy.view_of(policy.standing_of(who(address), at), at)


def memo_of(policy: PolicyInForce, address: bytes, view: View) -> ViewMemo | None:
    return policy.memo_of(who(address), view)


def learn(policy: PolicyInForce, address: bytes, key: bytes = b"k") -> bool:
    memo = memo_of(policy, address, view_of(policy, address, START_AT))
    if memo is not None:
        memo.put(key, ready())
    return memo is not None


@pytest.mark.parametrize(
    ("effective", "expires", "at", "holds"),
    [
        (0, None, 0, True),
        (10, None, 9.999, False),
        (10, None, 10, True),
        (0, 10, 9.999, True),
        (0, 10, 10, False),
        (10, 20, 15, True),
    ],
)
def test_an_order_holds_from_its_moment_until_its_end(
    effective: float, expires: float | None, at: float, holds: bool
) -> None:
    """From the first second on, and not a moment after the last, with nothing reloaded."""
    end = None if expires is None else START_AT + expires
    policy = in_force(Held([CHAT], groups=["phones"], effective=START_AT + effective, expires=end))

    policy.turn(START_AT + at)

    assert bool(view_of(policy, PHONE, START_AT + at).stances) == holds
    assert not view_of(policy, DESK, START_AT + at).stances


def test_a_turn_is_told_of_once_and_only_at_a_moment() -> None:
    """Between two moments nothing is made anew."""
    policy = in_force(Held([CHAT], groups=["phones"], effective=START_AT + 10, expires=START_AT + 20))

    moments = [policy.turn(START_AT + at) for at in (0, 9.9, 10, 10, 19, 25, 1e9)]

    assert moments == [False, False, True, False, False, True, False]
    assert policy.until == FOREVER


@pytest.mark.parametrize("change", ["turn", "swap"])
def test_a_change_forgets_every_ready_answer(change: str) -> None:
    """Nothing said under the old policy is said again, to anybody."""
    policy = in_force(Held([CHAT], groups=["phones"], effective=START_AT + 10))
    assert all(learn(policy, address) for address in (PHONE, DESK, NOBODY))
    memos = list(policy.sources_of(None).values())
    assert policy.ready_answers() == 3

    if change == "turn":
        policy.turn(START_AT + 10)
    else:
        policy.swap(generation(serial=2, groups=GROUPS), START_AT)

    assert (policy.sources_of(None), policy.ready_answers()) == ({}, 0)
    learn(policy, PHONE)
    assert policy.sources_of(None)[PHONE] not in memos


def test_a_view_of_the_old_policy_teaches_nothing() -> None:
    """An answer that was under way while the policy changed may be given, but not learned."""
    policy = in_force(Held([CHAT], groups=["phones"], effective=START_AT + 10))
    old = view_of(policy, PHONE, START_AT)

    policy.turn(START_AT + 10)

    assert memo_of(policy, PHONE, old) is None
    view_of(policy, PHONE, START_AT + 10)
    assert memo_of(policy, PHONE, old) is None


def test_clients_of_one_group_share_a_memo_and_of_two_do_not() -> None:
    """The memo belongs to the view; which client is looked at decides which one."""
    policy = in_force(Held([CHAT], groups=["phones"]))
    other_phone = bytes([198, 51, 100, 8])
    for address in (PHONE, other_phone, DESK, NOBODY):
        learn(policy, address)

    assert policy.sources_of(None)[PHONE] is policy.sources_of(None)[other_phone]
    assert len({id(memo) for memo in policy.sources_of(None).values()}) == 3


@pytest.mark.parametrize("limit", [10, 100, 1000])
def test_ready_answers_stay_within_the_limit(limit: int) -> None:
    """All views together hold no more than configured, however many questions there are."""
    policy = in_force(Held([CHAT], groups=["phones"]), ready_answers=limit)
    for n in range(5 * limit):
        learn(policy, (PHONE, DESK, NOBODY)[n % 3], n.to_bytes(4, "big"))
        assert policy.ready_answers() <= limit

    assert policy.ready_answers() >= limit // 4


def test_answers_in_use_stay_while_another_view_holds_older_ones() -> None:
    """Room is made of an old half, even where a larger memo has none: nobody is emptied of what he asks for now."""
    policy = in_force(Held([CHAT], groups=["phones"]), ready_answers=100)
    for address, count in ((DESK, 40), (PHONE, 45), (NOBODY, 15)):
        for n in range(count):
            learn(policy, address, n.to_bytes(4, "big"))
        if address is DESK:
            policy.sources_of(None)[DESK].halve()
    assert policy.ready_answers() == 100

    for n in range(15, 25):
        learn(policy, NOBODY, n.to_bytes(4, "big"))

    assert [policy.sources_of(None)[address].size() for address in (DESK, PHONE, NOBODY)] == [0, 45, 25]


def test_the_table_of_clients_is_bounded() -> None:
    """A flood of forged addresses costs a bounded table; it starts anew and goes on."""
    policy = in_force()
    view = view_of(policy, NOBODY, START_AT)
    most = 0
    for n in range(70_000):
        memo_of(policy, bytes([10]) + n.to_bytes(3, "big"), view)
        most = max(most, len(policy.sources_of(None)))

    assert most <= 65_536
    assert len(policy.sources_of(None)) == 70_000 - 65_536


# ---- what stands beside orders --------------------------------------------------------------------------------------

NAME = wire("www.chat.example")
DEVICE, OTHER = bytes([192, 0, 2, 5]), bytes([192, 0, 2, 6])
BAN = Ban("ban", ("suffix chat.example",))
TIMED: dict[str, Callable[[float, float], Generation]] = {
    "an exemption of a device": lambda since, until: policy(
        BAN, exemptions=[Spared("lab", ("ban",), devices=("192.0.2.5/32",), since=since, until=until)]
    ),
    "an exemption of a group": lambda since, until: policy(
        BAN, exemptions=[Spared("lab", ("ban",), ("phones",), since=since, until=until)]
    ),
    "an own allow": lambda since, until: policy(
        BAN, zones=[own("mine", Action.PASSTHRU, "suffix example", since=since, until=until)]
    ),
    "an own block": lambda since, until: policy(
        zones=[own("mine", Action.NXDOMAIN, "suffix example", since=since, until=until)]
    ),
    "a zone on the client's address": lambda since, until: policy(
        zones=[Zone("zone:z", networks=(("client-ip 192.0.2.5/32", Rule(Action.DROP)),), since=since, until=until)]
    ),
    "a list": lambda since, until: policy(
        zones=[Zone("list:l", ZoneKind.LIST, (("suffix chat.example", Rule(Action.NODATA)),), since=since, until=until)]
    ),
}


@pytest.mark.parametrize("case", TIMED)
def test_everything_begins_and_ends_at_its_second(case: str) -> None:
    """With nothing reloaded: the views of one moment are no longer in force at the next."""
    held = PolicyInForce(TIMED[case](10.0, 20.0), 0.0, 1000)

    def is_withheld(at: float) -> bool:
        held.turn(at)
        verdict = judge_query(NAME, view_of(held, DEVICE, at))
        return verdict is not None and not verdict.passes

    before = is_withheld(0.0)
    moments = (9.999, 10.0, 19.999, 20.0, 1e9)
    assert [is_withheld(at) for at in moments] == [before, not before, not before, before, before]
    assert held.until == FOREVER


@pytest.mark.parametrize("case", ["an exemption of a device", "a zone on the client's address"])
def test_a_device_that_is_set_apart_shares_no_ready_answer(case: str) -> None:
    """With another of its group; and its neighbours share theirs."""
    held = PolicyInForce(TIMED[case](0.0, FOREVER), 0.0, 1000)
    memos = [memo_of(held, bytes([192, 0, 2, n]), view_of(held, bytes([192, 0, 2, n]), 0.0)) for n in (5, 6, 7)]

    assert memos[0] is not memos[1]
    assert memos[1] is memos[2]
    assert judge_query(NAME, view_of(held, DEVICE, 0.0)) != judge_query(NAME, view_of(held, OTHER, 0.0))


def test_views_are_bounded_where_many_clients_are_set_apart() -> None:
    """They are made anew, and an answer for a view that was forgotten is not learned."""
    devices = tuple(f"10.0.{n >> 8}.{n & 255}/32" for n in range(5000))
    held = PolicyInForce(policy(BAN, exemptions=[Spared("lab", ("ban",), devices=devices)]), 0.0, 100)
    first = view_of(held, bytes([10, 0, 0, 0]), 0.0)
    assert memo_of(held, bytes([10, 0, 0, 0]), first) is not None
    for n in range(4500):
        view_of(held, bytes([10, 0, n >> 8, n & 255]), 0.0)

    assert held.sources_of(None) == {}
    assert memo_of(held, bytes([10, 0, 0, 0]), first) is None
    assert view_of(held, bytes([10, 0, 0, 0]), 0.0).spared == first.spared


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=4), st.lists(st.integers(0, 45), max_size=8)
)
def test_whoever_turns_when_asked_is_never_behind(spans: list[tuple[int, int]], steps: list[int]) -> None:
    """However far apart the moments are at which it is asked, what is held is what would be made now."""
    made = policy(
        BAN,
        exemptions=[Spared(f"e{i}", ("ban",), ("phones",), since=s, until=s + n) for i, (s, n) in enumerate(spans)],
    )
    held = PolicyInForce(made, 0.0, 10)
    for at in sorted(steps):
        before = held.until
        assert held.turn(at) is (at >= before)
        assert view_of(held, DEVICE, at).spared == made.view_of(DEVICE, at).spared
        assert held.until == made.next_transition(at)


PHONE_7 = Device(7, "phone-7", "phones")
REGISTER = Register(
    memoryview(
        write_register(
            [
                Entry(digest_of(Proof.TOKEN, "abc"), PHONE_7),
                Entry(digest_of(Proof.TOKEN, "stray"), Device(8, "stray", "gone")),
                Entry(digest_of(Proof.CERTIFICATE, "phone-7.example.org"), PHONE_7),
            ],
            1,
        )
    )
)
TOKEN = Credentials(path_token="abc")
MADE_UP = Credentials(server_name="xyz.dns.example.org")


def enrolled(unknown: str | None = None, allowed: list[str] | None = None) -> PolicyInForce:
    made = generation(groups=GROUPS, allowed=allowed or ["0.0.0.0/0"])
    held = PolicyInForce(made, START_AT, 10, IdentityTerms(("dns.example.org",), unknown))
    held.enrol(REGISTER)
    return held


@pytest.mark.parametrize(
    ("how", "group", "device"),
    [
        ({}, "desk", ""),
        ({"listener": "phones"}, "phones", ""),
        ({"credentials": Credentials(server_name="dns.example.org")}, "desk", ""),
        ({"credentials": Credentials(server_name="dns.example.org"), "listener": "phones"}, "phones", ""),
        ({"credentials": TOKEN}, "phones", "phone-7"),
        ({"credentials": TOKEN, "listener": "desk"}, "phones", "phone-7"),
        ({"credentials": Credentials(certificate=("phone-7.example.org",))}, "phones", "phone-7"),
    ],
)
def test_what_is_shown_goes_before_the_listener_and_that_before_the_network(
    how: dict[str, Any], group: str, device: str
) -> None:
    """A client in the desk's network, by what else is known of it."""
    held = enrolled()
    standing = held.standing_of(who(DESK, **how), START_AT)
    assert (held.view_of(standing, START_AT).group, standing.client.device, standing.refusal) == (group, device, "")


@pytest.mark.parametrize(
    ("credentials", "unknown", "allowed", "refusal", "group"),
    [
        (TOKEN, None, ["192.0.2.0/24"], "", 0),
        (None, None, ["192.0.2.0/24"], "client address is not allowed", 1),
        (MADE_UP, None, ["0.0.0.0/0"], "device is not known", -1),
        (MADE_UP, "phones", ["0.0.0.0/0"], "", 0),
        (MADE_UP, "phones", ["192.0.2.0/24"], "client address is not allowed", 0),
        (Credentials(path_token="stray"), "phones", ["0.0.0.0/0"], "the device's group is not configured", -1),
    ],
)
def test_who_is_recognised_is_answered_from_anywhere_and_who_is_not_is_refused_or_held_to_a_group(
    credentials: Credentials | None, unknown: str | None, allowed: list[str], refusal: str, group: int
) -> None:
    """A made-up token opens nothing that would be shut without it; a device without a group is never let pass."""
    standing = enrolled(unknown, allowed).standing_of(who(DESK, credentials=credentials), START_AT)
    assert (standing.refusal, standing.group) == (refusal, group)
    assert (standing.stranger is Means.SERVER_NAME) == (credentials is MADE_UP)


def test_a_device_that_is_revoked_is_not_recognised_any_more() -> None:
    """The next register counts from the next question on."""
    held = enrolled()
    held.enrol(Register(memoryview(write_register([], 2))))
    assert held.standing_of(who(PHONE, credentials=TOKEN), START_AT).refusal == "device is not known"


def test_what_is_said_to_one_who_shows_something_is_not_learned() -> None:
    """So a revoked device gets nothing out of a memo, and no hit of one device is recorded as another's."""
    held = enrolled()
    shown = who(PHONE, credentials=TOKEN)
    view = held.view_of(held.standing_of(shown, START_AT), START_AT)
    assert view is view_of(held, PHONE, START_AT)
    assert held.memo_of(shown, view) is None
    assert memo_of(held, PHONE, view) is not None


def test_who_comes_by_another_listener_has_another_memo() -> None:
    """The same address is held to the rules of the listener that it asks by."""
    held = enrolled()
    by_listener = who(DESK, listener="phones")
    view = held.view_of(held.standing_of(by_listener, START_AT), START_AT)
    assert held.memo_of(by_listener, view) is not None
    assert (DESK in held.sources_of("phones"), DESK in held.sources_of(None)) == (True, False)
    held.swap(held.generation, START_AT)
    assert held.sources_of("phones") == {}


def test_an_exemption_by_name_spares_the_device_and_nobody_beside_it() -> None:
    """Wherever it asks from."""
    made = policy(BAN, exemptions=[Spared("e", ("ban",), devices=("phone-7",), until=FOREVER)])
    held = PolicyInForce(made, 0.0, 10)
    held.enrol(
        Register(
            memoryview(
                write_register(
                    [
                        Entry(digest_of(Proof.TOKEN, "abc"), Device(7, "phone-7", "phones")),
                        Entry(digest_of(Proof.TOKEN, "abd"), Device(8, "phone-8", "phones")),
                    ],
                    1,
                )
            )
        )
    )
    spared = [
        bool(held.view_of(held.standing_of(who(DEVICE, credentials=Credentials(path_token=token)), 0.0), 0.0).spared)
        for token in ("abc", "abd")
    ]
    assert spared == [True, False]


def test_a_group_that_is_gone_lets_nobody_pass() -> None:
    """A listener's, or that of unknown devices, renamed by a reload: nothing would bind their clients any more."""
    held = enrolled(unknown="gone")
    listener = held.standing_of(who(DESK, listener="gone"), START_AT)
    unknown = held.standing_of(who(DESK, credentials=MADE_UP), START_AT)
    assert listener.refusal == "the listener's group is not configured"
    assert unknown.refusal == "the group of unknown devices is not configured"


def test_a_device_that_is_known_no_more_loses_its_name() -> None:
    """Though the client was recognised when it asked, and waits for an answer."""
    held = enrolled(unknown="desk")
    known = held.standing_of(who(DESK, credentials=TOKEN), START_AT).client
    assert known.device == "phone-7"
    held.enrol(Register(memoryview(write_register([], 2))))
    assert held.standing_of(known, START_AT).client.device == ""


def test_a_certificate_proves_nothing_after_its_end() -> None:
    """A session that is resumed may outlive it, and so may a connection."""
    held = enrolled()
    shown = who(DESK, credentials=Credentials(certificate=("phone-7.example.org",), until=START_AT + 10))
    assert [held.standing_of(shown, START_AT + after).refusal for after in (9, 10)] == ["", "device is not known"]
