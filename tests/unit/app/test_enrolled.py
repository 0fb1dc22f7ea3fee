"""What an import would change: who is who, and who is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.app.enrolled import Credential, Enrolled, Plan, plan_import
from resolver.enrol.exports import Listed
from resolver.policy.register import Proof

AT = 1_700_000_000.0


def held(
    number: int, name: str, serial: str = "", group: str = "phones", owner: str = "", revoked: float | None = None
) -> Enrolled:
    return Enrolled(number, name, group, owner, serial, "", AT, revoked, ())


def listed(name: str, serial: str = "", group: str = "phones", owner: str = "") -> Listed:
    return Listed(2, name, serial, owner, group)


def plan(known: list[Enrolled], *listing: Listed) -> Plan:
    return plan_import(known, 1, listing)


@pytest.mark.parametrize(
    ("known", "one"),
    [
        (held(1, "a", "S1"), listed("a", "S1")),
        (held(1, "a", "S1"), listed("a")),
        (held(1, "a", "S1", owner="jdoe"), listed("a", "S1")),
        (held(1, "a"), listed("a")),
    ],
)
def test_what_is_listed_as_it_is_known_stays(known: Enrolled, one: Listed) -> None:
    """What the export does not say is no change."""
    made = plan([known], one)

    assert (made.same, made.added, made.updated, made.missing) == (1, (), (), ())


@pytest.mark.parametrize(
    ("known", "one", "becomes"),
    [
        (held(1, "a", "S1"), listed("b", "S1"), listed("b", "S1")),
        (held(1, "a", "S1"), listed("a", "S2"), listed("a", "S2")),
        (held(1, "a"), listed("a", "S1"), listed("a", "S1")),
        (held(1, "a", "S1"), listed("a", "S1", "office"), listed("a", "S1", "office")),
        (held(1, "a", "S1", owner="x"), listed("a", "S1", owner="y"), listed("a", "S1", owner="y")),
        (held(1, "a", "S1", owner="x"), listed("b", "", owner=""), None),
    ],
)
def test_a_known_device_is_brought_up_to_date(known: Enrolled, one: Listed, becomes: Listed | None) -> None:
    """It is known by its serial number, else by its name; else it is another one."""
    made = plan([known], one)

    assert made.updated == (((known, becomes),) if becomes else ())
    assert made.added == (() if becomes else (one,))


def test_the_serial_number_goes_before_the_name() -> None:
    """Two devices that changed names keep what proves them."""
    a, b = held(1, "a", "S1"), held(2, "b", "S2")

    made = plan([a, b], listed("b", "S1"), listed("a", "S2"))

    assert made.updated == ((a, listed("b", "S1")), (b, listed("a", "S2")))
    assert made.problems == ()


def test_a_name_that_another_device_keeps_is_not_taken() -> None:
    """It is told, and the other device stays."""
    a, b = held(1, "a", "S1"), held(2, "b", "S2")

    made = plan([a, b], listed("b", "S1"))

    assert [message for _, message in made.problems] == ['another device is called "b"; rename one of them']
    assert (made.added, made.updated, made.missing) == ((), (), (b,))


def test_a_revoked_device_stays_revoked() -> None:
    """Whatever management lists: a lost phone is listed for long."""
    lost = held(1, "a", "S1", revoked=AT)

    made = plan([lost], listed("a", "S1"))

    assert (made.revoked, made.added, made.updated, made.missing) == ((lost,), (), (), ())


def test_only_groups_of_the_import_can_lack_devices() -> None:
    """Those of another export are none of its business, nor those that were revoked."""
    a, b, c = held(1, "a"), held(2, "b", group="office"), held(3, "c", revoked=AT)

    made = plan([a, b, c], listed("d"))

    assert (made.missing, made.held) == ((a,), 1)


def test_a_credential_is_in_force_until_its_end() -> None:
    """Or until it is revoked."""
    ended = Credential(1, Proof.TOKEN, "", AT, AT + 5, None)

    assert ended.is_in_force(AT + 4)
    assert not ended.is_in_force(AT + 5)
    assert not Credential(1, Proof.TOKEN, "", AT, None, AT).is_in_force(AT + 1)


NAMES = st.sampled_from("abcd")
SERIALS = st.sampled_from(["", "S1", "S2", "S3", "S4"])


@given(
    st.lists(st.tuples(NAMES, SERIALS, st.booleans()), max_size=4, unique_by=(lambda t: t[0], lambda t: t[1] or t)),
    st.lists(st.tuples(NAMES, SERIALS), max_size=4, unique_by=(lambda t: t[0], lambda t: t[1] or t)),
)
def test_a_plan_accounts_for_everybody(known: list[tuple[str, str, bool]], listing: list[tuple[str, str]]) -> None:
    """Each device listed is added, updated, the same, revoked or a problem; names stay unique."""
    devices = [held(i, name, serial, revoked=AT if gone else None) for i, (name, serial, gone) in enumerate(known)]
    made = plan(devices, *(listed(name, serial) for name, serial in listing))

    parts = len(made.added) + len(made.updated) + made.same + len(made.revoked) + len(made.problems)
    assert parts == len(listing)
    if not made.problems:
        after = {device.number: device.name for device in devices}
        after |= {device.number: one.name for device, one in made.updated}
        names = [*after.values(), *(one.name for one in made.added)]
        assert len(set(names)) == len(names)
