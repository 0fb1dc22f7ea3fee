"""What the judges of a preview say, over documents as people write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from resolver import config as configuration
from resolver.cli.options import Failure
from resolver.cli.preview_replay import Judges, Wish, judges, replay
from resolver.evidence.past import Past
from resolver.policy.documents import Purpose
from resolver.policy.preview import Caution, Hold
from resolver.wire.name import from_text
from tests.support.server import order

AT = 1_800_000_000.0
PHONE, EXEMPT, LAPTOP, STRANGER = (bytes([192, 0, 2, i]) for i in (1, 9, 65, 200))
NAMES = [
    {"name": "chat.example", "match": "suffix", "purpose": "core", "use": "block"},
    {"name": "only.example", "match": "exact", "purpose": "web", "use": "block"},
    {"name": "cdn.example", "match": "suffix", "purpose": "shared-cdn", "use": "optional", "collateral": "shops too"},
    {"name": "never.example", "match": "suffix", "purpose": "web", "use": "never", "collateral": "everybody"},
]
EXEMPTION = {
    "id": "lab", "devices": ["192.0.2.9"], "apps": ["app-future"], "reason": "security-research",
    "grantor": "CIO", "granted": "2027-01-01T00:00:00Z", "expires": "2027-06-01T00:00:00Z",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An order of the year 2040 that nothing configures, and one that is in force for phones."""
    future, ban = order("future", "x.example", effective="2040-01-01T00:00:00Z")
    future["domains"] = [{"confidence": "high", "sources": ["EX"], **name} for name in NAMES]
    other, _ = order("other", "video.example")
    ban["apps"].append(other["id"])
    current, in_force = order("current", "old.chat.example")
    for kind, document in (
        ("apps", future), ("apps", other), ("apps", current), ("orders", ban), ("orders", in_force),
        ("exemptions", EXEMPTION),
    ):  # fmt: skip
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{document['id']}.yaml").write_text(json.dumps(document))
    return tmp_path


def look(folder: Path, *, configured: tuple[dict[str, Any], ...] = (), **wish: Any) -> Judges:
    text = json.dumps({
        "groups": [
            {"name": "phones", "networks": ["192.0.2.0/26"]},
            {"name": "laptops", "networks": ["192.0.2.64/26"]},
        ],
        "policy": {
            "documents": [str(folder)],
            "orders": [{"order": "current", "groups": ["phones"]}, *configured],
        },
    })  # fmt: skip
    return judges(configuration.read(text, "i.yaml"), "i.yaml", Wish(**{"order": "future", **wish}), AT)


def then(judged: Judges, name: str, client: bytes | None = PHONE, *chain: str) -> Any:
    return judged.then(from_text(name), 1, client, tuple(map(from_text, chain)))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a.chat.example", "suffix chat.example"),
        ("only.example", "exact only.example"),
        ("below.only.example", None),
        ("video.example", "suffix video.example"),
        ("cdn.example", None),
        ("never.example", None),
        ("www.example.org", None),
    ],
)
def test_an_order_is_judged_as_if_it_were_in_force(folder: Path, name: str, rule: str | None) -> None:
    """Years before its day, and with no line of policy.orders."""
    found = then(look(folder), name)

    assert (found and found.rule) == rule
    assert found is None or (found.order, found.hold, found.by_chain) == ("future", Hold.BOUND, False)


def test_optional_names_are_judged_where_that_is_wished(folder: Path) -> None:
    """With what the catalogue says about them; names that no order takes stay out."""
    judged = look(folder, include_optional=True)

    found = then(judged, "a.cdn.example")
    assert (found.purpose, found.collateral) == (Purpose.SHARED_CDN, "shops too")
    assert found.cautions == (Caution.SHARED, Caution.OPTIONAL, Caution.TOLD)
    assert then(judged, "never.example") is None
    assert judged.question.include_optional


def test_a_chain_is_judged_where_the_asked_name_is_free(folder: Path) -> None:
    """The rule is that of the name it leads to."""
    found = then(look(folder), "www.example.org", PHONE, "cdn.example.net", "x.chat.example")

    assert (found.rule, found.by_chain) == ("suffix chat.example", True)


@pytest.mark.parametrize(
    ("groups", "client", "hold"),
    [
        ((), PHONE, Hold.BOUND),
        ((), LAPTOP, Hold.BOUND),
        ((), STRANGER, Hold.OUTSIDE),
        (("phones",), LAPTOP, Hold.OUTSIDE),
        (("laptops",), LAPTOP, Hold.BOUND),
        (("laptops",), PHONE, Hold.OUTSIDE),
        (("phones", "laptops"), LAPTOP, Hold.BOUND),
        ((), EXEMPT, Hold.EXEMPT),
        (("laptops",), EXEMPT, Hold.OUTSIDE),
        ((), None, Hold.BOUND),
    ],
)
def test_a_device_is_bound_exempt_or_outside(
    folder: Path, groups: tuple[str, ...], client: bytes | None, hold: Hold
) -> None:
    """By the groups that are asked for, else all of an order that is not configured; a client not told is bound."""
    assert then(look(folder, groups=groups), "chat.example", client).hold is hold


def test_the_groups_of_a_configured_order_are_its_own(folder: Path) -> None:
    """What policy.orders says is where a preview begins."""
    judged = look(folder, configured=({"order": "future", "groups": ["laptops"], "action": "refused"},))

    assert judged.question.groups == ("laptops",)
    assert judged.question.configured
    assert then(judged, "chat.example", LAPTOP).hold is Hold.BOUND
    assert then(judged, "chat.example", PHONE).hold is Hold.OUTSIDE


def test_only_the_apps_that_are_asked_for_are_judged(folder: Path) -> None:
    """One app of two."""
    judged = look(folder, apps=("app-other",))

    assert then(judged, "video.example") is not None
    assert then(judged, "chat.example") is None
    assert judged.question.apps == ("app-other",)


def test_todays_policy_is_judged_as_it_stands(folder: Path) -> None:
    """What is in force for phones withholds today; the order of 2040 does not, configured or not."""
    judged = look(folder, configured=({"order": "future", "groups": ["phones"]},))

    held = judged.now(from_text("old.chat.example"), 1, PHONE, ())
    assert held is not None
    assert held.order == "current"
    assert judged.now(from_text("old.chat.example"), 1, LAPTOP, ()) is None
    assert judged.now(from_text("chat.example"), 1, PHONE, ()) is None
    assert judged.question.state == "announced"


def test_an_order_on_trial_withholds_nothing_today(folder: Path) -> None:
    """Mode observe only logs: to enforce it would be new."""
    trial = {"order": "current", "groups": ["laptops"], "mode": "observe"}
    judged = look(folder, configured=(trial,), order="current", groups=("laptops",))

    assert judged.now(from_text("old.chat.example"), 1, LAPTOP, ()) is None
    assert then(judged, "old.chat.example", LAPTOP).hold is Hold.BOUND


@pytest.mark.parametrize(
    ("wish", "mend"),
    [
        ({"order": "futur"}, 'did you mean "future"'),
        ({"groups": ("phone",)}, 'did you mean "phones"'),
        ({"apps": ("app-current",)}, "does not name app"),
    ],
)
def test_what_is_not_there_is_refused_with_a_mend(folder: Path, wish: dict[str, Any], mend: str) -> None:
    """Orders, groups, and apps that the order does not name."""
    with pytest.raises(Failure, match=mend):
        look(folder, **wish)


def test_logs_are_replayed(folder: Path, tmp_path: Path) -> None:
    """From the files to the counts; a terminal that is none gets no bar."""
    log = tmp_path / "log"
    line = "dnsmasq[1]: query[A] {} from 192.0.2.{}\n"
    log.write_text(
        line.format("chat.example", 1) * 3 + line.format("old.chat.example", 1) + line.format("chat.example", 9)
        + "noise\n" + line.format("www.example.org", 65)
    )  # fmt: skip

    found = replay(look(folder), Past([log]), 5, AT)

    impact = found.impact
    assert (impact.queries, impact.new, impact.settled, impact.spared, impact.devices) == (6, 3, 1, 1, 3)
    assert [(source.path, source.queries) for source in found.sources] == [(str(log), 6)]
    assert [entry.count for entry in found.unread] == [1]
    assert found.at.timestamp() == AT
