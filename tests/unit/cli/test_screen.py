"""What people see of a server's state."""

import pytest

from resolver.cli.screen import show_status

STATUS: dict[str, object] = {
    "version": "1.2.3", "hot": "compiled", "uptime_seconds": 93_784.5,
    "restarts": {"worker": 0, "recorder": 0}, "config": "/etc/interdict.yaml",
    "state_dir": "/var/lib/interdict", "listen": ["127.0.0.1:5300", "[::1]:5300"], "upstreams": ["192.0.2.53:53"],
    "metrics": "127.0.0.1:9530", "generation": 4, "digest": "0123456789abcdef", "loaded_at": 1_700_000_000.0,
    "names": 140, "queries": 77, "cache_entries": 5, "hits_spooled": 3, "hits_lost": 0,
    "orders": [
        {"id": "ban", "title": "[red]A ban[/red]", "mode": "enforce", "action": "nxdomain", "groups": ["a", "b"],
         "in_force_from": 1_700_000_000.0, "in_force_until": None, "in_force": True},
        {"id": "later", "title": "Another", "mode": "observe", "action": "drop", "groups": ["a"],
         "in_force_from": 1_900_000_000.0, "in_force_until": 1_950_000_000.0, "in_force": False},
    ],
    "processes": [
        {"name": "worker 0", "pid": 12, "generation": 4}, {"name": "recorder", "pid": 13, "generation": None}
    ],
    "last_reload": {"at": 1_700_000_000.0, "ok": False, "problems": ["a.yaml:1:1: broken"]},
}  # fmt: skip


def test_a_status_is_plain_text_where_nobody_looks_on(capsys: pytest.CaptureFixture[str]) -> None:
    """No colours, no markup out of titles, each order on a line, no blanks at line ends."""
    show_status(STATUS)
    lines = capsys.readouterr().out.splitlines()

    assert not any("\x1b" in line or line != line.rstrip() for line in lines)
    found = [" ".join(line.split()) for line in lines]
    for expected in (
        "version 1.2.3, compiled hot path",
        "up 1 d 2 h 3 min, 0 restarts of processes",
        "answers on 127.0.0.1:5300, [::1]:5300",
        "metrics http://127.0.0.1:9530/metrics",
        "policy generation 4 (0123456789ab), 140 names, compiled at 2023-11-14 22:13:20 UTC",
        "hits 3 recorded, 0 lost",
        "last reload 2023-11-14 22:13:20 UTC, failed: a.yaml:1:1: broken",
        "ban in force since 2023-11-14 22:13:20 UTC enforce nxdomain a, b [red]A ban[/red]",
        "later not in force: 2030-03-17 17:46:40 UTC to 2031-10-17 10:40:00 UTC observe drop a Another",
        "worker 0 12 4",
        "recorder 13",
    ):
        assert expected in found


def test_a_server_of_another_version_is_shown_as_far_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is left empty."""
    show_status({"version": "9.9.9", "upstreams": []})

    out = capsys.readouterr().out
    assert "9.9.9" in out
    assert "none: allowed names get SERVFAIL" in out
