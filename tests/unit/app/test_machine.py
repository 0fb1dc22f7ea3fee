"""What the machine decides: resolvers, folders, names, processors, accounts."""

import os
import pwd
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from resolver import config as configuration
from resolver.app import machine
from resolver.app.machine import SettingsError, StatePaths, UpstreamAddress
from resolver.config import Config, ConfigError


def config(text: str = "") -> Config:
    return configuration.read(text, "interdict.yaml")


def resolv_conf(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    monkeypatch.setattr(machine, "RESOLV_CONF", path)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("nameserver 192.0.2.53\nnameserver 2001:db8::53\n", ["192.0.2.53", "2001:db8::53"]),
        ("# nameserver 192.0.2.1\nsearch example.org\n  nameserver\t192.0.2.53  # ours\n", ["192.0.2.53"]),
        ("nameserver 192.0.2.53\nnameserver 192.0.2.53\n", ["192.0.2.53"]),
        ("nameserver\nnameserver nonsense\noptions edns0\n", []),
        ("nameserver fe80::1%eth0\n", ["fe80::1%eth0"]),
        ("", []),
    ],
)
def test_the_systems_resolvers_are_read(
    text: str, hosts: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """resolv.conf(5): every nameserver once, in order; what makes no sense is passed over."""
    resolv_conf(tmp_path, text, monkeypatch)

    assert [u.host for u in machine.upstream_addresses(config())] == hosts


def test_a_machine_without_resolv_conf_has_no_upstreams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policy is answered all the same; that is no error."""
    monkeypatch.setattr(machine, "RESOLV_CONF", tmp_path / "nothing")

    assert machine.upstream_addresses(config()) == ()


@pytest.mark.parametrize(
    ("listen", "upstream", "is_kept"),
    [
        ("127.0.0.1:5353", "{address: 127.0.0.1, port: 5353}", False),
        ("127.0.0.1:5353", "{address: 127.0.0.1, port: 53}", True),
        ("127.0.0.1:5353", "{address: 127.0.0.53, port: 5353}", True),
        ("0.0.0.0:5353", "{address: 127.0.0.1, port: 5353}", False),
        ("0.0.0.0:5353", "{address: 127.0.0.53, port: 5353}", False),
        ("0.0.0.0:5353", "{address: 192.0.2.53, port: 5353}", True),
        ("0.0.0.0:5353", "{address: '::1', port: 5353}", True),
        ("[::]:5353", "{address: '::1', port: 5353}", False),
        ("[::]:5353", "{address: 127.0.0.1, port: 5353}", True),
        ("[::]:5353", "{address: '2001:db8::53', port: 5353}", True),
    ],
)
def test_a_listener_of_ones_own_is_no_upstream(listen: str, upstream: str, is_kept: bool) -> None:
    """However it is reached: a question to it would ask itself until its time is over."""
    found = machine.upstream_addresses(config(f'listen: ["{listen}"]\nupstreams: [{upstream}]\n'))

    assert bool(found) is is_kept


def test_an_encrypted_listener_of_ones_own_is_no_upstream_either() -> None:
    """Whichever way it would be asked."""
    encrypted = 'encrypted: {certificate: c, key: k, dot: ["127.0.0.1:853"], doh: ["127.0.0.1:443"]}\n'
    for upstream in ("transport: tls, name: a.example", "transport: https, name: a.example"):
        written = f"{encrypted}upstreams: [{{address: 127.0.0.1, {upstream}}}]\n"
        assert machine.upstream_addresses(config(written)) == (), upstream


def test_an_interfaces_own_address_is_ones_own() -> None:
    """Not only loopback: whatever address this machine has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has loopback only")
        host = sock.getsockname()[0]

    listening = f'listen: ["0.0.0.0:5353"]\nupstreams: [{{address: {host}, port: 5353}}]\n'
    assert machine.upstream_addresses(config(listening)) == ()


@pytest.mark.parametrize(
    ("upstream", "trusted"),
    [
        ("{address: 127.0.0.1}", True),
        ("{address: '::1'}", True),
        ("{address: 192.0.2.53}", False),
        ("{address: 192.0.2.53, trust_ad: true}", True),
        ("{address: 127.0.0.1, trust_ad: false}", False),
    ],
)
def test_ad_is_trusted_on_this_machine_unless_said_otherwise(upstream: str, trusted: bool) -> None:
    """Nobody else can write to loopback."""
    (found,) = machine.upstream_addresses(config(f"upstreams: [{upstream}]"))

    assert found == UpstreamAddress(found.host, 53, trusted)


@pytest.mark.parametrize(
    ("chosen", "environment", "expected"),
    [("a.yaml", "b.yaml", "a.yaml"), (None, "b.yaml", "b.yaml"), (None, None, "system.yaml"), ("", "", "system.yaml")],
)
def test_the_configuration_is_found(
    chosen: str | None, environment: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option before the environment before the system's file."""
    monkeypatch.setattr(machine, "SYSTEM_CONFIG", tmp_path / "system.yaml")
    (tmp_path / "system.yaml").write_text("")
    monkeypatch.delenv("INTERDICT_CONFIG", raising=False)
    if environment is not None:
        monkeypatch.setenv("INTERDICT_CONFIG", environment)

    found = machine.find_config(chosen)

    assert found is not None
    assert found.name == expected


def test_without_any_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty configuration is a whole one."""
    monkeypatch.setattr(machine, "SYSTEM_CONFIG", tmp_path / "nothing")
    monkeypatch.delenv("INTERDICT_CONFIG", raising=False)

    assert machine.find_config(None) is None
    assert machine.read_config(None) == config()


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "a folder"])
def test_a_configuration_that_can_not_be_read_is_told(tmp_path: Path, make: object) -> None:
    """With its path and what to look at."""
    path = tmp_path / "interdict.yaml"
    make(path)  # type: ignore[operator]

    with pytest.raises(ConfigError, match=r"interdict\.yaml:1:1: cannot be read \(.+\); check the path"):
        machine.read_config(path)


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("state_dir: /srv/dns", {}, "/srv/dns"),
        ("", {"STATE_DIRECTORY": "/var/lib/interdict"}, "/var/lib/interdict"),
        ("", {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ("", {"XDG_STATE_HOME": "/srv/state"}, "/srv/state/interdict"),
        ("", {"XDG_STATE_HOME": "relative", "HOME": "/srv/me"}, "/srv/me/.local/state/interdict"),
        ("", {"HOME": "/srv/me"}, "/srv/me/.local/state/interdict"),
        ("state_dir: ~/state", {"HOME": "/srv/me"}, "/srv/me/state"),
    ],
)
def test_the_state_folder_is_found(
    text: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configured, the service manager's, or by the XDG base directory specification; never relative."""
    for key in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)

    assert machine.state_paths(config(text)).root == Path(expected)


def test_the_folders_are_made_and_closed_to_others(tmp_path: Path) -> None:
    """Evidence names people's devices. Made twice is made once."""
    paths = StatePaths(tmp_path / "deep" / "state")

    paths.make()
    paths.make()

    for folder in (paths.root, paths.generations, paths.spool, paths.hits, paths.run):
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o007 == 0


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    """With the option that mends it."""
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match=r"can not make the folder .*; set `state_dir`"):
        StatePaths(tmp_path / "file" / "state").make()


def test_a_state_folder_has_one_server(tmp_path: Path) -> None:
    """The second one is told so; when the first is gone, the next one may."""
    paths = StatePaths(tmp_path)
    paths.make()
    lock = paths.lock()

    with pytest.raises(SettingsError, match="another server runs with the state folder"):
        paths.lock()
    os.close(lock)
    os.close(paths.lock())


@pytest.mark.parametrize(
    ("text", "node", "nsid"),
    [
        ("", socket.gethostname(), socket.gethostname()),
        ("node: ns1", "ns1", "ns1"),
        ("node: ns1\nnsid: anycast", "ns1", "anycast"),
    ],
)
def test_the_node_has_a_name(text: str, node: str, nsid: str) -> None:
    """The host's, unless configured; NSID says the same, unless configured."""
    assert machine.node_name(config(text)) == node
    assert machine.nsid(config(text)) == nsid.encode()


def test_there_is_a_worker_a_processor_unless_configured() -> None:
    """Of those that this process may use."""
    assert machine.worker_count(config("workers: 7")) == 7
    assert machine.worker_count(config()) == min(len(os.sched_getaffinity(0)), machine.MOST_WORKERS)


def test_an_account_is_found_or_told() -> None:
    """By name."""
    me = pwd.getpwuid(os.getuid())

    assert machine.account(me.pw_name) == (me.pw_uid, me.pw_gid)
    with pytest.raises(SettingsError, match="useradd --system no-such-account"):
        machine.account("no-such-account")
