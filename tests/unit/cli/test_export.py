"""What `export` and `verify-export` do: which policy they take, and how another resolver's replies are judged."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.edns
import dns.message
import dns.rcode
import dns.rrset
import pytest
from click.testing import CliRunner

from resolver import config as configuration
from resolver.cli.export import Chosen, Finding, Kind, choose, is_unannounced, to_json, to_text, verify
from resolver.cli.main import interdict
from resolver.cli.options import Failure
from resolver.policy.documents import Action
from resolver.policy.export_formats import Gap
from resolver.policy.values import Endpoint
from resolver.wire.codes import Rtype

AT = 1_700_000_000.0  # 2023-11-14
Answer = Callable[[str], str | None]
"""What a resolver says of a name: an RCODE, NODATA, an address, an RCODE with `!` for "withheld", or silence (None)."""


def text_of(folder: Path) -> str:
    return (folder / "interdict.yaml").read_text()


def chosen(folder: Path, *orders: str, group: str | None = None, at: float = AT) -> Chosen:
    return choose(configuration.read(text_of(folder), "i.yaml"), "i.yaml", orders, group, at)


def held(found: Chosen) -> list[tuple[str, Action]]:
    return [(held.name, held.here) for held in found.extract.names]


# ---- which policy ---------------------------------------------------------------------------------------------------


def test_by_default_it_is_what_is_enforced_for_the_first_group(folder: Path) -> None:
    """Not what is on trial."""
    found = chosen(folder)

    assert held(found) == [("chat.example", Action.REFUSED)]
    assert found.extract.group == "phones"
    assert [ground.id for ground in found.extract.grounds] == ["ban"]


def test_a_named_order_is_taken_as_enforced_whether_configured_or_not(folder: Path) -> None:
    """With the action that the configuration has for it and the group, else NXDOMAIN."""
    assert held(chosen(folder, "trial", "ban")) == [
        ("chat.example", Action.REFUSED),
        ("trial.example", Action.NXDOMAIN),
    ]
    assert held(chosen(folder, "ban", group="office")) == [("chat.example", Action.NXDOMAIN)]
    assert held(chosen(folder, "early", at=1_900_000_000.0)) == [("early.example", Action.NXDOMAIN)]


@pytest.mark.parametrize(
    ("orders", "group", "message"),
    [
        (["bann"], None, 'no order has the id "bann"; did you mean "ban"?'),
        (["early"], None, "begins at 2030-01-01T00:00:00-05:00; write --at 2030-01-01T00:00:00-05:00"),
        (["gone"], None, "is expired since 2021-01-01T00:00:00+00:00; write a moment"),
        ([], "office", "nothing is enforced and in force for group office; name an order with --order"),
        ([], "phone", 'no group has the name "phone"; did you mean "phones"?'),
    ],
)
def test_what_can_not_be_taken_is_told_with_its_mend(
    folder: Path, orders: list[str], group: str | None, message: str
) -> None:
    """Nothing is exported that would surprise."""
    with pytest.raises(Failure) as caught:
        chosen(folder, *orders, group=group)

    assert message in str(caught.value)


EXEMPTION = {
    "id": "study", "groups": ["phones"], "apps": ["app-ban"], "reason": "security-research", "grantor": "CIO",
    "granted": "2023-06-01T00:00:00Z", "expires": "2024-01-01T00:00:00Z",
}  # fmt: skip


def test_own_rules_and_ways_round_are_taken_with_orders_named_or_not(beside: Path) -> None:
    """Those of the group; the ways round can be left out."""
    expected = [
        ("canary.example", Action.NXDOMAIN), ("chat.example", Action.REFUSED), ("cdn.chat.example", Action.PASSTHRU)
    ]  # fmt: skip
    config = configuration.read(text_of(beside), "i.yaml")

    assert held(chosen(beside)) == held(chosen(beside, "ban")) == expected
    assert held(choose(config, "i.yaml", [], None, AT, ways_round=False)) == expected[1:]
    assert held(chosen(beside, group="office")) == [
        ("canary.example", Action.NXDOMAIN), ("cdn.chat.example", Action.PASSTHRU), ("games.example", Action.NODATA)
    ]  # fmt: skip


@pytest.mark.parametrize("orders", [[], ["ban"]])
def test_an_exempt_group_is_spared_though_the_order_is_named(beside: Path, orders: list[str]) -> None:
    """Its exemption is none for all, as long as the order binds others."""
    (beside / "exemptions" / "study.yaml").write_text(json.dumps(EXEMPTION))
    text = text_of(beside).replace("groups: [phones], action", "groups: [phones, office], action")
    config = configuration.read(text, "i.yaml")
    found = {group: choose(config, "i.yaml", orders, group, AT) for group in ("phones", "office")}

    assert ("chat.example", Action.REFUSED) not in held(found["phones"])
    assert ("chat.example", Action.REFUSED) in held(found["office"])
    assert found["phones"].extract.notes == ("the group is exempt by study from app-ban of ban",)


def test_policy_zones_of_others_are_not_even_read_and_are_told(folder: Path) -> None:
    """A list whose file is not there stops nothing."""
    text = text_of(folder) + "  zones: [{name: ads, file: /does/not/exist}]\n"
    found = choose(configuration.read(text, "i.yaml"), "i.yaml", [], None, AT)

    assert held(found) == [("chat.example", Action.REFUSED)]
    assert found.extract.notes == ("policy zones that others keep are not held here: ads",)


def test_what_is_done_to_answers_is_told(folder: Path) -> None:
    """Rebinding and ECH: a list of names can not say them."""
    text = text_of(folder) + "  rebinding: {protect: true}\n  strip_ech: [phones]\n"
    found = choose(configuration.read(text, "i.yaml"), "i.yaml", [], None, AT)

    assert [note.partition(",")[0].partition(" is ")[0] for note in found.extract.notes] == [
        "protection against DNS rebinding",
        "keys for Encrypted ClientHello",
    ]


# ---- asking ---------------------------------------------------------------------------------------------------------


@contextmanager
def resolver(answer: Answer) -> Iterator[Endpoint]:
    """A resolver on loopback that says what it is told to."""
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))

    def serve() -> None:
        while packet := sock.recvfrom(4096):
            if not packet[0]:
                return
            query = dns.message.from_wire(packet[0])
            said = answer(query.question[0].name.to_text(omit_final_dot=True))
            if said is None:
                continue
            response = dns.message.make_response(query, recursion_available=True)
            if said.endswith("!"):
                response.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.BLOCKED)])
            if said.rstrip("!").isalpha():
                if said != "NODATA":
                    response.set_rcode(dns.rcode.from_text(said.rstrip("!")))
            else:
                response.answer.append(dns.rrset.from_text(query.question[0].name, 30, "IN", "A", said))
            sock.sendto(response.to_wire(), packet[1])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Endpoint("127.0.0.1", sock.getsockname()[1])
    finally:
        with socket.socket(type=socket.SOCK_DGRAM) as last:
            last.sendto(b"", sock.getsockname())
        thread.join()
        sock.close()


def right(name: str) -> str:
    """As policy has it: `chat.example` and below refused, all else found."""
    return "REFUSED" if name == "chat.example" or name.endswith(".chat.example") else "203.0.113.1"


CASES: dict[str, tuple[str, str | None, Kind]] = {
    "the name is found": ("chat.example", "203.0.113.7", Kind.LET_THROUGH),
    "a name below is found": ("interdict-probe.chat.example", "203.0.113.7", Kind.LET_THROUGH),
    "another RCODE": ("chat.example", "NXDOMAIN", Kind.OTHERWISE),
    "a null address": ("chat.example", "0.0.0.0", Kind.OTHERWISE),
    "silence": ("chat.example", None, Kind.OTHERWISE),
    "the look-alike is refused": ("xchat.example", "REFUSED", Kind.WITHHELD),
    "the look-alike is said to be withheld": ("xchat.example", "NXDOMAIN!", Kind.WITHHELD),
    "the look-alike is not there": ("xchat.example", "NXDOMAIN", Kind.UNDECIDED),
    "the look-alike has no address": ("xchat.example", "NODATA", Kind.UNDECIDED),
}


def findings(
    found: Chosen, server: Endpoint, *gaps: Gap, reference: Endpoint | None = None, wait: float = 5.0
) -> list[Finding]:
    return verify(found, server, reference, gaps, qtype=Rtype.A, count=None, wait=wait)


def test_a_resolver_that_does_as_it_should_has_no_differences(folder: Path) -> None:
    """The name, below it, and what only looks alike."""
    with resolver(right) as server:
        said = findings(chosen(folder), server)

    assert {finding.name: finding.kind for finding in said} == {
        "chat.example": Kind.SAME, "interdict-probe.chat.example": Kind.SAME, "xchat.example": Kind.SAME
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_difference_is_found_and_named(case: str, folder: Path) -> None:
    """One name is answered wrongly, and only that is told."""
    name, instead, kind = CASES[case]
    with resolver(lambda asked: instead if asked == name else right(asked)) as server:
        said = findings(chosen(folder), server, wait=0.2)

    assert [(f.name, f.kind) for f in said if f.kind is not Kind.SAME] == [(name, kind)]
    assert any(map(is_unannounced, said)) == (kind is not Kind.UNDECIDED)


@pytest.mark.parametrize(("truth", "kind"), [("NXDOMAIN", Kind.SAME), ("203.0.113.9", Kind.WITHHELD)])
def test_a_reference_decides_about_allowed_names(truth: str, kind: Kind, folder: Path) -> None:
    """That there is no such name is true where the reference says so too."""
    said = {}
    with resolver(lambda _: truth) as reference, resolver(lambda n: "NXDOMAIN" if n[0] == "x" else right(n)) as server:
        said = {f.name: f.kind for f in findings(chosen(folder), server, reference=reference)}

    assert said["xchat.example"] is kind


def test_what_the_format_can_not_say_is_announced(folder: Path) -> None:
    """Of the rule that decides, and of no other name."""
    gap = Gap("the name gets nxdomain instead of refused", ("chat.example",))
    with resolver(lambda name: "NXDOMAIN!") as server:
        said = findings(chosen(folder), server, gap)

    assert [f.name for f in said if f.announced] == ["chat.example", "interdict-probe.chat.example"]
    assert [f.name for f in said if is_unannounced(f)] == ["xchat.example"]
    assert to_text(server, said).splitlines() == [
        "answered otherwise: chat.example (listed: chat.example): NXDOMAIN instead of REFUSED "
        "(announced by the export)",
        "answered otherwise: interdict-probe.chat.example (listed: chat.example): NXDOMAIN instead of REFUSED "
        "(announced by the export)",
        "withheld though allowed: xchat.example (listed: chat.example): NXDOMAIN instead of its own answer",
        f"{server}: 3 names asked, 0 as policy has it, 3 differ (2 announced)",
    ]
    counts = {"same": 0, "undecided": 0, "let through": 0, "withheld though allowed": 1, "answered otherwise": 2}
    found = to_json(server, said)
    assert (found["asked"], found["counts"], found["unannounced"]) == (3, counts, 1)


def test_a_resolver_that_is_not_there_is_told(folder: Path) -> None:
    """Rather than every name as a difference."""
    with pytest.raises(Failure, match="did not reply once"), resolver(lambda _: None) as server:
        findings(chosen(folder), server, wait=0.05)


@pytest.mark.parametrize(
    ("instead", "kind"), [("203.0.113.7", Kind.SAME), ("REFUSED", Kind.WITHHELD), ("NXDOMAIN!", Kind.WITHHELD)]
)
def test_what_the_operator_allows_must_be_answered(beside: Path, instead: str, kind: Kind) -> None:
    """Below a name that is refused; where the format can not say it, it is announced."""

    def answer(name: str) -> str:
        return instead if name.endswith("cdn.chat.example") and name[0] != "x" else right(name)

    gap = Gap("the name gets refused instead of its own answer", ("cdn.chat.example",))
    with resolver(answer) as server:
        found = choose(configuration.read(text_of(beside), "i.yaml"), "i.yaml", [], None, AT, ways_round=False)
        said = {f.name: f for f in findings(found, server)}
        excused = {f.name: f for f in findings(found, server, gap)}

    for name in ("cdn.chat.example", "interdict-probe.cdn.chat.example"):
        assert (said[name].kind, said[name].announced) == (kind, False)
        assert excused[name].announced == (kind is Kind.WITHHELD)
    assert {f.kind for name, f in said.items() if "cdn" not in name or name[0] == "x"} == {Kind.SAME}


@pytest.mark.parametrize(("truth", "kind"), [("203.0.113.9", Kind.UNDECIDED), ("192.0.2.9", Kind.SAME)])
def test_rules_on_the_addresses_of_answers_leave_a_name_undecided(beside: Path, truth: str, kind: Kind) -> None:
    """Whose true answer lies in a withheld network: a resolver that knows such rules withholds it."""
    rule = {"id": "net", "verdict": "block", "addresses": ["203.0.113.0/24"], "owner": "desk", "reason": "a test"}
    (beside / "rules" / "net.yaml").write_text(json.dumps(rule | {"until": "2040-01-01T00:00:00Z"}))
    found = choose(configuration.read(text_of(beside), "i.yaml"), "i.yaml", [], None, AT, ways_round=False)
    server_says = "NXDOMAIN" if kind is Kind.UNDECIDED else truth
    with (
        resolver(lambda _: truth) as reference,
        resolver(lambda name: "REFUSED" if right(name) == "REFUSED" and "cdn" not in name else server_says) as server,
    ):
        said = {f.name: f.kind for f in findings(found, server, reference=reference)}

    assert said["xchat.example"] is kind


@pytest.mark.parametrize(("answer", "code"), [(right, 0), (lambda _: "203.0.113.1", 1)])
def test_verify_export_exits_1_on_differences(answer: Answer, code: int, folder: Path) -> None:
    """With counts in JSON."""
    with resolver(answer) as server:
        words = ["--server", str(server), "--json", "--sample", "1", "--config", str(folder / "interdict.yaml")]
        said = CliRunner().invoke(interdict, ["verify-export", *words])

    assert said.exit_code == code
    assert json.loads(said.stdout)["counts"]["let through"] == 2 * code
