"""Past queries out of text: Unbound's, BIND's and dnsmasq's query logs, AdGuard Home's, and this product's JSON Lines.

A line is a query, or goes into the ledger. Times that name no zone are taken to be in this machine's; times that name
no year (syslog's) to be the last before the file was last written. Forms, from what the programs write:

    [1795364613] unbound[13329:0] info: 127.0.0.1 www.example.com. A IN            log-queries, log-replies
    Nov 22 16:23:33 unbound[13330:0] reply: 127.0.0.1 a.example. A IN NOERROR ...  log-time-ascii, log-tag-queryreply
    22-Nov-2026 16:23:55.628 queries: info: client @0x7f 127.0.0.1#37149 (a.example): query: a.example IN A +E(0)K (..)
    Nov 22 16:23:34 dnsmasq[13333]: 1 127.0.0.1/54136 query[A] a.example from 127.0.0.1         log-queries=extra

Text logs hold no answers (dnsmasq's do not say which query theirs belong to), so they show no chains; AdGuard Home's
lines hold the whole answer.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from resolver.evidence.past_ledger import (
    MAX_RECORD_OCTETS,
    Ledger,
    Pairs,
    Reason,
    bind_time,
    instant,
    moment,
    packed,
    read_message,
    rtype,
    syslog_time,
    wire_name,
)
from resolver.policy.preview import Asked
from resolver.wire import name as names

# Two names of 255 octets, all escaped, and what stands around them. The patterns below may try a line from many places:
# what is short is done soon, whoever wrote it.
_MAX_LINE_OCTETS: Final = 8192

_STAMP: Final = re.compile(
    rb"\[(?P<unix>\d{1,12})(?:\.\d+)?\] +"
    rb"|(?P<iso>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?) +"
    rb"|(?P<bind>\d\d?-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d(?:\.\d{1,9})?) +"
    rb"|(?P<syslog>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?) +"
)
_UNBOUND: Final = re.compile(
    rb"unbound\S*:? (?:\[\d+:\w+\] )?(?:info|query|reply): "
    rb"(?P<client>[0-9A-Fa-f.:]+(?:%\S+)?) (?P<name>\S+) (?P<type>\S+) (?:IN|CH|HS|ANY|NONE|CLASS\d+)(?P<reply> \S.*)?$"
)
_BIND: Final = re.compile(
    rb"\bclient (?:@0x[0-9a-f]+ )?(?P<client>[0-9A-Fa-f.:]+(?:%\S+?)?)#\d+(?:/key \S+)?(?: \(\S+\))?: "
    rb"(?:view \S+: )?query: (?P<name>\S+) \S+ (?P<type>\S+)"
)
_DNSMASQ: Final = re.compile(
    rb"dnsmasq\S*: (?:\d+ \S+/\d+ )?(?:query|auth)\[(?P<type>[^\]]+)\] (?P<name>.+) "
    rb"from (?P<client>[0-9A-Fa-f.:]+(?:%\S+?)?)(?:#\d+)?$"
)
_UNPRINTABLE: Final = b"<name unprintable>"  # dnsmasq's words

_PROGRAMS: Final = {"unbound": b"unbound[", "bind": b"named[", "dnsmasq": b"dnsmasq["}
_LINES: Final = {"unbound": _UNBOUND, "bind": _BIND, "dnsmasq": _DNSMASQ}


def sniff_lines(head: bytes) -> str | None:
    """Which of `unbound`, `bind`, `dnsmasq`, `adguard`, `hits` a text begins as; None for none of them.

    A log may begin with other lines: the first query decides, else the program that names itself.
    """
    lines = [line.rstrip() for line in head.split(b"\n")]
    for line in lines:
        if line.startswith(b"{"):
            found = _json_object(line)
            if found is not None:
                if "QH" in found:
                    return "adguard"
                if ("qname" in found and "order" in found) or ("lost" in found and "node" in found):
                    return "hits"
            continue
        for form, pattern in _LINES.items():
            if pattern.search(line[:_MAX_LINE_OCTETS]):
                return form
    return next((form for form, program in _PROGRAMS.items() if program in head), None)


def read_unbound(stream: BinaryIO, ledger: Ledger, latest: float) -> Iterator[Asked]:
    """Queries of Unbound's `log-queries`, `log-replies` or both; a query and its reply count once.

    Args:
        stream: The log.
        ledger: Takes what is no query.
        latest: When the log was last written, Unix seconds.
    """
    pairs = Pairs()
    for line, asked, found in _matches(_UNBOUND, stream, ledger, latest):
        key = (asked.client, asked.qname, found["type"])
        if found["reply"] is None:
            yield from pairs.ask(key, asked)
        elif len(found["reply"].split()) < 4:
            ledger.add(Reason.CUT, line, found[0])
        else:
            yield pairs.answer(key, asked)
    yield from pairs.rest()


def read_bind(stream: BinaryIO, ledger: Ledger, latest: float) -> Iterator[Asked]:
    """Queries of BIND's category `queries`, with or without times; as `read_unbound`."""
    return (asked for _, asked, _ in _matches(_BIND, stream, ledger, latest))


def read_dnsmasq(stream: BinaryIO, ledger: Ledger, latest: float) -> Iterator[Asked]:
    """Queries of dnsmasq's `log-queries`, and of Pi-hole's pihole.log; as `read_unbound`."""
    return (asked for _, asked, _ in _matches(_DNSMASQ, stream, ledger, latest))


def _matches(
    pattern: re.Pattern[bytes], stream: BinaryIO, ledger: Ledger, latest: float
) -> Iterator[tuple[int, Asked, re.Match[bytes]]]:
    for number, line in _lines(stream, ledger, _MAX_LINE_OCTETS):
        stamp = _STAMP.match(line)
        found = pattern.search(line, stamp.end() if stamp else 0)
        if found is None:
            ledger.add(Reason.OTHER, number, line)
            continue
        if found["name"] == _UNPRINTABLE:
            ledger.add(Reason.NAME_HIDDEN, number, line)
            continue
        at = _time(stamp, latest) if stamp else None
        client, name = packed(found["client"].decode("ascii", "replace")), wire_name(found["name"].decode("latin-1"))
        if client is None or name is None or (stamp and at is None):
            ledger.add(Reason.MALFORMED, number, line)
            continue
        yield number, Asked(at, client, name, rtype(found["type"].decode("latin-1").replace("type=", "TYPE"))), found


def _time(stamp: re.Match[bytes], latest: float) -> float | None:
    text = stamp[0].rstrip().decode("ascii")
    if stamp["unix"]:
        return moment(int(stamp["unix"]))
    if stamp["iso"]:
        return instant(text)
    return bind_time(text) if stamp["bind"] else syslog_time(text, latest)


def _lines(stream: BinaryIO, ledger: Ledger, limit: int) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends, empty ones left out; one that is too long is passed over."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit:
            ledger.add(Reason.TOO_LONG, number, line)
            while line and not line.endswith(b"\n"):
                line = stream.readline(limit)
            continue
        if line := line.rstrip(b"\r\n"):
            yield number, line


# ---- JSON Lines -----------------------------------------------------------------------------------------------------


def _json_object(line: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_adguard(stream: BinaryIO, ledger: Ledger) -> Iterator[Asked]:
    """Queries of AdGuard Home's querylog.json, with the names that their answers led to.

    Where a filter answered, the line also holds what the upstream said (`OrigAnswer`): that is where names lead to.
    """

    def read(found: dict[str, object]) -> Asked | Reason:
        qname = wire_name(_text(found.get("QH")) or ".")
        client, at = packed(_text(found.get("IP"))), instant(_text(found.get("T")))
        if qname is None or client is None or at is None or "QH" not in found:
            return Reason.MALFORMED
        return Asked(at, client, qname, rtype(_text(found.get("QT"))), _answer_of(found))

    return _objects(stream, ledger, read)


def _answer_of(found: dict[str, object]) -> tuple[bytes, ...]:
    try:
        octets = base64.b64decode(_text(found.get("OrigAnswer")) or _text(found.get("Answer")), validate=True)
    except (binascii.Error, ValueError):
        return ()
    told = read_message(octets)
    return told.targets if told is not None else ()


def read_hits(stream: BinaryIO, ledger: Ledger) -> Iterator[Asked]:
    """Hits of this product's `hits-YYYY-MM-DD.jsonl`; gaps go into the ledger with as many hits as they stand for."""

    def read(found: dict[str, object]) -> Asked | Reason:
        if "lost" in found:
            return Reason.LOST
        name = found.get("qname")
        asked = hit_asked(
            instant(_text(found.get("time"))), found.get("client"), name, found.get("qtype"), found.get("rule")
        )
        return Reason.MALFORMED if asked is None else asked

    return _objects(stream, ledger, read)


def hit_asked(at: float | None, client: object, qname: object, qtype: object, rule: object) -> Asked | None:
    """The query behind a stored hit; None where its fields are not sound.

    A rule that does not cover QNAME was met through the answer: its name stands for the chain.
    """
    name, address = wire_name(_text(qname)), packed(_text(client))
    if at is None or name is None or address is None:
        return None
    owner = wire_name(_text(rule).rpartition(" ")[2])
    is_chain = owner is not None and not names.is_at_or_below(name, owner)
    return Asked(at, address, name, rtype(_text(qtype)), (owner,) if owner is not None and is_chain else ())


def _objects(stream: BinaryIO, ledger: Ledger, read: Callable[[dict[str, object]], Asked | Reason]) -> Iterator[Asked]:
    for number, line in _lines(stream, ledger, MAX_RECORD_OCTETS):
        found = _json_object(line)
        asked = Reason.MALFORMED if found is None else read(found)
        if isinstance(asked, Asked):
            yield asked
        else:
            lost = found.get("lost") if found is not None else None
            is_count = asked is Reason.LOST and isinstance(lost, int) and 0 < lost < 1 << 63
            ledger.add(asked, number, line, lost if is_count and isinstance(lost, int) else 1)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
