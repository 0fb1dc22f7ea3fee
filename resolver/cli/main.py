"""The command `interdict`: its verbs, and what becomes of what goes wrong in one.

Answers go to standard output, whatever went wrong to standard error; a mistake of the person at the keyboard is one
clear sentence with its mend and never a traceback.
"""

import sys
from collections import UserDict
from collections.abc import Iterator
from importlib import import_module

import click

from resolver import __version__
from resolver.cli.options import Broken, Failure, exit_codes, takes_config

_SHELLS = ("bash", "zsh", "fish")
_PROFILE_VERBS = ("resolver.cli.profile", "resolver.cli.network")

# Title -> verb -> where it lives. A verb is imported when it is asked for: the others would be half of its start.
_SECTIONS = {
    "To begin": {"init": "init.init", "doctor": "doctor.doctor"},
    "The server": {
        "serve": "server.serve", "status": "server.status", "reload": "server.reload", "fetch": "server.fetch",
    },
    "The policy": {
        "check": "policy.check", "explain": "policy.explain", "preview": "preview.preview",
        "history": "history.history",
    },
    "The devices": {"device": "device.device"},
    "On your own word": {
        "allow": "records.allow", "block": "records.block", "exempt": "records.exempt", "rules": "records.rules_",
        "exemptions": "records.exemptions_",
    },
    "What goes on": {"query": "server.query", "tail": "tail.tail"},
    "Elsewhere": {
        "export": "elsewhere.export_", "verify-export": "elsewhere.verify_export", "profile": "main.profile",
    },
    "The shell": {"completion": "main.completion"},
}  # fmt: skip


class _Late(UserDict[str, click.Command]):
    """Verbs by name, each imported when it is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self._places = {verb: place for verbs in _SECTIONS.values() for verb, place in verbs.items()}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.data:
            module, _, found = self._places[name].partition(".")
            self.data[name] = getattr(import_module(f"resolver.cli.{module}"), found)
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Verbs(click.Group):
    """Turns what the floors below raise about configuration and machine into a `Failure`, for every verb alike.

    The help shows the verbs by what they are for, in the order in which a newcomer needs them.
    """

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs of each section."""
        room = formatter.width - 6 - max(map(len, self.commands))
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(room)) for name in names])

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from resolver.app.control import ControlError
            from resolver.app.history import HistoryError
            from resolver.app.machine import SettingsError
            from resolver.evidence.past_ledger import PastError
            from resolver.evidence.store import StoreError
            from resolver.policy.source import PolicyError

            if isinstance(error, PolicyError | SettingsError):
                raise Broken(str(error)) from None
            if isinstance(error, ControlError | HistoryError | PastError | StoreError):
                raise Failure(str(error)) from None
            raise


class Profiles(click.Group):
    """Takes its verbs from modules that are imported when one of them is wanted, and no sooner: they need a lot."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, by name."""
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A verb."""
        self._load()
        return super().get_command(ctx, cmd_name)

    @staticmethod
    def _load() -> None:
        for module in _PROFILE_VERBS:
            import_module(module)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from resolver.hot._scan_cy import is_compiled

        hot = "compiled" if is_compiled() else "plain"
        click.echo(f"interdict {__version__}, {hot} hot path, Python {sys.version.split()[0]}")
        ctx.exit()


@click.group(
    cls=Verbs, commands=_Late(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exit_codes("the answer is no: a check failed, the server refused, nobody replied"),
)  # fmt: skip
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version, and whether the hot path runs compiled or plain.",
)  # fmt: skip
@takes_config
def interdict() -> None:
    """A DNS resolver that enforces government app bans.

    \b
    Examples:
      interdict serve --config /etc/interdict/interdict.yaml
      interdict check
      interdict explain weixin.qq.com --client 10.1.2.3
      interdict query wechat.com
    """


@click.group(
    cls=Profiles,
    epilog=exit_codes(
        "lint found something, or a device of the inventory got no profile",
        "wrong usage, or a service or inventory that can not be used",
    ),
)  # fmt: skip
def profile() -> None:
    """Make and check the profiles that point devices here.

    \b
    Examples:
      interdict profile list
      interdict profile apple --service service.yaml --device phone-7 --token k3v9 --out profiles
      interdict profile wireguard --service service.yaml --inventory devices.csv --out profiles
      interdict profile lint profiles/*/*/*
    """


@click.command(epilog=exit_codes())
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print a script for completion in a shell.

    \b
    Examples:
      eval "$(interdict completion bash)"           in ~/.bashrc
      eval "$(interdict completion zsh)"            in ~/.zshrc
      interdict completion fish > ~/.config/fish/completions/interdict.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(interdict, {}, "interdict", "_INTERDICT_COMPLETE").source())


def main() -> None:
    """Run the command."""
    interdict(prog_name="interdict")
