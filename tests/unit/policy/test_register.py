"""The register of devices: what is found in it, what nothing makes of it, and which credential decides."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy import register as rooms
from resolver.policy.client import Credentials
from resolver.policy.register import (
    FOREVER,
    MAGIC,
    Device,
    Entry,
    Means,
    Proof,
    Register,
    RegisterError,
    Unknown,
    digest_of,
    identify,
    write_register,
)

AT = 1_700_000_000.0
PHONE, LAPTOP, TABLET = Device(1, "phone-7", "phones"), Device(2, "laptop-2", "office"), Device(9, "Büro 3", "phones")
ZONES = ("dns.example.org", "ns.example.net")


def register_of(*entries: Entry, serial: int = 1) -> Register:
    """A register as a worker opens it."""
    return Register(memoryview(write_register(entries, serial)))


def entry(proof: Proof, shown: str, device: Device, until: float = FOREVER) -> Entry:
    """One credential."""
    return Entry(digest_of(proof, shown), device, until)


HELD = (
    entry(Proof.TOKEN, "phonetoken", PHONE),
    entry(Proof.TOKEN, "laptoptoken", LAPTOP),
    entry(Proof.CERTIFICATE, "laptop-2.example.org", LAPTOP),
    entry(Proof.TOKEN, "tablettoken", TABLET, AT + 10),
)


def test_a_credential_leads_to_its_device() -> None:
    """Whatever its letter case; one kind is not taken for another."""
    register = register_of(*HELD, serial=7)

    assert register.find(Proof.TOKEN, "phonetoken", AT) == PHONE
    assert register.find(Proof.TOKEN, "PhoneToken", AT) == PHONE
    assert register.find(Proof.CERTIFICATE, "LAPTOP-2.example.org", AT) == LAPTOP
    assert register.find(Proof.CERTIFICATE, "phonetoken", AT) is None
    assert register.find(Proof.TOKEN, "phonetoke", AT) is None
    assert (register.serial, register.credentials) == (7, 4)


@pytest.mark.parametrize("again", [False, True])
def test_a_credential_ends_at_its_moment(again: bool) -> None:
    """Also when it is remembered."""
    register = register_of(*HELD)
    if again:
        assert register.find(Proof.TOKEN, "tablettoken", AT) == TABLET

    assert register.find(Proof.TOKEN, "tablettoken", AT + 9.9) == TABLET
    assert register.find(Proof.TOKEN, "tablettoken", AT + 10) is None


def test_an_empty_register_knows_nobody() -> None:
    """A server without devices has one all the same."""
    assert register_of().find(Proof.TOKEN, "phonetoken", AT) is None


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        (None, None),
        (Credentials(), None),
        (Credentials(path_token="phonetoken"), PHONE),
        (Credentials(bearer="laptoptoken"), LAPTOP),
        (Credentials(server_name="phonetoken.dns.example.org"), PHONE),
        (Credentials(server_name="phonetoken.ns.example.net"), PHONE),
        (Credentials(certificate=("laptop-2.example.org",)), LAPTOP),
        (Credentials(certificate=("other.example.org", "laptop-2.example.org")), LAPTOP),
        # the name itself, one elsewhere, one further below, a zone's own end
        (Credentials(server_name="dns.example.org"), None),
        (Credentials(server_name="phonetoken.example.org"), None),
        (Credentials(server_name="x.phonetoken.dns.example.org"), None),
        (Credentials(server_name="org"), None),
        # the stronger one decides
        (Credentials(("laptop-2.example.org",), "phonetoken", "phonetoken", "phonetoken.dns.example.org"), LAPTOP),
        (Credentials((), "phonetoken", "laptoptoken", "laptoptoken.dns.example.org"), PHONE),
        (Credentials((), None, "laptoptoken", "phonetoken.dns.example.org"), LAPTOP),
        # and also where it is unknown
        (Credentials(("gone.example.org",), "phonetoken", None, None), Unknown(Means.CERTIFICATE)),
        (Credentials((), "gone", "laptoptoken", None), Unknown(Means.PATH)),
        (Credentials((), None, "gone", "laptoptoken.dns.example.org"), Unknown(Means.BEARER)),
        (Credentials(server_name="gone.dns.example.org"), Unknown(Means.SERVER_NAME)),
        (Credentials(server_name=".dns.example.org"), Unknown(Means.SERVER_NAME)),
    ],
)
def test_the_strongest_credential_shown_decides(shown: Credentials | None, found: Device | Unknown | None) -> None:
    """Certificate, path, bearer, server name; what was shown in vain is never passed over."""
    assert identify(shown, register_of(*HELD), ZONES, AT) == found


def test_a_name_of_ours_below_another_is_no_token() -> None:
    """Where `a.dns.example.org` and `dns.example.org` are both our names, the first shows nothing."""
    zones = ("dns.example.org", "phonetoken.dns.example.org")

    assert identify(Credentials(server_name="phonetoken.dns.example.org"), register_of(*HELD), zones, AT) is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of made-up tokens takes a bounded room, and drives out nothing that is known."""
    monkeypatch.setattr(rooms, "_MOST_STRANGERS", 16)
    monkeypatch.setattr(rooms, "_MOST_KNOWN", 16)
    register = register_of(*HELD)
    assert register.find(Proof.TOKEN, "phonetoken", AT) == PHONE

    for i in range(100):
        assert register.find(Proof.TOKEN, f"made-up-{i}", AT) is None
        assert register.find(Proof.TOKEN, "x" * (1000 + i), AT) is None
    remembered = register._known[Proof.TOKEN]
    assert list(remembered) == ["phonetoken"]
    assert len(register._strangers[Proof.TOKEN]) <= 16

    for i in range(1 << 10):
        name = "".join(c.upper() if i >> place & 1 else c for place, c in enumerate("phonetoken"))
        assert register.find(Proof.TOKEN, name, AT) == PHONE
    assert len(remembered) <= 16


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"", "not a register"),
        (b"INTERDICT GENERATION 3\n" + bytes(99), "not a register"),
        (MAGIC, "seal"),
        (MAGIC + bytes(56), "seal"),
        (write_register(HELD, 1)[:-1], "octets, and should have"),
        (write_register(HELD, 1) + b"x", "octets, and should have"),
    ],
)
def test_what_is_no_register_is_refused(octets: bytes, said: str) -> None:
    """The message says what is wrong."""
    with pytest.raises(RegisterError, match=said):
        Register(memoryview(octets))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry(Proof.TOKEN, "t", PHONE), entry(Proof.TOKEN, "T", LAPTOP)], "two credentials have one digest"),
        ([entry(Proof.TOKEN, "t", Device(1, "x" * 70_000, "g"))], "too long"),
        ([entry(Proof.TOKEN, "t", Device(1, "x", "g" * 300))], "too long"),
    ],
)
def test_what_can_not_be_told_apart_is_not_written(entries: Sequence[Entry], said: str) -> None:
    """Nor what is too long for the form."""
    with pytest.raises(ValueError, match=said):
        write_register(entries, 1)


SHOWN = st.text(max_size=12)
CREDENTIALS = st.dictionaries(
    st.tuples(st.sampled_from(Proof), SHOWN.map(str.lower)),
    st.tuples(st.integers(1, 5), st.integers(0, 20)),
    max_size=20,
)


@settings(deadline=None)
@given(CREDENTIALS, st.lists(st.tuples(st.sampled_from(Proof), SHOWN, st.integers(0, 20)), max_size=20))
def test_it_finds_what_a_dict_would(
    held: dict[tuple[Proof, str], tuple[int, int]], asked: list[tuple[Proof, str, int]]
) -> None:
    """Over random registers and questions, asked once and again."""
    devices = {number: Device(number, f"device {number}", "g") for number in range(1, 6)}
    opened = register_of(*(entry(proof, shown, devices[n], until) for (proof, shown), (n, until) in held.items()))

    for proof, shown, at in [*asked, *asked, *((p, s.upper(), 5) for p, s in held)]:
        number, until = held.get((proof, shown.lower()), (0, 0))
        assert opened.find(proof, shown, at) == (devices[number] if at < until else None)


@given(st.binary(max_size=200), st.booleans())
def test_any_octets_open_or_are_refused(octets: bytes, is_like: bool) -> None:
    """Whatever they are, nothing else is raised, and nobody is found."""
    try:
        register = Register(memoryview(MAGIC + octets if is_like else octets))
    except RegisterError:
        return
    assert register.find(Proof.TOKEN, "phonetoken", AT) is None


@settings(deadline=None)
@given(st.data())
def test_damage_makes_a_device_unknown_and_never_another(data: st.DataObject) -> None:
    """Any octet may have any value: the file is refused, or a device is not found; no other is found in its place."""
    octets = bytearray(write_register(HELD, 1))
    place = data.draw(st.integers(0, len(octets) - 1))
    octets[place] ^= data.draw(st.integers(1, 255))
    try:
        register = Register(memoryview(octets))
    except RegisterError:
        return

    assert register.find(Proof.TOKEN, "phonetoken", AT) in (PHONE, None)
    assert register.find(Proof.TOKEN, "laptoptoken", AT) in (LAPTOP, None)
    assert register.find(Proof.TOKEN, "tablettoken", AT) in (TABLET, None)
    assert register.find(Proof.TOKEN, "tablettoken", AT + 10) is None
