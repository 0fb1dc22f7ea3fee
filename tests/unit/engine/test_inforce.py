"""The policy in force: one generation, the views of this moment, and memos that never outlive them."""

import pytest

from resolver.engine.inforce import PolicyInForce
from resolver.hot._batch_cy import NEVER, Ready
from resolver.policy.generation import FOREVER
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
