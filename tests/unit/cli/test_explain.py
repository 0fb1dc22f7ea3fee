"""Which policy an explanation is given by, and for which answer."""

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver import config as configuration
from resolver.app.compiler import write_policy
from resolver.app.history import Damaged
from resolver.cli.explain import explanation, parse_answer, reached_by
from resolver.cli.options import Failure
from resolver.config import Config
from resolver.policy.steps import Explanation, Outcome
from resolver.wire import name as names
from resolver.wire.codes import Rtype
from tests.support.server import order

FIRST, SECOND, NOW = 1_900_000_000.0, 1_900_086_400.0, 1_900_200_000.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A house with two generations behind it: chat.example was forbidden first, other.example is now."""
    for sub in ("policy/apps", "policy/orders", "state/generations"):
        (tmp_path / sub).mkdir(parents=True)
    path = tmp_path / "interdict.yaml"
    policy = {"documents": [str(tmp_path / "policy")], "orders": [{"order": "order-1", "groups": ["everyone"]}]}
    path.write_text(json.dumps({"state_dir": str(tmp_path / "state"), "policy": policy}))
    read = configuration.read(path.read_text(), str(path))
    for at, name, made_by in ((FIRST, "chat.example", "start"), (SECOND, "other.example", "reload by alice")):
        for kind, document in zip(("apps", "orders"), order("order-1", name), strict=True):
            (tmp_path / "policy" / kind / f"{document['id']}.yaml").write_text(json.dumps(document))
        write_policy(read, "c.yaml", tmp_path / "state" / "generations", at, made_by=made_by)
    return read


def told(config: Config, name: str, at: float | None = None, **how: object) -> Explanation:
    """What is explained to 127.0.0.1."""
    client = ip_address("127.0.0.1")
    return explanation(config, "c.yaml", names.from_text(name), client, Rtype.A, NOW, at=at, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "name", "outcome", "serial"),
    [
        (FIRST, "chat.example", Outcome.WITHHELD, 1),
        (FIRST, "other.example", Outcome.FORWARDED, 1),
        (SECOND - 1, "chat.example", Outcome.WITHHELD, 1),
        (SECOND, "chat.example", Outcome.FORWARDED, 2),
        (SECOND, "other.example", Outcome.WITHHELD, 2),
        (NOW - 1, "other.example", Outcome.WITHHELD, 2),
    ],
)
def test_the_past_is_judged_by_the_policy_of_then(
    config: Config, at: float, name: str, outcome: Outcome, serial: int
) -> None:
    """By its own rules and documents; it is told which generation that was, and who made it."""
    found = told(config, name, at)

    assert (found.outcome, found.policy.kept, found.policy.serial) == (outcome, True, serial)
    assert found.policy.made_by == ("start" if serial == 1 else "reload by alice")
    assert found.policy.compiled_at is not None
    assert found.policy.compiled_at.timestamp() == (FIRST if serial == 1 else SECOND)
    assert found.digest == found.policy.digest


@pytest.mark.parametrize(
    ("at", "current", "note"),
    [
        (None, False, ""),
        (NOW + 100, False, ""),
        (FIRST - 1, False, "the documents as they are today: no history reaches back to that moment"),
        (FIRST, True, "the documents as they are today, by --current"),
    ],
)
def test_else_todays_documents_judge_and_it_is_said(config: Config, at: float | None, current: bool, note: str) -> None:
    """Now and in the future, where no history reaches, and where they are asked for."""
    found = told(config, "other.example", at, current=current)

    assert (found.outcome, found.policy.kept, found.policy.note) == (Outcome.WITHHELD, False, note)


def test_a_generation_can_be_asked_for_by_its_number(config: Config) -> None:
    """At the moment it was compiled, or another."""
    found, later = told(config, "chat.example", serial=1), told(config, "chat.example", NOW, serial=1)

    assert (found.policy.serial, found.outcome, found.at.timestamp()) == (1, Outcome.WITHHELD, FIRST)
    assert (later.outcome, later.at.timestamp()) == (Outcome.WITHHELD, NOW)
    with pytest.raises(Failure, match="no generation 9 is kept"):
        told(config, "chat.example", serial=9)


def test_a_damaged_past_is_an_error_and_not_another_answer(config: Config) -> None:
    """Unless today's documents are asked for."""
    file = next(Path(config.state_dir).glob("generations/00000001.documents.gz"))
    file.write_bytes(file.read_bytes()[:-20])

    with pytest.raises(Damaged, match="generation 1"):
        told(config, "chat.example", FIRST)
    assert told(config, "chat.example", FIRST, current=True).outcome is Outcome.FORWARDED


def test_an_answer_is_judged_as_it_is_given(config: Config) -> None:
    """An alias of a forbidden name is withheld."""
    assert told(config, "www.example.org", records=[("CNAME", "im.other.example")]).outcome is Outcome.WITHHELD
    assert told(config, "www.example.org", records=[("CNAME", "cdn.example.org")]).outcome is Outcome.FORWARDED


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("A=192.0.2.1", ("A", "192.0.2.1")),
        ("aaaa=2001:DB8::1", ("AAAA", "2001:db8::1")),
        ("CNAME=A.Example.", ("CNAME", "a.example")),
        ("HTTPS=svc.example", ("HTTPS", "svc.example")),
        ("NS=ns.example", ("NS", "ns.example")),
        ("NS=192.0.2.53", ("NS", "192.0.2.53")),
    ],
)
def test_records_of_an_answer_are_read(text: str, record: tuple[str, str]) -> None:
    """A type and an address or name."""
    assert parse_answer(text) == record


@pytest.mark.parametrize("text", ["", "A", "A=", "A=2001:db8::1", "AAAA=192.0.2.1", "MX=a.example", "CNAME=a..b"])
def test_what_is_no_such_record_is_refused_with_the_mend(text: str) -> None:
    """With examples."""
    with pytest.raises(ValueError, match=r"write A=192\.0\.2\.1"):
        parse_answer(text)


@given(st.text())
def test_any_text_is_a_record_or_refused(text: str) -> None:
    """And what was read leads somewhere."""
    try:
        record = parse_answer(text)
    except ValueError:
        return
    found = reached_by(b"\0", [record])
    assert found.aliases or found.others or found.addresses or found.nameservers


def test_an_answer_leads_where_its_records_do() -> None:
    """Aliases in their order, name servers and their addresses under the name asked for."""
    texts = ["CNAME=a.example", "CNAME=b.example", "SVCB=c.example", "A=192.0.2.1", "NS=ns.example", "NS=192.0.2.53"]

    found = reached_by(b"\1x\0", map(parse_answer, texts))

    assert [names.to_text(name) for name in (*found.aliases, *found.others)] == ["a.example", "b.example", "c.example"]
    assert found.addresses == (bytes([192, 0, 2, 1]),)
    assert found.nameservers == {b"\1x\0": ((names.from_text("ns.example"),), (bytes([192, 0, 2, 53]),))}
