"""Zone files (RFC 1035 §5) with a Response Policy Zone in them, read as a stream of records.

Nearly every line of such a file is an owner and a CNAME or an address. These are read by one regular expression; what
it does not know for certain (quotes, escapes, parentheses, other types) goes through dnspython, entry by entry. So a
zone of a million names takes seconds, where reading all of it with dnspython takes more than a minute.

A file that breaks the format is refused as a whole, with every mistake and its line: a zone half read would look like
one in force. Records that are well written but make no rule are told in the report instead.
"""

import io
import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TextIO

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.ttl

from resolver.policy.rpz import RpzReader, RpzReport
from resolver.policy.source import PolicyError, Problem
from resolver.policy.zone import PolicyZone
from resolver.wire.codes import Rtype
from resolver.wire.name import MAX_LABEL_OCTETS, MAX_NAME_OCTETS

MAX_FILE_OCTETS = 1 << 30  # Some twenty million rules; what is larger is not a zone for one resolver.
MAX_PROBLEMS = 20  # Behind so many, the file is something else, or they are one mistake.

# For a file that says a TTL nowhere, not even in an SOA: short enough that a mended rule is soon everywhere.
FALLBACK_TTL_S = 300

Progress = Callable[[int, int], None]
"""Called now and then with how much is done and how much there is."""

Record = tuple[bytes, int, int, bytes, int]
"""Owner (lower-cased wire form), type, TTL, RDATA (names in it not compressed), line."""

_LINES_BETWEEN_PROGRESS = 20_000
_ROOT = b"\0"

_PLAIN_ENTRY = re.compile(
    r"([A-Za-z0-9_*.-]+)[ \t]+(?:([0-9]{1,9})[ \t]+)?(?:IN[ \t]+)?(CNAME|A|AAAA)[ \t]+([A-Za-z0-9_*.:-]+)"
    r"[ \t\r\n]*(?:;.*)?\n?",
    re.IGNORECASE | re.ASCII,
)
_BLANK = re.compile(r"[ \t\r\n]*(?:;.*)?\n?")
# What opens and closes an entry of several lines, and what a parenthesis may stand in without doing so.
_MARKS = re.compile(r"""\\.|"(?:[^"\\]|\\.)*"|[();"]""")
_LENGTHS = [bytes([n]) for n in range(MAX_LABEL_OCTETS + 1)]


def read_zone_file(
    path: Path, origin: bytes | None = None, progress: Progress | None = None
) -> tuple[PolicyZone, RpzReport]:
    """Read a zone file.

    The zone's own name is that of its SOA. Where the file has none it is `origin`, else what the first `$ORIGIN` says,
    else the root. Names without a last dot are relative to the `$ORIGIN` above them, else to `origin`, else to the
    owner of an SOA that is the first record, else to the root.

    Args:
        path: The file, in UTF-8.
        origin: The name under which the zone is configured, lower-cased wire form.
        progress: Told octets.

    Raises:
        PolicyError: The file cannot be read, is larger than `MAX_FILE_OCTETS`, or breaks the format.
    """
    try:
        octets = path.stat().st_size
        if octets > MAX_FILE_OCTETS:
            message = f"the file is larger than {MAX_FILE_OCTETS >> 20} MiB; is it the right one? Otherwise split it"
            raise PolicyError([Problem(str(path), 1, 1, message)])
        with path.open(encoding="utf-8-sig") as file:
            return _read(file, octets, str(path), origin, progress)
    except OSError as error:
        message = f"cannot be read ({error.strerror}); check that it is there and its permissions"
        raise PolicyError([Problem(str(path), 1, 1, message)]) from None


def read_zone(
    octets: bytes, source: str, origin: bytes | None = None, progress: Progress | None = None
) -> tuple[PolicyZone, RpzReport]:
    """Read the text of a zone file; as `read_zone_file`.

    Args:
        octets: The text, in UTF-8.
        source: What to call it in problems.
        origin: As there.
        progress: As there.

    Raises:
        PolicyError: It breaks the format.
    """
    return _read(io.TextIOWrapper(io.BytesIO(octets), "utf-8-sig"), len(octets), source, origin, progress)


def _read(
    file: TextIO, octets: int, source: str, origin: bytes | None, progress: Progress | None
) -> tuple[PolicyZone, RpzReport]:
    zone_file = _ZoneFile(file, octets, origin, progress)
    reader: RpzReader | None = None
    try:
        for owner, rtype, ttl, rdata, line in zone_file.records():
            if reader is None:
                reader = RpzReader(owner if rtype == Rtype.SOA else zone_file.name_without_soa)
            reader.add(owner, rtype, ttl, rdata, line)
    except UnicodeDecodeError:
        zone_file.problems[zone_file.line + 1] = "here or soon after, the text is not UTF-8; is it a zone file?"
    if zone_file.problems:
        raise PolicyError(Problem(source, line, 1, message) for line, message in sorted(zone_file.problems.items()))
    return (reader or RpzReader(zone_file.name_without_soa)).finish()


class _Mistake(Exception):
    """An entry breaks the format; says the mend."""


class _ZoneFile:
    """The entries of one file, and what each leaves for those behind it (RFC 1035 §5.1)."""

    def __init__(self, file: TextIO, octets: int, origin: bytes | None, progress: Progress | None) -> None:
        self.problems: dict[int, str] = {}
        self.line = 0
        self._file = file
        self._octets = octets
        self._progress = progress
        self._origin = origin
        self._base = origin
        self._first_base: bytes | None = None
        self._owner: bytes | None = None
        self._default_ttl: int | None = None  # $TTL (RFC 2308 §4)
        self._last_ttl: int | None = None
        self._values: dict[tuple[str, str], tuple[int, bytes]] = {}

    @property
    def name_without_soa(self) -> bytes:
        """The zone's name, if no SOA says it."""
        return self._origin or self._first_base or _ROOT

    def records(self) -> Iterator[Record]:
        """All records in order; mistakes are put into `problems`, and end the reading where they are too many.

        Raises:
            UnicodeDecodeError: The text is not UTF-8.
        """
        done = 0
        for line in self._file:
            self.line += 1
            done += len(line)
            if self._progress is not None and self.line % _LINES_BETWEEN_PROGRESS == 0:
                self._progress(min(done, self._octets), self._octets)
            at = self.line
            try:
                plain = _PLAIN_ENTRY.fullmatch(line)
                if plain is not None and self._base is not None:
                    owner, ttl, mnemonic, value = plain.groups()
                    rtype, rdata = self._value(mnemonic, value)
                    self._owner = _plain_name(owner, self._base)
                    yield self._owner, rtype, self._ttl(ttl and int(ttl)), rdata, at
                elif not _BLANK.fullmatch(line):
                    record = self._entry(self._whole(line))
                    if record is not None:
                        yield *record, at
            except _Mistake as mistake:
                self.problems[at] = str(mistake)
            except dns.exception.DNSException as error:
                self.problems[at] = f"the entry cannot be read ({error}); write owner, TTL, type and data"
            if len(self.problems) == MAX_PROBLEMS:
                return
        if self._progress is not None:
            self._progress(self._octets, self._octets)

    def _whole(self, line: str) -> str:
        """An entry with all its lines: one, unless a parenthesis is open at its end."""
        if "(" not in line:
            return line
        at, entry, depth = self.line, line, 0
        while True:
            for mark in _MARKS.finditer(line):
                if mark[0] == ";":
                    break
                depth += (mark[0] == "(") - (mark[0] == ")")
            if depth <= 0:
                return entry
            line = next(self._file, "")
            if not line:
                raise _Mistake(f"the parenthesis that opens in line {at} is never closed; write )")
            self.line += 1
            entry += line

    def _entry(self, text: str) -> tuple[bytes, int, int, bytes] | None:
        """Read one entry; None for a directive."""
        tokens = dns.tokenizer.Tokenizer(text)
        first = tokens.get(want_leading=True)
        if first.is_identifier() and first.value.startswith("$"):
            self._direct(first.value.upper(), tokens)
            return None
        if first.is_whitespace():
            if self._owner is None:
                raise _Mistake("the line begins with a blank, and there is no owner above it; write its owner first")
            owner = self._owner
        else:
            owner = _wire(tokens.as_name(first, self._base_name()))
        ttl, rtype = self._ttl_and_type(tokens)
        rdata = dns.rdata.from_text(dns.rdataclass.IN, rtype, tokens, self._base_name(), relativize=False)
        self._owner = owner
        octets = rdata.to_digestable()
        if rtype == dns.rdatatype.SOA:
            minimum = int.from_bytes(octets[-4:], "big")
            self._last_ttl = minimum if ttl is None else ttl
            if self._base is None:
                self._base = owner
        elif self._base is None:
            self._base = _ROOT
        return owner, int(rtype), self._ttl(ttl), octets

    def _direct(self, directive: str, tokens: dns.tokenizer.Tokenizer) -> None:
        if directive == "$ORIGIN":
            self._base = _wire(tokens.get_name(self._base_name()))
            self._first_base = self._first_base or self._base
            self._values.clear()
        elif directive == "$TTL":
            self._default_ttl = tokens.get_ttl()
        elif directive == "$INCLUDE":
            raise _Mistake("no other file is read from here; write the records of that file in its place")
        else:
            raise _Mistake(f"{directive} is not known here; write the records that it stands for in its place")
        tokens.get_eol()

    def _ttl_and_type(self, tokens: dns.tokenizer.Tokenizer) -> tuple[int | None, dns.rdatatype.RdataType]:
        ttl: int | None = None
        for _ in range(3):
            word = tokens.get_identifier()
            if word.upper() in ("CH", "HS", "CHAOS", "HESIOD"):
                raise _Mistake(f"the class is {word}; a policy zone is of class IN")
            if word.upper() == "IN":
                continue
            try:
                ttl = dns.ttl.from_text(word)
            except dns.ttl.BadTTL:
                try:
                    return ttl, dns.rdatatype.from_text(word)
                except dns.rdatatype.UnknownRdatatype:
                    raise _Mistake(f"{word!r} is no type of record; write one such as CNAME, A or TYPE65") from None
        raise _Mistake("the type of the record is missing; write owner, TTL, type and data")

    def _ttl(self, written: int | str | None) -> int:
        if written is None or written == "":
            for ttl in (self._default_ttl, self._last_ttl):
                if ttl is not None:
                    return ttl
            return FALLBACK_TTL_S
        self._last_ttl = int(written)
        return self._last_ttl

    def _base_name(self) -> dns.name.Name:
        return dns.name.from_wire(self._base or _ROOT, 0)[0]

    def _value(self, mnemonic: str, text: str) -> tuple[int, bytes]:
        """A CNAME or address, remembered: most rules of a zone share a few of them."""
        value = self._values.get((mnemonic, text))
        if value is None:
            value = _plain_value(mnemonic.upper(), text, self._base or _ROOT)
            if len(self._values) < 1000:
                self._values[mnemonic, text] = value
        return value


def _plain_value(mnemonic: str, text: str, base: bytes) -> tuple[int, bytes]:
    try:
        if mnemonic == "A":
            return Rtype.A, IPv4Address(text).packed
        if mnemonic == "AAAA":
            return Rtype.AAAA, IPv6Address(text).packed
    except ValueError:
        raise _Mistake(f"{text!r} is no address that a record of type {mnemonic} can hold") from None
    return Rtype.CNAME, _plain_name(text, base)


def _wire(name: dns.name.Name) -> bytes:
    return name.to_digestable()


def _plain_name(text: str, base: bytes) -> bytes:
    """Wire form of a name of letters, digits, `-`, `_` and `*`; `base` is put behind one without a last dot."""
    if text == ".":
        return _ROOT
    wire = b""
    parts = text.lower().encode().split(b".")
    end = base
    if not parts[-1]:
        parts.pop()
        end = _ROOT
    for part in parts:
        if not 0 < len(part) <= MAX_LABEL_OCTETS:
            raise _Mistake(f"{text[:80]!r} has a label of {len(part)} octets; it may have 1 to {MAX_LABEL_OCTETS}")
        wire += _LENGTHS[len(part)] + part
    wire += end
    if len(wire) > MAX_NAME_OCTETS:
        raise _Mistake(f"{text[:80]!r} is longer than {MAX_NAME_OCTETS} octets with the zone's name behind it")
    return wire
