"""The policy in force: one generation, the views of this moment, and memos that never outlive them."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.engine.inforce import PolicyInForce
from resolver.hot._batch_cy import NEVER, Ready
from resolver.policy.documents import Action
from resolver.policy.generation import Generation
from resolver.policy.judge import judge_query
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


def learn(policy: PolicyInForce, address: bytes, key: bytes = b"k") -> bool:
    memo = policy.memo_of(address, policy.view_of(address, START_AT))
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

    assert bool(policy.view_of(PHONE, START_AT + at).stances) == holds
    assert not policy.view_of(DESK, START_AT + at).stances


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
    memos = list(policy.sources.values())
    assert policy.ready_answers() == 3

    if change == "turn":
        policy.turn(START_AT + 10)
    else:
        policy.swap(generation(serial=2, groups=GROUPS), START_AT)

    assert (policy.sources, policy.ready_answers()) == ({}, 0)
    learn(policy, PHONE)
    assert policy.sources[PHONE] not in memos


def test_a_view_of_the_old_policy_teaches_nothing() -> None:
    """An answer that was under way while the policy changed may be given, but not learned."""
    policy = in_force(Held([CHAT], groups=["phones"], effective=START_AT + 10))
    old = policy.view_of(PHONE, START_AT)

    policy.turn(START_AT + 10)

    assert policy.memo_of(PHONE, old) is None
    policy.view_of(PHONE, START_AT + 10)
    assert policy.memo_of(PHONE, old) is None


def test_clients_of_one_group_share_a_memo_and_of_two_do_not() -> None:
    """The memo belongs to the view; which client is looked at decides which one."""
    policy = in_force(Held([CHAT], groups=["phones"]))
    other_phone = bytes([198, 51, 100, 8])
    for address in (PHONE, other_phone, DESK, NOBODY):
        learn(policy, address)

    assert policy.sources[PHONE] is policy.sources[other_phone]
    assert len({id(memo) for memo in policy.sources.values()}) == 3


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
            policy.sources[DESK].halve()
    assert policy.ready_answers() == 100

    for n in range(15, 25):
        learn(policy, NOBODY, n.to_bytes(4, "big"))

    assert [policy.sources[address].size() for address in (DESK, PHONE, NOBODY)] == [0, 45, 25]


def test_the_table_of_clients_is_bounded() -> None:
    """A flood of forged addresses costs a bounded table; it starts anew and goes on."""
    policy = in_force()
    view = policy.view_of(NOBODY, START_AT)
    most = 0
    for n in range(70_000):
        policy.memo_of(bytes([10]) + n.to_bytes(3, "big"), view)
        most = max(most, len(policy.sources))

    assert most <= 65_536
    assert len(policy.sources) == 70_000 - 65_536


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
        verdict = judge_query(NAME, held.view_of(DEVICE, at))
        return verdict is not None and not verdict.passes

    before = is_withheld(0.0)
    moments = (9.999, 10.0, 19.999, 20.0, 1e9)
    assert [is_withheld(at) for at in moments] == [before, not before, not before, before, before]
    assert held.until == FOREVER


@pytest.mark.parametrize("case", ["an exemption of a device", "a zone on the client's address"])
def test_a_device_that_is_set_apart_shares_no_ready_answer(case: str) -> None:
    """With another of its group; and its neighbours share theirs."""
    held = PolicyInForce(TIMED[case](0.0, FOREVER), 0.0, 1000)
    memos = [held.memo_of(bytes([192, 0, 2, n]), held.view_of(bytes([192, 0, 2, n]), 0.0)) for n in (5, 6, 7)]

    assert memos[0] is not memos[1]
    assert memos[1] is memos[2]
    assert judge_query(NAME, held.view_of(DEVICE, 0.0)) != judge_query(NAME, held.view_of(OTHER, 0.0))


def test_views_are_bounded_where_many_clients_are_set_apart() -> None:
    """They are made anew, and an answer for a view that was forgotten is not learned."""
    devices = tuple(f"10.0.{n >> 8}.{n & 255}/32" for n in range(5000))
    held = PolicyInForce(policy(BAN, exemptions=[Spared("lab", ("ban",), devices=devices)]), 0.0, 100)
    first = held.view_of(bytes([10, 0, 0, 0]), 0.0)
    assert held.memo_of(bytes([10, 0, 0, 0]), first) is not None
    for n in range(4500):
        held.view_of(bytes([10, 0, n >> 8, n & 255]), 0.0)

    assert held.sources == {}
    assert held.memo_of(bytes([10, 0, 0, 0]), first) is None
    assert held.view_of(bytes([10, 0, 0, 0]), 0.0).spared == first.spared


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
        assert held.view_of(DEVICE, at).spared == made.view_of(DEVICE, at).spared
        assert held.until == made.next_transition(at)
