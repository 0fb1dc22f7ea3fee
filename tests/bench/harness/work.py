"""What is asked, and what the right answer is: the same for every server, and the same in every run.

Names end in `.bench` because resolvers answer `.test` by themselves (RFC 6761 §6.2). A first label of ######## becomes
a running number as the question is sent, so that no such question is ever asked twice.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ADDRESS, ADDRESS6 = "192.0.2.10", "2001:db8::10"
WARM_NAMES = 10_000
_LISTED, _ALLOWED, _NEW = "listed.bench", "allowed.bench", "new.bench"
_PARENTS = 997  # listed names hang under so many parents, as real lists do under registries
_NUMBER = "########"
_LABELS = ("www", "ads", "t", "cdn", "img", "api", "static", "log", "px", "m", "a.b", "eu.track", "x", "beacon")


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of question mix: shares of blocked and of new names; the rest are names that are warm in the cache."""

    name: str
    meaning: str
    blocked: float = 0.0
    new: float = 0.0
    repeats: bool = True
    """Whether blocked questions repeat, so that an answer once given may be remembered."""

    @property
    def forwards(self) -> bool:
        """Whether some of it goes to the upstream."""
        return self.new > 0


WORKLOADS = {
    one.name: one
    for one in (
        Workload("blocked", "names below listed names, each asked again and again", blocked=1.0),
        Workload("cached", f"{WARM_NAMES:,} allowed names, all warm in the cache"),
        Workload("unique", "names below listed names, none asked twice", blocked=1.0, repeats=False),
        Workload("mixed", "5 % blocked, 85 % cached, 10 % new names that go to the upstream", blocked=0.05, new=0.10),
        Workload("forwarded", "new names only: all go to the upstream", new=1.0),
    )
}


def listed(number: int) -> str:
    """Return the listed name of this number."""
    return f"d{number:07d}.p{number % _PARENTS:03d}.{_LISTED}"


def allowed(number: int) -> str:
    """Return the allowed name of this number, of which WARM_NAMES are asked."""
    return f"w{number:05d}.site{number % 100:03d}.{_ALLOWED}"


def warm_questions() -> Iterator[str]:
    """Yield every allowed name once."""
    return (f"{allowed(number)} A 0\n" for number in range(WARM_NAMES))


def questions(workload: Workload, listed_names: int, distinct: int) -> Iterator[str]:
    """Yield `distinct` lines for the load generator: name, type, expected RCODE."""
    draw = random.Random(f"{workload.name}/{listed_names}/{distinct}")
    for line in range(distinct):
        lot = draw.random()
        if lot < workload.blocked:
            label = f"{draw.choice(_LABELS)}{line}" if workload.repeats else _NUMBER
            yield f"{label}.{listed(draw.randrange(listed_names))} A 3\n"
        elif lot < workload.blocked + workload.new:
            yield f"{_NUMBER}.{_NEW} A 0\n"
        else:
            yield f"{allowed(draw.randrange(WARM_NAMES))} A 0\n"


def probes(listed_names: int, mark: str) -> Iterator[tuple[str, str, bool]]:
    """Yield (what it shows, name, whether it must be blocked) for the check before measuring.

    Args:
        listed_names: How many names are listed.
        mark: A label that makes the new name new.
    """
    last = listed(listed_names - 1)
    yield "a listed name itself", listed(listed_names // 2), True
    yield "a name below a listed one", f"www.{listed(0)}", True
    yield "two labels below", f"a.b.{last}", True
    yield "upper case", f"WwW.{last.upper()}", True
    yield "the parent of listed names", f"p000.{_LISTED}", False
    yield "a sibling that is not listed", listed(listed_names + 5), False
    yield "a longer label", f"x{listed(0)}", False
    yield "an allowed name", allowed(1), False
    yield "a new name", f"{mark}.{_NEW}", False


def write_zone(path: Path) -> None:
    """Write the upstream's root zone: every name exists and has one address of each kind."""
    path.write_text(
        "$ORIGIN .\n$TTL 86400\n"
        "@ SOA ns.bench. host.bench. 1 7200 3600 1209600 86400\n@ NS ns.bench.\nns.bench. A 127.0.0.1\n"
        f"* A {ADDRESS}\n* AAAA {ADDRESS6}\n*.bench. A {ADDRESS}\n*.bench. AAAA {ADDRESS6}\n"
    )
