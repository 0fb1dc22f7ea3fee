"""What people see of a server's state."""

import pytest

from resolver.cli.status import show_status

AT = 1_800_000_000.0
STATUS: dict[str, object] = {
    "version": "1.2.3", "hot": "compiled", "uptime_seconds": 93_784.5,
    "restarts": {"worker": 0, "recorder": 0}, "config": "/etc/interdict.yaml",
    "state_dir": "/var/lib/interdict", "listen": ["127.0.0.1:5300", "[::1]:5300"], "encrypted": [],
    "upstreams": ["192.0.2.53:53"],
    "metrics": "127.0.0.1:9530", "generation": 4, "digest": "0123456789abcdef", "loaded_at": 1_700_000_000.0,
    "names": 140, "queries": 77, "cache_entries": 5, "hits_spooled": 3, "hits_lost": 0,
    "orders": [
        {"id": "ban", "title": "[red]A ban[/red]", "mode": "enforce", "action": "nxdomain", "groups": ["a", "b"],
         "in_force_from": 1_700_000_000.0, "in_force_until": None, "in_force": True},
        {"id": "later", "title": "Another", "mode": "observe", "action": "drop", "groups": ["a"],
         "in_force_from": 1_900_000_000.0, "in_force_until": 1_950_000_000.0, "in_force": False},
    ],
    "made_by": "reload by alice (uid 1000)",
    "zones": [
        {"id": "rule:portal", "kind": "rule", "mode": "enforce", "source": "", "entries": 1, "refused": 0,
         "fetched_at": None, "checked_at": None, "failures": 0, "error": None, "until": 1_900_000_000.0},
        {"id": "rule:over", "kind": "rule", "mode": "enforce", "source": "", "entries": 1, "refused": 0,
         "fetched_at": None, "checked_at": None, "failures": 0, "error": None, "until": 1_700_000_000.0},
        {"id": "list:ads", "kind": "list", "mode": "enforce", "source": "https://lists.example/ads", "entries": 1200,
         "refused": 3, "fetched_at": AT - 90_000, "checked_at": AT - 7_260, "failures": 2, "error": "[b]time-out[/b]",
         "until": None},
        {"id": "zone:rpz.example", "kind": "rpz", "mode": "observe", "source": "rpz.txt", "entries": 7, "refused": 0,
         "fetched_at": None, "checked_at": None, "failures": 0, "error": None, "until": None},
        *({"id": f"way-round:w{i}", "kind": "list", "mode": "enforce", "source": "", "entries": 9, "refused": 0,
           "fetched_at": None, "checked_at": None, "failures": 0, "error": None, "until": None} for i in range(5)),
    ],
    "exemptions": [
        {"id": "lab", "since": 0.0, "until": 1_900_000_000.0, "in_force": True, "groups": ["lab"],
         "devices": ["192.0.2.17"]},
        {"id": "soon", "since": 1_850_000_000.0, "until": 1_900_000_000.0, "in_force": False, "groups": ["lab"],
         "devices": []},
        {"id": "over", "since": 0.0, "until": 1_700_000_000.0, "in_force": False, "groups": ["lab"], "devices": []},
    ],
    "processes": [
        {"name": "worker 0", "pid": 12, "generation": 4}, {"name": "recorder", "pid": 13, "generation": None}
    ],
    "last_reload": {"at": 1_700_000_000.0, "ok": False, "problems": ["a.yaml:1:1: broken"]},
}  # fmt: skip


def test_a_status_is_plain_text_where_nobody_looks_on(capsys: pytest.CaptureFixture[str]) -> None:
    """No colours, no markup out of titles, each order on a line, no blanks at line ends."""
    show_status(STATUS, AT)
    lines = capsys.readouterr().out.splitlines()

    assert not any("\x1b" in line or line != line.rstrip() for line in lines)
    found = [" ".join(line.split()) for line in lines]
    for expected in (
        "version 1.2.3, compiled hot path",
        "up 1 d 2 h 3 min, 0 restarts of processes",
        "answers on 127.0.0.1:5300, [::1]:5300",
        "metrics http://127.0.0.1:9530/metrics",
        "policy generation 4 (0123456789ab), 140 names, compiled at 2023-11-14 22:13:20 UTC, "
        "made by reload by alice (uid 1000)",
        "own rules 2, the next ends at 2030-03-17 17:46:40 UTC; `interdict rules` lists them",
        "ways round w0, w1, w2 and 2 more: withheld",
        "list:ads enforce 1200 3 0 d 2 h 1 min 2 https://lists.example/ads [b]time-out[/b]",
        "zone:rpz.example observe 7 0 0 rpz.txt",
        "lab lab, 192.0.2.17 2030-03-17 17:46:40 UTC",
        "soon lab 2030-03-17 17:46:40 UTC, not yet: from 2028-08-16 00:53:20 UTC",
        "over lab ended at 2023-11-14 22:13:20 UTC",
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
    show_status({"version": "9.9.9", "upstreams": []}, AT)

    out = capsys.readouterr().out
    assert "9.9.9" in out
    assert "none: allowed names get SERVFAIL" in out


# ---- explanations ----------------------------------------------------------------------------------------------------
