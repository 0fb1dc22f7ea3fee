"""`interdict profile network`: what tells all devices of a network of the encrypted resolver, and so none by name."""

import sys
from pathlib import Path

import click

from resolver.cli.main import profile
from resolver.cli.options import Broken, exit_codes
from resolver.cli.profile import Made, load_service, write
from resolver.enrol.dnr import designations
from resolver.enrol.platforms import NETWORKS
from resolver.enrol.profile import Device, EnrolError
from resolver.wire.svcb import Alpn

_FOLDER = Device("network")  # its files lie where those of a device of this name would


@profile.command("network", epilog=exit_codes(broken="wrong usage, or a service that can not be used"))
@click.argument("server", type=click.Choice(list(NETWORKS)))
@click.option(
    "--service", "service_file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), required=True,
    help="The service (YAML).",
)  # fmt: skip
@click.option(
    "--also", multiple=True, type=click.Choice([Alpn.H3.value, Alpn.DOQ.value]),
    help="What it speaks besides: h3 beside doh, doq beside dot. Can be repeated.",
)  # fmt: skip
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Where files go.")
def network(server: str, service_file: Path, also: tuple[str, ...], out: Path | None) -> None:
    """Make what a DHCP server or router tells all devices of a network (DNR, RFC 9463).

    \b
    Examples:
      interdict profile network kea --service service.yaml --out networks
      interdict profile network dnsmasq --service service.yaml --also doq > /etc/dnsmasq.d/interdict.conf
    """
    service = load_service(service_file)
    try:
        made = NETWORKS[server](service, designations(service, tuple(map(Alpn, also))))
    except EnrolError as error:
        raise Broken(str(error)) from None
    if out is not None:
        for path in write(out, server, Made(_FOLDER, made)):
            click.echo(str(path))
    elif len(made.files) > 1:
        raise click.UsageError(f"{server} has {len(made.files)} files; name a folder for them with --out")
    else:
        sys.stdout.buffer.write(made.files[0].octets)
        sys.stdout.buffer.flush()
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
