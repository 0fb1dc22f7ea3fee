"""The verbs that take the policy elsewhere: `export`, for other resolvers, filters and firewalls, and `verify-export`,
which asks whether they act on it."""

import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from resolver import __version__
from resolver.cli.options import (
    DONE,
    NO,
    Failure,
    each_parsed,
    exit_codes,
    parse_address,
    parse_at,
    parse_server,
    parse_type,
    parsed,
    print_json,
    read_config,
    speaks_json,
    takes_config,
)

if TYPE_CHECKING:
    from resolver.cli.export import Chosen
    from resolver.policy.values import Endpoint

_F = TypeVar("_F", bound=Callable[..., object])

FORMATS = ("rpz", "bind", "unbound", "knot", "dnsmasq", "hosts", "adblock", "edl", "json")
_FOR_NAMES = ("orders", "group", "without_ways_round", "strict")
_FOR_NFTABLES = ("group", "lists", "resolvers", "redirect", "https")
_FOR_ADDRESSES = ("addresses", "lists")


def _chooses_policy(verb: _F) -> _F:
    for option in (
        click.option(
            "--at", metavar="TIME", callback=parsed(parse_at), help="The moment, as for explain. By default now."
        ),
        click.option("--without-ways-round", is_flag=True, help="Leave out the names that lead round the resolver."),
        click.option("--group", metavar="NAME", help="Whose policy; by default that of the first group."),
        click.option(
            "--order", "orders", metavar="ID", multiple=True,
            help="This order, whether configured or not; by default the configured ones that are enforced.",
        ),
    ):  # fmt: skip
        verb = option(verb)
    return verb


def _choose(orders: tuple[str, ...], group: str | None, without_ways_round: bool, at: float | None) -> "Chosen":
    from resolver.cli import export

    moment = time.time() if at is None else at
    return export.choose(*read_config(), orders, group, moment, ways_round=not without_ways_round)


@click.command("export", epilog=exit_codes("nothing to export as asked, or with --strict more than the format can say"))
@takes_config
@click.argument("form", metavar="FORMAT", type=click.Choice((*FORMATS, "nftables")))
@_chooses_policy
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Where to write.")
@click.option("--strict", is_flag=True, help="Exit with 1 where the format can not say all.")
@click.option("--addresses", is_flag=True, help="With edl: addresses in place of names.")
@click.option(
    "--list", "lists", metavar="ID", multiple=True, default=("app-resolvers",), show_default=True,
    help="With addresses: of this list of ways round.",
)  # fmt: skip
@click.option(
    "--resolver", "resolvers", metavar="ADDR", multiple=True, callback=each_parsed(parse_address),
    help="With nftables: the group may ask this resolver and no other.",
)  # fmt: skip
@click.option(
    "--redirect", is_flag=True, help="With nftables: send what is asked of others on port 53 to the resolver."
)
@click.option("--https", is_flag=True, help="With nftables: close port 443 of the listed addresses too.")
@click.pass_context
def export_(
    ctx: click.Context, form: str, orders: tuple[str, ...], group: str | None, without_ways_round: bool,
    at: float | None, output: Path | None, strict: bool, addresses: bool, lists: tuple[str, ...],
    resolvers: tuple[IPv4Address | IPv6Address, ...], redirect: bool, https: bool,
) -> None:  # fmt: skip
    """Write the policy for another resolver, filter or firewall.

    FORMAT is rpz, bind, unbound, knot, dnsmasq, hosts, adblock, edl or json for names; nftables, or edl with
    --addresses, for the addresses of resolvers elsewhere. A file is for one group at one moment; it holds orders, own
    rules and ways round, and neither policy zones that others keep nor exemptions of single devices. What the format
    can not say stands in its comments, and on standard error.

    \b
    Examples:
      interdict export rpz --output /etc/bind/interdict.rpz
      interdict export unbound --order ca-tbs-2025-02-06 --strict
      interdict export nftables --group phones --resolver 192.0.2.53 | nft -f -
      interdict export edl --addresses
    """
    from resolver.cli import export
    from resolver.policy.export_formats import Format, Written, write
    from resolver.policy.firewall import write_addresses, write_nftables

    closes = form == "nftables" or (form == "edl" and addresses)
    taken = _FOR_NFTABLES if form == "nftables" else _FOR_ADDRESSES if closes else _FOR_NAMES
    for option in ctx.command.params:
        name = option.name or ""
        is_given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if is_given and name in {*_FOR_NAMES, *_FOR_NFTABLES, *_FOR_ADDRESSES} - {*taken}:
            raise click.UsageError(f"{option.opts[0]} changes nothing in what is asked for; leave it out")
    if redirect and not resolvers:
        raise click.UsageError("--redirect needs to know where to; add --resolver ADDR")
    if closes:
        config, _ = read_config()
        moment = time.time() if at is None else at
        if form == "edl":
            written = Written(write_addresses(export.choose_lists(config, lists), moment, __version__), ())
        else:
            firewall = export.choose_firewall(config, group, lists, resolvers, moment, redirect=redirect, https=https)
            written = Written(write_nftables(firewall, __version__), ())
    else:
        written = write(_choose(orders, group, without_ways_round, at).extract, Format(form), __version__)
    if output is None:
        click.echo(written.text, nl=False)
    else:
        try:
            output.write_text(written.text)
        except OSError as error:
            raise Failure(f"can not write {output} ({error.strerror}); name another --output") from None
    for line in export.remarks(written):
        click.echo(line, err=True)
    sys.exit(NO if strict and written.gaps else DONE)


@click.command(epilog=exit_codes("the resolver differs from policy, or never replied"))
@takes_config
@speaks_json
@click.option("--server", metavar="ADDR[:PORT]", required=True, callback=parsed(parse_server), help="Whom to ask.")
@_chooses_policy
@click.option(
    "--reference", metavar="ADDR[:PORT]", callback=parsed(parse_server),
    help="A resolver that withholds nothing: allowed names must be answered as it answers them.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="What was exported: what it could not say is announced."
)
@click.option(
    "--type", "qtype", metavar="TYPE", default="A", show_default=True, callback=parsed(parse_type),
    help="The type to ask for.",
)  # fmt: skip
@click.option("--sample", metavar="N", type=click.IntRange(1), help="Ask for N of the listed names, not for all.")
@click.option(
    "--time-out", metavar="SECONDS", type=click.FloatRange(0.001, 3600), default=2.0, show_default=True,
    help="How long to wait for each reply.",
)  # fmt: skip
def verify_export(
    server: "Endpoint", orders: tuple[str, ...], group: str | None, without_ways_round: bool, at: float | None,
    reference: "Endpoint | None", form: str | None, qtype: int, sample: int | None, time_out: float, as_json: bool,
) -> None:  # fmt: skip
    """Ask another resolver whether it acts on the policy.

    It should withhold what is forbidden and let through what is allowed: it is asked for each listed name, a name
    below it, its parent, and a name that only looks alike. Exit code 1 where it differs from policy in a way that the
    export did not announce.

    \b
    Examples:
      interdict verify-export --server 192.0.2.53
      interdict verify-export --server 192.0.2.53:5353 --format dnsmasq --reference 192.0.2.1 --sample 50
    """
    from resolver.cli import export
    from resolver.policy.export_formats import Format, write

    chosen = _choose(orders, group, without_ways_round, at)
    gaps = write(chosen.extract, Format(form), __version__).gaps if form is not None else ()
    findings = export.verify(chosen, server, reference, gaps, qtype=qtype, count=sample, wait=time_out)
    if as_json:
        print_json(export.to_json(server, findings))
    else:
        click.echo(export.to_text(server, findings))
    sys.exit(NO if any(map(export.is_unannounced, findings)) else DONE)
