"""A name list as octets, read into a policy zone.

Lists come from strangers and change overnight, so the reader trusts nothing and loses nothing in silence:

- What is no list at all (a page, an archive, a pointer, a binary) raises `ListError`; a list that holds nothing raises
  `EmptyList`, for an update that empties a list is another matter than one that failed.
- Each line is taken, a duplicate, a line that says nothing, or refused with a reason: `ListReport` counts them and the
  four sums make up the file. A hosts file's own names (`127.0.0.1 localhost`), headers and `server:` say nothing.
- More refused lines than `tolerance` allows, and the list is an error: half a list is not the list.

An exception (`@@`) becomes a PASSTHRU rule. It acts within its own zone only: no list opens what an order forbids. The
order of lines means nothing. Where lines speak of the same name, important exceptions go before important rules, these
before exceptions, and these before the rest; what one rule cannot hold besides is refused as a conflict.

Names are taken as written: not cut to a registrable domain (`app.example.edgekey.net` would block a CDN), not
corrected. The only names a list may not hold are whole top-level domains, names never asked of the public DNS, and the
host it comes from, for it could never be updated again.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from types import MappingProxyType

from resolver.policy.documents import Action
from resolver.policy.lines import (
    BLOCK,
    Hold,
    Holds,
    LineRefused,
    ListFormat,
    Pattern,
    Refusal,
    finds,
    read_line,
)
from resolver.policy.zone import PolicyZone, Reach, Rule
from resolver.wire.name import is_at_or_below, to_text

MAX_LINE_OCTETS = 8_192  # thirty times the longest name; past it the file is somebody's program or page
MAX_PATTERNS = 5_000  # expressions and wildcards of one list; the largest public lists have some hundreds
MAX_STEPS = 65_536  # of all of them, compiled: a set of RE2 with its 8 MiB gives up at about 100,000
MAX_RULES = 4_096  # that differ, by types or spared names; lists have a handful, and a generation holds them all
KEPT_REFUSALS = 1_000  # refused lines kept in full; the rest is counted
SAMPLE_LINES = 2_000  # lines that decide about the format
SHOWN_CHARACTERS = 80

_PROGRESS_LINES = 1 << 16
_TELLING_CHARACTERS = 512  # of a line, to tell its format: all of it for a name, and a bound for what is none


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that was not taken.

    Attributes:
        line: Its number, from 1.
        column: Where the trouble begins, from 1, in characters.
        text: The line, cut and with everything unprintable escaped: safe on a terminal.
        reason: Of the closed list.
        why: A sentence that says the mend.
    """

    line: int
    column: int
    text: str
    reason: Refusal
    why: str


@dataclass(frozen=True, slots=True)
class ListReport:
    """What became of each line: `lines` is the sum of taken, duplicates, comments and the refused.

    Attributes:
        form: The format given, or that of most lines.
        mixed: Lines of another format were taken too.
        lines: In all; a last line needs no newline.
        taken: Those that put something new into the zone.
        duplicates: Those that said nothing new.
        comments: Those that have nothing to say: blank, comments, headers, a hosts file's own names.
        refused: How many by reason.
        examples: The first of the refused, in the order of the file; conflicts last.
    """

    form: ListFormat
    mixed: bool
    lines: int
    taken: int
    duplicates: int
    comments: int
    refused: Mapping[Refusal, int]
    examples: tuple[Refused, ...]

    @property
    def refused_lines(self) -> int:
        """How many lines were refused, whatever for."""
        return sum(self.refused.values())


class ListError(ValueError):
    """The octets are not a list that can be used; the message says why and what to do.

    Attributes:
        report: What became of the lines, where they were read.
    """

    def __init__(self, message: str, report: ListReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class EmptyList(ListError):
    """A list without a fault and without a name."""


def sniff(octets: bytes) -> ListFormat:
    """Tell the format of a list: that of most lines in its first two thousand.

    Raises:
        ListError: It is no list.
        EmptyList: It has no line that says anything.
    """
    return _most_likely(_opened(octets))


def read_list(
    octets: bytes,
    *,
    form: ListFormat | None = None,
    tolerance: float = 0.05,
    plain_reach: Reach = Reach.EXACT,
    own_host: bytes | None = None,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> tuple[PolicyZone, ListReport]:
    """Read a list into a zone of its own.

    Args:
        octets: The file: ASCII, UTF-8, or UTF-16 with its byte order mark.
        form: Its format; None to find out, and then each line may be of any format that it clearly belongs to.
        tolerance: The share of refused lines, among those that say something, up to which the list is used.
        plain_reach: How far a name reaches in formats that have no word for it.
        own_host: The host that the list comes from, wire form; a line that blocks it is refused.
        progress: Called now and then with the octets read and the octets in all.

    Raises:
        ListError: It is no list, or too much of it was refused, or it is a response policy zone.
        EmptyList: Nothing in it was refused and nothing blocks or spares a name.
    """
    octets = _opened(octets)
    likely = form or _most_likely(octets)
    if likely is ListFormat.RPZ:
        raise ListError("this is a response policy zone; read it as a zone, not as a list of names")
    reading = _Reading(likely, form is None, plain_reach, own_host)
    reading.read(octets, progress)
    reading.settle()
    report = reading.report()
    _judge(report, tolerance)
    return reading.zone, report


def _judge(report: ListReport, tolerance: float) -> None:
    refused = report.refused_lines
    told = report.taken + report.duplicates + refused
    if not told:
        raise EmptyList("the list holds no name; if that is meant, take the list out of the configuration", report)
    share = refused / told
    if report.taken and share <= tolerance:
        return
    reasons = []
    for reason, count in Counter(report.refused).most_common(3):
        example = next((e for e in report.examples if e.reason is reason), None)
        where = f", as line {example.line} ({example.text}): {example.why}" if example else ""
        reasons.append(f"{count} × {reason}{where}")
    raise ListError(
        f"{refused} of {told} lines cannot be taken as {report.form} ({share:.1%}, {tolerance:.1%} allowed): "
        + "; ".join(reasons)
        + ". Name the list's format if it is another, or allow more in its tolerance",
        report,
    )


# How files begin that are no lists, and what they are.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x1f\x9d", "compressed with compress; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"%PDF-", "a PDF document; export it as text"),
    (b"version https://git-lfs.github.com/spec/", "a git-lfs pointer; fetch the file that it points to"),
)


def _opened(octets: bytes) -> bytes:
    """The octets as UTF-8 without a byte order mark and with newlines; refuse what is no list."""
    for magic, what in _MAGIC:
        if octets.startswith(magic):
            raise ListError(f"this is no list: {what}")
    if octets[257:262] == b"ustar":
        raise ListError("this is no list: a tar archive; unpack it first")
    if octets.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            octets = octets.decode("utf-16").encode("utf-8")
        except UnicodeError:
            raise ListError("this is no list: it begins as UTF-16 and goes on as something else") from None
    octets = octets.removeprefix(b"\xef\xbb\xbf")
    if (zero := octets.find(b"\0")) >= 0:
        raise ListError(f"this is no list: octet {zero} is zero, so it is binary, or UTF-16 without its mark")
    begins = octets[:4096].lstrip()
    if begins.startswith(b"<"):
        raise ListError("this is no list: a page (HTML or XML) came in its place; use the address of the raw file")
    if re.match(rb"\{|\[\s*[\[{\"\d\]]", begins):
        raise ListError("this is no list: JSON; use the publisher's text form")
    if b"\n" not in octets:
        octets = octets.replace(b"\r", b"\n")
    return octets


def _bounded(raw: bytes) -> bytes:
    if len(raw) > MAX_LINE_OCTETS:
        raise ListError(
            f"this is no list: a line is longer than {MAX_LINE_OCTETS} octets; check what the address gives"
        )
    return raw


# What a line of each format looks like, the most telling first.
_MARKS: tuple[tuple[ListFormat, re.Pattern[str]], ...] = (
    (
        ListFormat.RPZ,
        re.compile(r"\$(?:TTL|ORIGIN)\s|(?:\S+\s+)?(?:\d+\s+)?(?:IN\s+)?(?:SOA|CNAME)\s+\S", re.I),
    ),
    (ListFormat.ADBLOCK, re.compile(r"@@|\|{1,2}[^|]|/.*/(?:\$\S+)?$|[\w.*-]+\^(?:$|\$)")),
    (ListFormat.DNSMASQ, re.compile(r"(?:address|server|local|bogus-nxdomain|ipset|nftset|conf-file)=")),
    (ListFormat.UNBOUND, re.compile(r"server:\s*$|local-(?:zone|data):")),
    (
        ListFormat.ROUTING,
        re.compile(
            r"(?:-\s*)?['\"]?(?:(?:DOMAIN|HOST|IP|SRC|DST|GEO|PROCESS|URL|USER|RULE)[A-Z-]*|AND|OR|NOT)[0-9]?,"
            r"|(?:full|domain|regexp|keyword|include):\S|payload:\s*$|-\s+['\"]?\S|[\w.-]+\s+@!?\w+$"
        ),
    ),
    (ListFormat.HOSTS, re.compile(r"(?:\d+\.\d+\.\d+\.\d+|[0-9a-fA-F]*:[0-9a-fA-F:.]*(?:%\w+)?)\s+\S")),
    (ListFormat.WILDCARD, re.compile(r"(?:[*+]?\.|=)[\w-]+(?:\.[\w-]+)*\.?[;,]?$|(?=[\w.-]*\*)[\w.*-]++[;,]?$")),
    (ListFormat.NAMES, re.compile(r"[\w-]+(?:\.[\w-]+)+\.?[;,]?(?:\s*#.*)?$")),
    (ListFormat.REGEX, re.compile(r"(?=[^\s\\()\[\]^$+?{}|]*+[\\()\[\]^$+?{}|])\S++$")),
)


def _form_of(text: str) -> ListFormat | None:
    """Whose format a line that is no comment looks like; None where it could be anybody's."""
    text = text.strip().lstrip("\ufeff")[:_TELLING_CHARACTERS]
    for form, mark in _MARKS:
        if mark.match(text):
            return form
    return None


def _most_likely(octets: bytes) -> ListFormat:
    votes: Counter[ListFormat] = Counter()
    says_something = False
    for text in islice(_told(octets), SAMPLE_LINES):
        says_something = True
        form = _form_of(text)
        if form is ListFormat.RPZ and re.search(r"\sSOA\s", text):
            return form  # no other format has one, and a small zone has little else
        if form is not None:
            votes[form] += 1
    if not says_something:
        raise EmptyList("the list holds no line; if that is meant, take it out of the configuration")
    if votes[ListFormat.ROUTING] * 50 >= votes.total() and set(votes) <= {ListFormat.NAMES, ListFormat.ROUTING}:
        return ListFormat.ROUTING if votes[ListFormat.ROUTING] else ListFormat.NAMES  # bare names are theirs too
    return max(ListFormat, key=lambda form: votes[form])  # of equals the first, so a tie does not hang on their order


def _told(octets: bytes) -> "filter[str]":
    """The lines that are neither blank nor a comment in most formats, as text."""
    lines = (_bounded(raw).decode("utf-8", "replace").strip() for raw in BytesIO(octets))
    return filter(lambda text: bool(text) and not text.startswith(("#", "!", ";", "//")), lines)


# One name per line and nothing odd in it: what all but a few lines are, without the cost of reading them in full. What
# is taken here is taken just so by `read_line`; all else is left to it.
_PLAIN = (
    rb"(?P<name>(?!0\.0\.0\.0\.|127\.0\.0\.1\.)(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{0,62})"
    rb"(?<!\.local)(?<!\.invalid)(?<!\.localhost)(?<!\.localdomain)"
)
_REMARK = rb"(?:[ \t]+#[\t -~]*)?"
_FAST: dict[ListFormat, tuple[re.Pattern[bytes], Reach | None]] = {
    form: (re.compile(before + _PLAIN + after + rb"[ \t]*\r?\n?"), reach)
    for form, before, after, reach in (
        (ListFormat.NAMES, rb"", rb"\.?" + _REMARK, None),
        (ListFormat.HOSTS, rb"(?:0\.0\.0\.0|127\.0\.0\.1|::1?)[ \t]+", _REMARK, Reach.EXACT),
        (ListFormat.ADBLOCK, rb"\|\|", rb"\^", Reach.SUFFIX),
        (ListFormat.WILDCARD, rb"\*?\.", rb";?", Reach.SUFFIX),
        (ListFormat.DNSMASQ, rb"(?:local|server|(?P<a>address))=/", rb"/(?(a)(?:#|0\.0\.0\.0|::)?)", Reach.SUFFIX),
        (
            ListFormat.UNBOUND,
            rb'local-zone:[ \t]+"',
            rb'\.?"[ \t]+(?:always_nxdomain|always_null|static)',
            Reach.SUFFIX,
        ),
        (ListFormat.ROUTING, rb"(?:domain-suffix,|domain:|\+\.)", rb"", Reach.SUFFIX),
    )
}
_NEVER = re.compile(rb"(?!)")  # expressions have no fast form
_LENGTHS = [bytes((length,)) for length in range(64)]

_COSTLY = frozenset({Refusal.PATTERN, Refusal.LIMIT, Refusal.EVERYTHING})  # found out by trying an expression
# A line refused for one of these may simply be of another format.
_FOREIGN = frozenset({Refusal.BAD_NAME, Refusal.TRAILING_TEXT, Refusal.URL, Refusal.DIRECTIVE})


@dataclass(slots=True)
class _Reading:
    """A list while it is read: the zone, the counts, and what the lines contest among themselves."""

    form: ListFormat
    any_form: bool
    plain_reach: Reach
    own_host: bytes | None
    zone: PolicyZone = field(default_factory=PolicyZone)
    mixed: bool = False
    lines: int = 0
    taken: int = 0
    duplicates: int = 0
    comments: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)
    examples: list[Refused] = field(default_factory=list)
    # Names on which lines put different rules: each rule with its line, but the first, whose line was not kept.
    contested: dict[tuple[bytes, Reach], dict[Rule, tuple[int, str] | None]] = field(default_factory=dict)
    patterns: set[tuple[str, int]] = field(default_factory=set)
    steps: int = 0
    expressions: int = 0
    rules: set[Rule] = field(default_factory=set)

    def read(self, octets: bytes, progress: Callable[[int, int], None]) -> None:
        """Read all lines."""
        shape, reach = _FAST.get(self.form, (_NEVER, None))
        fits = shape.fullmatch
        held = ((self.plain_reach if reach is None else reach, self.zone.number_of(BLOCK)),)
        names = self.zone.names
        guarded = _above(self.own_host)
        lengths = _LENGTHS
        number = taken = duplicates = 0
        stream = BytesIO(octets)
        for raw in stream:
            number += 1
            if not number % _PROGRESS_LINES:
                progress(stream.tell(), len(octets))
            if (fit := fits(raw.lower())) and len(name := fit["name"]) < 254:
                wire = b"".join([lengths[len(label)] + label for label in name.split(b".")]) + b"\0"
                earlier = names.get(wire)
                if earlier is None and wire not in guarded:
                    names[wire] = held
                    taken += 1
                    continue
                if earlier is held:
                    duplicates += 1
                    continue
            self._read_slowly(raw, number)
        self.lines = number
        self.taken += taken
        self.duplicates += duplicates
        progress(len(octets), len(octets))

    def _read_slowly(self, raw: bytes, number: int) -> None:
        raw = _bounded(raw).rstrip(b"\r\n")
        text = raw.decode("utf-8", "surrogateescape")
        try:
            if not raw.lstrip().startswith((b"#", b"!", b";", b"//")) and not _is_utf8(raw):
                raise LineRefused(Refusal.ENCODING, "", "neither ASCII nor UTF-8; save the list as UTF-8")
            holds = self._holds(text)
            for hold in holds:
                self._guard(hold)
        except LineRefused as refusal:
            if refusal.reason in _COSTLY:
                self._count_expression()
            self._refuse(refusal, number, text)
            return
        if not holds:
            self.comments += 1
        elif any([self._put(hold, number, text) for hold in holds]):  # a list: all of them, not up to the first
            self.taken += 1
        else:
            self.duplicates += 1

    def _holds(self, text: str) -> Holds:
        try:
            return read_line(text, self.form, self.plain_reach)
        except LineRefused as refusal:
            if refusal.reason not in _FOREIGN and self.form is not ListFormat.REGEX:
                raise
            other = _form_of(text)
            if other in (None, self.form) or "://" in text:
                raise
            if not self.any_form and other is ListFormat.NAMES:
                raise
            if not self.any_form or other is ListFormat.REGEX:
                why = f"this looks like a line of the format {other}; keep it in a list of that format"
                raise LineRefused(Refusal.OTHER_FORMAT, "", why) from None
        holds = read_line(text, other, self.plain_reach)
        self.mixed = self.mixed or bool(holds)
        return holds

    def _guard(self, hold: Hold | Pattern) -> None:
        if isinstance(hold, Pattern) and (len(self.patterns) >= MAX_PATTERNS or self.steps + hold.steps > MAX_STEPS):
            raise LineRefused(Refusal.LIMIT, "", "too many expressions in one list; write names where names will do")
        if len(self.rules) >= MAX_RULES and hold.rule not in self.rules:
            why = f"more than {MAX_RULES} rules that differ in one list; leave out $denyallow and $dnstype"
            raise LineRefused(Refusal.LIMIT, "", why)
        own = self.own_host
        if own is None or hold.rule.action is Action.PASSTHRU:
            return
        if isinstance(hold, Pattern):
            reached = finds(hold.expression, to_text(own))
        elif hold.reach is Reach.EXACT:
            reached = hold.name == own
        else:
            reached = is_at_or_below(own, hold.name) and (hold.reach is Reach.SUFFIX or hold.name != own)
        if reached and not any(is_at_or_below(own, spared) for spared in hold.rule.spares):
            why = f"the list comes from {to_text(own)} and could not be updated again; delete the line"
            raise LineRefused(Refusal.OWN_HOST, "", why)

    def _put(self, hold: Hold | Pattern, number: int, text: str) -> bool:
        rule = self.zone.number_of(hold.rule)
        self.rules.add(hold.rule)
        if isinstance(hold, Pattern):
            self._count_expression()
            if (hold.expression, rule) in self.patterns:
                return False
            self.patterns.add((hold.expression, rule))
            self.steps += hold.steps
            self.zone.patterns.append((hold.expression, rule))
            return True
        for reach, earlier in self.zone.names.get(hold.name, ()):
            if reach is hold.reach:
                if earlier == rule and (hold.name, reach) not in self.contested:
                    return False
                rivals = self.contested.setdefault((hold.name, reach), {self.zone.rules[earlier]: None})
                return rivals.setdefault(hold.rule, (number, text)) == (number, text)
        return self.zone.hold(hold.name, hold.reach, rule)

    def _count_expression(self) -> None:
        self.expressions += 1
        if self.expressions > 2 * MAX_PATTERNS:
            raise ListError(f"more than {2 * MAX_PATTERNS} lines are expressions or past every limit; write names")

    def _refuse(self, refusal: LineRefused, number: int, text: str) -> None:
        self.refused[refusal.reason] += 1
        if len(self.examples) < KEPT_REFUSALS:
            column = max(text.lower().find(refusal.part.lower()), 0) + 1
            self.examples.append(Refused(number, column, _shown(text), refusal.reason, refusal.why))

    def settle(self) -> None:
        """Give every contested name the one rule that its lines come to, whatever their order was."""
        lost: set[int] = set()
        for (name, reach), rivals in sorted(self.contested.items()):
            settled, left_over = _united(list(rivals))
            rule = self.zone.number_of(settled)
            self.zone.names[name] = tuple(
                sorted((other, rule if other is reach else earlier) for other, earlier in self.zone.names[name])
            )
            known = [line for line in rivals.values() if line is not None]
            for number, text in known[len(known) - left_over :]:
                if number not in lost:
                    lost.add(number)
                    self.taken -= 1
                    why = f"another line says otherwise of {to_text(name)}; write both as one rule"
                    self._refuse(LineRefused(Refusal.CONFLICT, "", why), number, text)

    def report(self) -> ListReport:
        """What became of the lines."""
        return ListReport(
            form=self.form,
            mixed=self.mixed,
            lines=self.lines,
            taken=self.taken,
            duplicates=self.duplicates,
            comments=self.comments,
            refused=MappingProxyType(dict(self.refused)),
            examples=tuple(self.examples),
        )


def _strength(rule: Rule) -> tuple[bool, bool, int]:
    return rule.important, rule.action is Action.PASSTHRU, list(Action).index(rule.action)


def _is_whole(rule: Rule) -> bool:
    return not rule.qtypes and not rule.spares


def _united(rules: list[Rule]) -> tuple[Rule, int]:
    """One rule for what several say of one name, and how many of them it cannot hold."""
    rules.sort(key=lambda rule: (_strength(rule), _is_whole(rule), repr(rule)), reverse=True)
    united, left_over = rules[0], 0
    for rule in rules[1:]:
        both = _union(united, rule)
        if both is None:
            left_over += 1
        else:
            united = both
    return united, left_over


def _union(strong: Rule, weak: Rule) -> Rule | None:
    if _is_whole(strong):
        return strong
    if _strength(strong) != _strength(weak):
        return None
    if strong.spares == weak.spares:
        return _with_types(strong, weak)
    if (strong.qtypes, strong.but_qtypes) != (weak.qtypes, weak.but_qtypes):
        return None
    # What both spare: of two names, one at or below the other, the lower one.
    spares = {a for a in strong.spares for b in weak.spares if is_at_or_below(a, b)}
    spares |= {b for a in strong.spares for b in weak.spares if is_at_or_below(b, a)}
    return Rule(strong.action, (), strong.qtypes, strong.but_qtypes, tuple(sorted(spares)), strong.important)


def _with_types(one: Rule, other: Rule) -> Rule:
    if not one.but_qtypes and not other.but_qtypes:
        types, but = set(one.qtypes) | set(other.qtypes), False
        if not one.qtypes or not other.qtypes:
            types = set()
    elif one.but_qtypes and other.but_qtypes:
        types, but = set(one.qtypes) & set(other.qtypes), True
    else:
        out, of = (one, other) if one.but_qtypes else (other, one)
        types, but = (set(out.qtypes) - set(of.qtypes) if of.qtypes else set()), True
    return Rule(one.action, (), tuple(sorted(types)), but and bool(types), one.spares, one.important)


def _above(own_host: bytes | None) -> frozenset[bytes]:
    """A name and all above it, wire form: what the fast way leaves to the slow one."""
    if own_host is None:
        return frozenset()
    names, at = set(), 0
    while own_host[at]:
        names.add(own_host[at:])
        at += own_host[at] + 1
    return frozenset(names)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _shown(text: str) -> str:
    text = text.strip()[:SHOWN_CHARACTERS]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)[
        :SHOWN_CHARACTERS
    ]
