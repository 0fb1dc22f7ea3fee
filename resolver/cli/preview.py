"""The verb `interdict preview`: what it takes, what it prints where, what it exits with.

As with all verbs, what it needs is imported when it is called.
"""

import time
from pathlib import Path

import click

from resolver.cli.options import (
    Failure,
    exit_codes,
    parse_at,
    parsed,
    print_json,
    read_config,
    speaks_json,
    takes_config,
)

DEFAULT_TOP = 20
FORMATS = ("hits", "pihole", "adguard", "dnstap", "unbound", "bind", "dnsmasq", "pcap", "pcapng")


@click.command(epilog=exit_codes("a log can not be read, or there is no such order, group or app"))
@takes_config
@click.argument("order")
@click.option("--against", "more", metavar="LOG", multiple=True, type=click.Path(path_type=Path), help="A log, or a "
              "folder of logs; any number of them may follow.")  # fmt: skip
@click.argument("logs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--group", "groups", metavar="NAME", multiple=True, help="As if in force for this group; may be "
              "repeated. By default the groups configured for the order, else all.")  # fmt: skip
@click.option("--app", "apps", metavar="APP", multiple=True, help="Only this app of the order; may be repeated.")
@click.option("--include-optional", is_flag=True, help="As if the order included optional names.")
@click.option("--format", "form", type=click.Choice(FORMATS),
              help="What the logs are; by default found out for each from its content.")  # fmt: skip
@click.option("--since", metavar="TIME", callback=parsed(parse_at), help="Leave out queries from before.")
@click.option("--until", metavar="TIME", callback=parsed(parse_at), help="Leave out queries from then on.")
@click.option("--top", metavar="N", type=click.IntRange(1), default=DEFAULT_TOP, show_default=True,
              help="Rows of each table.")  # fmt: skip
@speaks_json
@click.option("--html", "html", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write a page.")
def preview(
    order: str,
    more: tuple[Path, ...],
    logs: tuple[Path, ...],
    groups: tuple[str, ...],
    apps: tuple[str, ...],
    include_optional: bool,
    form: str | None,
    since: float | None,
    until: float | None,
    top: int,
    as_json: bool,
    html: Path | None,
) -> None:
    """Tell what ORDER would do, by replaying queries of the past.

    The order is taken to be in force, whether it is yet or not, and compared with the policy as it is configured now.
    Nothing is changed. Logs are those of this server (hits), Pi-hole, AdGuard Home, Unbound, BIND and dnsmasq, dnstap
    files and captures (pcap, pcapng), compressed with gzip or xz or not.

    \b
    Examples:
      interdict preview ca-tbs-2025-02-06 --against /var/log/unbound/
      interdict preview ca-tbs-2025-02-06 --against pihole-FTL.db --group phones --html preview.html
      interdict preview my-order --against queries.log.*.gz --since 2026-11-01 --json | jq .impact.new
    """
    from resolver.cli import preview_page
    from resolver.cli.preview_replay import Wish, judges, replay
    from resolver.evidence.past import Format, Past

    paths = (*more, *logs)
    if not paths:
        raise click.UsageError("no logs to replay; write --against and a log, or a folder of logs")
    if as_json and html is not None:
        raise click.UsageError("--json and --html exclude each other; write one of them")
    at = time.time()
    judged = judges(*read_config(), Wish(order, groups, apps, include_optional), at)
    found = replay(judged, Past(paths, Format(form) if form else None, since, until), top, at)
    if as_json:
        print_json(preview_page.as_json(found))
    elif html is None:
        preview_page.show(found)
    else:
        try:
            html.write_text(preview_page.page(found), encoding="utf-8")
        except OSError as error:
            raise Failure(f"{html}: {error.strerror}; name a file that this user may write") from None
        click.echo(f"{html}: {found.impact.new:,} new hits of {found.impact.queries:,} queries")
