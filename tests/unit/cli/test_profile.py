"""`interdict profile`: what it takes, what it writes where and with which mode, what it exits with."""

import json
import plistlib
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resolver.cli.main import profile
from resolver.enrol.platforms import PLATFORMS
from tests.support.enrolled import KEY, PUBLIC_KEY

SERVICE = f"""\
organisation: Example Agency
identifier: org.example.dns
doh: https://dns.example.org/dns-query/{{token}}
dot: "{{token}}.dns.example.org"
addresses: [192.0.2.53]
authorities: [ca.pem]
profile_url: https://mdm.example.org/{{token}}
wireguard: {{endpoint: "vpn.example.org:51820", public_key: {PUBLIC_KEY}}}
openvpn: {{server: vpn.example.org}}
ikev2: {{server: vpn.example.org, pools: [10.9.0.0/16]}}
"""
DEVICES = f"""\
name,token,group,addresses,wireguard_key,identity
phone-7,k3v9,phones,10.9.0.7/32,{KEY},identity.p12
desk 1,b0b,office,10.9.0.8/32,,
phone-8,,phones,,,
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and its certificate."""
    folder = tmp_path_factory.mktemp("ca")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "k", "-out", "c", "-subj", "/CN=x"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (folder / "ca.pem").write_bytes((folder / "k").read_bytes() + (folder / "c").read_bytes())
    return folder / "ca.pem"


@pytest.fixture
def folder(tmp_path: Path, certificate: Path) -> Path:
    """A service, its devices, and what they name."""
    (tmp_path / "service.yaml").write_text(SERVICE)
    (tmp_path / "devices.csv").write_text(DEVICES)
    (tmp_path / "ca.pem").write_bytes(certificate.read_bytes())
    (tmp_path / "identity.p12").write_bytes(b"PKCS #12")
    return tmp_path


def run(folder: Path, *words: str | Path, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(profile, [str(word) for word in words])


def one(folder: Path, platform: str, *words: str | Path) -> Result:
    return run(folder, platform, "--service", folder / "service.yaml", "--device", "phone-7", "--token", "k3v9", *words)


def many(folder: Path, platform: str, *words: str | Path) -> Result:
    return run(folder, platform, "--service", folder / "service.yaml", "--inventory", folder / "devices.csv", *words)


def test_one_file_goes_to_standard_output_as_it_is(folder: Path) -> None:
    """So that it can be redirected; what the administrator should know goes to standard error."""
    said = one(folder, "apple")

    assert said.exit_code == 0
    assert plistlib.loads(said.stdout_bytes)["PayloadIdentifier"] == "org.example.dns.interdict.dns"
    assert "note: Installed by an MDM" in said.stderr


def test_several_files_need_a_folder(folder: Path) -> None:
    """They can not share one stream."""
    said = one(folder, "linux")

    assert said.exit_code == 2
    assert "--out" in said.stderr


def test_files_go_below_the_device_and_the_platform(folder: Path) -> None:
    """Their names are printed; those with a token are for their owner alone, others for all."""
    said = one(folder, "linux", "--out", folder / "out")
    written = {Path(line).name: stat.S_IMODE(Path(line).stat().st_mode) for line in said.stdout.splitlines()}

    assert said.exit_code == 0
    assert (folder / "out/phone-7/linux/90-interdict-resolved.conf").is_file()
    assert written == {
        "90-interdict-resolved.conf": 0o600,
        "90-interdict-networkmanager.conf": 0o644,
        "resolvconf.conf": 0o644,
    }


def test_a_file_that_was_open_to_all_is_closed(folder: Path) -> None:
    """A profile made again takes the old one's place, not its mode, and leaves nothing beside it."""
    path = folder / "out/phone-7/android/interdict-android-policy.json"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    path.chmod(0o666)
    one(folder, "android", "--out", folder / "out")

    assert json.loads(path.read_bytes())["vpnConfigDisabled"] is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(file.name for file in path.parent.iterdir()) == ["interdict-android-policy.json", "qr.png"]


def test_a_link_is_replaced_and_not_followed(folder: Path) -> None:
    """What a link points to stays as it is."""
    target = folder / "target"
    target.write_text("mine")
    path = folder / "out/phone-7/android/interdict-android-policy.json"
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    one(folder, "android", "--out", folder / "out")

    assert target.read_text() == "mine"
    assert not path.is_symlink()


def test_a_phone_gets_a_qr_code_here(folder: Path) -> None:
    """Where its camera can read the profile, and else a sentence."""
    assert "█" in one(folder, "android", "--qr").stdout
    said = one(folder, "firefox", "--qr")

    assert said.exit_code == 2
    assert "leave --qr out" in said.stderr


def test_the_token_may_stand_in_the_environment(folder: Path) -> None:
    """Where no process list shows it."""
    said = run(
        folder, "chrome", "--service", folder / "service.yaml", "--device", "x", "--out", folder / "out",
        INTERDICT_TOKEN="t0k",
    )  # fmt: skip

    assert said.exit_code == 0
    assert b"/t0k" in (folder / "out/x/chrome/interdict-chrome.json").read_bytes()


def test_an_inventory_gives_each_device_its_own(folder: Path) -> None:
    """Those without what is needed are told by name, and the exit code says so."""
    said = many(folder, "chrome", "--out", folder / "out")
    made = sorted(path.relative_to(folder / "out").parts[0] for path in (folder / "out").rglob("*.json"))

    assert said.exit_code == 1
    assert made[1] == "phone-7"
    assert made[0].startswith("desk-1.")
    assert "2 of 3 devices have a profile" in said.stderr
    assert '"phone-8": the device has no token' in said.stderr


def test_a_group_of_an_inventory_may_be_chosen(folder: Path) -> None:
    """All of its devices, and no others."""
    said = many(folder, "chrome", "--group", "office", "--out", folder / "out")

    assert said.exit_code == 0
    assert "1 of 1 devices" in said.stderr


def test_a_device_of_an_inventory_may_be_chosen(folder: Path) -> None:
    """With all that the inventory knows of it; a token given beside it counts."""
    wireguard = many(folder, "wireguard", "--device", "phone-7")
    firefox = many(folder, "firefox", "--device", "phone-8", "--token", "n3w")

    assert f"PrivateKey = {KEY}" in wireguard.stdout
    assert firefox.exit_code == 0
    assert "/n3w" in firefox.stdout


def test_every_platform_can_be_made_from_files(folder: Path) -> None:
    """The first device has all that any platform asks for; and no file it gets has a trap."""
    for platform in PLATFORMS:
        assert many(folder, platform, "--device", "phone-7", "--out", folder / "out").exit_code == 0, platform
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    said = run(folder, "lint", "--service", folder / "service.yaml", *files)

    assert said.output == ""
    assert said.exit_code == 0


def test_apples_profiles_can_be_signed(folder: Path) -> None:
    """openssl verifies what is written; other platforms have nothing to sign."""
    one(folder, "apple", "--sign", folder / "ca.pem", "--out", folder)
    path = folder / "phone-7/apple/interdict-dns.mobileconfig"
    verified = subprocess.run(
        ["openssl", "smime", "-verify", "-inform", "DER", "-in", path, "-CAfile", folder / "ca.pem", "-purpose", "any"],
        check=True,
        capture_output=True,
    )

    assert plistlib.loads(verified.stdout)["PayloadType"] == "Configuration"
    assert run(folder, "lint", path).exit_code == 0
    assert one(folder, "chrome", "--sign", folder / "ca.pem").exit_code == 2


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (["apple", "--service", "service.yaml"], "--device"),
        (["apple", "--device", "x"], "--service"),
        (["apple", "--service", "gone.yaml", "--device", "x"], "can not read gone.yaml"),
        (["apple", "--service", "service.yaml", "--device", "x"], "no token"),
        (["apple", "--service", "service.yaml", "--device", "x", "--token", "X"], "lower-case"),
        (["apple", "--service", "service.yaml", "--device", "x", "--group", "g"], "--inventory"),
        (["apple", "--service", "service.yaml", "--inventory", "devices.csv"], "--out"),
        (["apple", "--service", "service.yaml", "--inventory", "devices.csv", "--token", "t"], "one device"),
        (["apple", "--service", "service.yaml", "--inventory", "devices.csv", "--device", "y"], 'no device "y"'),
        (["apple", "--service", "service.yaml", "--inventory", "devices.csv", "--group", "y"], 'no group "y"'),
        (["apple", "--service", "devices.csv", "--device", "x"], "devices.csv:1:1"),
        (["apple", "--service", "service.yaml", "--inventory", "service.yaml"], "service.yaml:1:1"),
        (["apple", "--service", "service.yaml", "--device", "x", "--sign", "devices.csv"], "PEM"),
        (["apple", "--service", "other.yaml", "--device", "x"], "devices.csv: no certificate can be read"),
        (["lint"], "name the files"),
    ],
    ids=range(15),
)
def test_wrong_usage_is_told_with_its_mend(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], mend: str
) -> None:
    """Exit code 2, a sentence, and no traceback."""
    monkeypatch.chdir(folder)
    (folder / "other.yaml").write_text("organisation: A\nidentifier: org.a\nauthorities: [devices.csv]\n")
    said = run(folder, *words)

    assert said.exit_code == 2
    assert mend in said.stderr
    assert isinstance(said.exception, SystemExit)


def test_a_folder_that_can_not_be_written_is_told(folder: Path) -> None:
    """With the place."""
    said = one(folder, "chrome", "--out", folder / "ca.pem" / "x")

    assert said.exit_code == 2
    assert "name another --out" in said.stderr


def test_lint_tells_file_place_and_mend(folder: Path) -> None:
    """One line for each finding, and exit code 1; or JSON."""
    path = folder / "x.conf"
    path.write_text("[Resolve]\nDNS=192.0.2.53#k3v9.dns.example.org\nFallbackDNS=\nDomains=~.\nDNSOverTLS=no\n")
    text = run(folder, "lint", path)
    [found] = json.loads(run(folder, "lint", "--json", path).stdout)

    assert text.exit_code == 1
    assert text.stdout.startswith(f"{path}:5: not-encrypted at DNSOverTLS: ")
    assert (found["file"], found["line"], found["trap"], found["mend"]) == (
        str(path),
        5,
        "not-encrypted",
        "write DNSOverTLS=yes",
    )


def test_lint_knows_how_a_profile_is_delivered(folder: Path) -> None:
    """An MDM's DNS payload acts in managed Wi-Fi only; installed by hand it acts everywhere."""
    one(folder, "apple", "--out", folder)
    path = folder / "phone-7/apple/interdict-dns.mobileconfig"

    assert "managed-wifi-only" in run(folder, "lint", "--delivery", "mdm", path).stdout
    assert run(folder, "lint", "--delivery", "by-hand", path).exit_code == 0


def test_lint_lists_its_traps(folder: Path) -> None:
    """With a sentence for each."""
    said = run(folder, "lint", "--traps")

    assert said.exit_code == 0
    assert "managed-wifi-only" in said.stdout


def test_the_platforms_are_listed(folder: Path) -> None:
    """For people and for programs."""
    listed = json.loads(run(folder, "list", "--json").stdout)

    assert [entry["platform"] for entry in listed] == list(PLATFORMS)
    assert all(name in run(folder, "list").stdout for name in PLATFORMS)
