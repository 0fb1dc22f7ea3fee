"""The work that `test_instructions.py` has counted: `python tests/bench/instructions.py ready`, `templates`, `relayed`.

The compiled loop answers as many queries from memory or from a template, or the relay by an upstream's replies; beside
it the same queries are read.
"""

import struct
import sys

from resolver.hot import _batch_cy, _memo_cy, _names_cy, _relay_cy, _scan_cy, _templates_cy
from tests.support import build
from tests.support.rig import ADDRESS, Rig
from tests.support.window import ALICE, STAMP, Window

SLOTS = 64
BATCHES = 100
LISTED = {b"\7d%06d\6listed\7example\0" % number: 0 for number in range(1000)}


def datagram(number: int) -> bytes:
    """A query below a listed name, none like any other."""
    listed = b"\7d%06d\6listed\7example\0" % (number * 7919 % 1000)
    return struct.pack(">H", number) + b"\1\0\0\1" + bytes(6) + b"\x08%08x" % number + listed + b"\0\1\0\1"


class SilentRig(Rig):
    """A rig that sends nothing, so that what sending takes is not counted."""

    def _send(self, ready: int) -> None:
        pass


def relay() -> None:
    """Have batch after batch answered by an upstream; no query is like another."""
    memo = _batch_cy.ViewMemo(100_000, _names_cy.NameTable(_names_cy.build(LISTED)))
    shelf = _memo_cy.Answers(1 << 20)
    rig = SilentRig(_relay_cy, _relay_cy.Relay, shelf, memo, listed=("suffix d.listed.example",))
    for batch in range(BATCHES):
        asked = [build.query(b"\x08%08x\5plain\7example\0" % (SLOTS * batch + k)) for k in range(SLOTS)]
        assert rig.offer(*asked) == []
        drawn = b"".join(n.to_bytes(2, "big") for n in range(SLOTS + 16))
        assert rig.take(*(build.reply(sent, [ADDRESS], [], [build.opt()]) for sent in rig.write(drawn))) == []
        for octets in asked:
            _scan_cy.scan_query(octets)


def main(kind: str) -> None:
    """Answer batch after batch; no query is like another, unless ready answers are asked for."""
    memo = _batch_cy.ViewMemo(100_000, _names_cy.NameTable(_names_cy.build(LISTED)))
    soa = b"\xc0\x0c\0\6\0\1\0\0\0\x3c\0\x26\xc0\x0c\6nobody\7invalid\0" + bytes(20)
    parts = (b"1\tphones\tudp\t", b"\tA\torder-1\tapp-1\tsuffix ", b"\tNXDOMAIN\tNXDOMAIN\t15\tenforce")
    said = _templates_cy.Template(3, b"\0\1\0\0\0\1\0\0", soa, True, True, 3, parts)
    memo.file(_templates_cy.template_key(0, 1, 1, _templates_cy.NO_OPT), said)
    window = Window(_batch_cy, slots=SLOTS)
    for batch in range(BATCHES):
        asked = [datagram(SLOTS * batch + k) for k in range(SLOTS)]
        if kind == "ready":
            for octets in asked:
                ready = _batch_cy.Ready(octets[2:] + soa, 3, _batch_cy.NEVER, 0.0, (), b"hit ", b"tail" * 32)
                memo.put(octets[2:], ready)
        n = window.receive([(ALICE, octets) for octets in asked])
        window.batch.answer({ALICE: memo}, n, 0.0, STAMP)
        assert window.batch.outcome()[0] >= SLOTS - 1  # one that only seems to be met again is passed on
        for octets in asked:
            _scan_cy.scan_query(octets)


if __name__ == "__main__":
    relay() if sys.argv[1] == "relayed" else main(sys.argv[1])
