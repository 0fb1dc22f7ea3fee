"""The verbs `export` and `verify-export`: which policy they take, and how another resolver's replies are judged."""

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
from click.testing import CliRunner, Result

from resolver import config as configuration
from resolver.cli.export import Chosen, Finding, Kind, Refusal, choose, is_unannounced, to_json, to_text, verify
from resolver.cli.main import interdict
from resolver.config import Endpoint
from resolver.policy.documents import Action
from resolver.policy.export import Gap
from tests.support.server import order

AT = 1_700_000_000.0  # 2023-11-14
Answer = Callable[[str], str | None]
"""What a resolver says of a name: an RCODE, NODATA, an address, an RCODE with `!` for "withheld", or silence (None)."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("apps", "orders"):
        (tmp_path / kind).mkdir()
    for id_, names, effective in (
        ("ban", ["chat.example"], "2020-01-01T00:00:00Z"),
        ("trial", ["trial.example"], "2020-01-01T00:00:00Z"),
        ("early", ["early.example"], "2030-01-01T00:00:00-05:00"),
        ("gone", ["gone.example"], "2020-01-01T00:00:00Z"),
    ):
        app, document = order(id_, *names, effective=effective)
        if id_ == "gone":
            document["expires"] = "2021-01-01T00:00:00Z"
        (tmp_path / "apps" / f"app-{id_}.yaml").write_text(json.dumps(app))
        (tmp_path / "orders" / f"{id_}.yaml").write_text(json.dumps(document))
    return tmp_path


def text_of(folder: Path) -> str:
    return f"""\
groups: [{{name: phones, networks: [10.1.0.0/16]}}, {{name: office, networks: [10.2.0.0/16]}}]
policy:
  documents: ["{folder}"]
  orders:
    - {{order: ban, groups: [phones], action: refused}}
    - {{order: trial, groups: [phones, office], mode: observe}}
"""


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
    assert [entry.id for entry in found.extract.orders] == ["ban"]


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
    with pytest.raises(Refusal) as caught:
        chosen(folder, *orders, group=group)

    assert message in str(caught.value)


# ---- the verb -------------------------------------------------------------------------------------------------------


def run(folder: Path, *words: str) -> Result:
    path = folder / "interdict.yaml"
    path.write_text(text_of(folder))
    return CliRunner().invoke(interdict, [*words, "--config", str(path)])


def test_export_prints_the_file_and_what_it_lacks_apart(folder: Path) -> None:
    """The file alone on standard output; exit code 1 only where one asks for it."""
    said = run(folder, "export", "rpz")
    strict = run(folder, "export", "rpz", "--strict")

    assert said.exit_code == 0
    assert said.stdout.endswith("chat.example CNAME .\n*.chat.example CNAME .\n")
    assert said.stderr == (
        "not as policy has it: 1 name: the name gets nxdomain instead of refused (chat.example)\n"
        "not as policy has it: 1 name: names below get nxdomain instead of refused (chat.example)\n"
    )
    assert (strict.exit_code, strict.stderr) == (1, said.stderr)
    assert run(folder, "export", "knot", "--strict").exit_code == 0


def test_export_writes_the_same_to_a_file(folder: Path) -> None:
    """Nothing is printed then; a folder that is not there is told."""
    at = ["--at", "2024-01-01"]
    said = run(folder, "export", "adblock", "--output", str(folder / "list"), *at)

    assert (said.exit_code, said.stdout) == (0, "")
    assert (folder / "list").read_text() == run(folder, "export", "adblock", *at).stdout
    lost = run(folder, "export", "adblock", "--output", str(folder / "none" / "list"))
    assert (lost.exit_code, "name another --output" in lost.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (["export", "excel"], "rpz"),
        (["export", "rpz", "--at", "yesterday"], "write a date such as"),
        (["verify-export"], "--server"),
        (["verify-export", "--server", "192.0.2.53", "--type", "BANANA"], "write a mnemonic"),
    ],
)
def test_wrong_usage_exits_2(folder: Path, words: list[str], mend: str) -> None:
    """One sentence."""
    said = run(folder, *words)

    assert (said.exit_code, said.stdout) == (2, "")
    assert mend in " ".join(said.stderr.split())


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
    return verify(found, server, reference, gaps, qtype="A", count=None, wait=wait)


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
    with pytest.raises(Refusal, match="did not reply once"), resolver(lambda _: None) as server:
        findings(chosen(folder), server, wait=0.05)


@pytest.mark.parametrize(("answer", "code"), [(right, 0), (lambda _: "203.0.113.1", 1)])
def test_verify_export_exits_1_on_differences(answer: Answer, code: int, folder: Path) -> None:
    """With counts in JSON."""
    with resolver(answer) as server:
        said = run(folder, "verify-export", "--server", str(server), "--json", "--sample", "1")

    assert said.exit_code == code
    assert json.loads(said.stdout)["counts"]["let through"] == 2 * code
