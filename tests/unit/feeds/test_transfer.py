"""Keeping a copy of a zone from a primary: what is asked, what is taken, and that a failure takes nothing away."""

import base64
import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.feeds.copies import FeedError
from resolver.feeds.intake import Transfer
from resolver.feeds.transfer import Change, Outcome, TransferTerms, TsigKey, read_copy, refresh
from resolver.wire.name import to_text

AT = 1_800_000_000.0
ZONE = "rpz.example"
SECRET = base64.b64encode(b"a secret of some length").decode()
COUNT = itertools.count()
KEY = TsigKey.from_text("key.example", "hmac-sha256", SECRET)
REFRESH, RETRY, EXPIRE = 600, 120, 7200


def soa(serial: int) -> str:
    return f"{ZONE}. 60 IN SOA ns.example. host.example. {serial} {REFRESH} {RETRY} {EXPIRE} 60"


def rule(name: str, target: str = ".") -> str:
    return f"{name}.{ZONE}. 60 IN CNAME {target}"


class Primary:
    """A primary server on loopback, over UDP and TCP; it says what it is told to, and remembers what it was asked.

    `transfers` are the messages of an answer to each type of transfer: lists of records, or octets to send as they are,
    or an RCODE.
    """

    def __init__(self, serial: int, **transfers: Sequence[Sequence[str] | bytes] | dns.rcode.Rcode) -> None:
        self.serial = serial
        self.transfers = transfers
        self.asked: list[str] = []
        self.key: TsigKey | None = None
        self.signs = True
        self.flags = dns.flags.AA
        self.truncates = False
        self.silence: float = 0  # seconds before each message of a transfer
        self._stop = threading.Event()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:  # until a port is free over both
            self._tcp = socket.create_server(("127.0.0.1", 0))
            self.port = int(self._tcp.getsockname()[1])
            try:
                self._udp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self._tcp.close()
        self._threads = [threading.Thread(target=serve) for serve in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._udp.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join(10)
        self._tcp.close()
        self._udp.close()

    def _serve_udp(self) -> None:
        while not self._stop.is_set():
            octets, client = self._udp.recvfrom(4096)
            if octets:
                for reply in self._replies(octets, "UDP"):
                    self._udp.sendto(reply, client)

    def _serve_tcp(self) -> None:
        while not self._stop.is_set():
            conn, _ = self._tcp.accept()
            with conn, contextlib.suppress(OSError):
                conn.settimeout(5)
                head = conn.recv(2)
                if len(head) < 2:
                    continue
                octets = conn.recv(int.from_bytes(head, "big"))
                for reply in self._replies(octets, "TCP"):
                    if self._stop.wait(self.silence):
                        return
                    conn.sendall(len(reply).to_bytes(2, "big") + reply)

    def _replies(self, octets: bytes, over: str) -> Iterator[bytes]:
        keyring = {} if self.key is None else {self.key.for_dnspython().name: self.key.for_dnspython()}
        try:
            query = dns.message.from_wire(octets, keyring=keyring)
        except (dns.message.UnknownTSIGKey, dns.tsig.BadSignature) as error:
            query = dns.message.from_wire(octets, keyring=False)
            code = dns.rcode.BADKEY if isinstance(error, dns.message.UnknownTSIGKey) else dns.rcode.BADSIG
            refusal = dns.message.make_response(query)
            refusal.set_rcode(dns.rcode.NOTAUTH)
            assert query.tsig
            refusal.tsig = dns.rrset.from_rdata(query.tsig.name, 0, query.tsig[0].replace(mac=b"", error=code))
            yield refusal.to_wire()
            return
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append(f"{kind}/{over}")
        if not self.signs:
            query.tsig = None
        if kind == "SOA":
            reply = self._reply(query, [soa(self.serial)])
            if self.truncates and over == "UDP":
                reply.answer.clear()
                reply.flags |= dns.flags.TC
            yield reply.to_wire()
            return
        said = self.transfers.get(kind, dns.rcode.REFUSED)
        if isinstance(said, dns.rcode.Rcode):
            reply = self._reply(query, [])
            reply.set_rcode(said)
            yield reply.to_wire()
            return
        ctx = None
        for message in said:
            if isinstance(message, bytes):
                yield octets[:2] + message
            else:
                reply = self._reply(query, message)
                yield reply.to_wire(multi=True, tsig_ctx=ctx)
                ctx = reply.tsig_ctx

    def _reply(self, query: dns.message.Message, records: Sequence[str]) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.flags |= self.flags
        for record in records:
            owner, ttl, _, rtype, rdata = record.split(" ", 4)
            reply.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, rdata))
        return reply


MakePrimary = Callable[..., Primary]


@pytest.fixture
def primary() -> Iterator[MakePrimary]:
    """`primary(serial, AXFR=…, IXFR=…)` is a running one."""
    with contextlib.ExitStack() as stack:

        def make(serial: int, **transfers: Sequence[Sequence[str] | bytes] | dns.rcode.Rcode) -> Primary:
            made = Primary(serial, **transfers)
            stack.callback(made.close)
            return made

        yield make


def terms(*primaries: Primary, **changed: object) -> TransferTerms:
    given_terms: dict[str, object] = {
        "name": "vendor", "zone": ZONE, "primaries": tuple(("127.0.0.1", p.port) for p in primaries), "timeout": 5.0,
    }  # fmt: skip
    return TransferTerms(**{**given_terms, **changed})  # type: ignore[arg-type]


def whole(serial: int, *names: str) -> list[list[str]]:
    """The messages of an AXFR."""
    return [[soa(serial)], [rule(name) for name in names], [soa(serial)]]


def names(folder: Path) -> set[str]:
    return {to_text(name) for name in read_copy(folder, "vendor")[0].names}


def serial_of(folder: Path) -> int:
    kept = read_copy(folder, "vendor")[0].soa
    assert kept is not None
    return int(struct.unpack("!I", kept.rdata[-20:-16])[0])


def test_first_refresh_takes_the_whole_zone(tmp_path: Path, primary: MakePrimary) -> None:
    """With no copy the zone comes by AXFR, and the copy is policy with its state beside it."""
    server = primary(7, AXFR=whole(7, "a", "*.b"))
    outcome = refresh(terms(server), tmp_path, AT)
    assert (outcome.change, outcome.transfer, outcome.serial) == (Change.REPLACED, Transfer.AXFR, 7), outcome.error
    assert server.asked == ["SOA/UDP", "AXFR/TCP"]
    assert names(tmp_path) == {"a", "b"}
    state = read_copy(tmp_path, "vendor")[2]
    assert state == outcome.state
    assert (state.fetched_at, state.checked_at, state.failures, state.entries) == (AT, AT, 0, 3)
    assert outcome.next_at == state.next_at == AT + REFRESH
    assert outcome.report is not None
    assert outcome.report.taken == 3


def test_same_serial_transfers_nothing(tmp_path: Path, primary: MakePrimary) -> None:
    """One SOA query says that the copy is current."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    outcome = refresh(terms(server), tmp_path, AT + 600)
    assert (outcome.change, outcome.serial) == (Change.UNCHANGED, 7)
    assert server.asked[2:] == ["SOA/UDP"]
    assert (outcome.state.fetched_at, outcome.state.checked_at) == (AT, AT + 600)


def test_newer_serial_brings_the_differences(tmp_path: Path, primary: MakePrimary) -> None:
    """With a copy, IXFR: what it takes away goes, what it adds comes, over several versions."""
    server = primary(7, AXFR=whole(7, "a", "b"))
    refresh(terms(server), tmp_path, AT)
    server.serial = 9
    differences = [soa(9), soa(7), rule("a"), soa(8), rule("c"), soa(8), rule("c"), soa(9), rule("D"), soa(9)]
    server.transfers = {"IXFR": [differences[:4], differences[4:]]}
    outcome = refresh(terms(server), tmp_path, AT)
    assert (outcome.change, outcome.transfer, outcome.serial) == (Change.REPLACED, Transfer.IXFR, 9), outcome.error
    assert (names(tmp_path), serial_of(tmp_path)) == ({"b", "d"}, 9)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(dns.rcode.NOTIMP, id="not implemented"),
        pytest.param(dns.rcode.SERVFAIL, id="failed"),
        pytest.param([[soa(8), soa(7), rule("never"), soa(8), rule("c"), soa(8)]], id="takes away what is not there"),
        pytest.param([[soa(8), soa(6), rule("a"), soa(8), rule("c"), soa(8)]], id="for another version"),
        pytest.param([[soa(8), soa(7), rule("a"), soa(8)]], id="ends too soon"),
        pytest.param([[]], id="empty"),
    ],
)
def test_differences_that_fail_are_made_good_by_the_whole(
    tmp_path: Path, primary: MakePrimary, answer: Sequence[Sequence[str]] | dns.rcode.Rcode
) -> None:
    """An IXFR that is refused or does not fit is followed by an AXFR from the same primary."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.serial = 8
    server.transfers = {"IXFR": answer, "AXFR": whole(8, "c")}
    outcome = refresh(terms(server), tmp_path, AT)
    assert (outcome.change, outcome.transfer) == (Change.REPLACED, Transfer.AXFR), outcome.error
    assert names(tmp_path) == {"c"}
    assert server.asked[2:] == ["SOA/UDP", "IXFR/TCP", "AXFR/TCP"]


def test_primary_may_answer_differences_with_the_whole(tmp_path: Path, primary: MakePrimary) -> None:
    """An IXFR answered in the form of an AXFR (RFC 1995 §4) replaces the copy."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.serial = 8
    server.transfers = {"IXFR": whole(8, "c")}
    outcome = refresh(terms(server), tmp_path, AT)
    assert (outcome.change, outcome.transfer) == (Change.REPLACED, Transfer.AXFR), outcome.error
    assert names(tmp_path) == {"c"}


@pytest.mark.parametrize(
    ("ours", "theirs", "newer"),
    [(1, 2, True), (2, 1, False), (4294967295, 0, True), (0, 4294967295, False), (1, 2147483648, True),
     (1, 2147483649, False)],
)  # fmt: skip
def test_serials_go_round(tmp_path: Path, primary: MakePrimary, ours: int, theirs: int, newer: bool) -> None:
    """RFC 1982: newer is what is less than half the way round ahead; an older primary is no primary."""
    server = primary(ours, AXFR=whole(ours, "a"))
    refresh(terms(server), tmp_path, AT)
    server.serial = theirs
    server.transfers = {"AXFR": whole(theirs, "b")}
    outcome = refresh(terms(server), tmp_path, AT)
    assert outcome.change is (Change.REPLACED if newer else Change.FAILED)
    assert serial_of(tmp_path) == (theirs if newer else ours)


def test_expired_copy_takes_any_serial(tmp_path: Path, primary: MakePrimary) -> None:
    """A primary that began to count anew is followed once the copy has expired."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.serial = 1
    server.transfers = {"AXFR": whole(1, "b")}
    assert refresh(terms(server), tmp_path, AT + EXPIRE).change is Change.FAILED
    assert refresh(terms(server), tmp_path, AT + EXPIRE + 1).change is Change.REPLACED
    assert names(tmp_path) == {"b"}


def kept(outcome: Outcome, folder: Path, why: str) -> None:
    assert (outcome.change, outcome.serial) == (Change.FAILED, 7)
    assert outcome.error is not None
    assert why in outcome.error
    assert (names(folder), serial_of(folder)) == ({"a"}, 7)
    assert outcome.state.error == outcome.error


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(dns.rcode.REFUSED, "REFUSED", id="refused"),
        pytest.param([[soa(8), rule("c")]], "closed", id="cut off"),
        pytest.param([[rule("c"), soa(8)]], "breaks the protocol", id="no SOA first"),
        pytest.param([[soa(8), rule("c"), soa(9)]], "breaks the protocol", id="another SOA at the end"),
        pytest.param(
            [[soa(8)], [rule("24.1.2.0.192.rpz-ip"), soa(8)]], "no record of the zone is a rule", id="no rule"
        ),
        pytest.param([[soa(6), rule("c"), soa(6)]], "no newer", id="older than its SOA said"),
        pytest.param([b"\x84\0\0\1\0\1\0\0\0\0rubbish"], "", id="rubbish"),
        pytest.param([b""], "", id="nothing"),
    ],
)
def test_copy_stays_after_a_bad_transfer(
    tmp_path: Path, primary: MakePrimary, answer: Sequence[Sequence[str]] | dns.rcode.Rcode, why: str
) -> None:
    """Whatever a primary sends in place of a newer zone, the copy is as it was and the error says why."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.serial = 8
    server.transfers = {"AXFR": answer}
    kept(refresh(terms(server), tmp_path, AT), tmp_path, why)


def test_transfer_has_a_limit_of_octets(tmp_path: Path, primary: MakePrimary) -> None:
    """A zone that is larger than allowed is cut off."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.serial = 8
    server.transfers = {"AXFR": [[soa(8)], *([rule(f"n{i}")] for i in range(1000)), [soa(8)]]}
    kept(refresh(terms(server, max_octets=10_000), tmp_path, AT), tmp_path, "larger than 10000 octets")


def test_transfer_has_a_limit_of_time(tmp_path: Path, primary: MakePrimary) -> None:
    """A primary that sends a little now and then, and never ends, is cut off."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.serial = 8
    server.silence = 0.05
    server.transfers = {"AXFR": [[soa(8)], *([rule(f"n{i}")] for i in range(1000))]}
    kept(refresh(terms(server, timeout=0.4), tmp_path, AT), tmp_path, "no answer in time")


def test_next_primary_is_asked(tmp_path: Path, primary: MakePrimary) -> None:
    """Of several primaries the first that gives the zone is enough; if none does, all are told."""
    gone, stale, good = primary(7), primary(7, AXFR=dns.rcode.SERVFAIL), primary(7, AXFR=whole(7, "a"))
    gone.close()
    outcome = refresh(terms(gone, stale, good, timeout=0.3), tmp_path, AT)
    assert outcome.change is Change.REPLACED
    assert outcome.primary == f"127.0.0.1:{good.port}"
    failed = refresh(terms(gone, stale, timeout=0.3, name="other"), tmp_path, AT)
    assert failed.change is Change.FAILED
    assert failed.error is not None
    assert failed.error.count("127.0.0.1:") == 2


def test_failures_are_counted_and_the_soa_says_when_to_retry(tmp_path: Path, primary: MakePrimary) -> None:
    """After a failure the retry of the SOA, and after its expire the outcome says so; a success ends it."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.flags = dns.flags.Flag(0)
    first = refresh(terms(server), tmp_path, AT + 100)
    assert (first.state.failures, first.next_at, first.is_expired) == (1, AT + 100 + RETRY, False)
    assert "not with authority" in (first.error or "")
    late = refresh(terms(server), tmp_path, AT + EXPIRE + 1)
    assert (late.state.failures, late.is_expired) == (2, True)
    assert "the zone has expired by its SOA" in str(late.state.error)  # as status and log tell it
    assert names(tmp_path) == {"a"}
    server.flags = dns.flags.AA
    again = refresh(terms(server), tmp_path, AT + EXPIRE + 2)
    assert (again.change, again.state.failures, again.state.error) == (Change.UNCHANGED, 0, None)


def test_without_a_copy_retries_grow_apart(tmp_path: Path, primary: MakePrimary) -> None:
    """A primary that was never there is asked less and less often, within the bounds."""
    server = primary(7)
    waits = [refresh(terms(server, max_refresh=400.0), tmp_path, AT).next_at - AT for _ in range(5)]
    assert waits == [60, 120, 240, 400, 400]


@pytest.mark.parametrize(("least", "most", "wait"), [(0, 1e9, REFRESH), (1000, 1e9, 1000), (0, 300, 300)])
def test_refresh_of_the_soa_is_bounded(
    tmp_path: Path, primary: MakePrimary, least: float, most: float, wait: float
) -> None:
    """What the SOA asks for counts within what the operator allows."""
    server = primary(7, AXFR=whole(7, "a"))
    outcome = refresh(terms(server, min_refresh=least, max_refresh=most), tmp_path, AT)
    assert outcome.next_at == AT + wait


def test_truncated_answer_is_asked_for_again_over_tcp(tmp_path: Path, primary: MakePrimary) -> None:
    """The SOA is asked for over UDP, then TCP."""
    server = primary(7, AXFR=whole(7, "a"))
    server.truncates = True
    assert refresh(terms(server), tmp_path, AT).change is Change.REPLACED
    assert server.asked == ["SOA/UDP", "SOA/TCP", "AXFR/TCP"]


@pytest.mark.parametrize("algorithm", ["hmac-sha1", "hmac-sha224", "HMAC-SHA256.", "hmac-sha384", "hmac-sha512"])
def test_signed_transfer(tmp_path: Path, primary: MakePrimary, algorithm: str) -> None:
    """With a key on both sides queries and all messages of the transfer are signed."""
    server = primary(7, AXFR=whole(7, "a"))
    server.key = TsigKey.from_text("key.example", algorithm, SECRET)
    outcome = refresh(terms(server, key=server.key), tmp_path, AT)
    assert (outcome.change, names(tmp_path)) == (Change.REPLACED, {"a"})


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (TsigKey.from_text("key.example", "hmac-sha256", "b3RoZXI="), "check the secret"),
        (TsigKey.from_text("other.example", "hmac-sha256", SECRET), "does not know the key key.example"),
    ],
)
def test_keys_that_differ_transfer_nothing(tmp_path: Path, primary: MakePrimary, theirs: TsigKey, why: str) -> None:
    """A primary that does not accept the signature is told of, and the copy stays."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.key = theirs
    kept(refresh(terms(server, key=KEY, timeout=0.3), tmp_path, AT), tmp_path, why)


def test_answer_without_signature_is_refused(tmp_path: Path, primary: MakePrimary) -> None:
    """Where a key is set, nothing unsigned is believed."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    server.key, server.signs, server.serial = KEY, False, 8
    kept(refresh(terms(server, key=KEY, timeout=0.3), tmp_path, AT), tmp_path, "")


def test_damaged_copy_is_no_copy(tmp_path: Path, primary: MakePrimary) -> None:
    """Octets that are no zone are told, and the next refresh takes the zone whole."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    (lies,) = tmp_path.glob("*.list")
    lies.write_bytes(lies.read_bytes()[:-1])
    with pytest.raises(FeedError, match="damaged"):
        read_copy(tmp_path, "vendor")
    assert refresh(terms(server), tmp_path, AT).change is Change.REPLACED
    assert names(tmp_path) == {"a"}


def test_other_zone_under_the_name_is_taken_whole(tmp_path: Path, primary: MakePrimary) -> None:
    """A copy of another zone does not count, whatever its serial."""
    server = primary(7, AXFR=whole(7, "a"))
    refresh(terms(server), tmp_path, AT)
    assert refresh(terms(server, zone="other.example"), tmp_path, AT).change is Change.FAILED
    assert server.asked[-1] == "SOA/UDP"


def test_no_copy_yet_is_told(tmp_path: Path) -> None:
    """Before the first transfer there is nothing to read."""
    with pytest.raises(FeedError, match="first transfer"):
        read_copy(tmp_path, "vendor")


def test_copy_that_cannot_be_written_is_a_failure(tmp_path: Path, primary: MakePrimary) -> None:
    """A folder that is none, or a full disk, is told like any failure."""
    server = primary(7, AXFR=whole(7, "a"))
    (tmp_path / "file").write_text("")
    outcome = refresh(terms(server), tmp_path / "file", AT)
    assert outcome.change is Change.FAILED
    assert "cannot be written" in (outcome.error or "")


def test_progress_tells_records(tmp_path: Path, primary: MakePrimary) -> None:
    """A long transfer tells how far it is, and how large the zone was before."""
    records = [rule(f"n{i}") for i in range(6000)]
    messages = [[soa(7)], *(records[i : i + 500] for i in range(0, 6000, 500)), [soa(7)]]
    server = primary(7, AXFR=messages)
    told: list[tuple[int, int]] = []
    refresh(terms(server), tmp_path, AT, lambda done, before: told.append((done, before)))
    assert told == [(5000, 0)]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_hostile_primary_ends_in_a_failure(tmp_path: Path, data: st.DataObject) -> None:
    """A transfer with any octets changed or cut is taken or fails; it is never an exception."""
    message = dns.message.make_response(dns.message.make_query(ZONE, "AXFR"))
    for record in (soa(8), rule("a"), rule("b", "garden.example."), f"c.{ZONE}. 60 IN MX 1 mx.example.", soa(8)):
        owner, ttl, _, rtype, rdata = record.split(" ", 4)
        message.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, rdata))
    octets = bytearray(message.to_wire())
    for at, octet in data.draw(st.lists(st.tuples(st.integers(2, len(octets) - 1), st.integers(0, 255)), max_size=4)):
        octets[at] = octet
    octets = octets[: data.draw(st.integers(2, len(octets)) | st.just(len(octets)))]
    with contextlib.closing(Primary(8, AXFR=[bytes(octets[2:])])) as server:
        outcome = refresh(terms(server, timeout=2.0), tmp_path / str(next(COUNT)), AT)
    assert outcome.change in (Change.REPLACED, Change.FAILED)


KEY_FILE = f'# made by hand\nkey "key.example" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n'


def test_key_is_read_from_the_file_of_tsig_keygen(tmp_path: Path) -> None:
    """The file that both sides share need not be taken apart; the secret shows in no text."""
    (tmp_path / "key").write_text(KEY_FILE)
    assert TsigKey.from_file(tmp_path / "key") == KEY
    assert "secret" not in repr(KEY)
    assert SECRET not in repr(KEY)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no key"),
        (KEY_FILE * 2, "more than one"),
        (KEY_FILE.replace("sha256", "md5"), "hmac-sha256"),
        (KEY_FILE.replace(SECRET, "c2Vj!"), "not base64"),
        (KEY_FILE.replace("key.example", "a..b"), "empty label"),
        (None, "cannot be read"),
    ],
)
def test_file_without_a_usable_key_is_told(tmp_path: Path, text: str | None, why: str) -> None:
    """What is wrong is said, never the secret."""
    if text is not None:
        (tmp_path / "key").write_text(text)
    with pytest.raises(FeedError, match=why) as caught:
        TsigKey.from_file(tmp_path / "key")
    assert "c2Vj" not in str(caught.value)
