"""Apple's schema as data: what is held to it, and what is told when it is not."""

import json
import plistlib
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.enrol.profile import Options, Protocol
from resolver.enrol.schema import DECLARATION, PAYLOADS, TOP_LEVEL, check
from tests.support.enrolled import file_of, made


@pytest.mark.parametrize("platform", ["apple", "apple-vpn", "apple-app-vpn"])
@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("locked", [True, False])
def test_profiles_keep_to_the_schema(platform: str, protocol: Protocol, locked: bool) -> None:
    """Every key of every payload is one of Apple's, of its type, with a value it may have, and none is missing."""
    document = plistlib.loads(file_of(made(platform, options=Options(protocol, locked)), ".mobileconfig").octets)

    assert list(check(document, TOP_LEVEL)) == []
    for payload in document["PayloadContent"]:
        assert list(check(payload, PAYLOADS[payload["PayloadType"]])) == []


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("locked", [True, False])
def test_the_declaration_keeps_to_the_schema(protocol: Protocol, locked: bool) -> None:
    """So does the declarative form."""
    document = json.loads(file_of(made("apple-declaration", options=Options(protocol, locked)), ".json").octets)

    assert list(check(document, DECLARATION)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"DNSSettings": {"DNSProtocol": "QUIC"}}, 'DNSSettings.DNSProtocol is "QUIC"; write one of: HTTPS, TLS'),
        ({"DNSSettings": {}}, "DNSSettings.DNSProtocol is missing"),
        ({"DNSSettings": {"DNSProtocol": "TLS", "ServerAddresses": "192.0.2.53"}}, "not of type list"),
        ({"DNSSettings": {"DNSProtocol": "TLS", "ServerAddresses": [53]}}, "DNSSettings.ServerAddresses[0] is 53"),
        ({"DNSSettings": {"DNSProtocol": "TLS", "AllowFailover": 0}}, "not of type truth"),
        ({"DNSSettings": {"DNSProtocol": "HTTPS", "ServerURL": "http://x"}}, "not of the form https://"),
        ({"ProhibitDisablment": True}, '"ProhibitDisablment" is unknown; did you mean "ProhibitDisablement"?'),
        ({"PayloadVersion": True}, "PayloadVersion is true, not of type whole"),
        ({"PayloadVersion": 2}, "PayloadVersion is 2"),
        ({"PayloadDescription": 1.5}, "PayloadDescription is 1.5, not of type text"),
        ({"OnDemandRules": [{"Action": "Ignore"}]}, 'OnDemandRules[0].Action is "Ignore"'),
        ({"PayloadCertificateUUID": "x"}, "PayloadCertificateUUID is"),
    ],
    ids=str,
)
def test_what_differs_is_told_with_its_place(change: dict[str, object], said: str) -> None:
    """A mistake is named by the path to it."""
    payload: dict[str, object] = {
        "PayloadType": "com.apple.dnsSettings.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": "org.example",
        "PayloadUUID": "X",
        "DNSSettings": {"DNSProtocol": "TLS"},
        **change,
    }

    [sentence] = check(payload, PAYLOADS["com.apple.dnsSettings.managed"])

    assert said in sentence


def test_a_profile_may_end_by_itself() -> None:
    """Dates and numbers are known types too."""
    document = plistlib.loads(file_of(made("apple"), ".mobileconfig").octets)
    document |= {"RemovalDate": datetime(2030, 1, 1), "DurationUntilRemoval": 60.5}

    assert list(check(plistlib.loads(plistlib.dumps(document)), TOP_LEVEL)) == []
    assert list(check({**document, "RemovalDate": "2030-01-01"}, TOP_LEVEL)) != []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(list(DECLARATION.keys or {})), inner)
        ),
    )
)
def test_anything_can_be_checked(found: object) -> None:
    """Whatever a file holds, checking it ends in sentences."""
    assert all(isinstance(sentence, str) for sentence in check(found, DECLARATION))
