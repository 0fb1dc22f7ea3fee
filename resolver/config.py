"""`interdict.yaml`: how one node is set up. The empty file is the default configuration.

Pure: text in, `Config` out. What depends on the machine (its name, its CPUs, its resolv.conf) stays `auto` or `system`
here and is found out by `app`. Durations are seconds (float), sizes octets (int), whatever unit the file uses.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt

from resolver.policy import additions, documents, source
from resolver.policy.additions import AnyNetwork, Network, parse_network
from resolver.policy.documents import Action, Identifier, Mode, OrderAction
from resolver.policy.source import Document, KeyPath, did_you_mean, items, shown, value
from resolver.policy.terms import Precedence
from resolver.policy.values import (
    Address,
    Endpoint,
    GroupName,
    HttpPath,
    Ipv4,
    Ipv6,
    Listener,
    OrWord,
    Pin,
    ShortText,
    Workers,
    Zone,
    duration,
    octets,
    parse_duration,
    parse_endpoint,
)

ConfigError = source.PolicyError
"""What `read` raises: configuration and policy documents are read, and told about, by the same machinery."""


def _option(default: object, description: str, **limits: Any) -> Any:
    """A key that may be left out. `default` is written as the file would, so that schema and messages show it so."""
    return Field(default=default, validate_default=True, description=description, examples=[default], **limits)


# ---- the sections ---------------------------------------------------------------------------------------------------


class Upstream(Document):
    """A resolver to forward to."""

    address: Address = Field(description="Its IP address.", examples=["192.0.2.53"])
    port: StrictInt | None = _option(None, "Its port; null for the transport's: 53, 853 or 443.", ge=1, le=65535)
    transport: Literal["dns", "tls", "https"] = _option("dns", "dns (UDP and TCP), tls (RFC 7858) or https (RFC 8484).")
    name: documents.HostName | None = _option(None, "The name that its certificate must have.")
    pins: tuple[Pin, ...] = _option([], "Public keys that its certificate may have, as sha256/… (RFC 7858 §4.2).")
    ca_file: ShortText | None = _option(None, "Certificates to trust in place of the system's.")
    path: HttpPath = _option("/dns-query", "Of https: where it answers.")
    strict: StrictBool = _option(True, "Only if it is who it shall be; false: else unencrypted (RFC 8310 §5).")
    trust_ad: StrictBool | None = _option(
        None,
        "Whether its AD bit is passed on; by default only where the upstream is on this machine, or is asked by a "
        "strict tls or https.",
    )

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        """What tells who the upstream is, and what is for other transports."""
        transport = value(written, "transport") or "dns"
        strict = value(written, "strict") is not False
        if transport != "dns" and strict and value(written, "name") is None and not items(written, "pins"):
            yield ("transport",), "nothing tells whether it is the right one; write its name, or pins, or strict: false"
        for key in ("name", "pins", "ca_file", "path"):
            wanted = ("https",) if key == "path" else ("tls", "https")
            if value(written, key) and transport not in wanted:
                yield (key,), f"{key} is for {' and '.join(wanted)}; write transport, or delete this line"


AtLeastOneUpstream = Annotated[tuple[Upstream, ...], Field(min_length=1)]


class Forwarder(Document):
    """How upstreams are asked."""

    try_timeout: Annotated[float, duration("10ms", "30s")] = _option("800ms", "How long one try may take.")
    deadline: Annotated[float, duration("100ms", "60s")] = _option("4s", "How long all tries for a query may take.")
    sockets: StrictInt = _option(
        16, "UDP sockets a worker asks an upstream through; more ports are harder to guess.", ge=1, le=256
    )


class Group(Document):
    """A set of devices: those that are registered in it, ask by some listeners, or lie in some networks.

    What a device shows of itself decides before the listener, and that before the network, the longest prefix first.
    """

    name: GroupName = Field(description="What orders call it.", examples=["phones"])
    networks: tuple[AnyNetwork, ...] = _option([], "Its networks.")
    listeners: tuple[Listener, ...] = _option([], "Addresses of `listen` or `encrypted` whose clients are all in it.")


class AppliedOrder(Document):
    """An order put into force for groups."""

    order: Identifier = Field(description="The order's id.", examples=["ca-tbs-2023-10-30"])
    groups: tuple[GroupName, ...] = Field(min_length=1, description="For whom.", examples=[["everyone"]])
    mode: Mode = _option("enforce", "enforce, or observe: only log what would have been withheld.")
    action: OrderAction = _option("nxdomain", "What clients get in place of the answer.")
    since: documents.Instant | None = _option(
        None, "This line counts from then on, if the order acts; null for at once. With offset from UTC."
    )
    until: documents.Instant | None = _option(None, "This line counts until then; null for as long as the order acts.")


class Sinkhole(Document):
    """The addresses answered where an order's action is sinkhole; usually of the notice page."""

    ipv4: tuple[Ipv4, ...] = _option([], "For A.")
    ipv6: tuple[Ipv6, ...] = _option([], "For AAAA.")


class Primary(Document):
    """A server that a zone is transferred from."""

    address: Address = Field(description="Its IP address; NOTIFY is taken from it.", examples=["192.0.2.53"])
    port: StrictInt = _option(53, "Its port.", ge=1, le=65535)


class Tsig(Document):
    """The key that signs zone transfers (RFC 8945)."""

    name: Zone = Field(description="The key's name, as the primary knows it.", examples=["interdict-key"])
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha1"] = _option(
        "hmac-sha256", "The algorithm."
    )
    secret: ShortText | None = _option(None, "The secret in base64; better in a file of its own.")
    secret_file: ShortText | None = _option(None, "A file with the secret in base64, or as tsig-keygen writes it.")


class PolicyZone(Document):
    """A list of names or a Response Policy Zone that somebody keeps: from a file, the web, or a primary server."""

    name: Zone = Field(description="What hits call it; of a transferred zone its name.", examples=["rpz.example.org"])
    file: ShortText | None = _option(None, "A file, or a folder whose files are taken together.")
    url: documents.Url | None = _option(None, "An https address; the last good copy stays while it fails.")
    primaries: tuple[Primary, ...] = _option([], "Servers to transfer the zone from, first to last.")
    tsig: Tsig | None = _option(None, "The key for transfers.")
    format: Literal[
        "auto", "names", "hosts", "adblock", "wildcard", "dnsmasq", "unbound", "regex", "routing", "rpz"
    ] = _option("auto", "How it is written; auto finds out. What is transferred is rpz.")
    groups: Annotated[tuple[GroupName, ...] | Literal["all"], OrWord("all")] = _option("all", "For whom.")
    mode: Mode = _option("enforce", "enforce, or observe: only log what would have been done.")
    action: Literal["given", "nxdomain", "nodata", "passthru", "drop", "tcp-only", "refused", "sinkhole"] = _option(
        "given", "What clients get, whatever the zone's rules say; given leaves that to them."
    )
    cname: documents.HostName | None = _option(None, "In place of action: the name that clients are sent to.")
    refresh: Annotated[float, duration("1m", "30d")] = _option("6h", "How often a url is asked again.")
    max_octets: Annotated[int, octets("1KiB", "4GiB")] = _option("64MiB", "More is refused.")
    min_share: float = _option(0.5, "A copy with a smaller share of the last one's entries is refused.", ge=0, le=1)
    tolerance: float = _option(
        0.05, "A list with a larger share of lines that can not be taken is refused.", ge=0, le=1
    )
    minisign_key: ShortText | None = _option(None, "Public key (minisign) that url.minisig must be signed with.")
    ca_file: ShortText | None = _option(None, "Certificates to trust for url in place of the system's.")


class Rebinding(Document):
    """Answers that lead names of the outside to addresses of the inside."""

    protect: StrictBool = _option(False, "Withhold them (NODATA).")
    spare: tuple[Zone, ...] = _option([], "Names, with all below, that may have such addresses.")


class History(Document):
    """Compiled policies that are kept, so that it can be told later how and why something was answered."""

    generations: StrictInt = _option(1000, "How many at most.", ge=1, le=100_000)
    age: Annotated[float, duration("0s", "36500d")] = _option("400d", "How long after another one took its place.")
    size: Annotated[int, octets("1MiB", "64GiB")] = _option("1GiB", "How much room all of them may take.")


class Policy(Document):
    """What is withheld, from whom."""

    documents: tuple[ShortText, ...] = _option(
        ["shipped"],
        "Folders with apps/ and orders/; shipped is the catalogue that came with the product.",
        min_length=1,
    )
    orders: tuple[AppliedOrder, ...] = _option(
        [
            {"order": "ca-tbs-2023-02-28", "groups": ["everyone"]},
            {"order": "ca-tbs-2023-10-30", "groups": ["everyone"]},
        ],
        "Which orders are in force for which groups.",
    )
    precedence: Precedence = _option(
        "strictest", "Which of several orders on a name acts: the strictest, or the first one configured."
    )
    zones: tuple[PolicyZone, ...] = _option([], "Policy zones, after the orders, the first that matches decides.")
    ways_round: Mapping[Identifier, StrictBool] = _option(
        {}, "Which lists of ways round the resolver are withheld, by id; each list says what it is by default."
    )
    rebinding: Rebinding = Field(default_factory=Rebinding, description="Protection against DNS rebinding.")
    strip_ech: tuple[GroupName, ...] = _option([], "Groups whose HTTPS and SVCB answers come without ECH keys.")
    history: History = Field(default_factory=History, description="Compiled policies that are kept.")
    block_ttl: Annotated[float, duration("0s", "1d")] = _option("30s", "TTL of what policy answers.")
    sinkhole: Sinkhole = Field(default_factory=Sinkhole, description="Addresses for the action sinkhole.")


class Cache(Document):
    """Answers kept by a worker."""

    size: Annotated[int, octets("1MiB", "64GiB")] = _option("64MiB", "Memory for answers.")
    min_ttl: Annotated[float, duration("0s", "1h")] = _option("0s", "Answers are kept at least so long.")
    max_ttl: Annotated[float, duration("1s", "7d")] = _option("1d", "Answers are kept at most so long.")
    max_negative_ttl: Annotated[float, duration("0s", "1d")] = _option(
        "1h", "NXDOMAIN and NODATA are kept at most so long (RFC 2308 §5)."
    )
    max_stale: Annotated[float, duration("0s", "7d")] = _option(
        "1d", "Expired answers may be used so long while upstreams fail (RFC 8767 §5); 0s switches it off."
    )
    stale_answer_ttl: Annotated[float, duration("1s", "1h")] = _option("30s", "TTL of such answers (RFC 8767 §5).")
    ready_answers: StrictInt = _option(
        131072, "Replies kept ready as packets for repeated questions.", ge=0, le=1 << 22
    )


class Tcp(Document):
    """Limits on TCP."""

    connections: StrictInt = _option(1024, "Open connections a worker.", ge=1, le=1 << 20)
    per_client: StrictInt = _option(
        256, "Open connections from one address a worker; 0 for no limit.", ge=0, le=1 << 20
    )
    idle_timeout: Annotated[float, duration("100ms", "1h")] = _option("10s", "A silent connection is closed after it.")
    in_flight: StrictInt = _option(256, "Unanswered queries on one connection.", ge=1, le=65535)


class Encrypted(Document):
    """DNS over TLS, HTTPS and QUIC."""

    name: documents.HostName | None = _option(None, "The name that devices know this resolver by.")
    certificate: ShortText | None = _option(None, "The certificate chain (PEM), read again when it changes.")
    key: ShortText | None = _option(None, "Its private key (PEM).")
    dot: tuple[Listener, ...] = _option([], "Where DNS over TLS is spoken (RFC 7858).")
    doh: tuple[Listener, ...] = _option([], "Where DNS over HTTPS is spoken, HTTP/2 and HTTP/1.1 (RFC 8484).")
    doq: tuple[Listener, ...] = _option([], "Where DNS over QUIC is spoken (RFC 9250).")
    doh3: tuple[Listener, ...] = _option([], "Where DNS over HTTP/3 is spoken.")
    path: HttpPath = _option("/dns-query", "Of DoH; a device's token may follow it.")
    client_authorities: ShortText | None = _option(
        None, "Certificates (PEM) of who vouches for devices; clients may then show one (DoT and DoH)."
    )
    client_certificates: tuple[Literal["dot", "doh"], ...] = _option(
        ["dot", "doh"], "Where clients are asked for one; Chromium speaks no DoH to a server that asks."
    )
    addresses: tuple[Address, ...] = _option([], "Addresses that devices reach it at, told by discovery (RFC 9462).")
    connections: StrictInt = _option(1024, "Open connections of each kind a worker.", ge=1, le=1 << 20)
    per_client: StrictInt = _option(64, "The same from one address; 0 for no limit.", ge=0, le=1 << 20)
    idle_timeout: Annotated[float, duration("100ms", "1h")] = _option("30s", "A silent connection is closed after it.")
    handshake_timeout: Annotated[float, duration("100ms", "1m")] = _option("5s", "What a handshake may take.")
    in_flight: StrictInt = _option(100, "Unanswered queries on one connection.", ge=1, le=65535)

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        """A listener needs a certificate, and a certificate its key."""
        first = next((kind for kind in ENCRYPTED_KINDS if items(written, kind)), None)
        for key in ("certificate", "key"):
            other = "key" if key == "certificate" else "certificate"
            if value(written, key) is None and (first or value(written, other) is not None):
                yield (first or other,), f"nobody can be served without a {key}; write {key}: PATH"


REFUSED = "refused"  # stands where the name of a group could
ENCRYPTED_KINDS = ("dot", "doh", "doq", "doh3")


class Identity(Document):
    """What happens to devices that show a token or certificate which the register does not know."""

    unknown: GroupName = _option(REFUSED, "They are refused; or the name of the group whose rules they are held to.")


class Hits(Document):
    """Where hits go."""

    spool_limit: Annotated[int, octets("1MiB", "1024GiB")] = _option("256MiB", "Room for hits that are not stored yet.")
    sqlite: StrictBool = _option(True, "Store hits in a SQLite database.")
    json_lines: StrictBool = _option(True, "Write hits to JSON Lines files.")
    keep: Annotated[float, duration("1d", "36500d")] = _option("400d", "How long stored hits are kept.")


class Metrics(Document):
    """Prometheus."""

    listen: Listener | None = _option("127.0.0.1:9530", "Where /metrics is served; null for nowhere.")


class SpecialUse(Document):
    """Names that are answered here and not forwarded (RFC 6761, RFC 6303)."""

    forward: tuple[Zone, ...] = _option([], "Special-use names that are forwarded nevertheless.")


class Config(Document):
    """A node's configuration."""

    node: ShortText = _option("auto", "What the node calls itself in hits and metrics; auto is the host's name.")
    nsid: ShortText = _option("auto", "Answer to NSID (RFC 5001 §2.2); auto is the node's name.")
    listen: tuple[Listener, ...] = _option(
        ["127.0.0.1:5300", "[::1]:5300"], "Where queries are taken, UDP and TCP.", min_length=1
    )
    proxies: tuple[AnyNetwork, ...] = _option(
        [],
        "Load balancers in front, which must send PROXY headers (version 2), or X-Forwarded-For with DoH.",
    )
    allowed_networks: tuple[AnyNetwork, ...] = _option(
        [
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
            *("::1/128", "fc00::/7", "fe80::/10"),
        ],
        "Who may ask; others are refused, but for registered devices that show who they are.",
    )
    workers: Workers = _option("auto", "Processes that answer; auto is one a CPU.")
    user: ShortText | None = _option(None, "Account to change to once sockets are open; null to stay.")
    state_dir: ShortText = _option("auto", "Folder for spool and stores; auto follows the service manager.")
    upstreams: Annotated[AtLeastOneUpstream | Literal["system"], OrWord("system")] = _option(
        "system", "Resolvers to forward to; system takes those of resolv.conf."
    )
    forwarder: Forwarder = Field(default_factory=Forwarder, description="How upstreams are asked.")
    groups: tuple[Group, ...] = _option(
        [{"name": "everyone", "networks": ["0.0.0.0/0", "::/0"]}], "Sets of devices.", min_length=1
    )
    encrypted: Encrypted = Field(default_factory=Encrypted, description="DNS over TLS, HTTPS and QUIC.")
    identity: Identity = Field(default_factory=Identity, description="Devices that the register does not know.")
    policy: Policy = Field(default_factory=Policy, description="What is withheld, from whom.")
    cache: Cache = Field(default_factory=Cache, description="Answers kept by a worker.")
    tcp: Tcp = Field(default_factory=Tcp, description="Limits on TCP.")
    hits: Hits = Field(default_factory=Hits, description="Where hits go.")
    metrics: Metrics = Field(default_factory=Metrics, description="Prometheus.")
    special_use: SpecialUse = Field(default_factory=SpecialUse, description="Names that are answered here.")

    @classmethod
    def cross_check(cls, written: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
        """What one part says about another: groups, networks, sinkhole addresses, limits."""
        yield from _within(Encrypted, written, "encrypted")
        for i, upstream in enumerate(items(written, "upstreams")):
            yield from _within(Upstream, {"upstreams": upstream}, "upstreams", i)
        listening = dict(_listeners(cls, written))
        yield from _repeated_listeners(listening)
        groups = _list(_written(cls, written, "groups"))
        yield from _repeated_groups(groups)
        yield from _shared_listeners(groups, {endpoint for _, endpoint in listening.values()})
        unknown = value(value(written, "identity"), "unknown")
        named = {str(value(group, "name")) for group in groups if _named(group)}
        if isinstance(unknown, str) and unknown not in (REFUSED, *named):
            mend = f"write {REFUSED}, or the name of a group{did_you_mean(unknown, (REFUSED, *named))}"
            yield ("identity", "unknown"), f"no group is called {shown(unknown)}; {mend}"
        yield from _misapplied_orders(
            value(written, "policy"), {value(group, "name") for group in groups if _named(group)}
        )
        for section, model, lower, upper in (
            ("cache", Cache, "min_ttl", "max_ttl"),
            ("forwarder", Forwarder, "try_timeout", "deadline"),
        ):
            chosen = value(written, section)
            low, high = _written(model, chosen, lower), _written(model, chosen, upper)
            with suppress(ValueError):
                if parse_duration(low) > parse_duration(high):
                    yield (section, lower), f"{lower} {shown(low)} is over {upper} {shown(high)}; write at most {high}"


def _within(section: type[Document], written: Mapping[str, object], *path: str | int) -> Iterator[tuple[KeyPath, str]]:
    """What a section says against itself, at its place in the file."""
    found = value(written, str(path[0]))
    if isinstance(found, dict):
        for place, why in section.cross_check(found):
            yield (*path, *place), why


def _written(model: type[Document], section: object, key: str) -> object:
    """What a section says under a key, or the default where it does not."""
    if isinstance(section, dict) and key in section:
        return section[key]
    return model.model_fields[key].default


def _list(written: object) -> list[object]:
    return written if isinstance(written, list) else []


def _named(group: object) -> bool:
    return isinstance(value(group, "name"), str)


def _listeners(model: type[Document], written: Mapping[str, object]) -> Iterator[tuple[KeyPath, tuple[str, Endpoint]]]:
    """Every listener that can be read: where it stands, the protocols that its socket is of, and its address."""
    places: list[tuple[KeyPath, str, list[object]]] = [
        (("listen",), "udp tcp", _list(_written(model, written, "listen")))
    ]
    for kind in ENCRYPTED_KINDS:
        carried = "udp" if kind in ("doq", "doh3") else "tcp"
        places.append((("encrypted", kind), carried, list(items(value(written, "encrypted"), kind))))
    for path, protocols, listed in places:
        for i, one in enumerate(listed):
            with suppress(ValueError):
                yield (*path, i), (protocols, parse_endpoint(one))


def _repeated_listeners(listening: Mapping[KeyPath, tuple[str, Endpoint]]) -> Iterator[tuple[KeyPath, str]]:
    seen: dict[tuple[str, Endpoint], KeyPath] = {}
    for path, (protocols, endpoint) in listening.items():
        taken = [seen[protocol, endpoint] for protocol in protocols.split() if (protocol, endpoint) in seen]
        if taken and taken[0][:-1] == path[:-1]:
            yield path, f"{endpoint} is listed twice; delete this one"
        elif taken:
            yield path, f"{endpoint} is listed under {'.'.join(map(str, taken[0][:-1]))} already; choose another port"
        for protocol in protocols.split():
            seen.setdefault((protocol, endpoint), path)


def _shared_listeners(groups: list[object], known: set[Endpoint]) -> Iterator[tuple[KeyPath, str]]:
    owners: dict[Endpoint, object] = {}
    for i, group in enumerate(groups):
        for j, written in enumerate(items(group, "listeners")):
            with suppress(ValueError):
                endpoint = parse_endpoint(written)
                place: KeyPath = ("groups", i, "listeners", j)
                if endpoint not in known:
                    yield place, f"nothing listens on {endpoint}; name it under listen or encrypted too"
                if endpoint in owners:
                    yield place, f"{endpoint} is group {shown(owners[endpoint])}'s already; keep it in one place"
                owners.setdefault(endpoint, value(group, "name"))


def _repeated_groups(groups: list[object]) -> Iterator[tuple[KeyPath, str]]:
    names: set[object] = set()
    owners: dict[Network, object] = {}
    for i, group in enumerate(groups):
        name = value(group, "name")
        if isinstance(name, str) and name in names:
            yield ("groups", i, "name"), f"a group {shown(name)} was described before; merge the two, or rename one"
        names.add(name if isinstance(name, str) else None)
        for j, written in enumerate(items(group, "networks")):
            with suppress(ValueError):
                network = parse_network(written)
                if network in owners:
                    place = ("groups", i, "networks", j)
                    yield place, f"{network} is in group {shown(owners[network])} already; keep it in one place"
                owners.setdefault(network, name)


def _misapplied_orders(policy: object, groups: set[object]) -> Iterator[tuple[KeyPath, str]]:
    are_written = isinstance(policy, dict) and "orders" in policy
    has_sinkhole = any(items(value(policy, "sinkhole"), family) for family in ("ipv4", "ipv6"))
    seen: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
    for i, zone in enumerate(items(policy, "zones")):
        yield from _impossible_zone(zone, ("policy", "zones", i), has_sinkhole)
    for path, named in _named_groups(policy):
        if named not in groups:
            yield path, f"no group is called {shown(named)}{did_you_mean(str(named), map(str, groups))}"
    for name, (first, *others) in _zone_places(policy).items():
        for i in others:
            yield ("policy", "zones", i, "name"), f"{name} is zone {first + 1} already; give each zone its own name"
    for i, applied in enumerate(_list(_written(Policy, policy, "orders"))):
        order = value(applied, "order")
        window = _window(applied)
        if window[1] <= window[0]:
            yield ("policy", "orders", i, "until"), "the line ends before it begins; write an instant after `since`"
        for j, group in enumerate(items(applied, "groups")):
            if not isinstance(group, str):
                continue
            place: KeyPath = ("policy", "orders", i, "groups", j)
            if group not in groups and are_written:
                yield place, f"no group is called {shown(group)}{did_you_mean(group, map(str, groups))}"
            elif group not in groups:
                mend = f"write policy.orders for your groups, or add a group {shown(group)}"
                yield (
                    ("groups",),
                    f"order {order} is in force for group {shown(group)} by default, which is missing; {mend}",
                )
            if isinstance(order, str):
                held = seen.setdefault((order, group), [])
                if any(begin < window[1] and window[0] < end for begin, end in held):
                    mend = "keep one of the two, or end one (until) where the other begins (since)"
                    yield place, f"order {order} is in force for group {shown(group)} already; {mend}"
                held.append(window)
        if value(applied, "action") == Action.SINKHOLE.value and not has_sinkhole:
            mend = "write policy.sinkhole.ipv4 or ipv6, such as sinkhole: {ipv4: [192.0.2.80]}"
            yield ("policy", "orders", i, "action"), f"sinkhole needs an address to answer; {mend}"


def _named_groups(policy: object) -> Iterator[tuple[KeyPath, object]]:
    for i, zone in enumerate(items(policy, "zones")):
        for j, group in enumerate(items(zone, "groups")):
            yield ("policy", "zones", i, "groups", j), group
    for j, group in enumerate(items(policy, "strip_ech")):
        yield ("policy", "strip_ech", j), group


def _zone_places(policy: object) -> dict[object, list[int]]:
    places: dict[object, list[int]] = {}
    for i, zone in enumerate(items(policy, "zones")):
        if _named(zone):
            places.setdefault(value(zone, "name"), []).append(i)
    return places


def _impossible_zone(zone: object, path: KeyPath, has_sinkhole: bool) -> Iterator[tuple[KeyPath, str]]:
    """A zone comes from one place, and what is said of it must fit that place."""
    given = [key for key in ("file", "url", "primaries") if value(zone, key)]
    if not given:
        yield path, "the zone comes from nowhere; write file, url or primaries"
    for key in given[1:]:
        yield (*path, key), f"the zone comes from {given[0]} already; keep one of the two"
    if value(zone, "primaries") and value(zone, "format") not in (None, "auto", "rpz"):
        yield (*path, "format"), "what is transferred is a Response Policy Zone; write rpz, or delete this line"
    for key, source_key in (("tsig", "primaries"), ("minisign_key", "url"), ("ca_file", "url")):
        if value(zone, key) is not None and source_key not in given:
            yield (*path, key), f"{key} is for zones with {source_key}; delete this line"
    tsig = value(zone, "tsig")
    if isinstance(tsig, dict) and (value(tsig, "secret") is None) is (value(tsig, "secret_file") is None):
        yield (*path, "tsig"), "a key has one secret; write secret_file, or else secret"
    if value(zone, "cname") is not None and value(zone, "action") not in (None, "given"):
        yield (*path, "cname"), "cname and action exclude each other; keep one of the two"
    if value(zone, "action") == Action.SINKHOLE.value and not has_sinkhole:
        yield (*path, "action"), "sinkhole needs an address to answer; write policy.sinkhole.ipv4 or ipv6"


def _window(applied: object) -> tuple[datetime, datetime]:
    """From when until when a line of policy.orders counts; what is not written, or wrong, is without bound."""
    bounds = {"since": datetime.min.replace(tzinfo=UTC), "until": datetime.max.replace(tzinfo=UTC)}
    for key in bounds:
        with suppress(ValueError):
            bounds[key] = documents.parse_instant(value(applied, key))
    return bounds["since"], bounds["until"]


# ---- reading and describing -----------------------------------------------------------------------------------------


def read(text: str | bytes, source_name: str) -> Config:
    """Read a configuration.

    Args:
        source_name: What to call the text in messages, usually the file's path.

    Raises:
        ConfigError: With every problem.
    """
    return source.read(text, source_name, Config)


KINDS: Mapping[str, type[Document]] = {
    "app": documents.App,
    "order": documents.Order,
    "exemption": additions.Exemption,
    "rule": additions.LocalRule,
    "way-round": additions.WayRound,
    "config": Config,
}
"""Every kind of YAML document the product reads, by the name of its schema."""


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema of a document kind, a key of `KINDS`, for editors.

    Raises:
        KeyError: No such kind.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **KINDS[kind].model_json_schema(),
        "title": f"Interdict {kind}",
    }
