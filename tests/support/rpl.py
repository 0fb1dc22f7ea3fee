"""Scenarios as text: the format of Unbound's testbound and of Deckard, played through the whole path on a fake clock.

    CONFIG                                   YAML, the keys of `Setting`
    CONFIG_END
    SCENARIO_BEGIN one line
    RANGE_BEGIN 0 100                        what an upstream says during these steps
      ADDRESS 192.0.2.53
    ENTRY_BEGIN
    MATCH qname qtype [UDP|TCP]
    ADJUST sleep=0.2                         seconds to the reply
    REPLY QR RD RA [TC] [AD] NOERROR
    SECTION QUESTION | ANSWER | AUTHORITY    master-file lines
    ENTRY_END
    RANGE_END
    STEP 10 QUERY [ADDRESS 198.51.100.7]     flags in REPLY (RD AD CD DO, NOEDNS, SIZE=512), TCP in MATCH
    STEP 20 CHECK_ANSWER                     MATCH rcode flags question answer authority (these: all) additional ttl
                                             ede=16,13
    STEP 30 CHECK_SILENCE
    STEP 40 TIME_PASSES ELAPSE 60
    STEP 50 CHECK_ASKED 1                    how many questions went to upstreams so far
    STEP 55 CHECK_NEVER_ASKED name. [TYPE]   no question about that name went to an upstream so far
    STEP 60 CHECK_HITS 2                     how many so far
    STEP 65 CHECK_HIT order=zone:a rule=… action=nodata mode=enforce
                                             the last hit has these; one word a value, `_` for a blank
    SCENARIO_END

A query is sent by its step and awaited by the next CHECK, oldest first, so that several can be under way. An upstream
that has no RANGE at a step is silent; one that has, and is asked what no entry matches, fails the scenario. `;` begins
a comment.

Policy zones, own rules, exemptions, ways round and the switches beside them are written as the product's own files have
them, and are read by the product's own readers.
"""

import asyncio
import json
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import yaml

from resolver import config
from resolver.app.zones import applied_zones
from resolver.engine.cache import CacheTerms
from resolver.engine.forwarder import ForwarderTerms
from resolver.policy import source
from resolver.policy.additions import Documents, Exemption, LocalRule, WayRound
from resolver.policy.compile import AppliedZone
from resolver.policy.documents import Action, Basis, Mode
from resolver.policy.documents import Entry as Entity
from resolver.policy.generation import Generation
from resolver.policy.terms import Precedence
from tests.support.clock import FakeClock, run
from tests.support.house import EVERYONE, SOA_LINES, Held, House, app, client, generation, house
from tests.support.upstream import FakeExchange, Said

E = TypeVar("E", bound=Entity)

_SECTIONS = ("QUESTION", "ANSWER", "AUTHORITY", "ADDITIONAL")
_ALL = ("rcode", "flags", "question", "answer", "authority")


class ScenarioFailed(AssertionError):
    """A step did not find what it says; the message has the step."""


@dataclass
class Entry:
    """One ENTRY block: what to match and what to say, or to find."""

    match: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    delay: float = 0.01
    sections: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in _SECTIONS})

    @property
    def rcode(self) -> str:
        """The RCODE named in REPLY."""
        return next((word for word in self.words if word in dns.rcode.Rcode.__members__), "NOERROR")

    @property
    def flags(self) -> int:
        """The header flags named in REPLY."""
        return sum(dns.flags.Flag[word] for word in self.words if word in dns.flags.Flag.__members__)

    def question(self) -> tuple[str, str]:
        """Name and type of SECTION QUESTION."""
        name, *_, rtype = self.sections["QUESTION"][0].split()
        return name, rtype

    def rrsets(self, section: str) -> list[dns.rrset.RRset]:
        """A section's records."""
        made: list[dns.rrset.RRset] = []
        for line in self.sections[section]:
            owner, ttl, rclass, rtype, rdata = line.split(maxsplit=4)
            rrset = dns.rrset.from_text(owner, int(ttl), rclass, rtype, rdata)
            held = next((r for r in made if r.name == rrset.name and r.rdtype == rrset.rdtype), None)
            if held is None:
                made.append(rrset)
            else:
                held.update(rrset)
        return made

    def reply_to(self, query: dns.message.Message) -> bytes:
        """What the upstream says."""
        made = dns.message.make_response(query)
        made.flags = self.flags | dns.flags.QR
        made.set_rcode(dns.rcode.from_text(self.rcode))
        made.answer, made.authority, made.additional = map(self.rrsets, _SECTIONS[1:])
        return made.to_wire(max_size=65535)


@dataclass
class Range:
    """What an upstream says from one step to another."""

    first: int
    last: int
    address: str = ""
    entries: list[Entry] = field(default_factory=list)


@dataclass
class Step:
    """One STEP."""

    number: int
    verb: str
    words: list[str]
    entry: Entry | None = None


@dataclass
class Setting:
    """What CONFIG says: apps as lists of names, orders, and the few options that scenarios turn.

    `zones` are `policy.zones` of interdict.yaml with `text` in place of `file`; in front of a text of format rpz stand
    the lines `SOA_LINES`, unless it has an SOA. Own rules and exemptions may leave out who answers for them and until
    when; of ways round, `names` is a list of names with all below them.
    """

    apps: dict[str, list[str]] = field(default_factory=lambda: {"chat": ["chat.example", "=only.example"]})
    orders: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "order-1", "apps": ["chat"]}])
    groups: dict[str, list[str]] = field(default_factory=lambda: {name: list(held) for name, held in EVERYONE.items()})
    allowed: list[str] = field(default_factory=lambda: ["0.0.0.0/0", "::/0"])
    upstreams: list[str] = field(default_factory=lambda: ["192.0.2.53"])
    trust_ad: bool = False
    start: str = "2030-03-17T17:46:40+00:00"
    cache: dict[str, Any] = field(default_factory=dict)
    forwarder: dict[str, Any] = field(default_factory=dict)
    forward: list[str] = field(default_factory=list)
    zones: list[dict[str, Any]] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    exemptions: list[dict[str, Any]] = field(default_factory=list)
    ways_round: list[dict[str, Any]] = field(default_factory=list)
    rebinding: dict[str, Any] = field(default_factory=dict)
    strip_ech: list[str] = field(default_factory=list)
    precedence: str = "strictest"

    def applied(self) -> tuple[AppliedZone, ...]:
        """Everything that the product makes a zone of, but own rules."""
        ways = []
        for way in self.ways_round:
            listed = [{"name": name, "match": "suffix", "sources": ["EX"]} for name in way["names"]]
            ways.append(_document({**_WAY_ROUND, **way, "names": listed}, WayRound))
        with tempfile.TemporaryDirectory() as folder:
            zones = []
            for written in self.zones:
                zone = dict(written)
                text = zone.pop("text")
                if zone.get("format") == "rpz" and " SOA " not in text:
                    text = SOA_LINES + text
                path = Path(folder) / zone["name"]
                path.write_text(text)
                zones.append({**zone, "file": str(path)})
            whole = {
                "upstreams": [{"address": "192.0.2.53"}],
                "groups": [{"name": name, "networks": networks} for name, networks in self.groups.items()],
                "policy": {
                    "orders": [],
                    "zones": zones,
                    "rebinding": self.rebinding,
                    "sinkhole": {"ipv4": ["192.0.2.80"], "ipv6": ["2001:db8::80"]},
                },
            }
            read_config = config.read(json.dumps(whole), "scenario")
            documents = Documents({}, {}, ways_round={way.id: way for way in ways})
            return applied_zones(read_config, documents, Path(folder))[0]

    def own_rules(self) -> list[LocalRule]:
        """The operator's own rules."""
        return [_document({**_RULE, **rule}, LocalRule) for rule in self.rules]

    def spared(self) -> list[Exemption]:
        """Exemptions."""
        return [_document({**_EXEMPTION, **exemption}, Exemption) for exemption in self.exemptions]


_RULE = {"owner": "service desk", "reason": "a test", "until": "2031-01-01T00:00:00Z"}
_EXEMPTION = {
    "reason": "law-enforcement",
    "grantor": "Chief Information Officer",
    "granted": "2030-01-01T00:00:00Z",
    "expires": "2030-12-31T00:00:00Z",
}
_WAY_ROUND = {"title": "A canary", "effect": "None.", "version": "2030-01-01", "action": "nxdomain"}


def _document(written: dict[str, Any], kind: type[E]) -> E:
    return source.read(json.dumps(written), written["id"], kind)


@dataclass
class Scenario:
    """A scenario, read."""

    title: str
    setting: Setting
    ranges: list[Range]
    steps: list[Step]


def read(text: str) -> Scenario:
    """Read a scenario.

    Raises:
        ValueError: A line that is none of the format's, with its number.
    """
    lines = ((number, line.partition(";")[0].rstrip()) for number, line in enumerate(text.splitlines(), 1))
    full = deque((number, line) for number, line in lines if line.strip())
    title, setting, ranges, steps = "", Setting(), list[Range](), list[Step]()
    while full:
        number, line = full.popleft()
        match line.split():
            case ["CONFIG"]:
                setting = Setting(**(yaml.safe_load("\n".join(_until(full, "CONFIG_END"))) or {}))
            case ["SCENARIO_BEGIN", *words]:
                title = " ".join(words)
            case ["RANGE_BEGIN", first, last]:
                ranges.append(_range(full, int(first), int(last)))
            case ["STEP", step, verb, *words]:
                entry = _entry(full) if verb in ("QUERY", "CHECK_ANSWER") and full.popleft() else None
                steps.append(Step(int(step), verb, words, entry))
            case ["SCENARIO_END"]:
                break
            case _:
                raise ValueError(f"line {number}: {line.strip()!r} is not of the format")
    return Scenario(title, setting, ranges, steps)


def _until(lines: deque[tuple[int, str]], end: str) -> Iterator[str]:
    while (line := lines.popleft()[1]).strip() != end:
        yield line


def _range(lines: deque[tuple[int, str]], first: int, last: int) -> Range:
    made = Range(first, last)
    while (words := lines.popleft()[1].split()) != ["RANGE_END"]:
        if words[0] == "ADDRESS":
            made.address = words[1]
        elif words == ["ENTRY_BEGIN"]:
            made.entries.append(_entry(lines))
        else:
            raise ValueError(f"{' '.join(words)!r} in a RANGE")
    return made


def _entry(lines: deque[tuple[int, str]]) -> Entry:
    made, section = Entry(), ""
    for line in _until(lines, "ENTRY_END"):
        match line.split():
            case ["MATCH", *words]:
                made.match = words
            case ["REPLY", *words]:
                made.words = words
            case ["ADJUST", *words]:
                for word in words:
                    if word.startswith("sleep="):
                        made.delay = float(word.removeprefix("sleep="))
            case ["SECTION", name] if name in _SECTIONS:
                section = name
            case _ if section:
                made.sections[section].append(line.strip())
            case _:
                raise ValueError(f"{line.strip()!r} in an ENTRY")
    return made


class Play:
    """A scenario being played."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._step = 0
        self._failures: list[str] = []
        self._house = self._build(scenario.setting)

    def run(self) -> House:
        """Play every step.

        Raises:
            ScenarioFailed: A step did not find what it says.
        """
        run(self._house.clock, self._play())
        return self._house

    def _build(self, setting: Setting) -> House:
        clock = FakeClock(at=datetime.fromisoformat(setting.start).timestamp())
        apps = {id_: app(id_, *names) for id_, names in setting.apps.items()}
        orders = []
        for written in setting.orders:
            held = Held([apps[id_] for id_ in written["apps"]], id=written["id"], effective=clock.at() - 86400)
            kinds: dict[str, Any] = {"mode": Mode, "action": Action, "basis": Basis, "groups": list}
            for key, kind in kinds.items():
                if key in written:
                    held = _with(held, key, kind(written[key]))
            for key in ("effective", "expires"):
                if key in written:
                    held = _with(held, key, _moment(written[key], clock))
            orders.append(held)
        return house(
            *[FakeExchange(self._react_of(address), f"{address}:53") for address in setting.upstreams],
            clock=clock,
            policy=self._policy(orders),
            cache=CacheTerms(**setting.cache),
            terms=ForwarderTerms(**setting.forwarder),
            trust_ad=setting.trust_ad,
            forward=setting.forward,
        )

    def _policy(self, orders: list[Held]) -> Generation:
        setting = self._scenario.setting
        return generation(
            *orders,
            groups=setting.groups,
            allowed=setting.allowed,
            zones=setting.applied(),
            rules=setting.own_rules(),
            exemptions=setting.spared(),
            strip_ech=setting.strip_ech,
            precedence=Precedence(setting.precedence),
        )

    def _react_of(self, address: str) -> Any:
        def react(query: dns.message.Message, transport: str) -> list[Said]:
            question = query.question[0]
            said = [r for r in self._scenario.ranges if r.address == address and r.first <= self._step <= r.last]
            for entry in (entry for held in said for entry in held.entries):
                name, rtype = entry.question()
                if "qname" in entry.match and question.name.to_text().lower() != name.lower():
                    continue
                if "qtype" in entry.match and dns.rdatatype.to_text(question.rdtype) != rtype:
                    continue
                if ("TCP" if transport == "udp" else "UDP") in entry.match:
                    continue
                return [Said(entry.reply_to(query), entry.delay)]
            if said:
                self._failures.append(f"{address} was asked for {question} over {transport}, which no entry matches")
            return []

        return react

    async def _play(self) -> None:
        pending: deque[asyncio.Task[bytes | None]] = deque()
        for step in self._scenario.steps:
            self._step = step.number
            match step.verb, step.words:
                case "QUERY", words:
                    assert step.entry is not None
                    pending.append(self._house.roof.spawn(self._query(step.entry, words)))
                    await asyncio.sleep(0)
                case "CHECK_ANSWER", _:
                    assert step.entry is not None
                    octets = await pending.popleft()
                    if octets is None:
                        self._fail("there was no answer")
                    else:
                        self._check(step.entry, dns.message.from_wire(octets))
                case "CHECK_SILENCE", _:
                    if await pending.popleft() is not None:
                        self._fail("there was an answer")
                case "TIME_PASSES", ["ELAPSE", seconds]:
                    await asyncio.sleep(float(seconds))
                case "CHECK_ASKED", [count]:
                    self._equal("questions to upstreams", len(self._house.questions()), int(count))
                case "CHECK_NEVER_ASKED", [name, *rtypes]:
                    for asked, rtype in (question.split() for question in self._house.questions()):
                        if asked == name.rstrip(".") and rtype in (rtypes or [rtype]):
                            self._fail(f"an upstream was asked for {asked} {rtype}")
                case "CHECK_HIT", words:
                    hits = [hit._asdict() for hit in self._house.hits()]
                    self._equal("hits", bool(hits), True)
                    for word in words if hits else ():
                        key, _, value = word.partition("=")
                        self._equal(f"{key} of the hit", str(hits[-1][key]).replace(" ", "_"), value)
                case "CHECK_HITS", [count]:
                    self._equal("hits", len(self._house.hits()), int(count))
                case verb, words:
                    raise ValueError(f"STEP {step.number} {verb} {words} is not of the format")
            if self._failures:
                raise ScenarioFailed(f"{self._scenario.title}: STEP {step.number}: " + "; ".join(self._failures))
        if pending:
            raise ScenarioFailed(f"{self._scenario.title}: {len(pending)} answers were not checked")

    async def _query(self, entry: Entry, words: list[str]) -> bytes | None:
        name, rtype = entry.question()
        query = dns.message.make_query(name, rtype)
        query.flags = entry.flags
        sizes = [int(word.removeprefix("SIZE=")) for word in entry.words if word.startswith("SIZE=")]
        if "NOEDNS" not in entry.words:
            query.use_edns(0, dns.flags.DO if "DO" in entry.words else 0, *(sizes or [1232]))
        address = words[1] if words[:1] == ["ADDRESS"] else "198.51.100.7"
        transport = "tcp" if "TCP" in entry.match else "udp"
        return await self._house.answer(query.to_wire(), client(address, transport=transport))

    def _check(self, expected: Entry, found: dns.message.Message) -> None:
        for what in [w for word in expected.match for w in (_ALL if word == "all" else (word,))]:
            if what == "rcode":
                self._equal(what, dns.rcode.to_text(found.rcode()), expected.rcode)
            elif what == "flags":
                wanted = expected.flags | (dns.flags.DO if "DO" in expected.words else 0)
                self._equal(what, _flags(found.flags | found.ednsflags & dns.flags.DO), _flags(wanted))
            elif what == "question":
                name, rtype = expected.question()
                asked = found.question[0]
                self._equal(what, (asked.name.to_text(), dns.rdatatype.to_text(asked.rdtype)), (name, rtype))
            elif what in ("answer", "authority", "additional"):
                have = getattr(found, what)
                self._equal(
                    what,
                    _texts(have, "ttl" in expected.match),
                    _texts(expected.rrsets(what.upper()), "ttl" in expected.match),
                )
            elif what.startswith("ede="):
                codes = [str(int(o.code)) for o in found.options if isinstance(o, dns.edns.EDEOption)]
                self._equal("EDE", codes, [] if what == "ede=none" else what.removeprefix("ede=").split(","))
            elif what != "ttl":
                raise ValueError(f"MATCH {what} is not of the format")

    def _equal(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self._fail(f"{what}: {found!r} instead of {wanted!r}")

    def _fail(self, why: str) -> None:
        self._failures.append(why)


def _with(held: Held, key: str, value: Any) -> Held:
    return Held(**{**{name: getattr(held, name) for name in held.__dataclass_fields__}, key: value})


def _moment(written: object, clock: FakeClock) -> float:
    """A number is seconds after the start; text is an instant."""
    if isinstance(written, int | float):
        return clock.at() + written
    return datetime.fromisoformat(str(written)).timestamp()


def _flags(bits: int) -> str:
    return " ".join(f.name for f in dns.flags.Flag if bits & f.value) + (" DO" if bits & dns.flags.DO else "")


def _texts(rrsets: list[dns.rrset.RRset], with_ttl: bool) -> list[tuple[object, ...]]:
    told = [
        (rrset.name.to_text().lower(), dns.rdatatype.to_text(rrset.rdtype), rr.to_text().lower(), rrset.ttl)
        for rrset in rrsets
        for rr in rrset
    ]
    return sorted(told if with_ttl else [line[:3] for line in told])
