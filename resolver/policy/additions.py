"""The documents that stand beside apps and orders: an Exemption spares some devices an app, a LocalRule allows or
blocks names on the operator's own word, and a WayRound lists names that lead clients past their resolver.

As with orders, what stands here is what the files say, checked for sense; `compile` makes rules of it. How the files
look is told in `blocklists/README.md`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Self

from pydantic import Field, StrictBool, model_validator

from resolver.policy.documents import (
    Action,
    App,
    Entry,
    HostName,
    Identifier,
    Instant,
    Line,
    Match,
    Order,
    OrderAction,
    Prose,
    parse_instant,
)
from resolver.policy.source import Document, KeyPath, Written, items, shown, value
from resolver.wire import name as names

Network = IPv4Network | IPv6Network

_DEVICE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?")
_LIKE_AN_ADDRESS = re.compile(r"[0-9.]+")

WIDEST_DEVICE = {4: 24, 6: 64}
"""The shortest prefix by which an exemption may name devices; whoever means more devices names their group."""


class ExemptionReason(StrEnum):
    """Why devices are exempt; the closed set of the No TikTok on Government Devices Act and its like, and a last
    resort that is to be explained."""

    LAW_ENFORCEMENT = "law-enforcement"
    NATIONAL_SECURITY = "national-security"
    SECURITY_RESEARCH = "security-research"
    OTHER = "other"


class LocalVerdict(StrEnum):
    """What a rule of the operator's does."""

    ALLOW = "allow"
    BLOCK = "block"


def parse_network(written: object) -> Network:
    """A network such as 192.0.2.0/24 or 2001:db8::/32, or a single address.

    Raises:
        ValueError: Anything else; an address with bits set below the prefix too, with the network to write instead.
    """
    if isinstance(written, str):
        try:
            return ip_network(written)
        except ValueError:
            pass
        try:
            masked = ip_network(written, strict=False)
        except ValueError:
            pass
        else:
            raise ValueError(f'{shown(written)} has bits set after the prefix; write "{masked}", or the address alone')
    raise ValueError(f'{shown(written)} is not a network; write "192.0.2.0/24" or "2001:db8::/32", in quotes')


def _parse_device(written: object) -> Network | str:
    # A name has a letter or a hyphen somewhere that no address has, so that a mistyped address is told and no name.
    if isinstance(written, str) and _DEVICE_NAME.fullmatch(written) and not _LIKE_AN_ADDRESS.fullmatch(written):
        return written
    network = parse_network(written)
    widest = WIDEST_DEVICE[network.version]
    if network.prefixlen < widest:
        raise ValueError(
            f"{network} is wider than devices are named by (/{widest}); make a group of them in the configuration, and "
            f"name it under groups"
        )
    return network


AnyNetwork = Annotated[Network, Written(parse_network, {"type": "string"})]
Device = Annotated[Network | str, Written(_parse_device, {"type": "string"})]


class Exemption(Entry):
    """What some devices are spared, why and until when: a file in `exemptions/`, named after its id."""

    groups: tuple[Identifier, ...] = Field(
        default=(), description="Groups of the configuration that are exempt.", examples=[["crime-lab"]]
    )
    devices: tuple[Device, ...] = Field(
        default=(),
        description="Addresses or small networks, or names of recognised devices, that are exempt.",
        examples=[["192.0.2.17"]],
    )
    orders: tuple[Identifier, ...] = Field(
        default=(),
        description="Ids of the orders that do not bind them; with apps: only as far as these apps go.",
        examples=[["ca-tbs-2023-02-28"]],
    )
    apps: tuple[Identifier, ...] = Field(
        default=(),
        description="Ids of the apps they may use; without orders: whichever order names them.",
        examples=[["tiktok"]],
    )
    reason: ExemptionReason = Field(
        description="law-enforcement, national-security, security-research, or other, which is to be explained.",
        examples=["law-enforcement"],
    )
    explanation: str = Field(
        default="", description="Why; required with other.", examples=["accessibility study until spring"]
    )
    grantor: Line = Field(description="Who granted it.", examples=["Chief Information Officer"])
    granted: Instant = Field(description="From when, with the offset from UTC.", examples=["2026-01-15T09:00:00-05:00"])
    expires: Instant = Field(
        description="Until when: at most the order's longest_exemption, one year where it says nothing.",
        examples=["2026-07-15T09:00:00-04:00"],
    )
    notes: str = Field(default="", description="Case numbers and the like.")

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        """Whom, what, why and until when; an exemption for all, or from all, is none."""
        if not items(written, "groups") and not items(written, "devices"):
            yield (), "a blanket exemption is not possible; write groups or devices that are exempt"
        if not items(written, "orders") and not items(written, "apps"):
            yield (), "a blanket exemption is not possible; write the apps, or the orders, that they are exempt from"
        explained = str(value(written, "explanation") or "").strip()
        if value(written, "reason") == ExemptionReason.OTHER.value and not explained:
            yield ("reason",), '"other" is to be explained; write explanation: ...'
        begins, ends = (_instant(value(written, key)) for key in ("granted", "expires"))
        if begins is not None and ends is not None and ends <= begins:
            yield ("expires",), f"it expires before it is granted; write an instant after {begins.isoformat()}"

    @property
    def networks(self) -> tuple[Network, ...]:
        """Those of its devices that are named by address."""
        return tuple(device for device in self.devices if not isinstance(device, str))

    def lasts(self) -> timedelta:
        """From its grant to its end."""
        return self.expires - self.granted


class LocalRule(Entry):
    """What the operator allows or blocks on his own word: a file in `rules/`, named after its id."""

    verdict: LocalVerdict = Field(
        description="allow: goes before every order, list and zone; block: goes before all but an allow.",
        examples=["allow"],
    )
    names: tuple[HostName, ...] = Field(default=(), description="Names.", examples=[["cdn.example.org"]])
    match: Match = Field(
        default=Match.SUFFIX, description="exact: these names only; suffix: and all below them.", examples=["suffix"]
    )
    addresses: tuple[AnyNetwork, ...] = Field(
        default=(), description="Networks; an answer with an address in them is meant.", examples=[["192.0.2.0/24"]]
    )
    groups: tuple[Identifier, ...] = Field(
        default=(), description="For whom; without: for everybody.", examples=[["phones"]]
    )
    action: OrderAction = Field(
        default=Action.NXDOMAIN, description="With block: what clients get.", examples=["nxdomain"]
    )
    owner: Line = Field(description="Who answers for it.", examples=["service desk, J. Doe"])
    reason: Line = Field(description="Why.", examples=["the tax portal loads its fonts from there"])
    since: Instant | None = Field(
        default=None, description="From when; without: at once.", examples=["2026-11-22T09:00:00-05:00"]
    )
    until: Instant = Field(description="Until when, so that nobody forgets it.", examples=["2026-12-31T00:00:00-05:00"])

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        """Something to decide on, an end after the beginning, and an action that an order could have too."""
        if not items(written, "names") and not items(written, "addresses"):
            yield (), "the rule covers nothing; write names or addresses"
        begins, ends = (_instant(value(written, key)) for key in ("since", "until"))
        if begins is not None and ends is not None and ends <= begins:
            yield ("until",), f"it ends before it begins; write an instant after {begins.isoformat()}"
        if value(written, "action") is not None and value(written, "verdict") == LocalVerdict.ALLOW.value:
            yield ("action",), "an allow has no action; delete this line"


class WayRoundName(Document):
    """A name that leads round a resolver."""

    name: HostName = Field(description="Lower case, no trailing dot.", examples=["use-application-dns.net"])
    match: Match = Field(description="exact or suffix.", examples=["exact"])
    sources: tuple[Line, ...] = Field(min_length=1, description="Where it was read.", examples=[["DNSCRYPT"]])

    def wire(self) -> bytes:
        """The name in lower-cased wire form."""
        return names.from_text(self.name)


class WayRound(Entry):
    """Names by which clients get round their resolver, or learn that they should not: a file in `ways-round/`."""

    title: Line = Field(description="What it is.", examples=["Firefox's canary"])
    effect: Prose = Field(description="What withholding the names does.", examples=["Firefox leaves DoH switched off"])
    version: Line = Field(description="Of the list: the day it was read.", examples=["2026-11-22"])
    action: Action = Field(description="What clients get.", examples=["nxdomain"])
    names: tuple[WayRoundName, ...] = Field(
        default=(),
        description="The names.",
        examples=[[{"name": "use-application-dns.net", "match": "exact", "sources": ["DNSCRYPT"]}]],
    )
    addresses: tuple[AnyNetwork, ...] = Field(
        default=(),
        description="Addresses, exported for firewalls; nothing here is enforced.",
        examples=[["192.0.2.53"]],
    )
    default: StrictBool = Field(default=True, description="Whether it is withheld where nothing is configured.")

    @model_validator(mode="after")
    def _says_no(self) -> Self:
        if not self.names and not self.addresses:
            raise ValueError("the list is empty; write names or addresses")
        if self.action not in (Action.NXDOMAIN, Action.NODATA):
            raise ValueError(f'"action: {self.action.value}" is no answer to a canary; write nxdomain or nodata')
        return self


@dataclass(frozen=True, slots=True)
class Documents:
    """What a set of folders holds, by id. Every app, order and later order that one of them names is there."""

    apps: Mapping[str, App]
    orders: Mapping[str, Order]
    exemptions: Mapping[str, Exemption] = field(default_factory=dict)
    rules: Mapping[str, LocalRule] = field(default_factory=dict)
    ways_round: Mapping[str, WayRound] = field(default_factory=dict)


def _instant(written: object) -> datetime | None:
    try:
        return parse_instant(written)
    except ValueError:
        return None  # told at the field
