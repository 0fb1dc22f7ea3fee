"""The frames of HTTP/2 (RFC 9113 §4): their kinds, flags and error codes, and how one begins."""

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
FRAME_OCTETS: Final = 16_384  # the longest frame that we take (RFC 9113 §4.2), and that we send
HEADER: Final = struct.Struct(">HBBBL")  # length in two pieces, kind, flags, stream
HEADER_OCTETS: Final = 9
START_OCTETS: Final = 5  # of these, before the number of the stream
MAX_WINDOW: Final = 2**31 - 1  # RFC 9113 §6.9.1; of the same size is the number of a stream
DEFAULT_WINDOW: Final = 65_535  # RFC 9113 §6.9.2

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20


class Frame(IntEnum):
    """RFC 9113 §6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """RFC 9113 §6.5.2."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ConnectionFault(Exception):
    """The connection can not go on.

    Attributes:
        code: Why.
    """

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


def start(octets: int, kind: Frame, flags: int) -> bytes:
    """The head of a frame with so many octets, up to the stream's number."""
    return struct.pack(">HBBB", octets >> 8, octets & 255, kind, flags)


def unpadded(payload: bytes) -> bytes:
    """What a padded frame holds.

    Raises:
        ConnectionFault: There is more padding than there are octets (RFC 9113 §6.1).
    """
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR)
    if payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]
