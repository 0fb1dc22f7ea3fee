"""The words of the lint: what every format is asked about tokens."""

from dataclasses import replace

import pytest

from resolver.enrol.profile import Service
from resolver.enrol.traps import Asked, Delivery, Trap, keys_of, texts_of, token_in_host, token_in_url
from tests.support.enrolled import SERVICE

STRANGER = Asked(None, Delivery.UNKNOWN)
KNOWN = Asked(SERVICE, Delivery.UNKNOWN)
NO_TEMPLATES = Asked(replace(SERVICE, doh=None, dot=None), Delivery.UNKNOWN)


@pytest.mark.parametrize(
    ("url", "asked", "is_token"),
    [
        ("https://dns.example.org/dns-query/k3v9", STRANGER, True),
        ("https://dns.example.org/k3v9/dns-query/x", STRANGER, True),
        ("https://dns.example.org/dns-query/k3v9{?dns}", STRANGER, True),
        ("https://dns.example.org/dns-query", STRANGER, False),
        ("https://dns.example.org/dns-query/", STRANGER, False),
        ("https://dns.example.org/dns-query{?dns}", STRANGER, False),
        ("https://dns.example.org", STRANGER, False),
        ("https://dns.example.org/dns-query/{token}", STRANGER, False),
        ("https://[", STRANGER, False),
        ("https://dns.example.org/dns-query/k3v9", KNOWN, True),
        ("https://dns.example.org/dns-query/", KNOWN, False),
        ("https://other.example.org/dns-query/k3v9", KNOWN, False),
        ("https://dns.example.org/dns-query/k3v9/x", KNOWN, False),
        ("https://dns.example.org/dns-query/k3v9", NO_TEMPLATES, True),
    ],
)
def test_an_address_names_a_device_or_nobody(url: str, asked: Asked, is_token: bool) -> None:
    """With a service its template decides; else what is surely no token is told."""
    assert [found.trap for found in token_in_url(url, "x", asked)] == ([] if is_token else [Trap.NO_TOKEN])


@pytest.mark.parametrize(
    ("host", "asked", "is_token"),
    [
        ("k3v9.dns.example.org", STRANGER, True),
        ("dns.example.org", STRANGER, False),
        ("example.org", STRANGER, False),
        ("{token}.dns.example.org", STRANGER, False),
        ("k3v9.dns.example.org", KNOWN, True),
        ("dns.example.org", KNOWN, False),
        ("k3v9.other.example.org", KNOWN, False),
        ("k3v9.dns.example.org", NO_TEMPLATES, True),
    ],
)
def test_a_host_names_a_device_or_nobody(host: str, asked: Asked, is_token: bool) -> None:
    """Likewise."""
    assert [found.trap for found in token_in_host(host, "x", asked)] == ([] if is_token else [Trap.NO_TOKEN])


def test_the_mend_shows_the_services_own_form() -> None:
    """Who has a service is told what its addresses look like."""
    [found] = token_in_url("https://dns.example.org/", "x", KNOWN)

    assert "https://dns.example.org/dns-query/{token}" in found.mend


def test_a_trap_has_a_word_of_its_own() -> None:
    """Programs tell traps by their words."""
    assert len({trap.word for trap in Trap}) == len(Trap)


def test_what_is_not_of_its_kind_is_nothing() -> None:
    """Unchecked values are taken as far as they go."""
    assert keys_of([1]) == {}
    assert texts_of({"a": 1}) == []
    assert texts_of(["a", 1]) == ["a"]
    assert isinstance(SERVICE, Service)
