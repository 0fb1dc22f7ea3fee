"""How a certificate gets to the service, and which lines of the shipped files are for encrypted listeners."""

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.app.listening import listeners
from resolver.config import Config, read
from resolver.policy.client import Transport
from tests.support.encrypted import ENCRYPTED, Covered, points_home
from tests.support.server import SlowUpstream, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DEPLOY = Path(__file__).parents[2] / "deploy"
HOOK = DEPLOY / "certbot-hook"
QUIC = (Transport.DOQ, Transport.DOH3)


def without_marks(text: str) -> str:
    """A file of ours with the settings that are commented out in it: those behind a `#` that stands close to them."""
    return re.sub(r"^# ?(?=(?: *[a-z_0-9]+: |encrypted:|identity:|Listen))", "", text, flags=re.MULTILINE)


def example() -> Config:
    """The example configuration with all that is commented out in it."""
    return read(without_marks((DEPLOY / "interdict.example.yaml").read_text()), "interdict.example.yaml")


def test_what_the_example_comments_out_is_sound() -> None:
    """Each line of the encrypted service, where devices and the guide expect it."""
    config = example()

    assert {one.transport for one in listeners(config)} >= set(ENCRYPTED)
    assert [endpoint.port for endpoint in (*config.encrypted.dot, *config.encrypted.doq)] == [853] * 4
    assert [endpoint.port for endpoint in (*config.encrypted.doh, *config.encrypted.doh3)] == [443] * 4
    assert config.proxies
    assert config.encrypted.client_authorities


def test_the_socket_unit_has_a_line_for_each_that_workers_may_share() -> None:
    """All but those of QUIC, whose connections belong to one worker; commented out as those of the example are."""
    unit = without_marks((DEPLOY / "interdict.socket").read_text())
    kinds = {"Stream": socket.SOCK_STREAM, "Datagram": socket.SOCK_DGRAM}
    found = {(kinds[kind], place) for kind, place in re.findall(r"^Listen(\w+)=(.*)$", unit, re.MULTILINE)}

    assert found == {(one.kind, str(one.endpoint)) for one in listeners(example()) if one.transport not in QUIC}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Covered]:
    """A server that speaks everything, and was not started yet."""
    with SlowUpstream(points_home) as upstream:
        covered = Covered(tmp_path, upstream.address)
        try:
            yield covered
        finally:
            covered.server.end()


def test_certbots_hook_has_a_new_certificate_shown(made: Covered, tmp_path: Path) -> None:
    """What certbot leaves is put where the service may read it, and shown without a restart."""
    live, to = tmp_path / "live", tmp_path / "tls"
    live.mkdir()
    hook = tmp_path / "hook"
    text = HOOK.read_text().replace("/etc/interdict/tls", str(to)).replace(" -o root -g interdict", "")
    assert str(to) in text
    hook.write_text(text)

    def renewed() -> None:
        """As certbot does it: links to the files of this time."""
        made.show()
        for name, file in (("privkey.pem", made.key), ("fullchain.pem", made.certificate)):
            (live / name).unlink(missing_ok=True)
            (live / name).symlink_to(file)
        subprocess.run(["sh", hook], env={**os.environ, "RENEWED_LINEAGE": str(live)}, check=True)

    renewed()
    made.server.config["encrypted"] |= {"certificate": str(to / "fullchain.pem"), "key": str(to / "privkey.pem")}
    made.server.write()
    made.server.start()
    with made.dot() as line:
        first = line.serial()
    renewed()

    def shown() -> int:
        with made.dot() as line:
            return line.serial()

    assert wait_until("the new certificate is shown", lambda: shown() != first)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in to.iterdir()} == {
        "privkey.pem": "0o640",
        "fullchain.pem": "0o640",
    }
    assert oct(to.stat().st_mode & 0o777) == "0o750"


def blocks(language: str) -> list[str]:
    """What the guide has on the certificate in a language."""
    section = (DEPLOY / "README.md").read_text().partition("\n### The certificate\n")[2].partition("\n### ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def test_the_guides_configurations_name_the_files_that_its_commands_make() -> None:
    """Those of the hook, and those that systemd hands over."""
    hooked, handed = (read(block, "guide").encrypted for block in blocks("yaml"))
    (drop_in,) = blocks("ini")
    credentials = dict(re.findall(r"^LoadCredential=([\w.]+):(/.+)$", drop_in, re.MULTILINE))
    (to,) = re.findall(r"^to=(.+)$", HOOK.read_text(), re.MULTILINE)

    assert {hooked.certificate, hooked.key} == {f"{to}/{name}" for name in ("fullchain.pem", "privkey.pem")}
    assert {handed.certificate, handed.key} == {f"/run/credentials/interdict.service/{name}" for name in credentials}
    assert all(path.endswith(f"/{name}") for name, path in credentials.items())


def test_the_guides_drop_in_for_credentials_is_valid(tmp_path: Path, peer: Callable[[str], str]) -> None:
    """systemd takes it, and would not take a setting that it does not know."""
    (drop_in,) = blocks("ini")
    unit = tmp_path / "interdict.service"
    unit.write_text(
        (DEPLOY / "interdict.service").read_text().replace("/opt/interdict/.venv/bin/interdict", "/usr/bin/true")
    )
    (tmp_path / "interdict.service.d").mkdir()

    def objections(text: str) -> list[str]:
        (tmp_path / "interdict.service.d/override.conf").write_text(text)
        looked = subprocess.run(
            [peer("systemd-analyze"), "verify", "--man=no", unit], capture_output=True, text=True, check=False
        )
        return [line for line in looked.stderr.splitlines() if "interdict" in line]

    assert objections(drop_in) == []
    assert objections(drop_in.replace("LoadCredential", "LoadCredentials")) != []
