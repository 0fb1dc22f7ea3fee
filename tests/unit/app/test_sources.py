"""Where zones come from: files, and last good copies of what was fetched or transferred."""

from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app.sources import count_entries, download_terms, read_zone, transfer_terms
from resolver.config import PolicyZone
from resolver.feeds.copies import FeedError, State, write_copy
from resolver.policy.documents import Action
from resolver.policy.source import PolicyError
from resolver.policy.terms import ZoneKind
from tests.support.build import wire

RPZ = """\
$TTL 60
@ SOA ns.feed.example. host.feed.example. 7 3600 900 86400 60
bad.example CNAME .
24.0.2.0.192.rpz-ip CNAME *.
"""
SECRET = "c2VjcmV0"


def zone_of(text: str) -> PolicyZone:
    """A zone as it is configured."""
    return configuration.read(f"policy:\n  zones:\n    - {{name: feed.example, {text}}}", "i.yaml").policy.zones[0]


def test_a_file_tells_its_format(tmp_path: Path) -> None:
    """A Response Policy Zone among them, whose names belong to the configured name."""
    (tmp_path / "z").write_text(RPZ)
    ((applied, state),) = read_zone(zone_of(f"file: {tmp_path}/z"), tmp_path, None)

    assert (applied.id, applied.kind) == ("zone:feed.example", ZoneKind.RPZ)
    assert wire("bad.example") in applied.zone.names
    assert (state.entries, state.refused, state.error) == (2, 0, None)


def test_what_was_not_fetched_yet_is_a_zone_without_names(tmp_path: Path) -> None:
    """And is told; the server starts."""
    ((applied, state),) = read_zone(zone_of("url: https://lists.example/l"), tmp_path, None)

    assert (applied.id, state.entries, state.error) == ("list:feed.example", 0, "it was not fetched yet")


def test_a_copy_is_read_with_its_state(tmp_path: Path) -> None:
    """When it was fetched, and how often its source failed since."""
    octets = b"0.0.0.0 a.example\n0.0.0.0 b.example\n"
    state = State(url="https://lists.example/l", fetched_at=5.0, checked_at=9.0, failures=2, error="gone")
    write_copy(tmp_path, "feed.example", octets, state.of(octets, 2))
    ((applied, told),) = read_zone(zone_of("url: https://lists.example/l"), tmp_path, None)

    assert len(applied.zone.names) == 2
    assert (told.fetched_at, told.checked_at, told.failures, told.error) == (5.0, 9.0, 2, "gone")


def test_a_list_may_not_block_the_host_it_comes_from(tmp_path: Path) -> None:
    """It could never be fetched again."""
    octets = b"0.0.0.0 lists.example\n" + b"".join(b"0.0.0.0 n%d.example\n" % n for n in range(50))

    assert count_entries(zone_of("url: https://lists.example/l"), octets) == 50


@pytest.mark.parametrize(
    ("octets", "why"),
    [(b"<html>", "HTML|page"), (b"", "holds no line"), (b"0.0.0.0 10.0.0.1\n0.0.0.0 a.example\n", "cannot be taken")],
)
def test_what_can_not_be_used_is_refused_with_the_reason(octets: bytes, why: str) -> None:
    """So that the copy before it stays."""
    with pytest.raises(FeedError, match=why):
        count_entries(zone_of("url: https://lists.example/l"), octets)


def test_a_policy_zone_is_held_to_the_same_tolerance() -> None:
    """One rule of two that can not be taken is too much; unless the configuration says so."""
    octets = RPZ.encode() + b"24.1.2.0.192.rpz-ip CNAME .\n"

    with pytest.raises(FeedError, match="1 of 4 records can not be taken"):
        count_entries(zone_of("url: https://lists.example/l"), octets)
    assert count_entries(zone_of("url: https://lists.example/l, tolerance: 0.5"), octets) == 2


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    """With the option to raise."""
    (tmp_path / "l").write_text("a.example\n" * 200)
    with pytest.raises(PolicyError, match="raise max_octets of zone"):
        list(read_zone(zone_of(f"file: {tmp_path}/l, max_octets: 1KiB"), tmp_path, None))


def test_an_alias_of_the_configuration_takes_the_place_of_every_action(tmp_path: Path) -> None:
    """The walled garden."""
    (tmp_path / "z").write_text(RPZ)
    ((applied, _),) = read_zone(zone_of(f"file: {tmp_path}/z, cname: garden.example"), tmp_path, None)

    assert applied.override is not None
    assert applied.override.action is Action.LOCAL_DATA
    assert applied.override.records[0].rdata == wire("garden.example")


def test_terms_follow_the_configuration() -> None:
    """Of fetching, with what an operator may set."""
    terms = download_terms(zone_of("url: https://l.example/x, refresh: 1h, max_octets: 2KiB, min_share: 0"))

    assert (terms.name, terms.url, terms.refresh_s, terms.most_octets, terms.min_share) == (
        "feed.example", "https://l.example/x", 3600.0, 2048, 0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "written", [SECRET, f'key "k.example" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n'], ids=["base64", "file"]
)
def test_a_key_may_lie_in_a_file(tmp_path: Path, written: str) -> None:
    """As base64 alone, or as tsig-keygen writes it."""
    (tmp_path / "key").write_text(written)
    zone = zone_of(f"primaries: [{{address: 192.0.2.53}}], tsig: {{name: k.example, secret_file: {tmp_path}/key}}")
    terms = transfer_terms(zone)

    assert terms.primaries == (("192.0.2.53", 53),)
    assert terms.key is not None
    assert (terms.key.name, terms.key.secret) == ("k.example", b"secret")


def test_a_key_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With the path."""
    zone = zone_of(f"primaries: [{{address: 192.0.2.53}}], tsig: {{name: k, secret_file: {tmp_path}/none}}")
    with pytest.raises(FeedError, match="none cannot be read"):
        transfer_terms(zone)


def test_no_secret_of_an_address_is_told(tmp_path: Path) -> None:
    """Account and query may be somebody's; neither messages nor the policy hold them."""
    zone = zone_of("url: 'https://me:secret@lists.example/l?token=secret', format: rpz")
    ((applied, state),) = read_zone(zone, tmp_path, None)
    with pytest.raises(FeedError) as told:
        count_entries(zone, b"\xff\xfe\xfa")

    assert (applied.source, state.source) == ("https://lists.example/l", "https://lists.example/l")
    assert "secret" not in str(told.value)
