"""The words of profiles: what a service, a device and a token may be, and how names go into files."""

import re
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.enrol.profile import (
    Device,
    EnrolError,
    Openvpn,
    Service,
    folder_of,
    label,
    parse_endpoint,
    parse_host,
    parse_host_template,
    parse_key,
    parse_package,
    parse_reverse_name,
    parse_template,
    parse_token,
    to_pem,
    uuid_of,
)
from tests.support.enrolled import DEVICE, KEY, SERVICE, named


@pytest.mark.parametrize(
    ("parse", "written"),
    [
        (parse_token, "k3v9"),
        (parse_token, "a" * 63),
        (parse_host, "dns.example.org"),
        (parse_template, "https://dns.example.org/dns-query/{token}"),
        (parse_template, "https://dns.example.org:8443/{token}/dns-query"),
        (parse_host_template, "{token}.dns.example.org"),
        (parse_reverse_name, "org.example.dns"),
        (parse_endpoint, "vpn.example.org:51820"),
        (parse_endpoint, "192.0.2.1:51820"),
        (parse_endpoint, "[2001:db8::1]:51820"),
        (parse_key, KEY),
        (parse_package, "org.example.vpn"),
    ],
)
def test_a_value_of_its_form_is_taken_as_it_is(parse: Callable[[str], str], written: str) -> None:
    """What is written right comes back unchanged."""
    assert parse(written) == written


@pytest.mark.parametrize(
    ("parse", "written", "mend"),
    [
        (parse_token, "", "1 to 63"),
        (parse_token, "K3v9", "lower-case"),
        (parse_token, "-a", "no hyphen"),
        (parse_token, "a" * 64, "1 to 63"),
        (parse_token, "a.b", "hyphens"),
        (parse_token, "a\n", "hyphens"),
        (parse_host, "DNS.example.org", "lower case"),
        (parse_host, "example", "dns.example.org"),
        (parse_host, "dns.example.org\n", "dns.example.org"),
        (parse_host, "192.0.2.1'; x", "dns.example.org"),
        (parse_template, "https://dns.example.org/dns-query", "{token} once"),
        (parse_template, "https://dns.example.org/{token}/{token}", "{token} once"),
        (parse_template, "http://dns.example.org/{token}", "https://"),
        (parse_template, "https://dns.example.org/{token}{?dns}", "once in its path"),
        (parse_template, "https://dns.example.org/{token}?x=1", "https with a host and a path alone"),
        (parse_template, "https://a:b@dns.example.org/{token}", "path alone"),
        (parse_template, "https://dns.example.org:x/{token}", "Port"),
        (parse_template, "https://{token}.example.org/", "once in its path"),
        (parse_template, "https://dns.example.org/'{token}", "in its path"),
        (parse_host_template, "dns.{token}.example.org", "{token}.dns.example.org"),
        (parse_host_template, "{token}.", "{token}.dns.example.org"),
        (parse_reverse_name, "dns", "org.example.dns"),
        (parse_endpoint, "vpn.example.org", "with a port"),
        (parse_endpoint, "vpn.example.org:0", "with a port"),
        (parse_endpoint, "2001:db8::1:51820", "with a port"),
        (parse_endpoint, "vpn.example.org:٣", "with a port"),
        (parse_key, KEY[:-2] + "B=", "44 characters"),
        (parse_package, "vpn", "org.example.vpn"),
    ],
)
def test_any_other_value_is_refused_with_its_mend(parse: Callable[[str], str], written: str, mend: str) -> None:
    """What is written wrong is refused, and the message says what to write."""
    with pytest.raises(EnrolError, match=re.escape(mend)):
        parse(written)


def test_a_refused_key_is_not_repeated() -> None:
    """A private key that is cut does not land in a log."""
    with pytest.raises(EnrolError) as caught:
        parse_key(KEY[:-4])

    assert KEY[:10] not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Service, {"organisation": "x", "identifier": "x"}),
        (Service, {"organisation": "x", "identifier": "org.x", "doh": "https://dns.example.org/"}),
        (Service, {"organisation": "x", "identifier": "org.x", "profile_url": "https://dns.example.org/"}),
        (Service, {"organisation": "x", "identifier": "org.x", "dot": "dns.example.org"}),
        (Service, {"organisation": "x", "identifier": "org.x", "search_domains": ("a b",)}),
        (Service, {"organisation": "x", "identifier": "org.x", "excluded_domains": ('x"',)}),
        (Openvpn, {"server": "vpn.example.org", "port": 0}),
        (Device, {"name": " "}),
        (Device, {"name": "x", "token": "X"}),
        (Device, {"name": "x", "wireguard_key": "x"}),
    ],
    ids=str,
)
def test_nothing_is_made_of_wrong_values(kind: Callable[..., object], values: dict[str, object]) -> None:
    """A service or device that exists holds only values of their forms, wherever it came from."""
    with pytest.raises(EnrolError):
        kind(**values)


def test_a_device_has_its_own_addresses() -> None:
    """The token stands in the path and in the host name."""
    assert SERVICE.url_for(DEVICE) == "https://dns.example.org/dns-query/k3v9"
    assert SERVICE.host_for(DEVICE) == "k3v9.dns.example.org"


@pytest.mark.parametrize(
    ("ask", "mend"),
    [
        (lambda: SERVICE.url_for(replace(DEVICE, token=None)), "no token"),
        (lambda: replace(SERVICE, doh=None).url_for(DEVICE), "doh:"),
        (lambda: replace(SERVICE, dot=None).host_for(DEVICE), "dot:"),
        (lambda: replace(SERVICE, addresses=()).known_addresses(), "addresses:"),
        (
            lambda: replace(SERVICE, dot=f"{{token}}.{'.'.join(['a' * 60] * 4)}").host_for(
                replace(DEVICE, token="t" * 63)
            ),
            "no host name",
        ),
    ],
    ids=["token", "doh", "dot", "addresses", "length"],
)
def test_what_is_missing_is_named(ask: Callable[[], object], mend: str) -> None:
    """A platform that needs more than there is says what to give."""
    with pytest.raises(EnrolError, match=mend):
        ask()


def test_domains_left_alone_come_once() -> None:
    """Captive portals, carriers and the organisation's own exceptions, without repeats."""
    service = replace(SERVICE, excluded_domains=("captive.apple.com", "printers.example.org"))
    domains = service.domains_left_alone()

    assert len(set(domains)) == len(domains)
    assert {"captive.apple.com", "3gppnetwork.org", "printers.example.org"} <= set(domains)


@given(st.text())
def test_a_label_is_one_short_printable_line(text: str) -> None:
    """Whatever a device is called, its label can not end a comment, and OpenVPN's line takes it."""
    found = label(text)

    assert found.isprintable()
    assert found == found.strip() != ""
    assert len(found.encode()) <= 240


@given(st.text(), st.text())
def test_folders_are_plain_and_different(one: str, other: str) -> None:
    """A folder name is safe in any file system and shell, and no two devices share one."""
    assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[0-9a-f]{8})?", folder_of(one))
    assert (folder_of(one) == folder_of(other)) == (one == other)


@given(st.text())
def test_a_uuid_is_the_same_for_ever_and_no_other_kinds(name: str) -> None:
    """The same organisation, device and kind give the same UUID; another kind another one."""
    device = named(f"x{name}")

    assert uuid.UUID(uuid_of(SERVICE, device, "dns")).version == 5
    assert uuid_of(SERVICE, device, "dns") == uuid_of(SERVICE, device, "dns")
    assert uuid_of(SERVICE, device, "dns") != uuid_of(SERVICE, device, "vpn")
    assert uuid_of(replace(SERVICE, identifier="org.example.other"), device, "dns") != uuid_of(SERVICE, device, "dns")


def test_a_certificate_as_text_has_lines_of_64() -> None:
    """The text form that all programs read."""
    lines = to_pem(bytes(100)).splitlines()

    assert lines[0] == "-----BEGIN CERTIFICATE-----"
    assert lines[-1] == "-----END CERTIFICATE-----"
    assert [len(line) for line in lines[1:-1]] == [64, 64, 8]


def test_a_minimal_service_is_enough_to_begin_with() -> None:
    """Only who and under which identifier is needed."""
    assert Service("Example Agency", "org.example").carrier_domains
