"""All platforms alike: what every profile keeps, whatever a device is called."""

import json
import plistlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.enrol.lint import lint
from resolver.enrol.platforms import PLATFORMS
from resolver.enrol.profile import File, Options, Protocol
from tests.support.enrolled import DEVICE, KEY, SERVICE, made, named

EACH = pytest.mark.parametrize("platform", PLATFORMS)
NASTY = [
    "a\n[Peer]\nx",
    '"; rm -rf /; "',
    "</string>&lt;]]>",
    "'\u2019$(x)`x`",
    "\\",
    "#>\r\nx",
    "\u2028\x00\x85",
    "=" * 99,
]


@EACH
def test_the_same_device_gets_the_same_octets(platform: str) -> None:
    """Nothing but service, device and options goes into a file."""
    assert made(platform) == made(platform)


@EACH
def test_another_device_gets_other_octets(platform: str) -> None:
    """Profiles are a device's own."""
    other = replace(DEVICE, name="phone-8", token="other", interfaces=DEVICE.interfaces[:1])

    assert made(platform).files != made(platform, device=other).files


@EACH
def test_a_profile_as_it_comes_has_no_trap(platform: str) -> None:
    """What is made here passes the lint, compared with its service."""
    for protocol in Protocol:
        for file in made(platform, options=Options(protocol)).files:
            assert lint(file.octets, SERVICE) == [], file.name


@EACH
@pytest.mark.parametrize("protocol", Protocol)
def test_a_file_with_a_token_or_key_says_so(platform: str, protocol: Protocol) -> None:
    """What is not marked as secret holds no secret, so that modes can follow the mark."""
    assert DEVICE.token is not None
    for file in made(platform, options=Options(protocol)).files:
        if not file.secret:
            text = file.octets.decode("utf-16" if file.octets[:2] == b"\xff\xfe" else "utf-8")
            assert DEVICE.token not in text
            assert KEY not in text


@EACH
def test_a_name_goes_into_comments_and_titles_only(platform: str) -> None:
    """A name made to break out of its place changes no other line, key or value."""
    for name in NASTY:
        check_name(platform, name)


@given(st.sampled_from(list(PLATFORMS)), st.text(min_size=1).filter(str.strip))
def test_any_name_goes_into_comments_and_titles_only(platform: str, name: str) -> None:
    """So does any name there is."""
    check_name(platform, name)


def check_name(platform: str, name: str) -> None:
    plain = made(platform, device=named("plain"))
    wild = made(platform, device=named(name))
    for one, other in zip(plain.files, wild.files, strict=True):
        assert one.name == other.name
        assert skeleton(one) == skeleton(other)


def skeleton(file: File) -> object:
    """What a file says to a machine: without comments, titles, and UUIDs, which follow the name."""
    if file.name.endswith(".mobileconfig"):
        return without_titles(plistlib.loads(file.octets))
    if file.name.endswith(".json"):
        return without_titles(json.loads(file.octets))
    text = file.octets.decode("utf-16" if file.name.endswith(".reg") else "utf-8-sig")
    return [line for line in text.splitlines() if not line.startswith("#") and "DnsPolicyConfig" not in line]


def without_titles(found: object) -> object:
    if isinstance(found, dict):
        titles = ("UUID", "Token", "Identifier", "Description", "displayName")
        return {key: without_titles(one) for key, one in found.items() if not key.endswith(titles)}
    return [without_titles(one) for one in found] if isinstance(found, list) else found


@EACH
def test_where_a_token_names_the_device_none_is_made_without(platform: str) -> None:
    """A profile for nobody is refused."""
    if PLATFORMS[platform].names_device_by == "token":
        with pytest.raises(ValueError, match="no token"):
            made(platform, device=replace(DEVICE, token=None))
