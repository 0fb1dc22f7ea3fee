"""A start where nothing changed since the last one, and one where something did."""

from collections.abc import Callable

import dns.rcode
import pytest

from tests.support.house import ask
from tests.support.server import Server, ask_udp

pytestmark = pytest.mark.e2e


def test_a_start_compiles_only_what_changed(make_server: Callable[..., Server], upstream: tuple[str, int]) -> None:
    """Unchanged, the generation is taken as it lies there; after an edit the first answer is of the new policy."""
    server = make_server(upstream)
    server.ban("order-1", "banned-app.ca")
    server.start()
    note = server.state / "generations" / "inputs.json"
    written = note.stat().st_ino, note.stat().st_mtime_ns  # each compile writes it anew
    said = server.ask_control("status")
    server.stop()

    server.start()
    again = server.ask_control("status")
    assert ask_udp(server.port, ask("banned-app.ca"))[3] & 15 == dns.rcode.NXDOMAIN
    server.stop()
    assert [again[key] for key in ("generation", "digest", "made_by", "loaded_at")] == [
        said[key] for key in ("generation", "digest", "made_by", "loaded_at")
    ]
    assert (note.stat().st_ino, note.stat().st_mtime_ns) == written

    server.ban("order-2", "other-app.ca")
    server.start()
    assert server.ask_control("status")["generation"] == 2
    assert ask_udp(server.port, ask("other-app.ca"))[3] & 15 == dns.rcode.NXDOMAIN
