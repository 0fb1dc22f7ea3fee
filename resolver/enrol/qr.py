"""QR codes (ISO/IEC 18004): what a phone's camera reads, as a picture and on a terminal.

The only module of this room that knows segno.
"""

import io

import segno

from resolver.enrol.profile import EnrolError

_SCALE = 8  # pixels a module: a long configuration still is some 800 pixels wide


def to_png(text: str) -> bytes:
    """Return a QR code as a picture (PNG).

    Raises:
        EnrolError: The text is longer than a QR code can hold.
    """
    out = io.BytesIO()
    _make(text).save(out, kind="png", scale=_SCALE)
    return out.getvalue()


def to_terminal(text: str) -> str:
    """Return a QR code drawn with half blocks, for a terminal.

    Raises:
        EnrolError: The text is longer than a QR code can hold.
    """
    out = io.StringIO()
    _make(text).terminal(out, compact=True)
    return out.getvalue()


def _make(text: str) -> segno.QRCode:
    try:
        # Left to itself, segno writes some UTF-8 as Kanji, which cameras read as other text.
        return segno.make_qr(text, mode="byte", encoding="utf-8")
    except segno.DataOverflowError:
        raise EnrolError(f"{len(text)} characters do not fit a QR code; hand the file over otherwise") from None
