"""What the pipeline said about one name, made ready for all names that the same rules hold.

A template (`hot/_templates_cy.py`) is filed under a claim set: the holds of all orders and zones on one listed name. So
it may be made of an answer only where nothing but that claim set, the type that was asked for and the client's view
decided: no rule that leaves out names below the listed one, no pattern that could go before it, no second listed name
with other holds, and nothing that waits for an upstream. What then differs from name to name are the name itself and
pointers to the listed one. Rules on the client's address are the view's: they hold for all names alike.
"""

from resolver.hot._batch_cy import ViewMemo
from resolver.hot._templates_cy import NO_OPT, REST_OCTETS, WITH_DO, WITH_OPT, Template, template_key
from resolver.observe.record import TAIL_FIELDS, HitTemplate
from resolver.policy.documents import Action, Mode
from resolver.policy.generation import View
from resolver.policy.judge import Verdict, is_settled
from resolver.policy.terms import Claim, ZoneEntry
from resolver.policy.zone import Reach, Trigger
from resolver.wire import name as names
from resolver.wire.codes import Rclass, Rtype, rtype_text
from resolver.wire.message import HEADER_OCTETS, TC, Query

_ACTIONS = frozenset({Action.NXDOMAIN, Action.NODATA, Action.REFUSED, Action.SINKHOLE})
_REACHES = frozenset({Reach.EXACT, Reach.SUFFIX, Reach.BELOW})
_SOA_RDATA = 12  # where RDATA begins in a record whose owner is a pointer (RFC 1035 §4.1.3)


def learn_template(
    memo: ViewMemo, view: View, query: Query, verdict: Verdict, reply: bytes, hit: HitTemplate, cell: int
) -> None:
    """File what was said under the claim set that it was said for, or that nothing can be filed there.

    Args:
        memo: Of the client's view.
        view: The client's.
        query: The question.
        verdict: What policy said about it.
        reply: What was answered, over UDP, by that verdict or because it lets pass.
        hit: What was recorded.
        cell: Which counter an answer from a template adds to.
    """
    if verdict.passes or query.qclass != Rclass.IN or not _is_usual(query.qtype):
        return
    covering = view.generation.table.covering(query.qname)
    if not covering or any(claim_set != covering[0][1] for _, claim_set in covering):
        return
    offset, claim_set = covering[0]
    claims = view.generation.terms.claim_sets[claim_set]
    covers_itself = all(claim.reach is Reach.SUFFIX for claim in claims)
    if len(covering) > 1 and not (offset or covers_itself):
        return
    key = template_key(claim_set, offset, query.qtype, _opt(query))
    if memo.has_filed(key):
        return
    template = None
    if verdict.owner_offset == offset and _is_general(verdict, view, claims):
        template = _template(query, verdict, reply, hit, cell, covers_itself)
    memo.file(key, template)


def _is_usual(qtype: int) -> bool:
    """Whether a type has a mnemonic: what is asked for by number may be anything, and each is filed by itself."""
    return qtype != Rtype.ANY and rtype_text(qtype) in Rtype.__members__


def _opt(query: Query) -> int:
    if not query.has_opt:
        return NO_OPT
    return WITH_DO if query.do else WITH_OPT


def _is_general(verdict: Verdict, view: View, claims: tuple[Claim, ...]) -> bool:
    """Whether the same holds for every name that these claims alone hold."""
    if verdict.action not in _ACTIONS or verdict.trigger is not Trigger.QNAME or not is_settled(verdict, view):
        return False
    if verdict.link or verdict.network or verdict.pattern:
        return False
    if isinstance(verdict.order, ZoneEntry) and verdict.order.soa is not None:
        return False  # its SOA goes with the answer, whose owner is QNAME or not
    if any(stance.rank <= verdict.rank and stance.entry.mode is Mode.ENFORCE for stance, _ in view.patterned):
        return False
    orders = len(view.generation.terms.orders)
    for claim in claims:
        if claim.reach not in _REACHES:
            return False
        zone = view.zones.get(claim.holder - orders)
        if zone is None:
            continue
        # Some rules spare names below their own, and one that makes a name an alias of itself lets that name pass.
        if zone.entry.rules[claim.part].spares or zone.entry.rule(claim.part).action is Action.LOCAL_DATA:
            return False
    return True


def _template(
    query: Query, verdict: Verdict, reply: bytes, hit: HitTemplate, cell: int, covers_itself: bool
) -> Template | None:
    rest = reply[HEADER_OCTETS + len(query.question) :]
    fields = hit.tail.split(b"\t")
    qname, owner = names.to_text(query.qname).encode(), names.to_text(verdict.owner).encode()
    before = fields[7].removesuffix(owner) if len(fields) == TAIL_FIELDS else b""
    if reply[2] & TC >> 8 or len(rest) > REST_OCTETS or fields[3] != qname or before + owner != fields[7]:
        return None
    pointer = (0xC000 | HEADER_OCTETS + verdict.owner_offset).to_bytes(2, "big")
    has_soa = reply[6:10] == b"\0\0\0\1"  # no answer, one record of authority
    if has_soa and (rest[:2] != pointer or rest[_SOA_RDATA : _SOA_RDATA + 2] != pointer):
        return None
    parts = (
        b"\t".join(fields[:3]) + b"\t",
        b"\t" + b"\t".join(fields[4:7]) + b"\t" + before,
        b"\t" + b"\t".join(fields[8:]),
    )
    return Template(reply[3] & 15, reply[4:12], rest, has_soa, covers_itself, cell, parts)
