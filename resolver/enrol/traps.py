"""The words of `lint`: the traps there are, what is found in a file, and what every format is asked about tokens."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from urllib.parse import urlsplit

from resolver.enrol.profile import PLACE, Service


class Trap(Enum):
    """What can be wrong with a profile, as a word and a sentence."""

    UNREADABLE = "unreadable", "The file is not a profile that is known here, or is damaged."
    NOT_IN_SCHEMA = "not-in-schema", "A key is unknown to Apple's published schema, missing, or of another type."
    MANAGED_WIFI_ONLY = "managed-wifi-only", "The settings act in managed Wi-Fi networks only, not on cellular."
    NO_SERVER_ADDRESSES = (
        "no-server-addresses",
        "Without ServerAddresses the device asks the network's own resolver where the service is.",
    )
    NO_CARRIER_EXCLUSIONS = (
        "no-carrier-exclusions",
        "Wi-Fi calling and voicemail of carriers break: their names are known to the carrier's resolver alone.",
    )
    NO_CAPTIVE_EXCLUSIONS = "no-captive-exclusions", "Networks with a sign-in page can not be joined."
    NO_TOKEN = "no-token", "The service can not tell whose questions these are."
    USER_CAN_SWITCH_OFF = "user-can-switch-off", "The user can take the settings out again."
    PLAIN_FALLBACK = (
        "plain-fallback",
        "When the service is not reached, or is kept from being reached, others are asked.",
    )
    ONLY_SOME_NAMES = "only-some-names", "Only some names are asked of the service; all others of anybody."
    NOT_ENCRYPTED = "not-encrypted", "The transport is missing a value that it needs, or has another's."
    OUTSIDE_TUNNEL = "outside-tunnel", "The resolver is not in the tunnel, or none is set."
    SAME_UUID = "same-uuid", "Two payloads share one UUID: the one replaces the other."
    WEB_CLIP = "web-clip", "The profile puts an icon on the home screen."

    def __init__(self, word: str, says: str) -> None:
        self.word = word
        self.says = says


class Delivery(StrEnum):
    """How a profile comes to the device, as far as it is known: some payloads act otherwise then."""

    UNKNOWN = "unknown"
    MDM = "mdm"
    BY_HAND = "by-hand"


@dataclass(frozen=True, slots=True)
class Finding:
    """A trap in a file: the place in it, and what to do about it. `line` counts from 1; 0 where there are no lines."""

    trap: Trap
    place: str
    mend: str
    line: int = 0


Keys = Mapping[str, object]
"""What stands in a file under keys, not yet checked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known beside the file: the service that it should point to, and how it comes to the device."""

    service: Service | None
    delivery: Delivery


def keys_of(found: object) -> Keys:
    """Return what is found if it has keys, else nothing."""
    return found if isinstance(found, dict) else {}


def texts_of(found: object) -> list[str]:
    """Return the texts of what is found if it is a list, else none."""
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def token_in_url(url: str, place: str, asked: Asked) -> Iterator[Finding]:
    """Tell where a DNS-over-HTTPS address names no device."""
    mend = "write the device's own address, with its token"
    template = asked.service.doh if asked.service is not None else None
    if template is not None:
        before, _, after = template.partition(PLACE)
        if not re.fullmatch(re.escape(before) + r"[a-z0-9-]{1,63}" + re.escape(after), url):
            yield Finding(Trap.NO_TOKEN, place, f"{mend}, of the form {template}")
        return
    try:
        path = urlsplit(url.removesuffix("{?dns}")).path
    except ValueError:
        path = ""
    if "{" in path or path.rstrip("/").rpartition("/")[2] in ("", "dns-query", "resolve"):
        yield Finding(Trap.NO_TOKEN, place, f"{mend}, such as https://dns.example.org/dns-query/TOKEN")


def token_in_host(host: str, place: str, asked: Asked) -> Iterator[Finding]:
    """Tell where a DNS-over-TLS host names no device."""
    mend = "write the device's own host name, with its token first"
    template = asked.service.dot if asked.service is not None else None
    if template is not None:
        if not re.fullmatch(r"[a-z0-9-]{1,63}" + re.escape(template.removeprefix(PLACE)), host):
            yield Finding(Trap.NO_TOKEN, place, f"{mend}, of the form {template}")
    elif "{" in host or host.count(".") < 2 or host.split(".")[0] in ("dns", "dot", "doh", "resolver"):
        yield Finding(Trap.NO_TOKEN, place, f"{mend}, such as TOKEN.dns.example.org")
