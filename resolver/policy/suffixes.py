"""Names below which strangers register: the public suffixes, and what lies above those that a provider hands out.

The list is the Public Suffix List (publicsuffix.org), as a package carries it. Its first section holds registries
(`com`, `co.uk`), its second providers who give each customer a name below theirs (`cloudfront.net`, `edgekey.net`,
`github.io`). A rule that covers all below such a name hits everybody there.
"""

from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from importlib import resources

from publicsuffixlist import PublicSuffixList

_SECOND_SECTION = "// ===BEGIN PRIVATE DOMAINS==="


class Shared(StrEnum):
    """Who shares what lies below a name."""

    REGISTRY = "a public suffix: whoever registers a domain there is meant"
    PROVIDER = "a public suffix of a provider: each of its customers is meant"
    ESTATE = "above names that a provider gives to customers: all of them are meant"


def shared(name: str) -> Shared | None:
    """Tell who else is hit by a rule on a name and all below it; None for nobody in particular.

    Args:
        name: Lower case, ASCII, no trailing dot.
    """
    lists = _lists()
    if lists.registries.is_public(name):
        return Shared.REGISTRY
    if lists.everything.is_public(name):
        return Shared.PROVIDER
    return Shared.ESTATE if name in lists.estates else None


def public_suffixes() -> Iterator[str]:
    """Every public suffix that the list spells out; below those of `wildcard_parents` each name is one too."""
    return iter(_lists().spelled)


def wildcard_parents() -> frozenset[str]:
    """The names of which every child is a public suffix, with a few exceptions that `shared` knows."""
    return _lists().parents


class _Lists:
    def __init__(self) -> None:
        text = (resources.files("publicsuffixlist") / "public_suffix_list.dat").read_text("utf-8")
        # An unknown top-level domain may be somebody's own, inside his network: it is no public suffix here.
        self.everything = PublicSuffixList(text, accept_unknown=False)
        self.registries = PublicSuffixList(text, accept_unknown=False, only_icann=True)
        rules = list(_rules(text))
        self.spelled = frozenset(rule for rule in rules if rule[0] not in "*!")
        self.parents = frozenset(rule[2:] for rule in rules if rule.startswith("*."))
        provided = _rules(text[text.index(_SECOND_SECTION) :])
        above = {parent for rule in provided for parent in _parents(rule.lstrip("*!."))}
        self.estates = frozenset(parent for parent in above if not self.everything.is_public(parent))


def _rules(text: str) -> Iterator[str]:
    for line in text.splitlines():
        rule = line.strip()
        if rule and not rule.startswith("//"):
            yield rule.encode("idna").decode("ascii") if not rule.isascii() else rule


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.partition(".")[2]
        yield name


@cache
def _lists() -> _Lists:
    return _Lists()
