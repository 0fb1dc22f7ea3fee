"""The verbs that write records, `allow`, `block` and `exempt`, and those that list them, `rules` and `exemptions`.

A record is one YAML file in a folder of the operator's own. It is written aside, read back with all other documents by
the code that reads them for a reload, and put in place only where that finds nothing wrong; no file is ever written
over. What the verbs need is imported when they are called, as with all verbs.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from resolver.cli.options import (
    DONE,
    NO,
    Failure,
    each_parsed,
    exit_codes,
    parse_moment,
    parsed,
    print_json,
    read_config,
    speaks_json,
    takes_config,
)
from resolver.cli.server import ask_reload, tell_reload

if TYPE_CHECKING:
    from resolver.config import Config
    from resolver.policy.additions import Documents, Exemption, LocalRule
    from resolver.policy.documents import Entry

_WRITERS = exit_codes(
    "there is no folder to write to, or the server did not reload",
    "wrong usage, or a record or configuration that can not be used",
)
ACTIONS = ("nxdomain", "nodata", "sinkhole", "refused", "drop")
REASONS = ("law-enforcement", "national-security", "security-research", "other")
_RULE_SPAN, _EXEMPTION_SPAN, _LONGEST_SPAN = 30 * 86400.0, 180 * 86400.0, 36500 * 86400.0  # seconds
_LONGEST_ID = 64
_ROOM_FOR_NUMBER = 4  # `-999`

_F = TypeVar("_F", bound=Callable[..., object])
_Record = TypeVar("_Record", bound="Entry")


# ---- records as text ------------------------------------------------------------------------------------------------

Fields = Mapping[str, str | Sequence[str]]

# Words with neither blanks nor capitals, and instants; what other readers of YAML take for a truth value is quoted.
_PLAIN = r"[a-z][a-z0-9]*(?:[.-][a-z0-9-]+)*|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[+-][0-9]{2}:[0-9]{2}"
_QUOTED = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_MOST_ON_A_LINE = 100  # characters


def to_yaml(fields: Fields) -> str:
    """A record as a file holds it; `source.read` gives the same texts back, whatever they are."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, str):
            lines.append(f"{key}: {_scalar(value)}")
            continue
        entries = [_scalar(entry) for entry in value]
        line = f"{key}: [{', '.join(entries)}]"
        lines += [line] if len(line) <= _MOST_ON_A_LINE else [f"{key}:", *(f"  - {entry}" for entry in entries)]
    return "".join(line + "\n" for line in lines)


def _scalar(text: str) -> str:
    if re.fullmatch(_PLAIN, text) and text not in _QUOTED:
        return text
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if c.isprintable():
        return c
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def one_line(text: str) -> str:
    """What a person wrote on the command line, without blanks around it.

    Raises:
        ValueError: It is empty, several lines, or has characters that act on a terminal.
    """
    import unicodedata

    text = text.strip()
    if not text:
        raise ValueError("this is empty; write one line of text")
    if len(text.splitlines()) > 1:
        raise ValueError("this is several lines of text; write one line")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError("this has control characters, or is not UTF-8; write one line of plain text")
    return text


# ---- from text to a folder ------------------------------------------------------------------------------------------


def own_folder(config: "Config", chosen: Path | None) -> Path:
    """The folder that records are written to: the one chosen, else the first of policy.documents that is one's own.

    Raises:
        Failure: There is none, or what was chosen is not read.
    """
    own = [Path(text).expanduser() for text in config.policy.documents if text != "shipped"]
    example = "write policy: {documents: [shipped, /etc/interdict/own]}"
    if chosen is not None:
        if chosen.resolve() not in [folder.resolve() for folder in own]:
            raise Failure(f"{chosen} is not among policy.documents, and nobody would read it; write it there first")
        return chosen
    if not own:
        raise Failure(f"there is no folder of your own to write to; {example}, and make that folder")
    return own[0]


def write_record(config: "Config", sub: str, stem: str, fields: Fields, chosen: Path | None = None) -> Path:
    """Write a record, unless it would be refused.

    Args:
        config: The configuration, with the folders of documents.
        sub: `rules` or `exemptions`.
        stem: What its id is to begin with.
        fields: All but its id.
        chosen: One of the folders; by default the first that is one's own.

    Raises:
        PolicyError: What `interdict check` would say with the record in place; nothing was written.
        Failure: There is no such folder, or it can not be written to.
    """
    import tempfile

    from resolver.app.machine import document_folders

    home = own_folder(config, chosen)
    taken = {file.stem for folder in document_folders(config) for file in (folder / sub).glob("*.yaml")}
    is_new = not (home / sub).exists()
    try:
        (home / sub).mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aside-", dir=home) as aside:
            for id_ in _ids(stem):
                if id_ not in taken:
                    path = home / sub / f"{id_}.yaml"
                    if _put(config, Path(aside), path, to_yaml({"id": id_, **fields})):
                        return path
    except OSError as error:
        where = error.filename or home
        raise Failure(
            f"can not write to {where} ({error.strerror}); make the folder, or use the account that owns it"
        ) from None
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it holds the record, or was never made
                (home / sub).rmdir()
    raise Failure(f"there are records {stem}-2 to -999 already; give the name of another --folder")


def _ids(stem: str) -> Iterator[str]:
    short = stem[: _LONGEST_ID - _ROOM_FOR_NUMBER].strip("-")
    yield short
    yield from (f"{short}-{number}" for number in range(2, 1000))


def _put(config: "Config", aside: Path, path: Path, text: str) -> bool:
    """Check a record aside and put it in place; False where somebody else wrote a file of that name meanwhile."""
    from resolver.policy.source import PolicyError

    file = aside / path.parent.name / path.name
    file.parent.mkdir(exist_ok=True)
    with file.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    try:
        _validate(config, aside, file, path)
        os.link(file, path)  # unlike a rename, it never writes over a file
    except (PolicyError, FileExistsError):
        if not path.exists():
            raise
        file.unlink()
        return False
    return True


def _validate(config: "Config", aside: Path, file: Path, path: Path) -> None:
    """Say what a reload and `interdict check` would, as if the record were in its place."""
    from dataclasses import replace

    from resolver.app.compiler import policy_settings
    from resolver.app.machine import document_folders
    from resolver.feeds.files import problem_at, read_documents
    from resolver.policy.compile import mistakes
    from resolver.policy.findings import Severity
    from resolver.policy.lint import shared_names
    from resolver.policy.source import PolicyError

    folders = (*document_folders(config), aside)
    try:
        documents = read_documents(folders)
        wrong = list(mistakes(documents, policy_settings(config)))
        wrong += [
            (path.parent.name, path.stem, found.where.key, found.message)
            for found in shared_names(documents)
            if found.severity is Severity.ERROR and f"{found.where.kind}s" == path.parent.name
            if found.where.id == path.stem
        ]
        if wrong:
            raise PolicyError(problem_at(folders, sub, id_, (key,), message) for sub, id_, key, message in wrong)
    except PolicyError as error:
        moved = [replace(one, source=str(path)) if one.source == str(file) else one for one in error.problems]
        raise PolicyError(moved) from None


# ---- what the verbs share -------------------------------------------------------------------------------------------


def _listed_name(text: str) -> str:
    from resolver.policy.documents import parse_name

    return parse_name(text.lower().removesuffix("."))


def _span(text: str) -> float:
    from resolver.policy.values import parse_duration

    seconds = parse_duration(text)
    if seconds > _LONGEST_SPAN:
        raise ValueError("that is too long; write at most 36500d")
    return seconds


def _term(until: datetime | None, lasting: float | None, default: float) -> tuple[datetime, datetime]:
    """From when until when, in the time zone of who asks."""
    if until is not None and lasting is not None:
        raise click.UsageError("--until and --for say the same; keep one of the two")
    now = datetime.now().astimezone().replace(microsecond=0)
    # Another day may have another offset, by summer time.
    return now, until or datetime.fromtimestamp(now.timestamp() + (lasting or default)).astimezone()


def _slug(*parts: str) -> str:
    return "-".join(re.findall("[a-z0-9]+", " ".join(parts).lower()))


def _stem(verb: str, *parts: str, day: datetime) -> str:
    date = day.strftime("%Y-%m-%d")
    room = _LONGEST_ID - _ROOM_FOR_NUMBER - len(f"{verb}--{date}")
    return f"{verb}-{_slug(*parts)[:room].strip('-')}-{date}"


def _announce(config: "Config", path: Path, what: str, until: datetime, wants_reload: bool, as_json: bool) -> None:
    """Tell what was written, have it put into force where that is wanted, and end the verb."""
    if not as_json:
        click.echo(f"wrote {path}: {what}, until {until.isoformat()}")
    reloaded = _reload(config) if wants_reload else None
    if as_json:
        print_json({"path": path, "id": path.stem, "until": until, "reload": reloaded})
    elif reloaded is None:
        click.echo("it is not in force yet: interdict reload")
    else:
        tell_reload(reloaded)
    sys.exit(DONE if reloaded is None or reloaded.get("ok") is True else NO)


def _reload(config: "Config") -> dict[str, object]:
    """What a running server says to it. That none runs comes in the same form: the record is there all the same."""
    from resolver.app.control import ControlError
    from resolver.app.machine import state_paths

    try:
        return ask_reload(state_paths(config))
    except ControlError as error:
        return {"ok": False, "problems": [str(error)]}


def _writes(verb: _F) -> _F:
    for option in (
        click.option("--reload", "wants_reload", is_flag=True, help="Put it into force at once."),
        click.option(
            "--folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
            help="Which folder of policy.documents to write to; by default the first of your own.",
        ),
        click.option(
            "--until", metavar="TIME", callback=parsed(parse_moment),
            help="Until when, such as 2026-12-31T00:00-05:00; a day alone is its midnight in UTC.",
        ),
    ):  # fmt: skip
        verb = option(verb)
    return takes_config(speaks_json(verb))


def _is_rule(verb: _F) -> _F:
    for option in (
        click.option("--group", "groups", metavar="NAME", multiple=True, help="For whom; by default for everybody."),
        click.option("--exact", is_flag=True, help="These names alone, and not all below them."),
        click.option(
            "--for",
            "lasting",
            metavar="SPAN",
            callback=parsed(_span),
            help="How long, such as 12h or 30d; by default 30d.",
        ),
        click.option("--reason", metavar="TEXT", required=True, callback=parsed(one_line), help="Why."),
        click.option("--owner", metavar="TEXT", required=True, callback=parsed(one_line), help="Who answers for it."),
        click.argument("names", metavar="NAME...", nargs=-1, required=True, callback=each_parsed(_listed_name)),
    ):
        verb = option(verb)
    return _writes(verb)


# ---- the verbs ------------------------------------------------------------------------------------------------------


@click.command(epilog=_WRITERS)
@_is_rule
def allow(
    names: tuple[str, ...], owner: str, reason: str, lasting: float | None, until: datetime | None, exact: bool,
    groups: tuple[str, ...], folder: Path | None, wants_reload: bool, as_json: bool,
) -> None:  # fmt: skip
    """Let NAME pass for some time, whoever forbids it.

    It goes before every order, list and zone. Writes one record into rules/ of your own folder, checked as `interdict
    check` does; where it would be refused, nothing is written.

    \b
    Examples:
      interdict allow cdn.example.org --owner "service desk" --reason "tax portal" --reload
      interdict allow a.example.org --exact --for 12h --group phones --owner jdoe --reason "ticket 4711"
    """
    _write_rule("allow", names, owner, reason, lasting, until, exact, groups, folder, wants_reload, as_json, None)


@click.command(epilog=_WRITERS)
@_is_rule
@click.option("--action", type=click.Choice(ACTIONS), default="nxdomain", show_default=True, help="What clients get.")
def block(
    names: tuple[str, ...], owner: str, reason: str, lasting: float | None, until: datetime | None, exact: bool,
    groups: tuple[str, ...], folder: Path | None, wants_reload: bool, action: str, as_json: bool,
) -> None:  # fmt: skip
    """Withhold NAME for some time, on your own word.

    Writes one record into rules/ of your own folder, checked as `interdict check` does; where it would be refused,
    nothing is written. An `allow` goes before it.

    \b
    Examples:
      interdict block phish.example.org --owner soc --reason "case 12" --for 7d --reload
      interdict block bad.example.org --action refused --owner soc --reason "case 13"
    """
    _write_rule("block", names, owner, reason, lasting, until, exact, groups, folder, wants_reload, as_json, action)


def _write_rule(
    verdict: str, names: tuple[str, ...], owner: str, reason: str, lasting: float | None, until: datetime | None,
    exact: bool, groups: tuple[str, ...], folder: Path | None, wants_reload: bool, as_json: bool, action: str | None,
) -> None:  # fmt: skip
    config, _ = read_config()
    since, end = _term(until, lasting, _RULE_SPAN)
    fields: dict[str, str | Sequence[str]] = {
        "verdict": verdict,
        "names": names,
        "match": "exact" if exact else "suffix",
        **({"groups": groups} if groups else {}),
        **({"action": action} if action else {}),
        "owner": owner,
        "reason": reason,
        "since": since.isoformat(),
        "until": end.isoformat(),
    }
    path = write_record(config, "rules", _stem(verdict, names[0], day=since), fields, folder)
    reach = "" if exact else " and all below"
    whom = f"for {', '.join(groups)}" if groups else "for everybody"
    _announce(config, path, f"{verdict} {', '.join(names)}{reach}, {whom}", end, wants_reload, as_json)


@click.command(epilog=_WRITERS)
@_writes
@click.option(
    "--device", "devices", metavar="DEVICE", multiple=True,
    help="An address, a small network, or the name of a registered device that is exempt.",
)  # fmt: skip
@click.option("--group", "groups", metavar="NAME", multiple=True, help="A group that is exempt.")
@click.option("--app", "apps", metavar="ID", multiple=True, help="An app that they may use.")
@click.option("--order", "orders", metavar="ID", multiple=True, help="An order that does not bind them.")
@click.option("--reason", type=click.Choice(REASONS), required=True, help="Why; other needs --explanation.")
@click.option("--explanation", metavar="TEXT", callback=parsed(one_line), help="Why, in words.")
@click.option("--grantor", metavar="TEXT", required=True, callback=parsed(one_line), help="Who granted it.")
@click.option(
    "--for", "lasting", metavar="SPAN", callback=parsed(_span), help="How long, such as 30d; by default 180d."
)
def exempt(
    devices: tuple[str, ...], groups: tuple[str, ...], apps: tuple[str, ...], orders: tuple[str, ...], reason: str,
    explanation: str | None, grantor: str, lasting: float | None, until: datetime | None, folder: Path | None,
    wants_reload: bool, as_json: bool,
) -> None:  # fmt: skip
    """Spare some devices an app or an order for some time.

    What they look up is still recorded. Writes one record into exemptions/ of your own folder, checked as `interdict
    check` does; where it would be refused, nothing is written.

    \b
    Examples:
      interdict exempt --device 192.0.2.17 --app tiktok --reason law-enforcement --grantor "CIO" --reload
      interdict exempt --group lab --order ca-tbs-2023-02-28 --reason other --explanation "study" --grantor CIO
    """
    if not devices and not groups:
        raise click.UsageError("nobody is exempt so; name whom with --device or --group")
    if not apps and not orders:
        raise click.UsageError("a blanket exemption is not possible; name from what with --app or --order")
    config, _ = read_config()
    granted, expires = _term(until, lasting, _EXEMPTION_SPAN)
    named = {"groups": groups, "devices": devices, "orders": orders, "apps": apps}
    fields: dict[str, str | Sequence[str]] = {
        **{key: values for key, values in named.items() if values},
        "reason": reason,
        **({"explanation": explanation} if explanation else {}),
        "grantor": grantor,
        "granted": granted.isoformat(),
        "expires": expires.isoformat(),
    }
    stem = _stem("exempt", (apps + orders)[0], (groups + devices)[0], day=granted)
    path = write_record(config, "exemptions", stem, fields, folder)
    what = f"{', '.join(groups + devices)} exempt from {', '.join(orders + apps)}"
    _announce(config, path, what, expires, wants_reload, as_json)


@click.command("rules", epilog=exit_codes())
@takes_config
@speaks_json
def rules_(as_json: bool) -> None:
    """List your own rules, those in force first.

    \b
    Examples:
      interdict rules
      interdict rules --json | jq -r '.[] | select(.state == "in-force") | .id'
    """

    def row(rule: "LocalRule") -> list[str]:
        covered = [*rule.names, *map(_network_text, rule.addresses)]
        return [rule.verdict.value, ", ".join(covered), ", ".join(rule.groups) or "everybody", rule.owner, rule.reason]

    found = _documents().rules.values()
    terms = [(rule, rule.since.timestamp() if rule.since else 0.0, rule.until.timestamp()) for rule in found]
    _show(
        terms,
        ("verdict", "names", "for", "owner", "reason"),
        row,
        as_json,
        "no rules of your own; `interdict allow` and `interdict block` write them",
    )


@click.command("exemptions", epilog=exit_codes())
@takes_config
@speaks_json
def exemptions_(as_json: bool) -> None:
    """List exemptions, those in force first.

    \b
    Examples:
      interdict exemptions
      interdict exemptions --json | jq -r '.[].expires'
    """

    def row(exemption: "Exemption") -> list[str]:
        whom = [*exemption.groups, *map(_network_text, exemption.devices)]
        return [
            ", ".join(whom), ", ".join([*exemption.orders, *exemption.apps]), exemption.reason.value, exemption.grantor
        ]  # fmt: skip

    found = _documents().exemptions.values()
    terms = [(one, one.granted.timestamp(), one.expires.timestamp()) for one in found]
    _show(
        terms,
        ("exempt", "from", "reason", "grantor"),
        row,
        as_json,
        "nobody is exempt; `interdict exempt` writes an exemption",
    )


def _network_text(network: IPv4Network | IPv6Network | str) -> str:
    if isinstance(network, str):
        return network  # a device's name
    return str(network.network_address if network.num_addresses == 1 else network)


def _documents() -> "Documents":
    from resolver.app.machine import document_folders
    from resolver.feeds.files import read_documents

    return read_documents(document_folders(read_config()[0]))


def _show(
    terms: Sequence[tuple[_Record, float, float]], headings: Sequence[str], row: Callable[[_Record], list[str]],
    as_json: bool, none: str,
) -> None:  # fmt: skip
    """Print records as a table or as JSON: what ends first comes first, and what ended comes last."""
    from resolver.policy.findings import term_in_words

    at = datetime.now().timestamp()
    listed = sorted(terms, key=lambda term: (term[2] <= at, term[1] > at, term[2], term[0].id))
    if as_json:
        found = [
            {"state": term_in_words(since, until, at)[0], **record.model_dump(mode="json", warnings=False)}
            for record, since, until in listed
        ]
        print_json(found)
        return
    if not listed:
        click.echo(none)
        return
    from resolver.cli import table

    rows = [(entry.id, term_in_words(since, until, at)[1], *row(entry)) for entry, since, until in listed]
    table.show(table.table(("id", "state", *headings), rows))
