"""QR codes: what a camera reads is what was written."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resolver.enrol.profile import EnrolError
from resolver.enrol.qr import to_png, to_terminal
from tests.support.enrolled import made, named

TEXTS = {platform: made(platform, device=named("Büro 書")).qr or "" for platform in ("wireguard", "android", "apple")}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_camera_reads_what_was_written(text: str, tmp_path: Path, peer: Callable[[str], str]) -> None:
    """The whole text comes back from the picture, whatever the device is called."""
    (tmp_path / "qr.png").write_bytes(to_png(text))

    seen = subprocess.run(
        [peer("zbarimg"), "--raw", "--quiet", "-Sdisable", "-Sqrcode.enable", "qr.png"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )

    assert seen.stdout.strip() == text.strip()


def test_a_terminal_shows_a_square() -> None:
    """As many columns as half lines, all of one length but for the colours."""
    lines = to_terminal("k3v9.dns.example.org").splitlines()

    assert len(lines) > 10
    assert any("▀" in line or "█" in line for line in lines)


@pytest.mark.parametrize("draw", [to_png, to_terminal])
def test_a_text_too_long_for_a_camera_is_refused(draw: Callable[[str], object]) -> None:
    """3000 characters fit no QR code."""
    with pytest.raises(EnrolError, match="do not fit"):
        draw("~a" * 1500)
