r"""One line of a name list, in any of the formats met in the wild, and what it holds.

A reader here takes the text of one line and gives back holds and patterns, nothing (a comment, a header), or raises
`LineRefused` with a reason of a closed list and the mend. **A line is taken whole or not at all**: half a line would
be a rule that nobody wrote.

What a name reaches is what its format says of it:

==========  ==========================================================================================
hosts       EXACT: a hosts file knows no names below
names       `plain_reach`, by default EXACT: so AdGuard's syntax reads a name that stands alone, and it
            never blocks more than the list says. dnscrypt-proxy takes such a name with all below it,
            hence the parameter
adblock     `||x^` SUFFIX, `|x^` EXACT, `||*.x^` BELOW, a plain `x` as in names
wildcard    `*.x`, `.x`, `+.x` SUFFIX, x included: these lists write one line for a name and mean both
            (dnscrypt-proxy says so); `=x` EXACT
dnsmasq     SUFFIX, as is `/.x/`; `/*.x/` BELOW (dnsmasq(8), --server)
unbound     `local-zone` SUFFIX, `local-data` EXACT
routing     `DOMAIN-SUFFIX,x`, `domain:x`, `+.x` and a plain x SUFFIX; `DOMAIN,x`, `full:x` EXACT; `.x` BELOW
==========  ==========================================================================================

A `*` stands for any characters, dots included, or for none, as AdGuard's syntax has it ("any set of characters").

Names: letters, digits, hyphens and underscores in any place, for such names exist in the DNS whatever a host name may
look like (RFC 2181 §11). U-labels become A-labels by the library `idna`: UTS #46 non-transitional and then IDNA2008,
as browsers do. Python's own `idna` codec is IDNA2003 (RFC 3490), which takes `ß` to `ss` and so blocks another name.

Expressions are in RE2's syntax and are tried by RE2 itself, whose time and memory are bounded; an expression that
needs more (a backreference, a look-around) is refused.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import re2

from resolver.policy.documents import Action
from resolver.policy.zone import Reach, Rule
from resolver.wire.codes import Rtype
from resolver.wire.name import BadName, from_text, to_ascii

MAX_PATTERN_CHARACTERS = 1_024  # a name has 253 at most; the longest expression met in a public list has about 200
MAX_PATTERN_STEPS = 4_096  # instructions of the compiled expression: RE2's time for a name grows with them
MIN_FIXED_CHARACTERS = 3  # letters and digits that a wildcard must leave: `||a*^` is half the DNS


class ListFormat(StrEnum):
    """The formats of name lists."""

    NAMES = "names"
    HOSTS = "hosts"
    ADBLOCK = "adblock"
    WILDCARD = "wildcard"
    DNSMASQ = "dnsmasq"
    UNBOUND = "unbound"
    REGEX = "regex"
    ROUTING = "routing"
    RPZ = "rpz"


class Refusal(StrEnum):
    """Why a line is not taken."""

    ADDRESS = "address"  # an address or a network where a name should be
    BAD_NAME = "bad-name"
    CONFLICT = "conflict"  # two lines about one name that no single rule can hold
    CONVERSION = "conversion"  # the residue of a broken conversion, such as 0.0.0.0.example.org
    DIRECTIVE = "directive"  # a setting of the program that the file was made for
    ENCODING = "encoding"  # neither ASCII nor UTF-8
    EVERYTHING = "everything"  # reaches every name, or nearly
    FORWARD = "forward"  # says where a name is sent, not that it is blocked
    INCLUDE = "include"  # names another file
    LIMIT = "limit"  # more expressions, or more rules that differ, than one list may have
    MAPPING = "mapping"  # gives a name an address or other records
    MODIFIER = "modifier"  # narrows or changes the rule in a way that is not known here
    NOT_DNS = "not-dns"  # about paths, pages, ports, processes
    OPEN_END = "open-end"  # `||x` without `^` also means x.another.example
    OTHER_FORMAT = "other-format"
    OWN_HOST = "own-host"  # the host that the list itself comes from
    PATTERN = "pattern"  # an expression that cannot be taken
    SPECIAL_NAME = "special-name"  # never asked of the public DNS
    SUBSTRING = "substring"  # matches inside words
    TOP_LEVEL = "top-level"  # a whole top-level domain
    TRAILING_TEXT = "trailing-text"
    URL = "url"


# What is said where a reader knows nothing nearer.
_MENDS = {
    Refusal.ADDRESS: "this is about addresses; block those with a response policy zone (rpz-ip)",
    Refusal.DIRECTIVE: "a setting of the program that the file is for; delete the line",
    Refusal.EVERYTHING: "this reaches every name, or nearly; write the names that are meant",
    Refusal.INCLUDE: "another list is named; read that one as a list of its own",
    Refusal.MAPPING: "this gives a name its records; write a line that blocks it, or a local rule",
    Refusal.SUBSTRING: "this matches inside words; write whole names, or begin and end it at a dot",
    Refusal.TOP_LEVEL: "this is a whole top-level domain; write the names under it",
    Refusal.TRAILING_TEXT: "one rule a line; put remarks behind ' # '",
    Refusal.URL: "DNS sees no pages; write the host's name alone",
}


class LineRefused(ValueError):
    """A line that is not taken.

    Attributes:
        reason: Of the closed list.
        part: The piece of the line that is at fault; empty for the whole of it.
        why: A sentence that says the mend.
    """

    def __init__(self, reason: Refusal, part: str, why: str | None = None) -> None:
        self.reason = reason
        self.part = part
        self.why = why or _MENDS[reason]
        super().__init__(self.why)


@dataclass(frozen=True, slots=True)
class Hold:
    """A rule on a name: lower-cased wire form."""

    name: bytes
    reach: Reach
    rule: Rule


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rule on all names in which an expression of RE2's syntax is found; `steps` is its compiled size."""

    expression: str
    rule: Rule
    steps: int = field(default=0, compare=False)


Holds = Sequence[Hold | Pattern]

BLOCK = Rule(Action.NXDOMAIN)
NOTHING: Holds = ()

_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ODD_CHARACTER = re.compile(r"[^a-z0-9_.-]")
_SINK_LEFT_OVER = re.compile(r"(?:0\.0\.0\.0|127\.0\.0\.1)\.(?=.*[a-z])")
# RFC 6761 §6.3, RFC 6761 §6.4, RFC 6762 §3; `localdomain` is what hosts files leave behind.
_SPECIAL_SUFFIXES = (".localhost", ".invalid", ".local", ".localdomain")
_HEADER = re.compile(r"\[[A-Za-z][^:\]]*\]")  # [Adblock Plus 2.0]
_COSMETIC = re.compile(r"[^\s#]+#@?\$?[?%]?#")  # example.org##.banner and its kin
_HIDING = "this hides parts of pages; write ||name^ to block the name"
_TRAILING_COMMENT = re.compile(r"#.*|(?<=\S)\s++(?:;|//|!).*", re.DOTALL)
_SPACED_COMMENT = re.compile(r"(?<=\S)\s++#.*", re.DOTALL)

# Names that a hosts file gives to its own machine. The lines are part of the file, not of the list.
_HOUSE_NAME = re.compile(
    r"localhost[46]?(?:\.localdomain[46]?)?|local|broadcasthost|0\.0\.0\.0"
    r"|ip6-(?:localhost|loopback|localnet|mcastprefix|allnodes|allrouters|allhosts)"
)


def read_line(text: str, form: ListFormat, plain_reach: Reach = Reach.EXACT) -> Holds:
    """Read one line of a list of a known format; no holds for a line that has nothing to say.

    Args:
        text: Without the end of the line.
        form: Any but RPZ, whose lines lean on those before them.
        plain_reach: How far a name reaches that stands alone in a format with no word for it.

    Raises:
        LineRefused: It is not taken.
    """
    text = text.strip().lstrip("\ufeff").strip()
    if not text or text.startswith("#" if form is ListFormat.REGEX else ("#", "!", ";", "//")):
        return NOTHING
    if form is not ListFormat.REGEX and _HEADER.fullmatch(text):
        return NOTHING
    return _READERS[form](text, plain_reach)


def name_of(text: str) -> bytes:
    """Take a name as lists write it, with or without the trailing dot, to its lower-cased wire form.

    Raises:
        LineRefused: It is no name, or none that a list may hold.
    """
    if len(text) > 255:
        raise LineRefused(Refusal.BAD_NAME, text, "longer than a name can be (RFC 1035 §2.3.4); shorten it")
    name = (text.lower() if text.isascii() else _to_ascii(text)).removesuffix(".")
    if "/" in name and not _is_address(name):
        bare = name.split("://")[-1].split("/")[0]
        raise LineRefused(Refusal.URL, text, f"DNS sees no pages; write {bare!r}, which covers all of that host")
    if not name:
        raise LineRefused(Refusal.EVERYTHING if text else Refusal.BAD_NAME, text, "a name is missing; write one")
    if _SINK_LEFT_OVER.match(name):
        rest = _SINK_LEFT_OVER.sub("", name)
        raise LineRefused(Refusal.CONVERSION, text, f"a sink address is glued to the name; write {rest!r}")
    last = name.rpartition(".")[2]
    if _is_address(name) or last.isdigit():
        raise LineRefused(Refusal.ADDRESS, text)
    if not _NAME.fullmatch(name):
        odd = _ODD_CHARACTER.search(name)
        trouble = f"{odd[0]!a} cannot be in it" if odd else "it has an empty label"
        raise LineRefused(Refusal.BAD_NAME, text, f"{trouble}; write labels of a-z, 0-9, - and _ between dots")
    if _HOUSE_NAME.fullmatch(name) or name.endswith(_SPECIAL_SUFFIXES):
        raise LineRefused(Refusal.SPECIAL_NAME, text, f"the public DNS has nothing under {last!r}; leave it out")
    if last == name:
        raise LineRefused(Refusal.TOP_LEVEL, text)
    try:
        return from_text(name)
    except BadName as error:
        raise LineRefused(Refusal.BAD_NAME, text, f"{error}; shorten it") from None


def pattern_of(expression: str, rule: Rule) -> Pattern:
    """Try an expression and give it back as it is kept.

    Raises:
        LineRefused: RE2 does not take it, it is too large, or it finds something in every name.
    """
    if len(expression) > MAX_PATTERN_CHARACTERS:
        why = f"longer than {MAX_PATTERN_CHARACTERS} characters; split it into several lines"
        raise LineRefused(Refusal.PATTERN, expression, why)
    if not expression.isascii() or not expression.isprintable() or " " in expression:
        raise LineRefused(Refusal.PATTERN, expression, "names are matched as A-labels; write the expression for those")
    if re.search(r"[A-Z]", expression):
        expression = f"(?i){expression}"  # names are lower-cased before they are matched
    try:
        compiled = re2.compile(expression, options=_RE2_OPTIONS)
    except re2.error as error:
        told = error.args[0].decode("utf-8", "replace")
        why = f"{told}; write it without backreferences and look-arounds"
        raise LineRefused(Refusal.PATTERN, expression, why) from None
    if compiled.programsize > MAX_PATTERN_STEPS:
        raise LineRefused(Refusal.PATTERN, expression, "too large once its counts are written out; use smaller ones")
    if compiled.search("") or all(compiled.search(probe) for probe in _UNLIKE_NAMES):
        raise LineRefused(Refusal.EVERYTHING, expression, "found in every name; anchor it, as in (^|\\.)example\\.org$")
    return Pattern(expression, rule, compiled.programsize)


def finds(expression: str, name: str) -> bool:
    """Whether an expression that `pattern_of` gave is found in a name (text, lower case, no last dot)."""
    return bool(re2.compile(expression, options=_RE2_OPTIONS).search(name))


def _re2_options() -> re2.Options:
    options = re2.Options()
    options.max_mem = 1 << 18  # octets for one expression while it is tried
    options.log_errors = False  # the library writes to standard error otherwise
    return options


_RE2_OPTIONS = _re2_options()
# An expression that is found in all of these is found in nearly every name.
_UNLIKE_NAMES = ("a.example", "7--z.q9.xn--p1ai", "m_k.w-u.b5.test")


def _to_ascii(text: str) -> str:
    try:
        return to_ascii(text)
    except BadName as error:
        raise LineRefused(Refusal.BAD_NAME, text, str(error)) from None


def _is_address(text: str) -> bool:
    if not text[:1].isdigit() and ":" not in text and "[" not in text:
        return False
    try:
        ip_network(text.strip("[]").partition("%")[0], strict=False)
    except ValueError:
        return False
    return True


def _is_sink(text: str) -> bool | None:
    """Whether an address leads nowhere: the unspecified one, this host, their networks; None for no address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if isinstance(address, IPv4Address):
        return address.packed[0] in (0, 127)  # 0.0.0.1 and 127.0.0.2 are met as sinks too (RFC 6890 §2.2.2)
    return address.is_unspecified or address.is_loopback


def _without_remark(text: str) -> str:
    if _COSMETIC.match(text):
        raise LineRefused(Refusal.NOT_DNS, text, _HIDING)
    return _TRAILING_COMMENT.sub("", text)


def _one_word(text: str) -> str:
    word = text.rstrip(";,").rstrip()
    if len(words := word.split()) > 1:
        raise LineRefused(Refusal.TRAILING_TEXT, words[1])
    return word


def _names(text: str, plain_reach: Reach) -> Holds:
    word = _one_word(_without_remark(text))
    return (Hold(name_of(word), plain_reach, BLOCK),)


def _hosts(text: str, _: Reach) -> Holds:
    address, *found = text.partition("#")[0].split() or [""]
    if "://" in address:
        raise LineRefused(Refusal.URL, address)
    sink = _is_sink(address)
    if sink is None:
        raise LineRefused(Refusal.BAD_NAME, address, "an address comes first; write 0.0.0.0 before the name")
    if not found:
        raise LineRefused(Refusal.BAD_NAME, "", "no name behind the address; write one or delete the line")
    found = [name for name in found if not _HOUSE_NAME.fullmatch(name.lower())]
    if not found:
        return NOTHING
    if not sink:
        raise LineRefused(Refusal.MAPPING, address)
    return tuple(Hold(name_of(name), Reach.EXACT, BLOCK) for name in found)


def _adblock(text: str, plain_reach: Reach) -> Holds:
    if _COSMETIC.match(text):
        raise LineRefused(Refusal.NOT_DNS, text, _HIDING)
    if len(words := text.split()) > 1 and _is_sink(words[0]) is not None:
        return _hosts(text, plain_reach)
    text = _SPACED_COMMENT.sub("", text)
    if len(words := text.split()) > 1:
        raise LineRefused(Refusal.TRAILING_TEXT, words[1])
    body = text.removeprefix("@@")
    action = Action.NXDOMAIN if body is text else Action.PASSTHRU
    end = body.rfind("/")
    if body[0:1] == "/" and end > 0:
        mask, modifiers = body[: end + 1], body[end + 1 :].removeprefix("$")
    else:
        mask, _, modifiers = body.partition("$")
    rule = _modified(action, modifiers) if modifiers else Rule(action)
    if mask[:1] == "/" and end > 0:
        return (pattern_of(mask[1:-1], rule),)
    anchor = "||" if mask.startswith("||") else mask[:1] if mask[:1] == "|" else ""
    name = mask[len(anchor) :]
    closed = name.endswith(("^", "|"))
    name = name.removesuffix("|").removesuffix("^")
    if not name.strip("*.") and (name or anchor):
        raise LineRefused(Refusal.EVERYTHING, mask)
    if "*" in name:
        return _glob(name, anchor, closed, rule)
    wire = name_of(name)
    if not anchor:
        if closed:
            raise LineRefused(Refusal.SUBSTRING, mask, f"without bars this also ends other words; write ||{name}^")
        return (Hold(wire, plain_reach, rule),)
    if not closed:
        raise LineRefused(Refusal.OPEN_END, mask, f"this also begins other names; write {anchor}{name}^")
    return (Hold(wire, Reach.SUFFIX if anchor == "||" else Reach.EXACT, rule),)


_REWRITES = {"NXDOMAIN": Action.NXDOMAIN, "REFUSED": Action.REFUSED, "NOERROR": Action.NODATA}


def _modified(action: Action, modifiers: str) -> Rule:
    qtypes: set[int] = set()
    but: set[int] = set()
    spares: set[bytes] = set()
    important = False
    for modifier in modifiers.split(","):
        key, has_value, value = modifier.partition("=")
        if key == "important" and not has_value:
            important = True
        elif key == "denyallow" and value:
            spares.update(name_of(name) for name in value.split("|"))
        elif key == "dnstype" and value:
            for word in value.split("|"):
                (but if word.startswith("~") else qtypes).add(_rtype_of(word.removeprefix("~")))
        elif key == "dnsrewrite" and action is not Action.PASSTHRU and value.removesuffix(";;") in _REWRITES:
            action = _REWRITES[value.removesuffix(";;")]
        else:
            why = f"{modifier[:40]!a} is not known here and may turn the rule round; delete the line"
            raise LineRefused(Refusal.MODIFIER, modifier or "$", why)
    # AdGuard's word on types both named and excluded: those named are all that counts.
    return Rule(
        action,
        qtypes=tuple(sorted(qtypes or but)),
        but_qtypes=bool(but and not qtypes),
        spares=tuple(sorted(spares)),
        important=important,
    )


def _rtype_of(word: str) -> int:
    """RFC 3597 §5 gives the form TYPE12345 to types that have no name here."""
    word = word.upper()
    if word in Rtype.__members__:
        return Rtype[word].value
    if re.fullmatch(r"TYPE[0-9]{1,5}", word) and 0 < int(word[4:]) < 65_536:
        return int(word[4:])
    raise LineRefused(Refusal.MODIFIER, word, f"{word[:40]!a} is not a known record type; write TYPE and its number")


def _glob(name: str, anchor: str, closed: bool, rule: Rule) -> Holds:
    """A name with `*` in it, in the manner of Adblock: `||` begins at a label, `|` at the name, `^` ends the name."""
    name = name.lower().removesuffix(".")
    if re.fullmatch(r"[0-9.*]+", name):
        raise LineRefused(Refusal.ADDRESS, name)
    if "/" in name:
        raise LineRefused(Refusal.URL, name)
    if not re.fullmatch(r"[a-z0-9_*.-]+", name) or ".." in name or name[0] == ".":
        raise LineRefused(Refusal.BAD_NAME, name, "write only a-z, 0-9, - and _ beside *, and xn-- forms")
    if not closed and not name.endswith("*"):
        raise LineRefused(Refusal.OPEN_END, name, f"this also begins other names; write {anchor or '||'}{name}^")
    labels = name.split(".")
    if not anchor and name[0] != "*":
        raise LineRefused(Refusal.SUBSTRING, name, f"without bars this also ends other words; write ||{name}^")
    if name[0] == "*" and labels[0] != "*" and "*" in labels[-1]:
        raise LineRefused(Refusal.SUBSTRING, name, "matches inside words; begin or end it at a dot, as in ||word*^")
    if len(re.sub(r"[^a-z0-9]", "", name)) < MIN_FIXED_CHARACTERS:
        raise LineRefused(Refusal.EVERYTHING, name)
    fixed = [label for label in labels if label != "*"]
    if len(fixed) == 1 and fixed[0] == labels[-1] and (labels[0] == "*" or name[0] == "*"):
        raise LineRefused(Refusal.TOP_LEVEL, name)
    if labels[0] == "*" and "*" not in (below := name[2:]):
        return (Hold(name_of(below), Reach.BELOW, rule),)
    body = re.sub(r"\*+", ".*", name.strip("*").replace(".", r"\."))
    start = "" if name[0] == "*" else {"||": r"(^|\.)", "|": "^"}[anchor]
    return (pattern_of(start + body + ("" if name[-1] == "*" else "$"), rule),)


def _wildcard(text: str, plain_reach: Reach) -> Holds:
    text = _without_remark(text)
    if " @" in text:
        raise LineRefused(Refusal.MODIFIER, text.split("@")[-1], "a rule for some hours only; leave the time out")
    word = _one_word(text)
    if word.startswith("="):
        return (Hold(name_of(word[1:]), Reach.EXACT, BLOCK),)
    below = re.sub(r"^[*+]?\.", "", word)
    if "*" not in below and not re.search(r"[\[?]", below):
        return (Hold(name_of(below), plain_reach if below == word else Reach.SUFFIX, BLOCK),)
    if re.search(r"[\[?]", word):
        raise LineRefused(Refusal.PATTERN, word, "sets of characters: write an expression in a list of the form regex")
    if not word.strip("*."):
        raise LineRefused(Refusal.EVERYTHING, word)
    return _glob(word, "|", True, BLOCK)


_DNSMASQ = re.compile(r"(address|server|local)=/(.*)/([^/]*)")


def _dnsmasq(text: str, _: Reach) -> Holds:
    text = _SPACED_COMMENT.sub("", text)
    line = _DNSMASQ.fullmatch(text)
    if line is None:
        if text.startswith(("server=", "rev-server=")):
            raise LineRefused(Refusal.FORWARD, text, "a server to ask; name upstreams in the configuration")
        if re.match(r"(?:conf-(?:file|dir)|addn-hosts|servers-file|hostsdir)=", text):
            raise LineRefused(Refusal.INCLUDE, text)
        raise LineRefused(Refusal.DIRECTIVE, text)
    keyword, found, value = line.groups()
    if value and keyword != "address":
        raise LineRefused(Refusal.FORWARD, value, f"names are forwarded; write {keyword}=/name/ to block them")
    if value and value != "#" and not _is_sink(value):
        raise LineRefused(Refusal.MAPPING, value)
    return tuple(_dnsmasq_name(name) for name in found.split("/"))


def _dnsmasq_name(name: str) -> Hold | Pattern:
    if name in ("#", "*"):
        raise LineRefused(Refusal.EVERYTHING, name)
    if not name:
        raise LineRefused(Refusal.TOP_LEVEL, "//", "// means all names of one label; write the names that are meant")
    if name.startswith("*."):
        return Hold(name_of(name[2:]), Reach.BELOW, BLOCK)
    if name.startswith("*"):
        return _glob(name, "|", True, BLOCK)[0]
    return Hold(name_of(name.removeprefix(".")), Reach.SUFFIX, BLOCK)


_UNBOUND_BLOCKS = re.compile(r"static|(?:always_|inform_)?deny|(?:always_)?refuse|always_(?:nxdomain|nodata|null)")
_UNBOUND_ZONE = re.compile(r"""local-zone:\s*["']?([^\s"']+)["']?\s+["']?(\w+)["']?""")
_UNBOUND_DATA = re.compile(r"""local-data:\s*["']?(\S+)\s+(?:\d+\s+)?(?:IN\s+)?(\w+)\s+(.*?)["']?""", re.I)


def _unbound(text: str, _: Reach) -> Holds:
    text = _SPACED_COMMENT.sub("", text)
    if text == "server:":
        return NOTHING
    if zone := _UNBOUND_ZONE.fullmatch(text):
        name, kind = zone.groups()
        if _UNBOUND_BLOCKS.fullmatch(kind):
            return (Hold(name_of(name), Reach.SUFFIX, BLOCK),)
        if kind == "redirect":
            why = "what it answers stands in another line; write always_nxdomain"
            raise LineRefused(Refusal.MAPPING, kind, why)
        raise LineRefused(Refusal.DIRECTIVE, kind, "zones of this type block nothing; write always_nxdomain")
    if record := _UNBOUND_DATA.fullmatch(text):
        name, rtype, value = record.groups()
        if rtype.upper() in ("A", "AAAA") and _is_sink(value.strip()):
            return (Hold(name_of(name), Reach.EXACT, BLOCK),)
        raise LineRefused(Refusal.MAPPING, value)
    if text.startswith("include"):
        raise LineRefused(Refusal.INCLUDE, text)
    raise LineRefused(Refusal.DIRECTIVE, text)


def _regex(text: str, _: Reach) -> Holds:
    text = _SPACED_COMMENT.sub("", text)
    if ";" in text:
        why = "the expression ends at the semicolon; leave out what follows"
        raise LineRefused(Refusal.MODIFIER, text[text.index(";") :], why)
    if "://" in text:
        raise LineRefused(Refusal.URL, text)
    if len(text) > 2 and text[0] == text[-1] == "/":
        text = text[1:-1]
    return (pattern_of(text, BLOCK),)


_EXACT_WORDS = frozenset({"DOMAIN", "HOST"})
_SUFFIX_WORDS = frozenset({"DOMAIN-SUFFIX", "HOST-SUFFIX"})
_ROUTING_REFUSALS = (
    (r"(?:DOMAIN|HOST)-KEYWORD", Refusal.SUBSTRING, None),
    (r"(?:DOMAIN|HOST)-WILDCARD", Refusal.PATTERN, "write DOMAIN-SUFFIX, or DOMAIN-REGEX and an expression"),
    (r"IP|SRC|GEOIP|DST-IP", Refusal.ADDRESS, None),
    (r"GEOSITE|RULE-SET|DOMAIN-SET", Refusal.INCLUDE, None),
    (r"MATCH|FINAL", Refusal.EVERYTHING, None),
    (r"AND|OR|NOT", Refusal.MODIFIER, "joined conditions; write one DOMAIN-SUFFIX or DOMAIN a line"),
)
_TERMS = re.compile(r"(\w+):(\S+)")


def _routing(text: str, _: Reach) -> Holds:
    if text == "payload:":
        return NOTHING
    text = re.sub(r"^-\s+", "", _SPACED_COMMENT.sub("", text)).strip("'\"")
    word, comma, rest = text.partition(",")
    if comma and word.replace("-", "").isalnum():
        return _clash(word.upper(), [field.strip() for field in rest.split(",")])
    text, *tags = text.split() or [""]
    for tag in tags:
        if tag[0] not in "@&":
            raise LineRefused(Refusal.TRAILING_TEXT, tag)
    text = text.partition(":@")[0]
    if term := _TERMS.fullmatch(text):
        kind, value = term.groups()
        if kind == "full":
            return (Hold(name_of(value), Reach.EXACT, BLOCK),)
        if kind == "domain":
            return (Hold(name_of(value), Reach.SUFFIX, BLOCK),)
        if kind == "regexp":
            return (pattern_of(value, BLOCK),)
        if kind == "keyword":
            raise LineRefused(Refusal.SUBSTRING, value)
        if kind in ("include", "geosite"):
            raise LineRefused(Refusal.INCLUDE, value)
    if text.startswith("+."):
        return (Hold(name_of(text[2:]), Reach.SUFFIX, BLOCK),)
    if text.startswith("."):
        return (Hold(name_of(text[1:]), Reach.BELOW, BLOCK),)
    if "*" in text:
        why = f"* is one label here; write +.{text.strip('*.')} for all of them"
        raise LineRefused(Refusal.PATTERN, text, why)
    return (Hold(name_of(text), Reach.SUFFIX, BLOCK),)


def _clash(word: str, fields: list[str]) -> Holds:
    way = [field for field in fields[1:] if field not in ("no-resolve", "extended-matching", "pre-matching", "")]
    if word in _EXACT_WORDS or word in _SUFFIX_WORDS or word == "DOMAIN-REGEX":
        if way and not way[0].upper().startswith("REJECT"):
            raise LineRefused(Refusal.FORWARD, way[0], "names are sent on; leave the way out or write REJECT")
        if word == "DOMAIN-REGEX":
            return (pattern_of(fields[0], BLOCK),)
        return (Hold(name_of(fields[0]), Reach.EXACT if word in _EXACT_WORDS else Reach.SUFFIX, BLOCK),)
    for mark, reason, why in _ROUTING_REFUSALS:
        if re.match(mark, word):
            raise LineRefused(reason, word, why)
    raise LineRefused(Refusal.NOT_DNS, word, "about processes, ports or pages, not names; delete the line")


def _rpz(text: str, _: Reach) -> Holds:
    raise LineRefused(Refusal.OTHER_FORMAT, text, "a line of a response policy zone; give the whole zone as such")


_READERS: dict[ListFormat, Callable[[str, Reach], Holds]] = {
    ListFormat.NAMES: _names,
    ListFormat.HOSTS: _hosts,
    ListFormat.ADBLOCK: _adblock,
    ListFormat.WILDCARD: _wildcard,
    ListFormat.DNSMASQ: _dnsmasq,
    ListFormat.UNBOUND: _unbound,
    ListFormat.REGEX: _regex,
    ListFormat.ROUTING: _routing,
    ListFormat.RPZ: _rpz,
}
