"""The verbs about the policy on this machine: `check` and `explain`."""

import sys
import time
from ipaddress import IPv4Address, IPv6Address

import click

from resolver.cli.options import (
    BROKEN,
    DONE,
    NO,
    each_parsed,
    exit_codes,
    parse_address,
    parse_at,
    parse_name,
    parse_type,
    parsed,
    print_json,
    read_config,
    speaks_json,
    takes_config,
)


@click.command(epilog=exit_codes("errors were found, or with --strict warnings"))
@takes_config
@speaks_json
@click.option("--strict", is_flag=True, help="Exit with 1 where there are warnings too.")
def check(as_json: bool, strict: bool) -> None:
    """Check the configuration and all documents.

    Compiles them, tells what is surely not meant, and what would be in force. Needs no running server and changes
    nothing. Problems come all at once, each with file, line, column and what to write; then the exit code is 2.
    Findings are about what is sound: errors harm others or break an order, warnings are most likely mistakes, notes
    may well be meant.

    \b
    Examples:
      interdict check --config interdict.yaml
      interdict check --strict && interdict reload
    """
    from dataclasses import asdict

    from resolver.cli import check as checking
    from resolver.policy.findings import Severity
    from resolver.policy.source import PolicyError

    at = time.time()
    try:
        config, source = read_config()
        compiled = checking.load(config, source, at)
    except PolicyError as error:
        if not as_json:
            raise
        print_json({"ok": False, "problems": [asdict(problem) for problem in error.problems]})
        sys.exit(BROKEN)
    report = checking.look_over(config, source, compiled, at)
    if as_json:
        print_json({"ok": True, "problems": [], **report.to_json()})
    else:
        from resolver.cli import screen

        checking.show_findings(report, Severity.ERROR, Severity.WARNING)
        screen.show_check(report)
    sys.exit(NO if report.texts(Severity.ERROR) or (strict and report.warnings) else DONE)


def _parse_answer(text: str) -> tuple[str, str]:
    from resolver.cli.explain import parse_answer

    return parse_answer(text)


@click.command(epilog=exit_codes("the generation is not kept, or it is damaged"))
@takes_config
@speaks_json
@click.argument("name", callback=parsed(parse_name))
@click.option(
    "--client", metavar="ADDR", default="127.0.0.1", show_default=True, callback=parsed(parse_address), help="Who asks."
)
@click.option("--device", metavar="NAME", help="The registered device that asks, wherever it is.")
@click.option(
    "--type", "qtype", metavar="TYPE", default="A", show_default=True, callback=parsed(parse_type),
    help="The type asked for.",
)  # fmt: skip
@click.option(
    "--at", metavar="TIME", callback=parsed(parse_at),
    help="The moment, such as 2023-10-30T00:00-04:00; a day alone is its midnight in UTC. By default now.",
)  # fmt: skip
@click.option("--current", is_flag=True, help="Judge a moment of the past by the documents as they are today too.")
@click.option(
    "--generation", "serial", metavar="N", type=click.IntRange(1),
    help="Judge by this generation of the history, as hits name it, at the moment it was compiled or --at.",
)  # fmt: skip
@click.option(
    "--answer", "answers", metavar="TYPE=VALUE", multiple=True, callback=each_parsed(_parse_answer),
    help="A record of the upstream's answer, such as A=192.0.2.1, CNAME=a.example, HTTPS=a.example or NS=ns.example: "
    "tells how that is judged.",
)  # fmt: skip
def explain(
    name: bytes, client: IPv4Address | IPv6Address, device: str | None, qtype: int, at: float | None, current: bool,
    serial: int | None, answers: tuple[tuple[str, str], ...], as_json: bool,
) -> None:  # fmt: skip
    """Tell step by step what NAME gets, and why.

    Judges with the resolver's own code, and needs no running server: by the configured documents, or with --at by the
    policy that was in force then, as far as the history reaches. The exit code is 0 whether the name is withheld or
    not; `--json` tells in `outcome`: withheld, awaits-answer, forwarded, local or not-allowed.

    \b
    Examples:
      interdict explain weixin.qq.com
      interdict explain qq.com --client 10.1.2.3 --json | jq -r .outcome
      interdict explain qq.com --device phone-7
      interdict explain wechat.com --client 10.1.2.3 --at 2026-06-03T14:02Z
      interdict explain www.example.org --answer CNAME=wechat.com
    """
    from dataclasses import asdict

    from resolver.cli import explain as asked
    from resolver.cli import screen

    config, source = read_config()
    told = asked.explanation(
        config, source, name, client, qtype, time.time(), at=at, records=answers, current=current, serial=serial,
        device=device,
    )  # fmt: skip
    if as_json:
        print_json(asdict(told))
    else:
        screen.show_explanation(told)
