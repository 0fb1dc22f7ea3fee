"""What `explain` and `check` show people."""

from datetime import UTC, datetime

import click
from rich.text import Text

from resolver.cli import table
from resolver.cli.check import Report
from resolver.policy.documents import Action, Mode
from resolver.policy.reply import Reply
from resolver.policy.steps import (
    AnswerStep,
    ExemptionStep,
    Explanation,
    Holder,
    IdleEntry,
    OrderStep,
    Outcome,
    PolicyStep,
    RuleStep,
    Standing,
)
from resolver.policy.zone import Trigger


def show_explanation(explanation: Explanation) -> None:
    """Print the steps of a query in their order."""
    client = explanation.client
    steps: list[tuple[str, list[str]]] = [
        ("question", [f"{explanation.name} {explanation.qtype}, asked at {_instant(explanation.at)}"]),
        ("policy", _policy_texts(explanation.policy)),
        ("client", [f"{client.address} " + _standing_of_client(explanation)]),
    ]
    if client.allowed:
        found = explanation.answer.rule if explanation.answer is not None else None
        decides = found or next(iter(explanation.rules), None)
        by = f"device {client.device}" if client.device else client.group_network
        group = f"{client.group} (by {by})" if client.group else "none: no order binds this client"
        steps += [
            ("group", [group]),
            ("exemptions", [_exemption_text(one) for one in client.exemptions]),
            ("orders", [_order_text(order) for order in explanation.orders] or ["none is configured"]),
            ("rules", [_rule_text(one, decides=one is decides) for one in explanation.rules] or ["none"]),
            ("why", [explanation.why] if explanation.why and found is None else []),
            ("passed over", [_idle_text(entry) for entry in explanation.idle] or ["no other entry covers the name"]),
        ]
        steps.append(("its answer", [] if found is None else [_rule_text(found, decides=True)]))
    steps.append(("answer", _answer_texts(explanation)))
    styles = {"answer": _ANSWER_STYLE[explanation.outcome]}
    table.show(
        table.facts(
            (heading if i == 0 else "", Text(line, style=styles.get(heading, "") if i == 0 else ""))
            for heading, lines in steps
            for i, line in enumerate(lines)
        )
    )


_ANSWER_STYLE = {
    Outcome.WITHHELD: "red", Outcome.AWAITS_ANSWER: "red", Outcome.NOT_ALLOWED: "red", Outcome.FORWARDED: "green",
    Outcome.LOCAL: "green",
}  # fmt: skip


def _policy_texts(policy: PolicyStep) -> list[str]:
    """Which policy judged, where it is not simply the present one."""
    texts = [policy.note] if policy.note else []
    if policy.kept and policy.compiled_at is not None:
        until = f"until {_instant(policy.replaced_at)}" if policy.replaced_at is not None else "until now"
        made_by = f", made by {policy.made_by}" if policy.made_by else ""
        said = (
            f"generation {policy.serial} ({policy.digest[:12]}), in force from {_instant(policy.compiled_at)} {until}"
        )
        texts.insert(0, said + made_by)
    return texts


def _standing_of_client(explanation: Explanation) -> str:
    client = explanation.client
    if client.device:
        return f"is recognised as {client.device}" if client.allowed else f"is {client.device}, whose group is no more"
    if client.allowed:
        return f"is allowed (by {client.allowed_network})"
    return "is not allowed: no network of allowed_networks holds it"


def _exemption_text(one: ExemptionStep) -> str:
    apps, orders = ", ".join(one.apps), ", ".join(one.orders)
    what = f"{apps}, whichever order forbids it" if not orders else f"{apps or 'all'} of {orders}"
    why = f"{one.reason}: {one.explanation}" if one.explanation else one.reason
    when = {
        Standing.IN_FORCE: f"until {one.expires.isoformat()}",
        Standing.NOT_YET: f"not yet: begins at {one.granted.isoformat()}",
    }.get(one.standing, f"no more: ended at {one.expires.isoformat()}")
    return f"{one.id} (by {one.named_by}): {what}, {when}; granted by {one.grantor} ({why})"


def _order_text(order: OrderStep) -> str:
    state = _state(order.standing, order.since, order.until)
    return f"{order.order}: {state} ({order.mode}, {order.action}, for {', '.join(order.groups)})"


def _rule_text(rule: RuleStep, *, decides: bool) -> str:
    met = f"{rule.match or 'pattern'} {rule.name}"
    if rule.trigger is not Trigger.QNAME:
        met = " ".join(filter(None, (rule.trigger.value, rule.match, rule.name)))
    mode = (
        f"{rule.action}, but the client is exempt by {rule.exemption}"
        if rule.exemption
        else f"{rule.mode} {rule.action}"
    )
    text = f"{met}: {_holder_text(rule)}, {mode}"
    remarks = {
        "met at": rule.reached if rule.reached != rule.name else "",
        "gives": ", ".join(rule.records),
        "collateral": rule.collateral,
        "attribution": rule.attribution,
        "owner": rule.owner,
        "reason": rule.reason,
    }
    if rule.holder is not Holder.ORDER:
        remarks["source"] = rule.source
    if rule.fetched is not None:
        remarks["fetched"] = _instant(rule.fetched)
    if rule.until is not None:
        remarks["until"] = rule.until.isoformat()
    said = [f"{label}: {remark.rstrip('.')}" for label, remark in remarks.items() if remark]
    mark = "  <- decides" if decides and rule.mode is Mode.ENFORCE else ""
    return "; ".join([text + mark, *said])


def _holder_text(rule: RuleStep) -> str:
    if rule.holder is Holder.ORDER:
        return f"app {rule.app} ({rule.purpose}, confidence {rule.confidence}), order {rule.order}"
    return f"own {rule.order}" if rule.holder is Holder.RULE else rule.order


def _idle_text(entry: IdleEntry) -> str:
    return f"{entry.match} {entry.name}: {entry.why}"


def _answer_texts(explanation: Explanation) -> list[str]:
    reply, answer = explanation.reply, explanation.answer
    recorded = [_hit_text(_deciding(explanation))] if explanation.recorded else []
    if explanation.outcome is Outcome.FORWARDED:
        return ["allowed: an upstream is asked, or the cache", *recorded, *_judged_texts(answer)]
    assert reply is not None
    if explanation.outcome is Outcome.LOCAL:
        return [f"{reply.rcode}, answered by this server itself: a special-use name or question", *recorded]
    if explanation.outcome is Outcome.NOT_ALLOWED:
        return [f"refused: {_reply_text(reply)}"]
    verb = _VERBS.get(_deciding(explanation).action, "withheld")
    if explanation.outcome is Outcome.AWAITS_ANSWER:
        first = f"{verb} once its answer is known, unless what goes before decides on that: {_reply_text(reply)}"
        return [first, *recorded, *_judged_texts(answer)]
    texts = [f"{verb}: {_reply_text(reply)}", *recorded]
    if reply.truncated:
        texts.append("over TCP the client gets what an upstream says")
    return texts


_VERBS = {Action.TCP_ONLY: "sent over to TCP", Action.LOCAL_DATA: "answered in the upstream's place"}


def _deciding(explanation: Explanation) -> RuleStep:
    met = explanation.answer.rule if explanation.answer is not None else None
    return met or explanation.rules[0]


def _hit_text(rule: RuleStep) -> str:
    if rule.exemption:
        return "recorded as a hit, since the client is exempt from an order that covers the name"
    return "recorded as a hit" + (", since what only logs covers the name" if rule.mode is Mode.OBSERVE else "")


def _judged_texts(answer: AnswerStep | None) -> list[str]:
    """What of an upstream's answer is judged too."""
    if answer is None:
        return ["whatever the answer leads to passes with it"]
    if answer.given:
        texts = [] if answer.rule is not None else ["no rule that acts is met by the answer given"]
        return [*texts, *(["ECH keys are taken out of it"] if answer.strips_ech else [])]
    texts = []
    if answer.names:
        texts.append(
            "its answer is judged again: one that leads to a listed name (CNAME, DNAME, HTTPS, SVCB) is withheld"
        )
    if answer.addresses:
        texts.append(f"its addresses are judged by {', '.join(answer.addresses)}")
    if answer.nameservers:
        texts.append(f"the name servers behind it are judged by {', '.join(answer.nameservers)}")
    if answer.strips_ech:
        texts.append("ECH keys are taken out of it")
    return texts


def _reply_text(reply: Reply) -> str:
    if not reply.rcode:
        return "no reply at all"
    parts = [reply.rcode, *(["truncated"] if reply.truncated else []), *reply.records]
    if reply.target:
        parts.append(f"and what {reply.target} has")
    if reply.ttl is not None:
        parts.append(f"TTL {reply.ttl} s")
    if reply.soa:
        parts.append(f"SOA of {reply.soa}")
    if reply.ede is not None:
        # INFO-CODE n stands in §4.(n+1).
        parts.append(f'EDE {reply.ede} {reply.ede_meaning} (RFC 8914 §4.{reply.ede + 1}), "{reply.extra_text}"')
    return ", ".join(parts)


def show_check(report: Report) -> None:
    """Print what would be in force, and the notes."""
    table.show(
        table.table(
            ("order", "state", "mode", "action", "groups", "names"),
            [
                (
                    line.order, _state(line.standing, line.since, line.until), line.mode.value, line.action.value,
                    ", ".join(line.groups), str(line.names),
                )
                for line in report.orders
            ],
        ),
        "",
        table.table(("app", "names"), [(app, str(count)) for app, count in report.apps.items()]),
        "",
        table.table(("group", "networks"), [(line.group, ", ".join(line.networks)) for line in report.groups]),
        "",
    )  # fmt: skip
    for note in report.notes:
        click.echo(f"note: {note}")
    click.echo(f"sound: {report.config}, {report.names} names, digest {report.digest}")


def _state(standing: Standing, since: datetime, until: datetime | None) -> str:
    moment = since.isoformat()
    return {
        Standing.IN_FORCE: f"in force since {moment}" + (f", until {until.isoformat()}" if until else ""),
        Standing.NOT_YET: f"not in force yet: begins at {moment}",
        Standing.OTHER_GROUP: "not for this client",
    }.get(standing, f"not in force: {standing.value} since {moment}")


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
