"""Am I covered? What this server knows of who asks, as TXT records of `whoami.interdict.test` and as a page.

Both say what was true when they were made, of one client, and are made anew for each. The page stands alone: no
scripts, and nothing that is fetched from elsewhere, so that it opens on a device on which most of the network is
closed. What comes from outside (names of devices, groups, orders) is text in it and never markup.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from resolver.policy.client import Transport

_TRANSPORTS = {
    Transport.UDP: "DNS over UDP",
    Transport.TCP: "DNS over TCP",
    Transport.DOT: "DNS over TLS",
    Transport.DOH: "DNS over HTTPS",
    Transport.DOQ: "DNS over QUIC",
    Transport.DOH3: "DNS over HTTPS (HTTP/3)",
}
_STYLE = """\
:root{color-scheme:light dark;--ink:#1b1b1b;--dim:#595959;--ground:#fff;--line:#d0d0d0;--yes:#0b6b2f;--no:#a8280b}
@media(prefers-color-scheme:dark){:root{--ink:#ededed;--dim:#b3b3b3;--ground:#161616;--line:#444;--yes:#6fd08c;--no:#ff9a7a}}
*{box-sizing:border-box}body{margin:0;padding:1rem;background:var(--ground);color:var(--ink);font:1rem/1.5 sans-serif}
main{max-width:40rem;margin:auto}h1{font-size:1.5rem;line-height:1.25;margin:1rem 0 .25rem}section{margin-bottom:2.5rem}
.yes{color:var(--yes)}.no{color:var(--no)}dl{margin:1rem 0;border-top:1px solid var(--line)}
dt{color:var(--dim);font-size:.875rem;padding-top:.5rem}
dd{margin:0;padding-bottom:.5rem;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
ul{margin:0;padding-left:1.25rem}"""


@dataclass(frozen=True, slots=True)
class CoveringOrder:
    """An order that binds the client now."""

    id: str
    title: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of who asks.

    Attributes:
        client: Its address.
        device: The name of the recognised device; empty where none was.
        group: The group whose orders bind it; empty where none does.
        orders: Those in force for it.
        generation: Serial and digest of the policy in force.
        node: The server that answers.
        at: When, in Unix seconds.
    """

    client: str
    device: str
    group: str
    transport: Transport
    orders: tuple[CoveringOrder, ...]
    generation: str
    node: str
    at: float


def covered(coverage: Coverage) -> tuple[str, ...]:
    """Say it in texts of the form `key=value`, one TXT record each."""
    return (
        f"device={coverage.device}",
        f"group={coverage.group}",
        f"transport={coverage.transport}",
        f"orders={' '.join(order.id for order in coverage.orders)}",
        f"generation={coverage.generation}",
        f"client={coverage.client}",
        f"node={coverage.node}",
    )


def covered_page(coverage: Coverage) -> bytes:
    """Say it as a page in English and French, in UTF-8."""
    title = _ENGLISH.says(coverage)[0]
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<main>
{_ENGLISH.section(coverage)}
{_FRENCH.section(coverage)}
</main>
</body>
</html>
""".encode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class _Language:
    code: str
    covered: str
    named: str
    by_group: str
    idle: str
    unknown: str
    nobody: str
    device: str
    group: str
    transport: str
    orders: str
    generation: str
    client: str
    node: str
    at: str
    none: str
    no_orders: str
    in_the_open: str

    def says(self, coverage: Coverage) -> tuple[str, str]:
        """The heading, and the sentence below it."""
        if not coverage.group:
            return self.unknown, self.nobody
        sentence = self.named if coverage.device else self.by_group
        return self.covered, sentence if coverage.orders else f"{sentence} {self.idle}"

    def section(self, coverage: Coverage) -> str:
        heading, sentence = self.says(coverage)
        transport = _TRANSPORTS[coverage.transport]
        if not coverage.transport.is_encrypted:
            transport += f" ({self.in_the_open})"
        titles = "".join(f"<li>{escape(order.title)} ({escape(order.id)})</li>" for order in coverage.orders)
        facts = {
            self.device: escape(coverage.device) or self.none,
            self.group: escape(coverage.group) or self.none,
            self.transport: transport,
            self.orders: f"<ul>{titles}</ul>" if titles else self.no_orders,
            self.generation: escape(coverage.generation),
            self.client: escape(coverage.client),
            self.node: escape(coverage.node),
            self.at: datetime.fromtimestamp(coverage.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        }
        rows = "\n".join(f"<dt>{name}</dt><dd>{fact}</dd>" for name, fact in facts.items())
        mark = "yes" if coverage.group else "no"
        return (
            f'<section lang="{self.code}">\n<h1 class="{mark}">{heading}</h1>\n<p>{sentence}</p>\n'
            f"<dl>\n{rows}\n</dl>\n</section>"
        )


_ENGLISH = _Language(
    code="en",
    covered="This device is covered",
    named="This device is covered by Interdict, and known by its name.",
    by_group="This device is covered by Interdict, as one of its group; it is not recognised by name.",
    idle="No order is in force for it at this moment.",
    unknown="This device is not recognised",
    nobody="No order covers it. If it should be covered, show this page to whoever manages it.",
    device="Device",
    group="Group",
    transport="Asked by",
    orders="Orders in force",
    generation="Policy",
    client="Address",
    node="Server",
    at="Time",
    none="none",
    no_orders="none",
    in_the_open="not encrypted",
)
_FRENCH = _Language(
    code="fr",
    covered="Cet appareil est couvert",
    named="Cet appareil est couvert par Interdict et reconnu par son nom.",
    by_group="Cet appareil est couvert par Interdict au titre de son groupe ; il n’est pas reconnu par son nom.",
    idle="Aucune interdiction n’est en vigueur pour lui en ce moment.",
    unknown="Cet appareil n’est pas reconnu",
    nobody="Aucune interdiction ne le vise. S’il devrait être couvert, montrez cette page à son gestionnaire.",
    device="Appareil",
    group="Groupe",
    transport="Demande reçue par",
    orders="Interdictions en vigueur",
    generation="Politique",
    client="Adresse",
    node="Serveur",
    at="Heure",
    none="aucun",
    no_orders="aucune",
    in_the_open="non chiffré",
)
