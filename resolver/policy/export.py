"""The same policy in the words of other resolvers: what one group is held to at one moment, as a file of theirs.

Nothing is decided here: what a listed name gets, and what names below it get, is asked of `judge.judge_query`. A format
that can not say something says in comments what became of it, name by name (`Gap`). A name is withheld with another
reply rather than let through; where it can be neither, it is left out. Pure: the moment is an argument, and the same
arguments make the same octets.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby

from resolver.policy.compile import takes
from resolver.policy.documents import Action, Documents, Mode
from resolver.policy.generation import View
from resolver.policy.judge import Verdict, judge_query
from resolver.wire import name as names

_ANY_LABEL = b"\x01*"  # no listed name has this label, so a name that begins with it meets suffix rules only
_PROBE_LABEL = b"\x0finterdict-probe"
_EXISTS_ONLY = r"TYPE65280 \# 0"  # a type for private use (RFC 6895 §3.1): the name exists, and has nothing to show


class Format(StrEnum):
    """What can be written."""

    RPZ = "rpz"
    BIND = "bind"
    UNBOUND = "unbound"
    KNOT = "knot"
    DNSMASQ = "dnsmasq"
    HOSTS = "hosts"
    ADBLOCK = "adblock"
    EDL = "edl"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Held:
    """What becomes of a listed name, and of the names below it that no longer listed name covers (None: nothing)."""

    name: str
    here: Action
    below: Action | None
    orders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderTitle:
    """An order, as a reader of the file is told of it."""

    id: str
    authority: str
    title: str


@dataclass(frozen=True, slots=True)
class Extract:
    """What one group is held to at one moment (Unix seconds), with every listed name, sorted from the root."""

    group: str
    at: float
    digest: str
    orders: tuple[OrderTitle, ...]
    names: tuple[Held, ...]
    block_ttl: int
    sinkhole_ipv4: tuple[str, ...]
    sinkhole_ipv6: tuple[str, ...]

    @property
    def sinkhole(self) -> tuple[tuple[str, str], ...]:
        """(RR type, address) of the sinkhole."""
        return (*(("A", a) for a in self.sinkhole_ipv4), *(("AAAA", a) for a in self.sinkhole_ipv6))


@dataclass(frozen=True, slots=True)
class Gap:
    """Names that a format does not hold as policy has it, and what becomes of them there."""

    why: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A file, and what it does not say."""

    text: str
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """A name to ask another resolver for: to test which listed name, what an enforced rule does to it, and which.

    Where no rule covers it, `action` is None and `rule` empty.
    """

    name: bytes
    listed: str
    action: Action | None
    rule: str


def extract(view: View, documents: Documents, at: float) -> Extract:
    """Take out of a view what it withholds; rules in observe mode withhold nothing.

    Args:
        view: Of one group at one moment.
        documents: What its generation was compiled from.
        at: That moment, Unix seconds.
    """
    terms = view.generation.terms
    orders = [
        documents.orders[terms.orders[number].id]
        for number, stance in view.stances.items()
        if stance.mode is Mode.ENFORCE
    ]
    listed = {
        domain.name
        for order in orders
        for app in order.apps
        for domain in documents.apps[app].domains
        if takes(order, domain)
    }
    # What a sinkhole without addresses answers is NODATA.
    stand_ins = {} if terms.sinkhole_ipv4 or terms.sinkhole_ipv6 else {Action.SINKHOLE: Action.NODATA}
    held = (_held(name, view, stand_ins) for name in sorted(listed, key=_from_root))
    return Extract(
        group=view.group,
        at=at,
        digest=view.generation.digest,
        orders=tuple(OrderTitle(order.id, order.authority, order.title.en) for order in orders),
        names=tuple(entry for entry in held if entry is not None),
        block_ttl=terms.block_ttl,
        sinkhole_ipv4=terms.sinkhole_ipv4,
        sinkhole_ipv6=terms.sinkhole_ipv6,
    )


def _held(name: str, view: View, stand_ins: Mapping[Action, Action]) -> Held | None:
    wire = names.from_text(name)
    verdict = _enforced(wire, view)
    if verdict is None:
        return None
    lower = _enforced(_ANY_LABEL + wire, view) if len(wire) + len(_ANY_LABEL) <= names.MAX_NAME_OCTETS else None
    below = None if lower is None else stand_ins.get(lower.action, lower.action)
    return Held(name, stand_ins.get(verdict.action, verdict.action), below, verdict.orders)


def _enforced(name: bytes, view: View) -> Verdict | None:
    verdict = judge_query(name, view)
    return verdict if verdict is not None and verdict.mode is Mode.ENFORCE else None


def probes(extracted: Extract, view: View, listed: Collection[str]) -> Iterator[Probe]:
    """For each of some listed names: itself, a name below it, its parent, and one that only looks as if it were below.

    A top-level domain is no parent worth asking for.
    """
    seen: set[bytes] = set()
    for held in extracted.names:
        if held.name not in listed:
            continue
        wire = names.from_text(held.name)
        parent = wire[wire[0] + 1 :]
        first = (b"x" + wire[1 : wire[0] + 1])[: names.MAX_LABEL_OCTETS]
        alike = bytes([len(first)]) + first + parent
        asked = [wire, _PROBE_LABEL + wire, alike, *([parent] if len(names.labels(parent)) > 1 else [])]
        for name in asked:
            if name not in seen and len(name) <= names.MAX_NAME_OCTETS:
                seen.add(name)
                verdict = _enforced(name, view)
                if verdict is None:
                    yield Probe(name, held.name, None, "")
                else:
                    yield Probe(name, held.name, verdict.action, names.to_text(verdict.owner))


def sample(extracted: Extract, count: int | None) -> list[str]:
    """Some of the listed names, evenly spread over all; all where no count is given."""
    every = [held.name for held in extracted.names]
    if count is None or count >= len(every):
        return every
    return [every[i * len(every) // count] for i in range(count)]


# ---- rules from names -----------------------------------------------------------------------------------------------


def _from_root(name: str) -> list[str]:
    return name.split(".")[::-1]


def _ancestors(name: str) -> Iterator[str]:
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _rules(every: Iterable[Held]) -> list[Held]:
    """The names without those that get what a farther-reaching one gives them anyway."""
    listed = {held.name: held for held in every}

    def is_needed(held: Held) -> bool:
        cover = next((listed[name] for name in _ancestors(held.name) if name in listed), None)
        return cover is None or (held.here, held.below) != (cover.below, cover.below)

    return [held for held in listed.values() if is_needed(held)]


def _with_gaps_closed(rules: Iterable[Held]) -> list[Held]:
    """The rules, and each name between two of them.

    A DNS wildcard does not reach below a name that exists, even without records of its own (RFC 4592 §3.3.1); so what
    lies between `example` and `a.b.example` must be said too.
    """
    every = {held.name: held for held in rules}
    for held in list(every.values()):
        between: list[str] = []
        for name in _ancestors(held.name):
            if name in every:
                if (reach := every[name].below) is not None:
                    every.update({n: Held(n, reach, reach) for n in between})
                break
            between.append(name)
    return [every[name] for name in sorted(every, key=_from_root)]


class _Gaps:
    """Collects what a format can not say."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, why: str, name: str) -> None:
        self._names.setdefault(why, []).append(name)

    def instead(self, held: Held, place: str, wanted: Action, given: Action) -> Action:
        """Take note of a reply that is given instead of another, and return it."""
        self.add(f"{place} {given.value} instead of {wanted.value}", held.name)
        return given

    def all(self) -> tuple[Gap, ...]:
        return tuple(Gap(why, tuple(found)) for why, found in self._names.items())


def _limited(every: Iterable[Held], can: Collection[Action], gaps: _Gaps) -> Iterator[Held]:
    """The names with NXDOMAIN for every action that a format does not have."""
    for held in every:
        here, below = held.here, held.below
        if here not in can:
            here = gaps.instead(held, "the name gets", here, Action.NXDOMAIN)
        if below is not None and below not in can:
            below = gaps.instead(held, "names below get", below, Action.NXDOMAIN)
        yield replace(held, here=here, below=below)


def _as_one(held: Held, gaps: _Gaps) -> Held:
    """For formats whose rules reach downwards: where a name and those below it differ, it gets what they get."""
    if held.below is None or held.here is held.below:
        return held
    return replace(held, here=gaps.instead(held, "the name gets", held.here, held.below))


# ---- formats --------------------------------------------------------------------------------------------------------

_Body = list[str]


def _rpz(extracted: Extract, gaps: _Gaps) -> _Body:
    # draft-vixie-dnsop-dns-rpz §3: CNAME to the root is NXDOMAIN, to `*.` NODATA, to `rpz-drop.` silence.
    special = {Action.NXDOMAIN: "CNAME .", Action.NODATA: "CNAME *.", Action.DROP: "CNAME rpz-drop."}

    def records(owner: str, action: Action) -> list[str]:
        if action is Action.SINKHOLE:
            return [f"{owner} {rtype} {address}" for rtype, address in extracted.sinkhole]
        return [f"{owner} {special[action]}"]

    rules = _with_gaps_closed(_rules(_limited(extracted.names, {*special, Action.SINKHOLE}, gaps)))
    return [
        f"$TTL {extracted.block_ttl}",
        # Minutes since 1970: newer exports are newer zones (RFC 1982 §3) for eight thousand years.
        f"@ SOA localhost. nobody.invalid. {int(extracted.at) // 60} 3600 600 604800 {extracted.block_ttl}",
        "@ NS localhost.",
        *(
            line
            for held in rules
            for line in records(held.name, held.here) + (records(f"*.{held.name}", held.below) if held.below else [])
        ),
    ]


def _bind(extracted: Extract, gaps: _Gaps) -> _Body:
    _rpz(extracted, gaps)
    return [
        "// Include this in named.conf, write the zone with the format rpz, and put this into `options` or a view:",
        '//     response-policy { zone "interdict.rpz"; } qname-wait-recurse no break-dnssec yes;',
        'zone "interdict.rpz" {',
        "    type primary;",
        '    file "interdict.rpz";',
        "    allow-query { none; };",
        "    allow-transfer { none; };",
        "};",
    ]


_UNBOUND_ZONE = {
    Action.NXDOMAIN: "always_nxdomain",
    Action.NODATA: "always_nodata",
    Action.REFUSED: "always_refuse",
    Action.DROP: "always_deny",
    Action.SINKHOLE: "redirect",
}


def _unbound(extracted: Extract, gaps: _Gaps) -> _Body:
    body = ["server:"]
    for held in _rules(_as_one(held, gaps) for held in extracted.names):
        action, zone = held.here, _UNBOUND_ZONE[held.here]
        if held.below is None:
            # A local zone reaches downwards, save one that is transparent: there, what has no local data is resolved.
            zone = "transparent"
            if action not in (Action.NODATA, Action.SINKHOLE):
                action = gaps.instead(held, "the name gets", action, Action.NODATA)
        body.append(f'    local-zone: "{held.name}." {zone}')
        ttl = extracted.block_ttl
        if action is Action.SINKHOLE:
            found = [f"{rtype} {address}" for rtype, address in extracted.sinkhole]
        else:
            found = [_EXISTS_ONLY] if held.below is None else []
        body += [f"    local-data: '{held.name}. {ttl} IN {rdata}'" for rdata in found]
    return body


def _knot(extracted: Extract, _: _Gaps) -> _Body:
    def answer(rtype: str, addresses: tuple[str, ...]) -> str:
        rdata = ", ".join(f"kres.str2ip('{address}')" for address in addresses)
        return f"[kres.type.{rtype}] = {{ ttl = {extracted.block_ttl}, rdata = {{ {rdata} }} }}"

    families = (("A", extracted.sinkhole_ipv4), ("AAAA", extracted.sinkhole_ipv6))
    sinkhole = ", ".join(answer(*family) for family in families if family[1])
    say = {
        Action.NXDOMAIN: "policy.DENY",
        Action.NODATA: "policy.ANSWER({}, true)",
        Action.SINKHOLE: f"policy.ANSWER({{ {sinkhole} }}, true)",
        Action.REFUSED: "policy.REFUSE",
        Action.DROP: "policy.NO_ANSWER",
    }
    rules = _rules(extracted.names)
    # The first rule that matches acts: names by themselves first, then the longer suffixes before the shorter.
    exact = [(0, held.here.value, held.name) for held in rules if held.here is not held.below]
    suffix = [(-len(_from_root(held.name)), held.below.value, held.name) for held in rules if held.below is not None]
    body = ["modules.load('policy')"]
    for kind, found in (("domains", exact), ("suffix", suffix)):
        for (_depth, action), entries in groupby(sorted(found), key=lambda entry: entry[:2]):
            quoted = [f"    '{name}'," for _, _, name in sorted(entries, key=lambda entry: _from_root(entry[2]))]
            body += [f"policy.add(policy.{kind}({say[Action(action)]}, policy.todnames({{", *quoted, "})))"]
    return body


def _dnsmasq(extracted: Extract, gaps: _Gaps) -> _Body:
    for held in extracted.names:
        if held.below is None:
            gaps.add("left out, since a rule for this name alone would withhold all names below it too", held.name)
    reaching = (_as_one(held, gaps) for held in extracted.names if held.below is not None)
    body = []
    for held in _rules(_limited(reaching, {Action.NXDOMAIN, Action.SINKHOLE}, gaps)):
        if held.here is Action.SINKHOLE:
            body += [f"address=/{held.name}/{address}" for _, address in extracted.sinkhole]
        body.append(f"local=/{held.name}/")
    return body


def _hosts(extracted: Extract, gaps: _Gaps) -> _Body:
    body = []
    for held in extracted.names:
        addresses = ["0.0.0.0", "::"]
        if held.here is Action.SINKHOLE:
            addresses = [address for _, address in extracted.sinkhole]
        else:
            gaps.add(f"the name gets the address 0.0.0.0 or :: instead of {held.here.value}", held.name)
        if held.below is not None:
            gaps.add("NAMES BELOW ARE LET THROUGH: a hosts file knows no suffixes", held.name)
        body += [f"{address} {held.name}" for address in addresses]
    return body


def _adblock(extracted: Extract, gaps: _Gaps) -> _Body:
    _leave_reply(extracted, gaps)
    return [f"{'|' if held.below is None else '||'}{held.name}^" for held in _rules(extracted.names)]


def _edl(extracted: Extract, gaps: _Gaps) -> _Body:
    _leave_reply(extracted, gaps)
    for held in extracted.names:
        if held.below is None:
            gaps.add("meant for this name alone: wrong where the reader takes an entry with all names below", held.name)
        else:
            gaps.add("meant with all names below: they are let through where the reader does not expand", held.name)
    return [held.name for held in extracted.names]


def _leave_reply(extracted: Extract, gaps: _Gaps) -> None:
    """In formats that list names only, the reader's own settings say what is answered."""
    for held in extracted.names:
        for action in dict.fromkeys(action for action in (held.here, held.below) if action is not None):
            if action is not Action.NXDOMAIN:
                gaps.add(f"the reader's settings decide what is answered instead of {action.value}", held.name)


@dataclass(frozen=True, slots=True)
class _Style:
    comment: str
    body: Callable[[Extract, _Gaps], _Body]


_STYLES: Mapping[Format, _Style] = {
    Format.RPZ: _Style(";", _rpz),
    Format.BIND: _Style("//", _bind),
    Format.UNBOUND: _Style("#", _unbound),
    Format.KNOT: _Style("--", _knot),
    Format.DNSMASQ: _Style("#", _dnsmasq),
    Format.HOSTS: _Style("#", _hosts),
    Format.ADBLOCK: _Style("!", _adblock),
    Format.EDL: _Style("#", _edl),
}


def write(extracted: Extract, form: Format, version: str) -> Written:
    """Write an extract in a format.

    Args:
        extracted: What to write.
        form: The format.
        version: Of the product, for the first line.
    """
    if form is Format.JSON:
        return Written(_json(extracted, version), ())
    style, gaps = _STYLES[form], _Gaps()
    body = style.body(extracted, gaps)
    comments = [
        f"made by Interdict {version}, generation {extracted.digest}",
        f"at {_instant(extracted.at)}, for the group {extracted.group}",
        # On one line: a line break in a title would end the comment.
        *(" ".join(f'order {order.id}: {order.authority}, "{order.title}"'.split()) for order in extracted.orders),
    ]
    for gap in gaps.all():
        comments += [f"not as policy has it: {gap.why}:", *(f"  {name}" for name in gap.names)]
    return Written("\n".join([*(f"{style.comment} {line}" for line in comments), *body, ""]), gaps.all())


def _instant(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).isoformat()


def _json(extracted: Extract, version: str) -> str:
    content = {
        "made_by": f"Interdict {version}",
        "generation": extracted.digest,
        "at": _instant(extracted.at),
        "group": extracted.group,
        "orders": [{"id": o.id, "authority": o.authority, "title": o.title} for o in extracted.orders],
        "block_ttl": extracted.block_ttl,
        "sinkhole": {"ipv4": extracted.sinkhole_ipv4, "ipv6": extracted.sinkhole_ipv6},
        "names": [{"name": h.name, "here": h.here, "below": h.below, "orders": h.orders} for h in extracted.names],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
