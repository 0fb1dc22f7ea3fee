"""Am I covered? Texts and a page, of what is known of one client."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.engine.covered import Coverage, CoveringOrder, covered, covered_page
from resolver.policy.client import Transport

ORDERS = (
    CoveringOrder("ca-tbs-2023-10-30", "WeChat and Kaspersky off government mobile devices"),
    CoveringOrder("ca-tbs-2025-02-06", "DeepSeek off government devices"),
)
PHONE = Coverage("192.0.2.7", "phone-7", "phones", Transport.DOH, ORDERS, "12 (abc)", "dns-1", 1_795_379_400.5)
GROUPED = replace(PHONE, device="")
STRANGER = replace(PHONE, device="", group="", orders=())


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, octets: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.texts: list[str] = []
        self.feed(octets.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def test_the_texts_are_keys_and_values() -> None:
    """Programs and people read the same."""
    assert covered(PHONE) == (
        "device=phone-7",
        "group=phones",
        "transport=doh",
        "orders=ca-tbs-2023-10-30 ca-tbs-2025-02-06",
        "generation=12 (abc)",
        "client=192.0.2.7",
        "node=dns-1",
    )
    assert covered(STRANGER)[:4] == ("device=", "group=", "transport=doh", "orders=")


def test_the_page_says_it_in_two_languages() -> None:
    """Device, group, transport, the orders by title, policy, address, server, time; in English, then in French."""
    page = Page(covered_page(PHONE))
    begin = page.texts.index("Cet appareil est couvert")
    english, french = page.texts[:begin], page.texts[begin:]

    for part in (english, french):
        facts = {"phone-7", "phones", "DNS over HTTPS", "12 (abc)", "192.0.2.7", "dns-1", "2026-11-22 20:30:00 UTC"}
        assert facts <= set(part)
        assert "WeChat and Kaspersky off government mobile devices (ca-tbs-2023-10-30)" in part
    assert "This device is covered by Interdict, and known by its name." in english
    assert page.tags.count("section") == 2


@pytest.mark.parametrize(
    ("coverage", "english", "french"),
    [
        (GROUPED, "it is not recognised by name.", "il n’est pas reconnu par son nom."),
        (replace(PHONE, orders=()), "No order is in force for it", "Aucune interdiction n’est en vigueur"),
        (STRANGER, "This device is not recognised", "Cet appareil n’est pas reconnu"),
        (STRANGER, "No order covers it.", "Aucune interdiction ne le vise."),
        (replace(PHONE, transport=Transport.UDP), "DNS over UDP (not encrypted)", "DNS over UDP (non chiffré)"),
    ],
)
def test_what_is_missing_is_said_in_plain_words(coverage: Coverage, english: str, french: str) -> None:
    """No name, no group, nothing in force, nothing encrypted: each in a sentence."""
    texts = " ".join(Page(covered_page(coverage)).texts)

    assert english in texts
    assert french in texts


def test_a_stranger_is_not_told_that_he_is_covered() -> None:
    """Neither in the heading, nor in the title, nor below."""
    page = covered_page(STRANGER).decode()

    assert "is covered" not in page
    assert "est couvert<" not in page


TEXT = st.text(max_size=60)


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_name_becomes_markup(device: str, group: str, title: str, node: str) -> None:
    """Whatever devices, groups and orders are called, the page has the tags and attributes that it always has."""
    wild = replace(PHONE, device="d" + device, group="g" + group, orders=(CoveringOrder("x", title),), node=node)
    plain = replace(PHONE, orders=(CoveringOrder("x", "x"),))
    one, other = Page(covered_page(wild)), Page(covered_page(plain))

    assert one.tags == other.tags
    assert one.attributes == other.attributes


def test_markup_in_a_name_is_text() -> None:
    """It is shown as it is written."""
    nasty = "<script>alert('x')</script>&\"</dd>"

    assert nasty in Page(covered_page(replace(PHONE, device=nasty))).texts


@pytest.mark.parametrize("transport", Transport)
def test_every_transport_has_a_name(transport: Transport) -> None:
    """No client is without a page."""
    assert b"DNS over" in covered_page(replace(PHONE, transport=transport))


def test_the_page_stands_alone() -> None:
    """Nothing runs in it and nothing is fetched for it; it suits a phone, a bright screen and a dark one."""
    octets = covered_page(PHONE)
    page = Page(octets)

    assert not {"script", "link", "img", "iframe", "form", "a"} & set(page.tags)
    assert not {"src", "href", "style"} & set(page.attributes)
    assert not re.search(rb"url\(|@import|http", octets)
    assert b"prefers-color-scheme:dark" in octets
    assert b"width=device-width" in octets
    assert len(octets) < 6000
