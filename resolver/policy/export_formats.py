"""An extract in the words of other resolvers and filters.

A format that can not say something says in comments what became of it, name by name (`Gap`). A name is withheld with
another reply rather than let through; where it can be neither, it is left out. An exception that a format can not make
of one name alone, while the names below it are withheld, is not made. Pure: the same extract makes the same octets.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby

from resolver.policy.additions import Network
from resolver.policy.documents import Action
from resolver.policy.export import Extract, Ground, GroundKind, Held, from_root

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
class Gap:
    """Names that a format does not hold as policy has it, and what becomes of them there."""

    why: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A file, and what it does not say."""

    text: str
    gaps: tuple[Gap, ...]


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
    if not style.knows_addresses:
        for held in extracted.networks:
            gaps.add("left out, since the format knows no rules on the addresses of answers", str(held.network))
    comments = [
        f"made by Interdict {version}, generation {extracted.digest}",
        f"at {instant(extracted.at)}, for the group {extracted.group}",
        *map(_said, extracted.grounds),
        *extracted.notes,
    ]
    for gap in gaps.all():
        comments += [f"not as policy has it: {gap.why}:", *(f"  {name}" for name in gap.names)]
    return Written("\n".join([*(f"{style.comment} {line}" for line in comments), *body, ""]), gaps.all())


def instant(at: float) -> str:
    """A moment (Unix seconds) as files tell it, in UTC."""
    return datetime.fromtimestamp(int(at), UTC).isoformat()


def _said(ground: Ground) -> str:
    by = f"{ground.by}, " if ground.by else ""
    # On one line: a line break in a title would end the comment.
    return " ".join(f'{ground.kind.value} {ground.id}: {by}"{ground.title}"'.split())


# ---- rules from names -----------------------------------------------------------------------------------------------


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
    return [every[name] for name in sorted(every, key=from_root)]


class _Gaps:
    """Collects what a format can not say."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, why: str, name: str) -> None:
        self._names.setdefault(why, []).append(name)

    def instead(self, held: Held, place: str, wanted: Action, given: Action) -> Action:
        """Take note of a reply that is given instead of another, and return it."""
        meant = "its own answer" if wanted is Action.PASSTHRU else wanted.value
        self.add(f"{place} {given.value} instead of {meant}", held.name)
        return given

    def all(self) -> tuple[Gap, ...]:
        return tuple(Gap(why, tuple(found)) for why, found in self._names.items())


def _limited(every: Iterable[Held], can: Collection[Action], gaps: _Gaps) -> Iterator[Held]:
    """The names with NXDOMAIN for every action that a format does not have."""
    can = {*can, Action.PASSTHRU}
    for held in every:
        here, below = held.here, held.below
        if here not in can:
            here = gaps.instead(held, "the name gets", here, Action.NXDOMAIN)
        if below is not None and below not in can:
            below = gaps.instead(held, "names below get", below, Action.NXDOMAIN)
        yield replace(held, here=here, below=below)


def _as_one(held: Held, gaps: _Gaps) -> Held:
    """For formats whose rules reach downwards: where a name and those below it differ, it gets what they get."""
    if held.here is Action.PASSTHRU and not held.withholds_below:
        return replace(held, below=Action.PASSTHRU)
    if held.below is None or held.here is held.below:
        return held
    return replace(held, here=gaps.instead(held, "the name gets", held.here, held.below))


# ---- formats --------------------------------------------------------------------------------------------------------

_Body = list[str]


def _rpz(extracted: Extract, gaps: _Gaps) -> _Body:
    # draft-vixie-dnsop-dns-rpz-00 §3: what a rule does is told by the target of its CNAME.
    special = {
        Action.NXDOMAIN: "CNAME .",
        Action.NODATA: "CNAME *.",
        Action.DROP: "CNAME rpz-drop.",
        Action.TCP_ONLY: "CNAME rpz-tcp-only.",
        Action.PASSTHRU: "CNAME rpz-passthru.",
    }

    def records(owner: str, action: Action) -> list[str]:
        if action is Action.SINKHOLE:
            return [f"{owner} {rtype} {address}" for rtype, address in extracted.sinkhole]
        return [f"{owner} {special.get(action, special[Action.NXDOMAIN])}"]

    rules = _with_gaps_closed(_rules(_limited(extracted.names, {*special, Action.SINKHOLE}, gaps)))
    for one in extracted.networks:
        if one.action not in (*special, Action.SINKHOLE):
            gaps.add(f"answers with such an address get nxdomain instead of {one.action.value}", str(one.network))
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
        *(line for one in extracted.networks for line in records(_rpz_ip(one.network), one.action)),
    ]


def _rpz_ip(network: Network) -> str:
    """A trigger on the addresses of answers: the words of the prefix reversed, and in IPv6 the first of the longest
    runs of zeros as `zz`; BIND takes no other spelling."""
    address = network.network_address
    words = str(address).split(".") if address.version == 4 else _ipv6_words(address.exploded)
    return ".".join([str(network.prefixlen), *reversed(words), "rpz-ip"])


def _ipv6_words(exploded: str) -> list[str]:
    words = [f"{int(word, 16):x}" for word in exploded.split(":")]
    runs = [(n, -i) for i in range(8) for n in range(2, 9 - i) if set(words[i : i + n]) == {"0"}]
    if runs:
        length, before = max(runs)
        words[-before : length - before] = ["zz"]
    return words


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
    Action.PASSTHRU: "always_transparent",
}


def _unbound(extracted: Extract, gaps: _Gaps) -> _Body:
    body = ["server:"]
    for held in _rules(_as_one(held, gaps) for held in _limited(extracted.names, _UNBOUND_ZONE, gaps)):
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


def _knot(extracted: Extract, gaps: _Gaps) -> _Body:
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
    rules = _rules(_limited(extracted.names, say, gaps))
    # The first rule that matches acts: names by themselves first, then the longer suffixes before the shorter.
    exact = [(0, held.here, held.name) for held in rules if held.here is not held.below]
    suffix = [(-len(from_root(held.name)), held.below, held.name) for held in rules if held.below is not None]
    body = ["modules.load('policy')"]
    allowed = [
        (kind, [name for _, action, name in found if action is Action.PASSTHRU])
        for kind, found in (("domains", exact), ("suffix", suffix))
    ]
    spares = any(found for _, found in allowed)
    if spares:
        # An action of `policy.PASS` would end the rules altogether, also those that forward; so each rule here is asked
        # only about names that are not allowed.
        body.append("local interdict_allowed = {")
        body += [f"    {_knot_rule(kind, 'policy.PASS', found, indent=8)}," for kind, found in allowed if found]
        body += [
            "}",
            "local function interdict_add(rule)",
            "    policy.add(function (request, query)",
            "        for _, allowed in ipairs(interdict_allowed) do",
            "            if allowed(request, query) then return nil end",
            "        end",
            "        return rule(request, query)",
            "    end)",
            "end",
        ]
    for kind, found in (("domains", exact), ("suffix", suffix)):
        withheld = sorted((depth, action.value, name) for depth, action, name in found if action in say)
        for (_depth, action), entries in groupby(withheld, key=lambda entry: entry[:2]):
            rule = _knot_rule(kind, say[Action(action)], [name for _, _, name in entries], indent=4)
            body.append(f"{'interdict_add' if spares else 'policy.add'}({rule})")
    return body


def _knot_rule(kind: str, action: str, found: Iterable[str], indent: int) -> str:
    quoted = [f"{' ' * indent}'{name}'," for name in sorted(found, key=from_root)]
    return "\n".join([f"policy.{kind}({action}, policy.todnames({{", *quoted, f"{' ' * (indent - 4)}}}))"])


def _dnsmasq(extracted: Extract, gaps: _Gaps) -> _Body:
    reaching = []
    for held in extracted.names:
        if held.below is None and held.here is not Action.PASSTHRU:
            gaps.add("left out, since a rule for this name alone would withhold all names below it too", held.name)
        else:
            reaching.append(_as_one(held, gaps))
    body = []
    for held in _rules(_limited(reaching, {Action.NXDOMAIN, Action.SINKHOLE}, gaps)):
        if held.here is Action.PASSTHRU:
            body.append(f"server=/{held.name}/#")
            continue
        if held.here is Action.SINKHOLE:
            body += [f"address=/{held.name}/{address}" for _, address in extracted.sinkhole]
        body.append(f"local=/{held.name}/")
    return body


def _hosts(extracted: Extract, gaps: _Gaps) -> _Body:
    body = []
    for held in extracted.names:
        addresses = ["0.0.0.0", "::"]
        if held.here is Action.PASSTHRU:
            addresses = []  # an entry is for its name alone, so that an exception is what has none
        elif held.here is Action.SINKHOLE:
            addresses = [address for _, address in extracted.sinkhole]
        else:
            gaps.add(f"the name gets the address 0.0.0.0 or :: instead of {held.here.value}", held.name)
        if held.withholds_below:
            gaps.add("NAMES BELOW ARE LET THROUGH: a hosts file knows no suffixes", held.name)
        body += [f"{address} {held.name}" for address in addresses]
    return body


def _adblock(extracted: Extract, gaps: _Gaps) -> _Body:
    _leave_reply(extracted, gaps)
    body = []
    for held in _rules(extracted.names):
        if held.withholds_below:
            body.append(f"||{held.name}^")
        if held.here is Action.PASSTHRU:
            body.append(f"@@{'||' if held.below is Action.PASSTHRU else '|'}{held.name}^")
        elif held.below is None:
            body.append(f"|{held.name}^")
    return body


def _edl(extracted: Extract, gaps: _Gaps) -> _Body:
    _leave_reply(extracted, gaps)
    body = []
    reach: dict[str, bool] = {}
    for held in extracted.names:
        reach[held.name] = held.withholds_below
        if held.here is not Action.PASSTHRU:
            body.append(held.name)
            if held.below is None:
                why = "meant for this name alone: wrong where the reader takes an entry with all names below"
            else:
                why = "meant with all names below: they are let through where the reader does not expand"
            gaps.add(why, held.name)
        elif next((reach[name] for name in _ancestors(held.name) if name in reach), False):
            gaps.add("WITHHELD THOUGH ALLOWED where the reader takes an entry with all names below", held.name)
        elif held.withholds_below:
            body.append(held.name)
            gaps.add("WITHHELD THOUGH ALLOWED: without it the names below would be let through", held.name)
    return body


def _leave_reply(extracted: Extract, gaps: _Gaps) -> None:
    """In formats that list names only, the reader's own settings say what is answered."""
    for held in extracted.names:
        for action in dict.fromkeys((held.here, held.below)):
            if action not in (None, Action.NXDOMAIN, Action.PASSTHRU):
                gaps.add(f"the reader's settings decide what is answered instead of {action.value}", held.name)


@dataclass(frozen=True, slots=True)
class _Style:
    comment: str
    body: Callable[[Extract, _Gaps], _Body]
    knows_addresses: bool = False


_STYLES: Mapping[Format, _Style] = {
    Format.RPZ: _Style(";", _rpz, knows_addresses=True),
    Format.BIND: _Style("//", _bind, knows_addresses=True),
    Format.UNBOUND: _Style("#", _unbound),
    Format.KNOT: _Style("--", _knot),
    Format.DNSMASQ: _Style("#", _dnsmasq),
    Format.HOSTS: _Style("#", _hosts),
    Format.ADBLOCK: _Style("!", _adblock),
    Format.EDL: _Style("#", _edl),
}


def _json(extracted: Extract, version: str) -> str:
    of_kind = {kind: [ground for ground in extracted.grounds if ground.kind is kind] for kind in GroundKind}
    content = {
        "made_by": f"Interdict {version}",
        "generation": extracted.digest,
        "at": instant(extracted.at),
        "group": extracted.group,
        "orders": [{"id": o.id, "authority": o.by, "title": o.title} for o in of_kind[GroundKind.ORDER]],
        "own_rules": [{"id": o.id, "owner": o.by, "reason": o.title} for o in of_kind[GroundKind.OWN_RULE]],
        "ways_round": [{"id": o.id, "title": o.title} for o in of_kind[GroundKind.WAY_ROUND]],
        "notes": extracted.notes,
        "block_ttl": extracted.block_ttl,
        "sinkhole": {"ipv4": extracted.sinkhole_ipv4, "ipv6": extracted.sinkhole_ipv6},
        "names": [{"name": h.name, "here": h.here, "below": h.below, "orders": h.orders} for h in extracted.names],
        "networks": [{"network": str(h.network), "action": h.action} for h in extracted.networks],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
