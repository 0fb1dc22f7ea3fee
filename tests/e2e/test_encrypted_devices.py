"""What `interdict profile` makes, given as it is to the programs that it is for: Chromium, Firefox, systemd-resolved.

Each reads it from a folder of the administrator's, which is another one for this process alone: a file system mounted
in a mount namespace of its own.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.policy.client import Transport
from tests.support.encrypted import (
    NAME,
    PAGE,
    Covered,
    Site,
    evidence_of,
    points_home,
    program,
    rcode_of,
    run,
    site,
    whoami,
)
from tests.support.house import ask
from tests.support.peers import require_peer
from tests.support.server import ROOT, SlowUpstream, ask_udp, free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="a file system mounted for one process takes root"),
]
Peer = Callable[[str], str]

SERVICE = """\
organisation: Example Agency
identifier: org.example.dns
doh: {url}/{{token}}
dot: "{{token}}.{name}"
addresses: [127.0.0.1]
authorities: [{ca}]
"""
RESOLVED = os.environ.get("INTERDICT_SYSTEMD_RESOLVED", "/lib/systemd/systemd-resolved")


@pytest.fixture(scope="module")
def covered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Covered]:
    """A server that speaks everything, and knows a laptop; to it every allowed name is this machine."""
    with SlowUpstream(points_home) as upstream:
        # Chromium ends a handshake of DoH in which it is asked for a certificate.
        no_questions = {"client_authorities": None}
        made = Covered(tmp_path_factory.mktemp("covered"), upstream.address, encrypted=no_questions)
        made.server.ban("order-1", "banned-app.ca")
        made.enrol("laptop-1")
        try:
            made.server.start()
            yield made
        finally:
            made.server.end()


@pytest.fixture(scope="module")
def page() -> Iterator[Site]:
    """A page on this machine."""
    with site() as running:
        yield running


@pytest.fixture(scope="module")
def home(covered: Covered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the authority in its store of certificates."""
    home = tmp_path_factory.mktemp("home")
    store = home / ".pki/nssdb"
    store.mkdir(parents=True)
    certutil = require_peer("certutil")
    run(certutil, "-N", "-d", f"sql:{store}", "--empty-password")
    run(certutil, "-A", "-d", f"sql:{store}", "-t", "C,,", "-n", "authority", "-i", covered.ca_file)
    return home


def profiled(covered: Covered, platform: str, folder: Path) -> Path:
    """The folder of what is made for the laptop."""
    (folder / "service.yaml").write_text(SERVICE.format(url=covered.url(), name=NAME, ca=covered.ca_file))
    command = [sys.executable, "-m", "resolver", "profile", platform, "--service", str(folder / "service.yaml")]
    token = covered.tokens["laptop-1"]
    run(*command, "--device", "laptop-1", "--token", token, "--out", str(folder), cwd=ROOT)
    return folder / "laptop-1" / platform


def alone_with(etc: str, below: str, *files: Path) -> list[str]:
    """The beginning of a command that sees an administrator's folder with these files in it and nothing else."""
    copies = " ".join(str(file) for file in files)
    words = f'mount -t tmpfs none {etc} && mkdir -p {etc}/{below} && cp {copies} {etc}/{below}/ && exec "$@"'
    return [require_peer("unshare"), "--mount", "sh", "-c", words, "sh"]


def test_chromium_asks_by_the_policy_made_for_it(
    covered: Covered, peer: Peer, page: Site, home: Path, tmp_path: Path
) -> None:
    """In secure mode, by the device's own address: it loads what is allowed, and finds nothing where a ban is."""
    policy = profiled(covered, "chrome", tmp_path) / "interdict-chrome.json"

    def load(name: str) -> str:
        return run(
            *alone_with("/etc/chromium", "policies/managed", policy), peer("chromium"), "--headless", "--no-sandbox",
            "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}/data", "--dump-dom",
            f"http://{name}:{page.port}/", env={**os.environ, "HOME": str(home)},
        )  # fmt: skip

    assert PAGE in load("chromium.allowed.ca")
    assert "ERR_NAME_NOT_RESOLVED" in load("chromium.banned-app.ca")
    assert set(evidence_of(covered, "chromium.banned-app.ca")) == {("127.0.0.1", "laptop-1", "doh")}


USER_JS = """\
user_pref("network.trr.allow-rfc1918", true);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
"""
"""Firefox takes no address of a private network from DoH by itself, and the page of the test lies at one."""


def test_firefox_asks_by_the_policy_made_for_it(
    covered: Covered, peer: Peer, page: Site, home: Path, tmp_path: Path
) -> None:
    """Locked and without fallback, by the device's own address: a page comes, and a picture in it does not."""
    policy = profiled(covered, "firefox", tmp_path) / "policies.json"
    profile = tmp_path / "profile"
    shutil.copytree(home / ".pki/nssdb", profile)
    (profile / "user.js").write_text(USER_JS)
    etc = Path("/etc/firefox")
    is_ours = not etc.exists()
    etc.mkdir(exist_ok=True)
    try:
        run(
            *alone_with(str(etc), "policies", policy), peer("firefox-esr"), "--headless", "--no-remote",
            "--profile", str(profile), "--screenshot", f"{tmp_path}/shot.png",
            f"http://firefox.allowed.ca:{page.port}/with/firefox.banned-app.ca",
            env={**os.environ, "HOME": str(home)},
        )  # fmt: skip
    finally:
        if is_ours:
            etc.rmdir()

    assert "firefox.allowed.ca" in page.visits
    assert "firefox.banned-app.ca" not in page.visits
    assert set(evidence_of(covered, "firefox.banned-app.ca")) == {("127.0.0.1", "laptop-1", "doh")}


RESOLVED_OWN = """\
[Resolve]
DNSStubListener=no
DNSStubListenerExtra=127.0.0.1:{port}
"""
ROOM = """\
mount -t tmpfs none /run && chmod 755 /run && mkdir /run/systemd && cp {ca} /run/ca.pem && cp /etc/passwd /run/passwd &&
(grep -q ^systemd-resolve: /run/passwd || echo systemd-resolve:x:64123:65534::/run:/bin/false >>/run/passwd) &&
mount --bind /run/passwd /etc/passwd && exec "$@"
"""
"""A shell's words: a run-time folder, the account that it changes to, and the authority where that may read it."""


@pytest.mark.skipif(
    not Path(RESOLVED).exists(),
    reason="installed, systemd-resolved takes resolv.conf over: unpack its package (dpkg -x), and name the program by "
    "INTERDICT_SYSTEMD_RESOLVED",
)
def test_systemd_resolved_asks_by_the_settings_made_for_it(covered: Covered, tmp_path: Path) -> None:
    """Over TLS alone, by the name that has the device's token in it; what asks on this machine is held to the order."""
    made = (profiled(covered, "linux", tmp_path) / "90-interdict-resolved.conf").read_text()
    # Every system has its DoT at port 853; a test takes what is free.
    (tmp_path / "90.conf").write_text(made.replace("127.0.0.1#", f"127.0.0.1:{covered.ports[Transport.DOT]}#"))
    port = free_port()
    (tmp_path / "own.conf").write_text(RESOLVED_OWN.format(port=port))
    command = [
        *alone_with("/etc/systemd", "resolved.conf.d", tmp_path / "90.conf", tmp_path / "own.conf"),
        *("sh", "-c", ROOM.format(ca=covered.ca_file), "sh", RESOLVED),
    ]
    environment = {**os.environ, "SYSTEMD_LOG_TARGET": "console", "SSL_CERT_FILE": "/run/ca.pem"}

    with program(tmp_path, *command, port=port, env=environment):
        assert rcode_of(ask_udp(port, ask("www.allowed.ca"))) == "NOERROR"
        assert rcode_of(ask_udp(port, ask("resolved.banned-app.ca"))) == "NXDOMAIN"
        said = whoami(lambda query: ask_udp(port, query))
    assert (said["device"], said["transport"]) == ("laptop-1", "dot")
    assert set(evidence_of(covered, "resolved.banned-app.ca")) == {("127.0.0.1", "laptop-1", "dot")}
