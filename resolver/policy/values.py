"""How values are written in the product's YAML: durations, sizes, addresses with a port, names of groups.

Each parser takes what stood in the file, whatever that was, and gives the value, or raises ValueError with a sentence
that says what to write instead. Durations are seconds (float), sizes octets (int), whatever unit the file uses.
"""

import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Literal, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from resolver.policy import documents
from resolver.policy.source import Written, shown


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OCTETS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_ENDPOINT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")
_PATH = re.compile(r"/[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*")
_GROUP = re.compile(r"[a-z0-9-]{1,32}")


def parse_duration(written: object) -> float:
    """Seconds of a duration such as 500ms, 30s, 5m, 1h, 1d.

    Raises:
        ValueError: Anything else.
    """
    if isinstance(written, str) and (found := _DURATION.fullmatch(written)):
        return int(found[1]) * _SECONDS[found[2]]
    raise ValueError(
        f"{shown(written)} is not a duration; write a whole number and a unit, such as 500ms, 30s, 5m, 1h or 1d"
    )


def parse_size(written: object) -> int:
    """Octets of a size such as 256KiB, 64MiB, 1GiB.

    Raises:
        ValueError: Anything else.
    """
    if isinstance(written, str) and (found := _SIZE.fullmatch(written)):
        return int(found[1]) * _OCTETS[found[2]]
    raise ValueError(f"{shown(written)} is not a size; write a whole number and a unit, such as 256KiB, 64MiB or 1GiB")


def parse_endpoint(written: object) -> Endpoint:
    """An address and port such as 127.0.0.1:53 or [::1]:53.

    Raises:
        ValueError: Anything else.
    """
    if isinstance(written, str) and (found := _ENDPOINT.fullmatch(written)):
        try:
            address = ip_address(found[1] or found[2])
        except ValueError as error:
            raise ValueError(f"{shown(written)}: {error}; write an address and a port, such as 127.0.0.1:53") from None
        if not 1 <= int(found[3]) <= 65535:
            raise ValueError(f"{shown(written)} has a port outside 1 to 65535; write for example {address}:53")
        return Endpoint(str(address), int(found[3]))
    raise ValueError(f'{shown(written)} is not an address with a port; write "127.0.0.1:53" or "[::1]:53", in quotes')


def _parse_ipv4(written: object) -> IPv4Address:
    return IPv4Address(_parse_address(written, 4, "192.0.2.1"))


def _parse_ipv6(written: object) -> IPv6Address:
    return IPv6Address(_parse_address(written, 6, "2001:db8::1"))


def _parse_any_address(written: object) -> str:
    return _parse_address(written, None, "192.0.2.53")


def _parse_address(written: object, version: int | None, example: str) -> str:
    try:
        address = ip_address(written) if isinstance(written, str) else None
    except ValueError:
        address = None
    if address is None or version not in (None, address.version):
        kind = f"an IPv{version} address" if version else "an IP address"
        raise ValueError(f'{shown(written)} is not {kind}; write for example "{example}"')
    return str(address)


def _parse_group(written: object) -> str:
    if isinstance(written, str) and _GROUP.fullmatch(written):
        return written
    raise ValueError(f"{shown(written)} is not a group name; write 1 to 32 lower-case letters, digits and hyphens")


def _parse_path(written: object) -> str:
    if isinstance(written, str) and _PATH.fullmatch(written):
        return written
    raise ValueError(f'{shown(written)} is not a path; write one such as "/dns-query", without a slash at the end')


def _parse_pin(written: object) -> bytes:
    if isinstance(written, str) and written.startswith("sha256/"):
        try:
            digest = b64decode(written.removeprefix("sha256/"), validate=True)
        except ValueError:
            digest = b""
        if len(digest) == 32:
            return digest
    raise ValueError(
        f'{shown(written)} is not a pin; write "sha256/" and the base64 of the SHA-256 of the public key, as '
        "`kdig +tls-ca -d` or openssl print it"
    )


def _parse_workers(written: object) -> int | Literal["auto"]:
    if written == "auto":
        return "auto"
    if isinstance(written, int) and not isinstance(written, bool) and 1 <= written <= 64:
        return written
    raise ValueError(f"{shown(written)} is not a number of workers; write a whole number from 1 to 64, or auto")


def _parse_text(written: object) -> str:
    if isinstance(written, str) and 1 <= len(written.encode("utf-8", "replace")) <= 255 and written.isprintable():
        return written
    raise ValueError(f"{shown(written)} is not a short text; write 1 to 255 characters on one line, in quotes")


def duration(at_least: str, at_most: str) -> Written:
    """Annotates a duration within bounds."""
    return _bounded(parse_duration, at_least, at_most, _DURATION)


def octets(at_least: str, at_most: str) -> Written:
    """Annotates a size within bounds."""
    return _bounded(parse_size, at_least, at_most, _SIZE)


def _bounded(parse: Callable[[object], float], at_least: str, at_most: str, pattern: re.Pattern[str]) -> Written:
    def parse_within(written: object) -> float:
        found = parse(written)
        if not parse(at_least) <= found <= parse(at_most):
            raise ValueError(f"{shown(written)} is out of range; write {at_least} to {at_most}")
        return found

    return Written(parse_within, {"type": "string", "pattern": f"^{pattern.pattern}$"})


@dataclass(frozen=True, slots=True)
class OrWord:
    """Annotates a list that may also be written as one word."""

    word: str

    def __get_pydantic_core_schema__(self, source_type: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(written: object, parse_list: core_schema.ValidatorFunctionWrapHandler) -> object:
            if isinstance(written, str):
                if written != self.word:
                    raise ValueError(f"{shown(written)} is unknown here; write {self.word}, or a list")
                return written
            return parse_list(written)

        return core_schema.no_info_wrap_validator_function(parse, handler.generate_schema(get_args(source_type)[0]))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        return {"anyOf": [{"const": self.word}, handler(schema)]}


GroupName = Annotated[str, Written(_parse_group, {"type": "string", "pattern": f"^{_GROUP.pattern}$"})]
Listener = Annotated[Endpoint, Written(parse_endpoint, {"type": "string"})]
Ipv4 = Annotated[IPv4Address, Written(_parse_ipv4, {"type": "string", "format": "ipv4"})]
Ipv6 = Annotated[IPv6Address, Written(_parse_ipv6, {"type": "string", "format": "ipv6"})]
Address = Annotated[str, Written(_parse_any_address, {"type": "string"})]
ShortText = Annotated[str, Written(_parse_text, {"type": "string", "minLength": 1, "maxLength": 255})]
HttpPath = Annotated[str, Written(_parse_path, {"type": "string", "pattern": f"^{_PATH.pattern}$"})]
Pin = Annotated[bytes, Written(_parse_pin, {"type": "string", "pattern": "^sha256/[A-Za-z0-9+/]{43}=$"})]
Zone = Annotated[str, Written(documents.parse_zone, {"type": "string"})]
Workers = Annotated[
    int | Literal["auto"],
    Written(_parse_workers, {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 64}]}),
]
