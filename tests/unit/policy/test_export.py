"""What a group is held to at one moment: orders, own rules and ways round, less what it is spared; and what to ask."""

import pytest

from resolver.policy.additions import WayRound
from resolver.policy.documents import Action, Mode
from resolver.policy.export import Extract, GroundKind, HeldNetwork, probes, sample
from resolver.wire.name import from_text
from tests.support.extracts import A_V4, A_V6, allow, block, exemption, taken
from tests.support.house import Held, app

CHAT = Held([app("chat", "chat.example", "=only.example")], groups=("everyone", "lab"))
GAMES = Held([app("games", "games.example"), app("chat", "chat.example")], "order-2", groups=("everyone", "lab"))
CANARY = WayRound(
    id="canary",
    title="A canary",
    effect="It sings.",
    version="2030-01-01",
    action="nodata",
    names=({"name": "canary.example", "match": "exact", "sources": ("EX",)},),
)


def names_of(extracted: Extract) -> dict[str, tuple[Action, Action | None]]:
    return {held.name: (held.here, held.below) for held in extracted.names}


def test_orders_own_rules_and_ways_round_are_taken() -> None:
    """Each with what the name and the names below it get, and who says so."""
    rules = [allow("cdn", "cdn.chat.example"), block("ads", "ads.example", action=Action.REFUSED)]
    extracted, _ = taken(CHAT, rules=rules, ways_round=[CANARY])

    assert names_of(extracted) == {
        "ads.example": (Action.REFUSED, Action.REFUSED),
        "canary.example": (Action.NODATA, None),
        "chat.example": (Action.NXDOMAIN, Action.NXDOMAIN),
        "cdn.chat.example": (Action.PASSTHRU, Action.PASSTHRU),
        "only.example": (Action.NXDOMAIN, None),
    }
    assert [(ground.kind, ground.id, ground.by, ground.title) for ground in extracted.grounds] == [
        (GroundKind.ORDER, "order-1", "Minister of Examples", "A ban"),
        (GroundKind.OWN_RULE, "ads", "service desk", "block: a test"),
        (GroundKind.OWN_RULE, "cdn", "service desk", "allow: a test"),
        (GroundKind.WAY_ROUND, "canary", "", "A canary"),
    ]
    assert extracted.names[3].orders == ("rule:cdn", "order-1")


def test_an_own_rule_counts_for_its_groups_alone() -> None:
    """An allow for the lab opens nothing for the others."""
    rules = [allow("cdn", "cdn.chat.example", groups=["lab"])]

    assert "cdn.chat.example" in names_of(taken(CHAT, rules=rules, group="lab")[0])
    extracted, _ = taken(CHAT, rules=rules)
    assert [ground.id for ground in extracted.grounds] == ["order-1"]
    assert "cdn.chat.example" not in names_of(extracted)


def test_a_group_is_not_held_to_what_it_is_exempt_from() -> None:
    """What another order forbids too stays forbidden, and the exemption is told."""
    of_lab = exemption("lab-2030", ["games"], groups=["lab"])
    everyone, lab = (taken(CHAT, GAMES, exemptions=[of_lab], group=group)[0] for group in ("everyone", "lab"))

    assert "games.example" in names_of(everyone)
    assert "games.example" not in names_of(lab)
    assert "chat.example" in names_of(lab)
    assert (everyone.spared, lab.spared) == ((), ("games.example",))
    assert (everyone.notes, lab.notes) == ((), ("the group is exempt by lab-2030 from games of order-2",))


def test_an_order_that_binds_a_group_to_nothing_is_no_ground() -> None:
    """All its apps are exempt."""
    of_lab = exemption("lab-2030", ["games", "chat"], groups=["lab"])
    extracted, _ = taken(CHAT, GAMES, exemptions=[of_lab], group="lab")

    assert (extracted.grounds, extracted.names) == ((), ())


def test_exemptions_of_devices_and_zones_of_others_are_told_and_not_taken() -> None:
    """By their ids and names."""
    extracted, _ = taken(
        CHAT, exemptions=[exemption("desk", ["chat"], devices=["192.0.2.17/32"])], left_out=["ads", "rpz.example"]
    )

    assert "chat.example" in names_of(extracted)
    assert extracted.notes == (
        "exemptions of single devices are not held here: desk",
        "policy zones that others keep are not held here: ads, rpz.example",
    )


def test_of_two_networks_the_one_that_decides_here_is_kept() -> None:
    """An allow goes before a block; else the rule whose id comes first."""
    rules = [
        block("a", addresses=["198.51.100.0/24"]),
        block("b", addresses=["198.51.100.7/32", "203.0.113.0/24"], action=Action.SINKHOLE),
        allow("c", addresses=["203.0.113.0/25"]),
    ]
    extracted, _ = taken(rules=rules, sinkhole=())

    assert [(str(held.network), held.action) for held in extracted.networks] == [
        ("203.0.113.0/25", Action.PASSTHRU),
        ("198.51.100.0/24", Action.NXDOMAIN),
        ("203.0.113.0/24", Action.NODATA),
    ]
    assert isinstance(extracted.networks[0], HeldNetwork)


def test_a_sinkhole_without_addresses_is_nodata() -> None:
    """As it is answered here."""
    ban = Held([app("chat", "chat.example")], action=Action.SINKHOLE)

    assert names_of(taken(ban, sinkhole=())[0]) == {"chat.example": (Action.NODATA, Action.NODATA)}
    assert taken(ban)[0].sinkhole == (("A", A_V4), ("AAAA", A_V6))


def test_an_order_on_trial_is_not_exported() -> None:
    """Observe withholds nothing."""
    extracted, _ = taken(Held([app("chat", "chat.example")], mode=Mode.OBSERVE))

    assert (extracted.names, extracted.grounds) == ((), ())


# ---- probes ---------------------------------------------------------------------------------------------------------


def test_probes_are_the_names_and_those_around_them() -> None:
    """Below, above and alike, each with what policy says and by which rule; no top-level domain."""
    extracted, view = taken(Held([app("chat", "a.chat.example", "=only.example")]))

    found = {(p.name, p.listed, p.action, p.rule) for p in probes(extracted, view, sample(extracted, None))}

    assert found == {
        (from_text(name), listed, Action.NXDOMAIN if rule else None, rule)
        for name, listed, rule in [
            ("a.chat.example", "a.chat.example", "a.chat.example"),
            ("interdict-probe.a.chat.example", "a.chat.example", "a.chat.example"),
            ("xa.chat.example", "a.chat.example", ""),
            ("chat.example", "a.chat.example", ""),
            ("only.example", "only.example", "only.example"),
            ("interdict-probe.only.example", "only.example", ""),
            ("xonly.example", "only.example", ""),
        ]
    }


def test_probes_of_the_longest_names_are_names() -> None:
    """Labels of 63 octets and names of 255 have no room for a name below."""
    name = ".".join(["y" * 63, "z" * 63, "z" * 63, "z" * 61])
    extracted, view = taken(Held([app("chat", name)]))

    found = list(probes(extracted, view, [name]))

    assert (len(from_text(name)), extracted.names[0].below) == (255, None)
    assert [max(len(p.name), p.name[0]) for p in found] == [255, 255, 191]


@pytest.mark.parametrize(
    ("count", "picked"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (6, [0, 1, 2, 3, 4, 5]), (9, list(range(6)))]
)
def test_a_sample_is_spread_over_all_names(count: int, picked: list[int]) -> None:
    """The first of each of so many equal parts."""
    names = [f"n{i}.example" for i in range(6)]
    extracted, _ = taken(Held([app("chat", *names)]))

    assert sample(extracted, count) == [names[i] for i in picked]


def test_probes_of_what_is_allowed_are_names_that_must_be_answered() -> None:
    """By which rule is told, so that a format that can not say it is excused by name."""
    extracted, view = taken(CHAT, rules=[allow("cdn", "=cdn.chat.example")])

    found = {p.name: (p.action, p.rule) for p in probes(extracted, view, ["cdn.chat.example"])}

    assert found == {
        from_text("cdn.chat.example"): (None, "cdn.chat.example"),
        from_text("interdict-probe.cdn.chat.example"): (Action.NXDOMAIN, "chat.example"),
        from_text("xcdn.chat.example"): (Action.NXDOMAIN, "chat.example"),
        from_text("chat.example"): (Action.NXDOMAIN, "chat.example"),
    }


def test_probes_of_what_a_group_is_exempt_from_are_names_that_must_be_answered() -> None:
    """As much as listed ones are asked about."""
    of_lab = exemption("lab-2030", ["games"], groups=["lab"])
    extracted, view = taken(CHAT, GAMES, exemptions=[of_lab], group="lab")

    found = {p.name: p.action for p in probes(extracted, view, sample(extracted, None)) if p.listed == "games.example"}

    assert found == {
        from_text("games.example"): None,
        from_text("interdict-probe.games.example"): None,
        from_text("xgames.example"): None,
    }
