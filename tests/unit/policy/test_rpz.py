"""Response Policy Zones: what each record of a zone comes to, and that none is lost."""

import random
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.documents import Action
from resolver.policy.rpz import MAX_NOTES, RpzReader, RpzReport, Untaken
from resolver.policy.zone import LocalRecord, PolicyZone, Reach, Rule, Trigger
from resolver.wire.codes import Rtype, rtype_from_text
from resolver.wire.name import from_text

ORIGIN = from_text("rpz.example")
SOA = from_text("ns.example.org") + from_text("host.example.org") + bytes(20)
GARDEN = from_text("garden.example.org")
A = bytes([192, 0, 2, 1])
Said = tuple[str, str, bytes]
"""Owner relative to the zone (`@` for itself), type, RDATA."""


def owner(text: str) -> bytes:
    return ORIGIN if text == "@" else from_text(text)[:-1] + ORIGIN


def read(*said: Said, ttl: int = 60) -> tuple[PolicyZone, RpzReport]:
    reader = RpzReader(ORIGIN)
    for name, rtype, rdata in said:
        reader.add(owner(name), rtype_from_text(rtype), ttl, rdata)
    return reader.finish()


def cname(name: str, target: str) -> Said:
    return name, "CNAME", from_text(target)


def rules(zone: PolicyZone, trigger: Trigger = Trigger.QNAME) -> dict[tuple[str | bytes, Reach], Rule]:
    """Every trigger of a kind with its rule; networks as text."""
    if trigger in zone.networks:
        return {(str(network), Reach.EXACT): zone.rules[n] for network, n in zone.networks[trigger].items()}
    names = zone.names if trigger is Trigger.QNAME else zone.nameservers
    return {(name, reach): zone.rules[n] for name, held in names.items() for reach, n in held}


@pytest.mark.parametrize(
    ("target", "action"),
    [
        (".", Action.NXDOMAIN),
        ("*", Action.NODATA),
        ("rpz-passthru", Action.PASSTHRU),
        ("RPZ-Drop", Action.DROP),
        ("rpz-tcp-only", Action.TCP_ONLY),
        ("bad.example.org", Action.PASSTHRU),
    ],
)
def test_target_of_cname_is_the_action(target: str, action: Action) -> None:
    """A CNAME to one of the draft's names, or the older way to the trigger itself, says what happens."""
    zone, _ = read(cname("bad.example.org", target))
    assert rules(zone) == {(from_text("bad.example.org"), Reach.EXACT): Rule(action)}


@pytest.mark.parametrize(
    ("said", "trigger", "where", "reach"),
    [
        ("a.example.org", Trigger.QNAME, "a.example.org", Reach.EXACT),
        ("*.a.example.org", Trigger.QNAME, "a.example.org", Reach.BELOW),
        ("*", Trigger.QNAME, ".", Reach.BELOW),
        ("a.*.example.org", Trigger.QNAME, "a.*.example.org", Reach.EXACT),
        ("rpz-ip.example.org", Trigger.QNAME, "rpz-ip.example.org", Reach.EXACT),
        ("ns.example.org.rpz-nsdname", Trigger.NSDNAME, "ns.example.org", Reach.EXACT),
        ("*.example.org.rpz-nsdname", Trigger.NSDNAME, "example.org", Reach.BELOW),
        ("*.rpz-nsdname", Trigger.NSDNAME, ".", Reach.BELOW),
    ],
)
def test_owner_is_the_trigger(said: str, trigger: Trigger, where: str, reach: Reach) -> None:
    """Owners are names, exact or what is below them, of questions or of name servers."""
    zone, report = read(cname(said, "."))
    assert rules(zone, trigger) == {(from_text(where), reach): Rule(Action.NXDOMAIN)}
    assert dict(zone.triggers())[trigger] == report.taken == 1


@pytest.mark.parametrize(
    ("label", "trigger"),
    [("rpz-client-ip", Trigger.CLIENT_IP), ("rpz-ip", Trigger.RESPONSE_IP), ("rpz-nsip", Trigger.NSIP)],
)
@pytest.mark.parametrize(
    ("said", "network"),
    [
        ("24.0.2.0.192", "192.0.2.0/24"),
        ("32.1.2.0.192", "192.0.2.1/32"),
        ("1.0.0.0.128", "128.0.0.0/1"),
        ("008.0.0.0.010", "10.0.0.0/8"),
        ("128.1.zz.db8.2001", "2001:db8::1/128"),
        ("128.1.0.0.0.0.0.db8.2001", "2001:db8::1/128"),
        ("48.zz.1.db8.2001", "2001:db8:1::/48"),
        ("128.zz", "::/128"),
        ("128.1.zz", "::1/128"),
        ("128.zz.7.6.5.4.3.2.1", "1:2:3:4:5:6:7:0/128"),
        ("1.zz.8000", "8000::/1"),
        ("64.zz.0000.0DB8.2001", "2001:db8::/64"),
    ],
)
def test_address_blocks_are_read(label: str, trigger: Trigger, said: str, network: str) -> None:
    """The length first, then the address from its end; `zz` is a row of zero groups."""
    zone, report = read(cname(f"{said}.{label}", "."))
    assert rules(zone, trigger) == {(network, Reach.EXACT): Rule(Action.NXDOMAIN)}, report.notes


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("24.1.2.0.192", "perhaps 192.0.2.0/24"),
        ("32.zz.1.db8.2001", "perhaps 2001:db8::/32"),
        ("0.0.0.0.0", "1.0.0.0.0 and 1.0.0.0.128"),
        ("0.zz", "1.zz and 1.zz.8000"),
        ("33.1.2.0.192", "over 32"),
        ("129.zz", "over 128"),
        ("32.256.2.0.192", "'256'"),
        ("32.-1.2.0.192", "'-1'"),
        ("32.2.0.192", "neither four"),
        ("32.1.2.0.192.192", "neither four"),
        ("128.zz.1.zz", "zz stands twice"),
        ("128.1.2.3.4.5.6.7.8.9", "neither four"),
        ("128.1.2.3.4.zz.5.6.7.8", "neither four"),
        ("128.12345.zz", "'12345'"),
        ("128.g.zz", "'g'"),
        ("*.0.2.0.192", "'*' is no number"),
        ("x.0.2.0.192", "write the length first"),
        ("24", "neither four"),
    ],
)
def test_what_is_no_address_block_is_refused_with_the_reason(said: str, why: str) -> None:
    """Bits below the prefix, a prefix of 0 and anything that is no block make no rule, and the report says why."""
    zone, report = read(cname(f"{said}.rpz-ip", "."))
    assert not any(count for _, count in zone.triggers())
    assert report.untaken == {Untaken.ADDRESS: 1}
    assert why in report.notes[0].why
    assert report.notes[0].owner == f"{said}.rpz-ip.rpz.example"


def test_older_passthru_is_known_for_each_trigger() -> None:
    """A CNAME to the trigger without its mark passes through."""
    zone, _ = read(
        cname("32.1.2.0.192.rpz-ip", "32.1.2.0.192"),
        cname("ns.example.org.rpz-nsdname", "ns.example.org"),
    )
    assert list(rules(zone, Trigger.RESPONSE_IP).values()) == [Rule(Action.PASSTHRU)]
    assert list(rules(zone, Trigger.NSDNAME).values()) == [Rule(Action.PASSTHRU)]


def test_any_other_record_is_local_data() -> None:
    """All RRsets of an owner make one rule; each keeps its TTL, and one RRset has one: the lowest."""
    reader = RpzReader(ORIGIN)
    for rtype, ttl, rdata in [
        (Rtype.TXT, 9, b"\1x"),
        (Rtype.A, 60, A),
        (Rtype.A, 30, A[::-1]),
        (Rtype.AAAA, 7, bytes(16)),
    ]:
        reader.add(owner("bad.example.org"), rtype, ttl, rdata)
    zone, report = reader.finish()
    (rule,) = rules(zone).values()
    assert rule.action is Action.LOCAL_DATA
    assert set(rule.records) == {
        LocalRecord(Rtype.TXT, 9, b"\1x"), LocalRecord(Rtype.A, 30, A), LocalRecord(Rtype.A, 30, A[::-1]),
        LocalRecord(Rtype.AAAA, 7, bytes(16)),
    }  # fmt: skip
    assert report.taken == 4


def test_older_passthru_is_not_for_wildcards() -> None:
    """Under `*.x` the target `*.x` is a wildcard CNAME, as BIND 9 has it."""
    zone, _ = read(cname("*.bad.example.org", "*.bad.example.org"))
    assert [rule.action for rule in zone.rules] == [Action.LOCAL_DATA]


@pytest.mark.parametrize("target", ["garden.example.org", "*.garden.example.org", "Garden.Example.ORG"])
def test_cname_to_elsewhere_is_local_data(target: str) -> None:
    """An alias into a walled garden is kept as it is written, the asterisk for the QNAME included."""
    zone, _ = read(("bad.example.org", "CNAME", from_text(target)))
    (rule,) = rules(zone).values()
    assert rule == Rule(Action.LOCAL_DATA, (LocalRecord(Rtype.CNAME, 60, from_text(target)),))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (("@", "NS", GARDEN), Untaken.APEX),
        (("@", "TXT", b"\1x"), Untaken.APEX),
        (cname("@", "."), Untaken.APEX),
        (("@", "RRSIG", bytes(30)), Untaken.DNSSEC),
        (("bad.example.org", "NSEC", bytes(30)), Untaken.DNSSEC),
        (("bad.example.org", "DS", bytes(30)), Untaken.DNSSEC),
        (("@", "DNSKEY", bytes(30)), Untaken.DNSSEC),
        (("@", "TYPE63", bytes(30)), Untaken.DNSSEC),
        (("bad.example.org", "NS", GARDEN), Untaken.SERVING),
        (("bad.example.org", "SOA", SOA), Untaken.SERVING),
    ],
)
def test_what_rightly_is_no_rule_is_ignored(said: Said, reason: Untaken) -> None:
    """What serves or signs the zone is counted, not told one by one."""
    zone, report = read(said)
    assert not any(count for _, count in zone.triggers())
    assert (report.ignored, report.untaken, report.notes) == (1, {reason: 1}, [])


@pytest.mark.parametrize(
    ("said", "reason", "why"),
    [
        (cname("x.rpz-nsdomain", "."), Untaken.TRIGGER, "rpz-nsdname"),
        (cname("rpz-ip", "."), Untaken.NAMELESS, "nothing stands before rpz-ip"),
        (cname("rpz-nsdname", "."), Untaken.NAMELESS, "nothing stands before"),
        (cname("bad.example.org", "rpz-nxdomain"), Untaken.ACTION, "rpz-drop."),
        (cname("bad.example.org", "x.rpz-drop"), Untaken.ACTION, "x.rpz-drop."),
        (cname("bad.example.org", "rpz-passthru.rpz.example"), Untaken.DOT, "write rpz-passthru. with its last dot"),
        (cname("bad.example.org", "*.rpz.example"), Untaken.DOT, "write *. with its last dot"),
        (("bad.example.org", "CNAME", b"\3ab"), Untaken.RDATA, "not a name"),
        (("bad.example.org", "CNAME", b""), Untaken.RDATA, "not a name"),
        (("bad.example.org", "CNAME", b"\xc0\x0c"), Untaken.RDATA, "not a name"),
        (("bad.example.org", "CNAME", b"\0\0"), Untaken.RDATA, "not a name"),
        (("bad.example.org", "A", bytes(5)), Untaken.RDATA, "5 octets"),
        (("bad.example.org", "DNAME", GARDEN), Untaken.DNAME, "*.x CNAME *.garden.example."),
        (("@", "SOA", SOA[:-1]), Untaken.RDATA, "RFC 1035"),
        (("bad.example.org", "TYPE250", b""), Untaken.META, "TSIG"),
        (("bad.example.org", "TYPE0", b""), Untaken.META, "TYPE0"),
        (("bad.example.org", "OPT", b""), Untaken.META, "OPT"),
    ],
)
def test_what_was_meant_as_a_rule_and_is_none_is_refused(said: Said, reason: Untaken, why: str) -> None:
    """It is told with its owner, and with what to write instead."""
    zone, report = read(said)
    assert not any(count for _, count in zone.triggers())
    assert (report.refused, report.untaken) == (1, {reason: 1})
    assert why in report.notes[0].why


def test_owner_outside_the_zone_is_refused() -> None:
    """A name with a last dot too many is no rule: nobody can tell what was meant."""
    reader = RpzReader(ORIGIN)
    reader.add(from_text("bad.example.org"), Rtype.CNAME, 60, b"\0", line=7)
    reader.add(from_text("xrpz.example"), Rtype.A, 60, A)
    zone, report = reader.finish()
    assert zone.names == {}
    assert report.untaken == {Untaken.OUTSIDE: 2}
    assert (report.notes[0].line, "without its last dot" in report.notes[0].why) == (7, True)


def test_soa_is_kept_for_answers() -> None:
    """The zone keeps its name and SOA, once; another SOA is refused."""
    zone, report = read(("@", "SOA", SOA), ("@", "SOA", SOA), ("@", "SOA", SOA[:-1] + b"\1"))
    assert (zone.origin, zone.soa) == (ORIGIN, LocalRecord(Rtype.SOA, 60, SOA))
    assert (report.has_soa, report.taken) == (True, 1)
    assert report.untaken == {Untaken.REPEATED: 1, Untaken.SECOND_SOA: 1}


def test_the_same_record_again_is_ignored() -> None:
    """Zones on hand hold the same rule twice; that is no mistake to be told of."""
    _, report = read(
        cname("bad.example.org", "."), cname("bad.example.org", "."), ("b.example", "A", A), ("b.example", "A", A)
    )
    assert (report.taken, report.untaken) == (2, {Untaken.REPEATED: 2})


def test_of_two_cnames_the_first_stands() -> None:
    """Two actions at one owner contradict each other: one is in force, the other told."""
    zone, report = read(cname("bad.example.org", "."), cname("bad.example.org", "*"))
    assert list(rules(zone).values()) == [Rule(Action.NXDOMAIN)]
    assert report.untaken == {Untaken.SECOND_CNAME: 1}


@pytest.mark.parametrize("seed", range(4))
def test_a_cname_has_no_company_whatever_comes_first(seed: int) -> None:
    """Beside a CNAME other data is refused (RFC 1034 §3.6.2), at names and at networks, however they are spelled."""
    said = [
        cname("bad.example.org", "."), ("bad.example.org", "A", A), ("bad.example.org", "TXT", b"\1x"),
        cname("128.1.zz.rpz-ip", "."), ("128.1.0.0.0.0.0.0.0.rpz-ip", "A", A), ("128.1.zz.rpz-ip", "A", A[::-1]),
    ]  # fmt: skip
    random.Random(seed).shuffle(said)
    zone, report = read(*said)
    assert list(rules(zone).values()) == list(rules(zone, Trigger.RESPONSE_IP).values()) == [Rule(Action.NXDOMAIN)]
    assert (report.taken, report.untaken) == (2, {Untaken.BESIDE_CNAME: 4})


def test_only_the_first_refused_records_are_told() -> None:
    """A report can be read; what is behind its end is counted."""
    _, report = read(*[cname(f"n{i}.rpz-x", ".") for i in range(MAX_NOTES + 5)])
    assert (len(report.notes), report.refused) == (MAX_NOTES, MAX_NOTES + 5)


def test_a_million_names_share_a_rule() -> None:
    """What is the same is kept once."""
    zone, _ = read(*[cname(f"n{i}.example.org", "garden.example.org") for i in range(100)])
    assert len(zone.rules) == 1


WORDS = st.sampled_from([
    "a", "b", "*.a", "rpz-ip", "24.0.2.0.192.rpz-ip", "24.1.2.0.192.rpz-ip", "64.zz.db8.2001.rpz-nsip", "x.rpz-nsdname",
    "*.rpz-nsdname", "9.rpz-client-ip", "x.rpz-y", "@",
])  # fmt: skip
OWNERS = st.one_of(
    WORDS.map(owner),
    st.lists(st.binary(min_size=1, max_size=4).map(bytes.lower), max_size=6).map(
        lambda parts: b"".join(bytes([len(part)]) + part for part in parts) + ORIGIN
    ),
    st.just(from_text("elsewhere.example")),
)
RDATA = st.one_of(
    st.sampled_from([b"\0", b"\1*\0", from_text("rpz-drop"), GARDEN, from_text("a"), from_text("rpz-z"), A, SOA]),
    st.binary(max_size=20),
)
RECORDS = st.lists(st.tuples(OWNERS, st.sampled_from([1, 2, 5, 6, 16, 28, 39, 41, 46, 250]), RDATA), max_size=25)


@settings(deadline=None)
@given(RECORDS)
def test_no_record_is_lost(records: list[tuple[bytes, int, bytes]]) -> None:
    """Whatever a zone holds, each record is taken, ignored or refused, and every refusal is told."""
    reader = RpzReader(ORIGIN)
    for name, rtype, rdata in records:
        reader.add(name, rtype, 60, rdata)
    zone, report = reader.finish()
    assert report.records == len(records)
    assert report.taken + report.ignored + report.refused == report.records
    assert len(report.notes) == report.refused
    held = [*zone.names.values(), *zone.nameservers.values(), *(networks for networks in zone.networks.values())]
    assert report.taken >= sum(map(len, held))
    assert all(rule.records for rule in zone.rules if rule.action is Action.LOCAL_DATA)


@settings(deadline=None)
@given(RECORDS, st.randoms(use_true_random=False))
def test_order_does_not_matter(records: list[tuple[bytes, int, bytes]], rnd: random.Random) -> None:
    """The same records make the same rules in any order, as long as no owner has two CNAMEs."""
    cnames = {name: rdata for name, rtype, rdata in records if rtype == Rtype.CNAME}
    records = [record for record in records if record[1] not in (Rtype.CNAME, Rtype.SOA)]
    records += [(name, int(Rtype.CNAME), rdata) for name, rdata in cnames.items()]
    shuffled = records[:]
    rnd.shuffle(shuffled)
    readings = []
    for way in (records, shuffled):
        reader = RpzReader(ORIGIN)
        for name, rtype, rdata in way:
            reader.add(name, rtype, 60, rdata)
        zone, report = reader.finish()
        readings.append(([rules(zone, trigger) for trigger in Trigger], report.taken, report.untaken))
    assert readings[0] == readings[1]


V4 = st.builds(
    lambda value, length: ip_network((value, length), strict=False), st.integers(0, 2**32 - 1), st.integers(1, 32)
)
V6 = st.builds(
    lambda value, length: ip_network((value.to_bytes(16, "big"), length), strict=False),
    st.integers(0, 2**128 - 1) | st.integers(0, 2**16).map(lambda n: n << 64),
    st.integers(1, 128),
)


@settings(deadline=None)
@given(V4 | V6)
def test_every_block_can_be_said(network: object) -> None:
    """What a zone's author writes for a block is read as that block."""
    block = ip_network(str(network))
    if block.version == 4:
        groups = str(block.network_address).split(".")
    else:
        groups = str(block.network_address).replace("::", ":zz:").strip(":").split(":")
    zone, report = read(cname(".".join([str(block.prefixlen), *reversed(groups), "rpz-nsip"]), "."))
    assert list(zone.networks[Trigger.NSIP]) == [block], report.notes
