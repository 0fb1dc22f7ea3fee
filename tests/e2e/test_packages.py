"""What deploy/ packs is made, installed, run, upgraded and removed, in Debian systems of the test's own.

No container engine and no service manager is needed: the steps of the container file are carried out by this file, and
the service's command is run as its unit would run it. The systems come from debootstrap; see tests/support/roots.py.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from resolver import __version__
from tests.support.peers import require_peer
from tests.support.roots import PLAIN, QUICK, Root, Running, debootstrap
from tests.support.secure_upstream import Certificates
from tests.support.server import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MakeRoot = Callable[..., Root]
PACKAGED_UNIT = "/lib/systemd/system/interdict.service"


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A minimal Debian."""
    with tempfile.TemporaryDirectory(prefix="debian-", dir=QUICK) as folder:
        yield debootstrap(Path(folder) / "base")


@pytest.fixture(scope="module")
def make_root(base: Path) -> Iterator[MakeRoot]:
    """`make_root()` is a system on the minimal one; all are gone in the end."""
    made: list[Root] = []

    def make() -> Root:
        made.append(Root(base))
        return made[-1]

    yield make
    for root in made:
        root.close()


@dataclass(frozen=True)
class Build:
    """A build of the Debian package, and the folder that it leaves package and log in."""

    folder: Path
    process: "subprocess.Popen[bytes]"


@pytest.fixture(scope="module")
def building(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Build"]:
    """The build of the Debian package, under way; a test that asks for it early has it run beside itself."""
    for program in ("dpkg-buildpackage", "dh", "dh_python3", "gcc"):
        require_peer(program)
    folder = tmp_path_factory.mktemp("package")
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [DEPLOY / "debian/build", folder], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        ) as process,
    ):
        yield Build(folder, process)
        process.terminate()


def banned(running: Running) -> None:
    """The server answers, and withholds what the shipped orders withhold."""
    wait_until("it answers", lambda: "answers on" in running.said() or running.process.poll() is not None)
    assert running.process.poll() is None, running.said()
    reply = json.loads(running.run("interdict", "query", "wechat.com", "--json"))
    assert reply["rcode"] == "NXDOMAIN"
    assert "order ca-tbs-2023-10-30, app wechat" in reply["ede"][0]["text"]


def certificate(folder: Path) -> dict[str, Path]:
    """A certificate and its key, each in a file."""
    pair = Certificates(folder).issue("dns.example.org").read_text()
    found = {}
    for name, text in zip(("key", "certificate"), re.split(r"(?=-----BEGIN CERT)", pair), strict=True):
        found[name] = folder / f"{name}.pem"
        found[name].write_text(text)
    return found


# ---- the container file ---------------------------------------------------------------------------------------------


@dataclass
class Image:
    """What a container file's stage says and made."""

    root: Root
    env: dict[str, str] = field(default_factory=lambda: dict(PLAIN))
    cwd: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)


def steps_of(text: str) -> Iterator[tuple[str, str]]:
    """(instruction, the rest of it) of a container file."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    for line in filter(None, joined.splitlines()):
        instruction, _, rest = line.partition(" ")
        yield instruction, rest


def build(text: str, checkout: Path, make_root: MakeRoot) -> Image:
    """Carry out a container file as an engine does; an instruction that is not known here is a KeyError."""
    stages: dict[str, Image] = {}
    image: Image

    def copy(words: list[str]) -> None:
        options = dict(word.removeprefix("--").split("=") for word in words if word.startswith("--"))
        origin = options.get("from")
        user, group = map(int, options.get("chown", "0:0").split(":"))  # engines give everything to root
        *sources, target = [word for word in words if not word.startswith("--")]
        for name in sources:
            if origin is None:
                source = checkout / name
            else:
                found = stages[origin].root.find(name)
                assert found is not None, f"COPY --from={origin} {name}: not there"
                source = found
            there = f"{image.cwd}/{target}" if not target.startswith("/") else target
            is_into = target.endswith("/") and not source.is_dir()
            image.root.put(source, f"{there}/{source.name}" if is_into else there, (user, group))

    for instruction, rest in steps_of(text):
        match instruction:
            case "FROM":
                name, *alias = rest.split(" AS ")
                assert name == "debian:bookworm-slim"
                image = Image(make_root())
                stages[alias[0] if alias else ""] = image
            case "RUN":
                image.root.run("/bin/sh", "-c", rest, env=image.env, online=True, cwd=image.cwd, user=image.user)
            case "COPY":
                copy(rest.split())
            case "WORKDIR":
                image.cwd = rest
                (image.root.layer / rest.lstrip("/")).mkdir(parents=True)
            case "ENV":
                image.env.update(word.split("=", 1) for word in shlex.split(rest))
            case "USER":
                image.user = rest
            case "VOLUME":
                image.volumes += rest.split()
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case "CMD":
                image.command = json.loads(rest)
            case "HEALTHCHECK":
                image.healthcheck = json.loads(rest.partition(" CMD ")[2])
            case "EXPOSE" | "STOPSIGNAL":
                pass
            case other:
                raise KeyError(other)
    return image


def checkout(folder: Path) -> Path:
    """What git tracks or would, as somebody who clones has it."""
    for name in ("README.md", "pyproject.toml", "blocklists", "deploy", "resolver"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*_cy.c"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder)
    return folder


def test_the_container_runs_as_nobody_on_a_read_only_root(make_root: MakeRoot, building: Build, tmp_path: Path) -> None:
    """Its own steps make it; it answers, is found healthy, writes to its volume alone, and stops when told.

    With a certificate it speaks every transport, on the usual ports, where the engine lets everybody have them.
    """
    image = build((DEPLOY / "container/Containerfile").read_text(), checkout(tmp_path / "checkout"), make_root)
    assert int(image.user.split(":")[0]) > 0
    found = image.root.find(image.volumes[0])
    assert found is not None
    volume = tmp_path / "volume"  # an engine gives a new volume the owner that the image's folder has
    volume.mkdir()
    shutil.chown(volume, found.stat().st_uid, found.stat().st_gid)
    files = {name: f"/etc/interdict/tls/{name}.pem" for name in ("certificate", "key")}
    for name, file in certificate(tmp_path).items():
        image.root.put(file, files[name], (65532, 65532))
    ports = {"dot": 853, "doh": 443, "doq": 853, "doh3": 443}
    mounted = tmp_path / "interdict.yaml"
    encrypted = {**files, **{transport: [f"0.0.0.0:{port}"] for transport, port in ports.items()}}
    shipped = (DEPLOY / "container/interdict.yaml").read_text()
    mounted.write_text(f"{shipped}\nencrypted: {json.dumps(encrypted)}\n")
    image.root.put(mounted, "/etc/interdict/interdict.yaml")

    with image.root.started(
        *image.entrypoint,
        *image.command,
        env=image.env,
        user=image.user,
        read_only=True,
        writable={image.volumes[0]: volume},
        low_ports=True,
    ) as running:
        banned(running)
        assert all(f"{transport} 0.0.0.0:{port}" in running.said() for transport, port in ports.items())
        assert "compiled" in running.said()
        running.run("test", "-r", image.env["OPENSSL_CONF"])
        running.run(*image.healthcheck)
        assert json.loads(running.run("interdict", "status", "--json"))["orders"]
        running.run("touch", "/etc/interdict/x", code=1)
        written = {path.name for path in volume.iterdir()}
        assert running.stop() == 0, running.said()
    image.root.run(*image.healthcheck, env=image.env, user=image.user, code=1)
    assert written >= {"generations", "hits", "run", "spool"}
    assert [path for path in image.root.layer.rglob("*.so") if "Cython" in path.parts] == []
    assert image.root.find("/opt/interdict/bin/pip") is None
    assert image.root.find("/usr/bin/gcc") is None


def test_the_compose_files_unbound_runs_as_nobody(make_root: MakeRoot) -> None:
    """The upstream's image is made by its own steps, takes the shipped configuration, and is found healthy."""
    compose = DEPLOY / "compose"
    image = build((compose / "unbound.Containerfile").read_text(), compose, make_root)
    image.root.put(compose / "unbound.conf", "/etc/unbound/unbound.conf")
    run = image.root.layer / "run/unbound"
    run.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(run, *map(int, image.user.split(":")))
    image.root.run("unbound-checkconf", "/etc/unbound/unbound.conf")

    with image.root.started(
        *image.entrypoint, env=image.env, user=image.user, read_only=True, writable={"/run/unbound": run}
    ) as running:
        wait_until("it runs", lambda: "start of service" in running.said() or running.process.poll() is not None)
        running.run(*image.healthcheck)


# ---- the Debian package ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """What a service's unit says of how it is run."""

    command: list[str]
    user: str
    env: dict[str, str]

    @classmethod
    def of(cls, text: str) -> "Unit":
        settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
        env = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
        return cls(shlex.split(settings["ExecStart"]), f"{settings['User']}:{settings['Group']}", env)


def serve(root: Root, unit_file: str) -> contextlib.AbstractContextManager[Running]:
    """The service of a system, run as its unit says: as its account, and with nothing writable but its state folder.

    A capability lets it have port 53 under systemd; here the port is for everybody, in a network of its own.
    """
    unit = Unit.of(root.run("cat", unit_file))
    state = root.layer / "var/lib/interdict"
    assert root.find(unit.env["OPENSSL_CONF"]) is not None
    return root.started(
        *unit.command, env={**PLAIN, **unit.env}, user=unit.user, read_only=True,
        writable={"/var/lib/interdict": state}, low_ports=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def package(building: Build) -> Path:
    """The Debian package, built from this checkout by its own script."""
    assert building.process.wait() == 0, (building.folder / "log").read_text()[-5000:]
    return next(building.folder.glob("*.deb"))


def newer(package: Path, folder: Path) -> Path:
    """The same package with a later version, and another default in its configuration."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder], check=True)
    control = folder / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: (.*)$", r"Version: \1+later", control.read_text(), flags=re.MULTILINE))
    conffile = folder / "etc/interdict/interdict.yaml"
    conffile.write_text(conffile.read_text() + "\n# A later word.\n")
    made = folder.parent / "later.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", folder, made], check=True, capture_output=True
    )
    return made


def test_the_debian_package_comes_runs_is_upgraded_and_goes(make_root: MakeRoot, package: Path, tmp_path: Path) -> None:
    """With every dependency from Debian; what the operator wrote outlives the upgrade, and evidence the purge."""
    root = make_root()
    root.put(package, "/srv/interdict.deb")
    root.put(newer(package, tmp_path / "later"), "/srv/later.deb")
    root.run("apt-get", "-q", "update", online=True)
    install = ["apt-get", "-q", "install", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]
    root.run(*install, "/srv/interdict.deb", online=True)
    before = root.run("interdict", "--version")
    assert "compiled" in before
    assert root.run("stat", "-c", "%U %a", "/usr/libexec/interdict/certbot-hook").split() == ["root", "755"]
    root.run("interdict", "check")
    assert root.run("stat", "-c", "%U %G %a", "/var/lib/interdict").split() == ["interdict", "interdict", "750"]
    with serve(root, PACKAGED_UNIT) as running:
        banned(running)
        assert running.stop() == 0, running.said()

    config = "/etc/interdict/interdict.yaml"
    root.run("sed", "-i", "s/^listen:.*/listen: ['127.0.0.1:5353']/", config)
    root.run(*install, "/srv/later.deb", online=True)
    assert "5353" in root.run("cat", config)
    assert "A later word" in root.run("cat", f"{config}.dpkg-dist")
    with serve(root, PACKAGED_UNIT) as running:
        banned(running)
        assert "generation 1 " in running.said()
        assert running.stop() == 0, running.said()

    root.run("apt-get", "-q", "remove", "-y", "interdict")
    assert root.find("/usr/bin/interdict") is None
    assert "5353" in root.run("cat", config)
    said = root.run("apt-get", "-q", "purge", "-y", "interdict")
    assert "the evidence stays in /var/lib/interdict" in said
    left = root.run(
        "find", "/etc", "/usr", "/lib", "/var/lib", "-path", "*interdict*", "-not", "-path", "/var/lib/apt/*"
    )
    assert {
        line for line in left.split() if not line.startswith(("/var/lib/interdict/hits", "/var/lib/interdict/gen"))
    } <= {"/var/lib/interdict"}


def test_the_debian_package_draws_no_error_from_lintian(package: Path, peer: Callable[[str], str]) -> None:
    """Debian's own checks, of the package as it would be published."""
    looked = subprocess.run(
        [peer("lintian"), "--allow-root", "--fail-on", "error,warning", package], capture_output=True, text=True
    )

    assert looked.returncode == 0, looked.stdout + looked.stderr


def test_the_package_has_the_version_of_the_product() -> None:
    """Debian's changelog and the code say the same."""
    head = (DEPLOY / "debian/changelog").read_text().split("\n")[0]

    assert head.startswith(f"interdict ({__version__}) ")


# ---- the guide ------------------------------------------------------------------------------------------------------

# What a system without a service manager, and without the internet's copy of the checkout, can not do.
NOT_HERE = ("git clone ", "systemctl ", "journalctl ")


def commands_of(heading: str) -> list[str]:
    """The commands of a section of the guide, as they are written."""
    section = (DEPLOY / "README.md").read_text().partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    lines = re.findall(r"^    (\S.*(?:\\\n.*)*)$", section, re.MULTILINE)
    assert lines, f"the guide has no commands under {heading}"
    return lines


def test_the_guides_commands_make_a_service(make_root: MakeRoot, tmp_path: Path) -> None:
    """Pasted as they are into a clean system, they end with a server that runs as its unit says."""
    root = make_root()
    root.put(checkout(tmp_path / "checkout"), "/opt/interdict")
    lines = [line for line in commands_of("Checkout with systemd") if not line.startswith(NOT_HERE)]
    assert len(lines) > 8
    # Debian's images know no packages before the first update, and this minimal one has no systemd.
    root.run("sh", "-ec", "apt-get -q update && apt-get -q install -y --no-install-recommends systemd", online=True)
    root.run("sh", "-ec", "\n".join(lines), online=True)

    with serve(root, "/etc/systemd/system/interdict.service") as running:
        wait_until("it answers", lambda: "answers on" in running.said() or running.process.poll() is not None)
        assert "compiled" in running.said()
        verb = "/opt/interdict/.venv/bin/interdict"
        assert json.loads(running.run(verb, "query", "localhost", "--json"))["rcode"] == "NOERROR"
        assert "ca-tbs-2023-10-30" in running.run(verb, "explain", "wechat.com", "--client", "10.20.0.1")
        assert running.stop() == 0, running.said()


ANSIBLE = {**PLAIN, "HOME": "/srv", "LC_ALL": "C.UTF-8"}
CERTIFICATE = {"certificate": "fullchain", "key": "privkey"}


# ---- Ansible --------------------------------------------------------------------------------------------------------


def test_the_ansible_role_is_sound(peer: Callable[[str], str], tmp_path: Path) -> None:
    """Ansible's linter has nothing against it, in its strictest profile."""
    looked = subprocess.run(
        [peer("ansible-lint"), "--offline", "--strict", "--profile", "production", "site.yml"],
        cwd=DEPLOY / "ansible", capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip

    assert looked.returncode == 0, looked.stdout + looked.stderr


def test_the_ansible_role_installs_and_changes_nothing_twice(
    make_root: MakeRoot, package: Path, tmp_path: Path
) -> None:
    """A second run changes nothing; a configuration that can not be used does not get to its place.

    Certificate and key are the service's to read, and nobody else's.
    """
    root = make_root()
    for name, file in certificate(tmp_path).items():
        root.put(file, f"/srv/{name}.pem")
    root.put(DEPLOY / "ansible", "/srv/ansible")
    root.put(package, "/srv/interdict.deb")
    play = ["ansible-playbook", "-i", "localhost,", "-c", "local", "/srv/ansible/site.yml", "-e"]
    values = {
        "interdict_package": "/srv/interdict.deb",
        "interdict_certificate": "/srv/certificate.pem",
        "interdict_key": "/srv/key.pem",
        "ansible_become": False,
    }
    files = {name: f"/etc/interdict/tls/{file}.pem" for name, file in CERTIFICATE.items()}
    encrypted = {**files, "dot": ["127.0.0.1:853"], "doq": ["127.0.0.1:853"]}
    config = {"listen": ["127.0.0.1:5399"], "state_dir": "/var/lib/interdict", "encrypted": encrypted}
    root.run("apt-get", "-q", "update", online=True)
    root.run("apt-get", "-q", "install", "-y", "--no-install-recommends", "ansible-core", "python3-apt", online=True)

    first = root.run(*play, json.dumps({**values, "interdict_config": config}), online=True, env=ANSIBLE)
    second = root.run(*play, json.dumps({**values, "interdict_config": config}), online=True, env=ANSIBLE)
    wrong = {**values, "interdict_config": {**config, "listens": []}}
    third = root.run(*play, json.dumps(wrong), online=True, env=ANSIBLE, code=2)

    assert "failed=0" in first
    assert "changed=0" in second
    assert "listens" in third
    assert "listens" not in root.run("cat", "/etc/interdict/interdict.yaml")
    assert root.run("stat", "-c", "%U %G %a", *files.values()) == "root interdict 640\n" * 2
    with serve(root, PACKAGED_UNIT) as running:
        wait_until("it answers", lambda: "answers on" in running.said() or running.process.poll() is not None)
        assert running.process.poll() is None, running.said()
        assert "127.0.0.1:853" in running.said()
