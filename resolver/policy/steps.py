"""The steps of an explanation as values: what `explain.py` finds out, and what the command line prints."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from resolver.policy.documents import Action, Confidence, Mode, Purpose
from resolver.policy.reply import Reply
from resolver.policy.zone import Trigger


class Outcome(StrEnum):
    """How the path of the query ends. AWAITS_ANSWER: withheld, unless what goes before speaks up about the answer."""

    NOT_ALLOWED = "not-allowed"
    WITHHELD = "withheld"
    AWAITS_ANSWER = "awaits-answer"
    LOCAL = "local"
    FORWARDED = "forwarded"


class Standing(StrEnum):
    """How a configured order stands towards a client's group at a moment."""

    IN_FORCE = "in-force"
    NOT_YET = "not-yet"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    OTHER_GROUP = "other-group"


class Reason(StrEnum):
    """Why an entry that covers the name does nothing."""

    NEVER = "never"
    OPTIONAL = "optional"
    EXACT = "exact"
    CONFIDENCE = "confidence"
    NO_ORDER = "no-order"
    NOT_CONFIGURED = "not-configured"
    OTHER_GROUP = "other-group"
    NOT_YET = "not-yet"
    SUSPENDED = "suspended"
    ENDED = "ended"
    EXEMPT = "exempt"
    BELOW = "below"
    TYPE = "type"
    SPARED = "spared"
    EXCEPTION = "exception"
    NEARER = "nearer"


class Holder(StrEnum):
    """Whose a rule is."""

    ORDER = "order"
    RULE = "rule"
    ZONE = "zone"
    LIST = "list"
    WAY_ROUND = "way-round"
    REBINDING = "rebinding"


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """Which policy judges: the present one, of which only the digest is known, or one out of the history."""

    digest: str
    kept: bool = False
    serial: int | None = None
    compiled_at: datetime | None = None
    replaced_at: datetime | None = None
    made_by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a zone's rules come from, and when they were fetched."""

    text: str
    fetched: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExemptionStep:
    """An exemption that names the client, by its group or a network; no orders or apps stands for whichever."""

    id: str
    standing: Standing
    named_by: str
    orders: tuple[str, ...]
    apps: tuple[str, ...]
    reason: str
    explanation: str
    grantor: str
    granted: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class ClientStep:
    """Who asks. Networks are the longest that hold the address; `group` and networks are empty where there is none."""

    address: str
    allowed: bool
    allowed_network: str
    group: str
    group_network: str
    exemptions: tuple[ExemptionStep, ...] = ()
    device: str = ""


@dataclass(frozen=True, slots=True)
class OrderStep:
    """One line of `policy.orders`, held against the client's group."""

    order: str
    title: str
    standing: Standing
    mode: Mode
    action: Action
    groups: tuple[str, ...]
    effective: datetime
    expires: datetime | None
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class RuleStep:
    """A rule that covers the question or its answer, with what is said about it by who holds it.

    Attributes:
        name: Its name, network or pattern.
        match: How far a name reaches: exact, suffix or below; empty for what is no name.
        app: Of an order.
        order: The id of the order or zone, as hits name it.
        mode, action: What it does, and whether it does.
        purpose, confidence, collateral, attribution: Of an order: what the catalogue says about the name.
        holder: Whose it is.
        trigger: What it looks at.
        exemption: The exemption by which it does not act.
        owner: Who answers for it: of the operator's own rules.
        reason: Why it is there.
        source: Where it was read.
        fetched: When it was fetched.
        since, until: When it counts, where that is bounded.
        records: What is given in the answer's place.
        reached: The name or answer that met it, where that is not the question.
    """

    name: str
    match: str
    app: str
    order: str
    mode: Mode
    action: Action
    purpose: Purpose | None = None
    confidence: Confidence | None = None
    collateral: str = ""
    attribution: str = ""
    holder: Holder = Holder.ORDER
    trigger: Trigger = Trigger.QNAME
    exemption: str = ""
    owner: str = ""
    reason: str = ""
    source: str = ""
    fetched: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    records: tuple[str, ...] = ()
    reached: str = ""


@dataclass(frozen=True, slots=True)
class IdleEntry:
    """An entry that covers the name, or stands above it, and does nothing.

    `order` is the id of the order or zone, empty where the reason holds whichever order asks. `why` is a sentence for
    people.
    """

    name: str
    match: str
    app: str
    order: str
    reason: Reason
    why: str


@dataclass(frozen=True, slots=True)
class AnswerStep:
    """What of an upstream's answer is judged too, and by whom.

    Attributes:
        names: Whether the names it leads to are.
        addresses: The zones and own rules that look at its addresses.
        nameservers: The zones that look at the name servers behind it.
        strips_ech: Whether ECH keys are taken out.
        given: Whether the answer is known.
        rule: What decides on the answer given, or on the target of policy's own alias, where that is not the rule that
            decides on the question.
    """

    names: bool
    addresses: tuple[str, ...]
    nameservers: tuple[str, ...]
    strips_ech: bool
    given: bool = False
    rule: RuleStep | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All steps.

    Attributes:
        rules: Those that cover the question, the one that decides first.
        why: Why that one.
        answer: How the answer is judged; None where nobody is asked for one, or whatever it is passes.
        reply: None where the client gets an upstream's answer.
        recorded: Whether the query leaves a hit.
    """

    name: str
    qtype: str
    at: datetime
    digest: str
    policy: PolicyStep
    client: ClientStep
    orders: tuple[OrderStep, ...]
    rules: tuple[RuleStep, ...]
    why: str
    idle: tuple[IdleEntry, ...]
    answer: AnswerStep | None
    outcome: Outcome
    reply: Reply | None
    recorded: bool
