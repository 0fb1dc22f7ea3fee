"""Zone transfer: a copy of a Response Policy Zone, kept as its primary servers have it.

A refresh asks for the SOA, compares serials (RFC 1982), and takes what is newer: the differences where there is a copy
(IXFR, RFC 1995), else or where that fails the whole zone (AXFR, RFC 5936). Everything is signed where a key is set
(TSIG, RFC 8945). The result is read as a policy zone before it takes the place of the copy; after any failure the copy
stays as it was.
"""

import base64
import binascii
import contextlib
import re
import struct
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.serial
import dns.transaction
import dns.tsig
import dns.xfr

from resolver.feeds import copies
from resolver.feeds.copies import FeedError, State
from resolver.feeds.intake import BadDifference, Limits, Progress, Soa, Transfer, Unusable, Zone, receive
from resolver.policy.rpz import RpzReport
from resolver.policy.zone import PolicyZone
from resolver.wire.name import from_text

# How long one SOA query may take, each over UDP and TCP; BIND 9 waits 15 s for both.
QUERY_TIMEOUT_S = 5.0
# With no copy there is no SOA that says when to try again.
FIRST_RETRY_S = 60.0

_KEY_FILE = re.compile(
    r'\s*key\s+"?(?P<name>[^\s"{]+)"?\s*\{\s*algorithm\s+"?(?P<algorithm>[^\s";]+)"?\s*;'
    r'\s*secret\s+"?(?P<secret>[^\s";]+)"?\s*;\s*\}\s*;\s*'
)

# What dnspython raises for what a primary sends; ValueError and struct.error come from single types of RDATA.
_FAILURES = (dns.exception.DNSException, OSError, EOFError, ValueError, struct.error)


class TsigAlgorithm(StrEnum):
    """What a message is signed with (RFC 8945 §6); MD5 is not to be used any more."""

    HMAC_SHA1 = "hmac-sha1"
    HMAC_SHA224 = "hmac-sha224"
    HMAC_SHA256 = "hmac-sha256"
    HMAC_SHA384 = "hmac-sha384"
    HMAC_SHA512 = "hmac-sha512"


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A secret shared with a primary; its name and algorithm are part of what both sides must agree on."""

    name: str
    algorithm: TsigAlgorithm
    secret: bytes = field(repr=False)

    @classmethod
    def from_text(cls, name: str, algorithm: str, secret: str) -> "TsigKey":
        """A key as configurations write it, the secret in base64.

        Raises:
            FeedError: No name, unknown algorithm, or not base64.
        """
        try:
            from_text(name)
        except ValueError as error:
            raise FeedError(f"the name of the key: {error}") from None
        try:
            kind = TsigAlgorithm(algorithm.lower().removesuffix("."))
        except ValueError:
            known = ", ".join(TsigAlgorithm)
            raise FeedError(f"no key has the algorithm {algorithm[:40]!r}; write one of {known}") from None
        try:
            octets = base64.b64decode(secret, validate=True)
        except (binascii.Error, ValueError):
            octets = b""
        if not octets:
            # The text is not repeated: it may be the secret with one letter wrong.
            raise FeedError("the secret of the key is not base64; write it as tsig-keygen prints it")
        return cls(name, kind, octets)

    @classmethod
    def from_file(cls, path: Path) -> "TsigKey":
        """The one key of a file as `tsig-keygen` writes it.

        Raises:
            FeedError: It cannot be read or is something else.
        """
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(64 << 10)
        except (OSError, UnicodeDecodeError) as error:
            raise FeedError(f"{path} cannot be read ({error}); check that it is there and its permissions") from None
        found = _KEY_FILE.fullmatch(re.sub(r"(#|//).*", "", text))
        if found is None:
            raise FeedError(f"{path} holds no key, or more than one; write it with tsig-keygen")
        return cls.from_text(found["name"], found["algorithm"], found["secret"])

    def for_dnspython(self) -> dns.tsig.Key:
        """The key in the form that dnspython signs and verifies with."""
        return dns.tsig.Key(dns.name.from_text(self.name), self.secret, self.algorithm.value)


@dataclass(frozen=True, slots=True)
class TransferTerms:
    """What is transferred, from whom, and within which bounds.

    Attributes:
        name: What the copy is called.
        zone: The zone's name, in text.
        primaries: Address and port of each server, in the order in which they are tried.
        key: What messages are signed with.
        max_octets: Of the zone, in the form in which it is kept; a transfer that brings more is cut off.
        timeout: Seconds that a transfer may take as a whole.
        min_refresh: The SOA may ask for less than so many seconds between refreshes; it is not heard.
        max_refresh: Likewise for more.
    """

    name: str
    zone: str
    primaries: tuple[tuple[str, int], ...]
    key: TsigKey | None = None
    max_octets: int = 1 << 30
    timeout: float = 600.0
    min_refresh: float = 60.0
    max_refresh: float = 86400.0


class Change(StrEnum):
    """What a refresh did to the copy."""

    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a refresh.

    Attributes:
        change: What happened to the copy.
        state: What lies beside the copy now.
        serial: The copy's; None where there is no copy.
        transfer: How it came, if it was replaced.
        primary: Who was the last to be asked.
        error: After a failure: what each primary did, in a sentence for the log.
        is_expired: Whether no primary was reached for longer than the SOA allows. The copy is kept; whether an old
            rule is better than none is for the policy to say.
        next_at: When to refresh again, unless a NOTIFY comes first.
        report: What became of the records, if the copy was replaced.
    """

    change: Change
    state: State
    serial: int | None
    transfer: Transfer | None = None
    primary: str = ""
    error: str | None = None
    is_expired: bool = False
    next_at: float = 0.0
    report: RpzReport | None = None


# What an IXFR may fail with while the primary is there and would give the whole zone.
_IXFR_FAILURES = (dns.xfr.TransferError, dns.exception.FormError, BadDifference, FeedError, EOFError)


def read_copy(folder: Path, name: str) -> tuple[PolicyZone, RpzReport, State]:
    """Read the copy of a zone.

    Raises:
        FeedError: There is none, or it is damaged.
    """
    copy = copies.read_copy(folder, name)
    if copy.octets is None:
        raise FeedError(f"there is no copy of {name} yet; it comes with the first transfer")
    policy, report = Zone.from_octets(copy.octets).read()
    return policy, report, copy.state


def refresh(terms: TransferTerms, folder: Path, at: float, progress: Progress | None = None) -> Outcome:
    """Bring the copy of a zone up to date.

    Waits for the network as long as `terms` allows for each primary.

    Args:
        terms: What, from whom, within which bounds.
        folder: Where the copies lie.
        at: Unix seconds.
        progress: Told records.

    Raises:
        FeedError: The name of the copy is no identifier.
    """
    held, state = _open(terms, folder)
    soa = held.soa if held is not None else None
    errors = []
    primary = ""
    for host, port in terms.primaries:
        primary = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        told = replace(state, url=f"dns://{primary}/{terms.zone}")
        try:
            came = _Attempt(terms, host, port, progress).fetch(held, _is_expired(soa, state, at))
            if came is None:
                return _settled(terms, folder, soa, told, at, primary)
            zone, transfer = came
            report = _accepted(zone)
        except (*_FAILURES, Unusable) as error:
            errors.append(f"{primary}: {_sentence(error, terms)}")
            continue
        octets = zone.to_octets()
        told = replace(told.of(octets, report.taken), fetched_at=at)
        try:
            copies.write_copy(folder, terms.name, octets, told)
        except OSError as error:
            errors.append(f"the copy cannot be written ({error.strerror}); check the disk and its permissions")
            break
        outcome = _settled(terms, folder, zone.soa(), told, at, primary)
        return replace(outcome, change=Change.REPLACED, transfer=transfer, report=report)
    return _failed(terms, folder, soa, state, at, primary, "; ".join(errors))


@dataclass(frozen=True, slots=True)
class _Held:
    """The copy, of which only the SOA is read as long as it is current."""

    octets: bytes
    soa: Soa


def _open(terms: TransferTerms, folder: Path) -> tuple[_Held | None, State]:
    copy = copies.read_copy(folder, terms.name)
    if copy.octets is None:
        return None, copy.state
    try:
        if copy.is_vouched_for:
            zone = Zone.from_octets(copy.octets, 1)
        else:
            zone = Zone.from_octets(copy.octets)
            zone.read()
    except FeedError:
        return None, copy.state
    soa = zone.soa()
    # Under the same name another zone may have been configured.
    if soa is None or zone.origin != from_text(terms.zone):
        return None, copy.state
    return _Held(copy.octets, soa), copy.state


def _accepted(zone: Zone) -> RpzReport:
    policy, report = zone.read()
    if policy.soa is None:
        raise Unusable("the zone has no SOA of its own")
    # An empty policy zone is one; a zone of which nothing can be understood is another's, or for another purpose.
    if report.refused and report.taken == 1:
        raise Unusable(f"no record of the zone is a rule; the first: {report.notes[0]}")
    return report


def _settled(terms: TransferTerms, folder: Path, soa: Soa | None, state: State, at: float, primary: str) -> Outcome:
    """The outcome after a primary said what the zone is."""
    next_at = at + min(max(soa.refresh if soa is not None else 0, terms.min_refresh), terms.max_refresh)
    state = replace(state, checked_at=at, failed_at=None, error=None, failures=0, next_at=next_at)
    with contextlib.suppress(OSError):  # What a lost state costs is one SOA query.
        copies.write_state(folder, terms.name, state)
    serial = soa.serial if soa is not None else None
    return Outcome(Change.UNCHANGED, state, serial, primary=primary, next_at=next_at)


def _failed(
    terms: TransferTerms, folder: Path, soa: Soa | None, state: State, at: float, primary: str, error: str
) -> Outcome:
    expired = _is_expired(soa, state, at)
    if expired:
        error += "; the zone has expired by its SOA, and its copy stays in force"
    retry_s = soa.retry if soa is not None else FIRST_RETRY_S * 2 ** min(state.failures, 10)
    next_at = at + min(max(retry_s, terms.min_refresh), terms.max_refresh)
    state = replace(state, failed_at=at, error=error, failures=state.failures + 1, next_at=next_at)
    with contextlib.suppress(OSError):
        copies.write_state(folder, terms.name, state)
    serial = soa.serial if soa is not None else None
    return Outcome(
        Change.FAILED, state, serial, primary=primary, error=error, is_expired=expired, next_at=next_at
    )  # fmt: skip


def _is_expired(soa: Soa | None, state: State, at: float) -> bool:
    return soa is not None and state.checked_at is not None and at > state.checked_at + soa.expire


def _sentence(error: Exception, terms: TransferTerms) -> str:
    """What went wrong with a primary, and where to look."""
    key = f"the key {terms.key.name}" if terms.key is not None else "a key"
    match error:
        case dns.exception.Timeout() | TimeoutError():
            return "no answer in time"
        case dns.tsig.PeerBadKey():
            return f"it does not know {key}; check the name of the key on both sides"
        case dns.tsig.PeerBadSignature() | dns.tsig.BadSignature():
            return f"the signature does not match {key}; check the secret and the algorithm on both sides"
        case dns.tsig.PeerBadTime() | dns.tsig.BadTime():
            return "its clock and this machine's differ by more than the signature allows; set them"
        case dns.xfr.TransferError():
            return _denial(error.rcode)
        case dns.xfr.SerialWentBackwards():
            return "its serial is older than the copy's"
        case dns.exception.FormError():
            return f"its answer breaks the protocol ({error})"
        case EOFError():
            return "it closed the connection before the end"
        case OSError() if error.strerror:
            return error.strerror
    return str(error) or type(error).__name__


def _denial(rcode: dns.rcode.Rcode) -> str:
    return f"it answered {dns.rcode.to_text(rcode)}; check that it serves the zone, and to this machine"


class _Attempt:
    """One primary is asked."""

    def __init__(self, terms: TransferTerms, host: str, port: int, progress: Progress | None) -> None:
        self._terms = terms
        self._host = host
        self._port = port
        self._progress = progress
        self._origin = dns.name.from_text(terms.zone)

    def fetch(self, held: _Held | None, whole: bool) -> tuple[Zone, Transfer] | None:
        """What the primary has, if it is newer than the copy; `whole` where the copy counts for nothing."""
        serial = self._ask_serial()
        if held is not None and serial == held.soa.serial:
            return None
        if held is None or whole:
            return self._transfer(None)
        if not dns.serial.Serial(serial) > held.soa.serial:
            raise Unusable(f"its serial {serial} is older than the copy's, {held.soa.serial}")
        try:
            came = self._transfer(Zone.from_octets(held.octets))
        except _IXFR_FAILURES:
            came = self._transfer(None)
        new = came[0].soa() if came is not None else None
        if new is not None and not dns.serial.Serial(new.serial) > held.soa.serial:
            raise Unusable("the zone that it sent is no newer than the copy")
        return came

    def _ask_serial(self) -> int:
        query = self._query(dns.rdatatype.SOA)
        patience = min(QUERY_TIMEOUT_S, self._terms.timeout)
        try:
            answer = dns.query.udp(
                query, self._host, patience, self._port,
                ignore_unexpected=True, raise_on_truncation=True, ignore_errors=True,
            )  # fmt: skip
        except (dns.message.Truncated, dns.exception.Timeout):
            answer = dns.query.tcp(query, self._host, patience, self._port)
        if answer.rcode() != dns.rcode.NOERROR:
            raise Unusable(_denial(answer.rcode()))
        if query.had_tsig and not answer.had_tsig:
            raise Unusable("its answer is not signed; set the key on the primary too")
        if not answer.flags & dns.flags.AA:
            raise Unusable("it answers, but not with authority; check that it serves the zone")
        soa = answer.get_rrset(answer.answer, self._origin, dns.rdataclass.IN, dns.rdatatype.SOA)
        if soa is None:
            raise Unusable("it has no SOA of this name; check the name of the zone")
        return Soa.of(soa[0].to_digestable()).serial

    def _transfer(self, held: Zone | None) -> tuple[Zone, Transfer] | None:
        """Take the zone whole, or with `held` what differs from it; None where the primary says that nothing does."""
        base = held.soa() if held is not None else None
        if base is None:
            query = self._query(dns.rdatatype.AXFR)
        else:
            query = self._query(dns.rdatatype.IXFR)
            # The copy's SOA says from where on (RFC 1995 §3); of it only the serial is read.
            soa = query.find_rrset(
                query.authority, self._origin, dns.rdataclass.IN, dns.rdatatype.SOA, create=True
            )  # fmt: skip
            soa.add(dns.rdata.from_text("IN", "SOA", f". . {base.serial} 0 0 0 0"))
        limits = Limits(self._terms.max_octets, self._terms.timeout)
        return receive(self._host, self._port, query, held, limits, self._progress)

    def _query(self, rtype: dns.rdatatype.RdataType) -> dns.message.QueryMessage:
        query = dns.message.make_query(self._origin, rtype, flags=0)
        if self._terms.key is not None:
            query.use_tsig(self._terms.key.for_dnspython())
        return query
