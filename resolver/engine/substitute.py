"""What is said in place of an answer that policy withholds."""

from resolver.engine.cache import Entry
from resolver.policy.documents import Action
from resolver.policy.judge import Verdict
from resolver.policy.reply import own_alias
from resolver.policy.terms import PolicyTerms, ZoneEntry
from resolver.wire.codes import Rclass, Rcode, Rtype
from resolver.wire.compose import error_answer, negative_answer, rdata
from resolver.wire.message import Answer, ExtendedError, Query
from resolver.wire.name import MAX_NAME_OCTETS
from resolver.wire.rewrite import Record, answer_records, chain_records, records_to_answer

_WILDCARD = b"\1*"


def policy_answer(
    query: Query, verdict: Verdict, terms: PolicyTerms, serial: int, aliases: tuple[bytes, ...] = ()
) -> Answer:
    """What a client gets by a verdict that does not let it pass; never for DROP, which is silence.

    Args:
        query: The question.
        verdict: What policy said about it.
        terms: Block TTL and sinkhole addresses.
        serial: The generation's, for the SOA.
        aliases: The names that QNAME was found to be an alias of.
    """
    errors = (ExtendedError(int(verdict.ede), verdict.extra_text),)
    action = verdict.action
    if action is Action.REFUSED:
        return error_answer(Rcode.REFUSED, *errors)
    if action is Action.TCP_ONLY:
        return Answer(int(Rcode.NOERROR), errors=errors, truncated=True)
    if query.qclass != Rclass.IN:
        # SOA and addresses are records of class IN; in another class the RCODE says all there is to say.
        return error_answer(Rcode.NXDOMAIN if action is Action.NXDOMAIN else Rcode.NOERROR, *errors)
    chain = _chain(query, verdict, aliases, terms)
    records = _records(query, verdict, verdict.subject if chain else query.qname, terms)
    if records is None:
        return records_to_answer(query.qname, Rcode.YXDOMAIN, chain, additional=_zone_soa(verdict), errors=errors)
    soa = _zone_soa(verdict)
    rcode = Rcode.NXDOMAIN if action is Action.NXDOMAIN else Rcode.NOERROR
    if records or soa:
        # A policy zone's own SOA tells which zone spoke; it stands in the additional section, where BIND puts it.
        return records_to_answer(query.qname, rcode, [*chain, *records], additional=soa, errors=errors)
    apex = 0 if verdict.link or verdict.network or verdict.pattern else verdict.owner_offset
    return negative_answer(rcode, apex, terms.block_ttl, serial, errors)


def alias_target(verdict: Verdict, query: Query) -> bytes | None:
    """The name that policy makes QNAME an alias of, where the question is to be answered with what that name has."""
    return own_alias(verdict, query.qtype) if query.qclass == Rclass.IN else None


def rewritten_answer(
    query: Query,
    verdict: Verdict,
    target: bytes,
    found: Entry | Answer,
    elapsed: int,
    aliases: tuple[bytes, ...],
    terms: PolicyTerms,
) -> Answer:
    """Policy's own alias, and what its target has.

    Args:
        query: The question.
        verdict: Whose rule makes it an alias.
        target: Of what, from `alias_target`.
        found: What upstreams say about the target; an Answer where they could not say.
        elapsed: The age of that in seconds.
        aliases: The names that QNAME was found to be an alias of.
        terms: Block TTL.
    """
    errors = (ExtendedError(int(verdict.ede), verdict.extra_text),)
    if isinstance(found, Answer):
        return error_answer(found.rcode, *errors, *found.errors)
    rule = next(record for record in verdict.rule_held.records if record.rtype == Rtype.CNAME)
    chain = _chain(query, verdict, aliases, terms)
    records = [
        *chain,
        Record(verdict.subject if chain else query.qname, int(Rtype.CNAME), rule.ttl, target),
        *(
            Record(record.owner, record.rtype, max(0, record.ttl - elapsed), record.rdata)
            for record in answer_records(target, found.answer)
            if record.rtype != Rtype.RRSIG
        ),
    ]
    return records_to_answer(query.qname, found.answer.rcode, records, additional=_zone_soa(verdict), errors=errors)


def _zone_soa(verdict: Verdict) -> list[Record]:
    if not isinstance(verdict.order, ZoneEntry) or verdict.order.soa is None:
        return []
    origin, soa = verdict.order.soa
    minimum = int.from_bytes(soa.rdata[-4:], "big")
    return [Record(origin, soa.rtype, min(soa.ttl, minimum), soa.rdata)]  # RFC 2308 §5


def _chain(query: Query, verdict: Verdict, aliases: tuple[bytes, ...], terms: PolicyTerms) -> list[Record]:
    """The aliases that led to the name that a zone's rule was met at. An order's answer shows nothing of them."""
    if not isinstance(verdict.order, ZoneEntry) or verdict.link > len(aliases):
        return []
    return chain_records(query.qname, aliases[: verdict.link], terms.block_ttl)


def _records(query: Query, verdict: Verdict, owner: bytes, terms: PolicyTerms) -> list[Record] | None:
    """What is given of the type asked for; None where an alias is too long to be a name."""
    found = []
    if verdict.action is Action.SINKHOLE:
        families = ((Rtype.A, terms.sinkhole_ipv4), (Rtype.AAAA, terms.sinkhole_ipv6))
        return [
            Record(owner, int(rtype), terms.block_ttl, rdata(rtype, address))
            for rtype, addresses in families
            if rtype == query.qtype
            for address in addresses
        ]
    if verdict.action is Action.LOCAL_DATA:
        for record in verdict.rule_held.records:
            octets = _expanded(record.rdata, verdict.subject) if record.rtype == Rtype.CNAME else record.rdata
            if octets is None:
                return None
            if query.qtype in (record.rtype, Rtype.ANY):
                found.append(Record(owner, record.rtype, record.ttl, octets))
    return found


def _expanded(target: bytes, subject: bytes) -> bytes | None:
    """A wildcard target with the judged name in the wildcard's place (draft-vixie-dnsop-dns-rpz-00 §3.6); None where
    that is too long to be a name."""
    if not target.startswith(_WILDCARD):
        return target
    made = subject[:-1] + target[len(_WILDCARD) :]
    return made if len(made) <= MAX_NAME_OCTETS else None
