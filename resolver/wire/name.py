r"""Domain names between text and wire.

Inside the product a name is its *lower-cased, uncompressed wire form* (`bytes`, root label included): unambiguous,
ready to be looked up, equal when the DNS says equal (RFC 4343 §3). Text is for people, files and logs, and always the
master-file presentation (RFC 1035 §5.1) without the trailing dot, every octet that is not a plain host-name character
as `\DDD`; so a hostile name cannot carry a newline, a tab or a terminal escape into a log.
"""

import idna

MAX_NAME_OCTETS = 255  # RFC 1035 §2.3.4, length octets included
MAX_LABEL_OCTETS = 63

# Octets printed as themselves: letters, digits, hyphen, underscore and a few that real names carry.
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/+:=*")
_TEXT = [chr(o) if o in _PLAIN else f"\\{o:03d}" for o in range(256)]


class BadName(ValueError):
    """The text is not a domain name; the message says why."""


def to_text(wire: bytes) -> str:
    """Presentation form of an uncompressed wire name; the root is `.`, others carry no trailing dot."""
    labels = []
    i = 0
    while (n := wire[i]) != 0:
        label = wire[i + 1 : i + 1 + n]
        labels.append(
            label.decode("ascii") if label.isalnum() and label.isascii() else "".join([_TEXT[o] for o in label])
        )
        i += n + 1
    return ".".join(labels) or "."


def from_text(text: str) -> bytes:
    r"""Lower-cased wire form of a name in presentation form, with or without the trailing dot.

    A name with non-ASCII letters is taken to its A-labels (`to_ascii`). `\.` and `\DDD` escapes are understood
    (RFC 1035 §5.1).

    Raises:
        BadName: Empty label, label over 63 octets, name over 255 octets, broken escape, or not a valid IDN.
    """
    if text in (".", ""):
        if text == ".":
            return b"\0"
        raise BadName("the name is empty")
    if not text.isascii():
        text = to_ascii(text)
    out = bytearray()
    label = bytearray()
    raw = text.encode("ascii")
    i, end = 0, len(raw)
    while i < end:
        octet = raw[i]
        if octet == 0x2E:
            _close_label(out, label, text)
            label = bytearray()
        elif octet == 0x5C:
            digits = raw[i + 1 : i + 4]
            if len(digits) == 3 and digits.isdigit():
                if int(digits) > 255:
                    raise BadName(f"\\{digits.decode()} in {text!r} is over 255")
                label.append(int(digits))
                i += 3
            elif i + 1 < end and not digits[:1].isdigit():
                label.append(raw[i + 1])
                i += 1
            else:
                raise BadName(f"broken escape in {text!r}; write \\. or three digits such as \\046")
        else:
            label.append(octet)
        i += 1
    if label:
        _close_label(out, label, text)
    out.append(0)
    if len(out) > MAX_NAME_OCTETS:
        raise BadName(f"{text[:40]!r}… is longer than 255 octets (RFC 1035 §2.3.4)")
    return bytes(out).lower()


def to_ascii(text: str) -> str:
    """A-labels for U-labels (UTS #46 §4 without its transitional mapping, RFC 5891 §5); ASCII labels stay as they are.

    Raises:
        BadName: A label is none that a name may have.
    """
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split("."))
    except (idna.IDNAError, UnicodeError) as error:
        raise BadName(f"{text!r} is not an internationalised domain name: {error}; write its xn-- form") from None


def _close_label(out: bytearray, label: bytearray, text: str) -> None:
    if not label:
        raise BadName(f"{text!r} has an empty label")
    if len(label) > MAX_LABEL_OCTETS:
        raise BadName(f"a label of {text[:40]!r} is longer than 63 octets (RFC 1035 §2.3.4)")
    out.append(len(label))
    out += label


def labels(wire: bytes) -> list[bytes]:
    """The labels of a wire name, leftmost first, without the root."""
    found = []
    i = 0
    while (n := wire[i]) != 0:
        found.append(wire[i + 1 : i + 1 + n])
        i += n + 1
    return found


def is_at_or_below(wire: bytes, ancestor: bytes) -> bool:
    """Whether a wire name equals `ancestor` or lies below it, on a label boundary. Both lower-cased."""
    if not wire.endswith(ancestor):
        return False
    skip = len(wire) - len(ancestor)
    i = 0
    while i < skip:
        i += wire[i] + 1
    return i == skip
