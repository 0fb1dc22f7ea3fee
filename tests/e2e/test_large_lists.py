"""A list of a million names: taken in while questions are answered, held once for all workers, refused whole if broken.

One server lives through one story, told by `reloaded`; each test looks at another side of it. How long questions wait
hangs on the machine and its neighbours, so the bench measures that (`tests/bench/run names`). Here no question is lost,
and none waits as long as a client would.
"""

import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from gzip import compress
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from resolver.app.worker import open_generation
from tests.support.build import opt, query
from tests.support.server import ROOT, Server, ask_all

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LISTED = 1_000_000
LOOKED_UP = 100_000  # of the listed names; every page of the table is touched by then
OCTETS_A_NAME = 16
# The kernel maps a file in pieces of up to 2 MiB, so the last piece of the table brings the first of the pool along.
PIECE = 2 << 20
OWN_GROWTH = 2 << 20  # octets of a process's own memory, for what a list of any length may cost it
RATE = 1_000  # questions a second
SPAN = 1.5  # seconds of these before the reload, and after it
SOCKETS = 16  # enough that each worker gets some: the kernel deals them out by port
CLIENT_WAIT = 1.0  # seconds; the most impatient stub resolvers ask again after one
NOERROR, NXDOMAIN = 0, 3


def listed(number: int) -> str:
    """The listed name of this number."""
    return f"d{number:07d}.p{number % 997:03d}.listed-{number % 31}.example"


ALLOWED = [f"allowed-{i}.example.org" for i in range(50)]
BANNED = [f"banned-{i}.banned-app.ca" for i in range(50)]
SOON = [listed(number) for number in range(0, LISTED, LISTED // 50)]  # answered before the reload, withheld after it


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and what came of it; times are monotonic seconds, a reply that did not come is none."""

    name: str
    fd: int
    sent: float
    answered: float
    rcode: int | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Octets of one process: its own memory, and what it has of the generation file, whole and shared out."""

    own: int
    policy_rss: int
    policy_pss: int


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The story: a server under a steady load takes in a list, the list is asked for, and memory is measured.

    Attributes:
        server: It still runs.
        path: The list.
        outcome: Of the reload.
        told: When the outcome was known, monotonic seconds.
        asked: All questions of the steady load.
        looked_up: The replies to questions for listed names, asked as soon as the reload was done.
        before: Memory by process.
        after: Memory with the list in force and LOOKED_UP of its names asked for.
    """

    server: Server
    path: Path
    outcome: dict[str, Any]
    told: float
    asked: list[Asked]
    looked_up: list[bytes | None]
    before: dict[str, Memory]
    after: dict[str, Memory]


def ask_steadily(port: int, names: Iterator[str], goes_on: Callable[[], bool]) -> list[Asked]:
    """Ask RATE questions a second while `goes_on`, each of them once; wait for what is under way in the end."""
    asked: list[Asked] = []
    under_way: dict[tuple[int, bytes], tuple[str, float]] = {}
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
    held = {sock.fileno(): sock for sock in socks}
    poll = select.poll()
    for sock in socks:
        sock.connect(("127.0.0.1", port))
        poll.register(sock, select.POLLIN)
    start = now = time.monotonic()
    count, is_over, end = 0, False, math.inf
    while not is_over or (under_way and now < end):
        now = time.monotonic()
        if not is_over and not goes_on():
            is_over, end = True, now + 2 * CLIENT_WAIT
        while not is_over and count < (now - start) * RATE:
            name, sock = next(names), socks[count % SOCKETS]
            message_id = (count // SOCKETS % 65536).to_bytes(2, "big")
            under_way[sock.fileno(), message_id] = name, now
            sock.send(message_id + packet(name)[2:])
            count += 1
        for fd, _ in poll.poll(1):
            reply = held[fd].recv(4096)
            name, sent = under_way.pop((fd, reply[:2]))
            asked.append(Asked(name, fd, sent, time.monotonic(), reply[3] & 15))
    for sock in socks:
        sock.close()
    asked += [Asked(name, fd, sent, math.inf, None) for (fd, _), (name, sent) in under_way.items()]
    return sorted(asked, key=lambda one: one.sent)


def packet(name: str) -> bytes:
    """A question as clients send it."""
    return query(name, additional=(opt(),))


def look_up(server: Server, names: Sequence[str]) -> list[bytes | None]:
    """Ask for each name once."""
    return ask_all(server.port, [packet(name) for name in names], sockets=SOCKETS)


def rcodes(replies: Sequence[bytes | None]) -> set[int | None]:
    """The RCODEs among replies; None stands for a reply that did not come."""
    return {None if reply is None else reply[3] & 15 for reply in replies}


def memory(server: Server) -> dict[str, Memory]:
    """What the supervisor and each worker hold."""
    assert server.process is not None
    return {
        name: memory_of(pid)
        for name, pid in {**server.pids(), "supervisor": server.process.pid}.items()
        if name.startswith(("worker", "supervisor"))
    }


def memory_of(pid: int) -> Memory:
    """What one process holds (proc_pid_smaps(5))."""
    own = rss = pss = 0
    is_policy = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, *values = line.split()
        if not key.endswith(":"):
            is_policy = line.endswith(".generation")
        elif key == "Anonymous:":
            own += int(values[0]) * 1024
        elif is_policy and key == "Rss:":
            rss += int(values[0]) * 1024
        elif is_policy and key == "Pss:":
            pss += int(values[0]) * 1024
    return Memory(own, rss, pss)


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory, upstream: tuple[str, int]) -> Iterator[Reloaded]:
    """A server with a list of a million names, taken in while it answered."""
    folder = tmp_path_factory.mktemp("large")
    path = folder / "names.txt"
    with path.open("w") as file:
        file.writelines(f"{listed(number)}\n" for number in range(LISTED))
    # Few ready answers, which are soon as many as they may be: what grows after that is the list's.
    server = Server(folder, [upstream], cache={"ready_answers": 1_000})
    server.ban("order-1", "banned-app.ca")
    outcomes: list[tuple[float, dict[str, Any]]] = []

    def reload() -> None:
        time.sleep(SPAN)  # of load alone
        outcome = server.ask_control("reload")
        outcomes.append((time.monotonic(), outcome))

    try:
        server.start()
        look_up(server, [*ALLOWED, *SOON, *(f"n{number}.banned-app.ca" for number in range(LOOKED_UP // 10))])
        before = memory(server)
        server.config["policy"]["zones"] = [{"name": "million", "file": str(path)}]
        server.write()
        thread = threading.Thread(target=reload)
        thread.start()
        mixed = cycle(name for three in zip(ALLOWED, BANNED, SOON, strict=True) for name in three)
        asked = ask_steadily(server.port, mixed, lambda: not outcomes or time.monotonic() < outcomes[0][0] + SPAN)
        thread.join()
        looked_up = look_up(server, [listed(number) for number in range(0, LISTED, LISTED // LOOKED_UP)])
        ((told, outcome),) = outcomes
        yield Reloaded(server, path, outcome, told, asked, looked_up, before, memory(server))
    finally:
        server.end()


def test_the_list_is_in_force_and_told(reloaded: Reloaded) -> None:
    """The reload says so, and status counts the names."""
    assert reloaded.outcome == {"ok": True, "generation": 2, "warnings": [], "problems": []}
    (zone,) = [zone for zone in reloaded.server.ask_control("status")["zones"] if zone["id"] == "list:million"]
    assert (zone["entries"], zone["refused"]) == (LISTED, 0)


def test_no_question_is_lost_while_the_list_is_taken_in(reloaded: Reloaded) -> None:
    """Every question of a steady load is answered before its client would ask again."""
    assert len(reloaded.asked) > RATE * SPAN * 2
    assert [one for one in reloaded.asked if one.answered - one.sent > CLIENT_WAIT] == []


def test_no_answer_is_wrong_while_the_list_is_taken_in(reloaded: Reloaded) -> None:
    """Allowed is allowed, banned is banned; a listed name is answered until its worker withholds it, then no more."""
    found: dict[str, set[int | None]] = defaultdict(set)
    kinds = {**dict.fromkeys(ALLOWED, "allowed"), **dict.fromkeys(BANNED, "banned"), **dict.fromkeys(SOON, "listed")}
    by_socket: dict[int, list[Asked]] = defaultdict(list)
    for one in reloaded.asked:
        found[kinds[one.name]].add(one.rcode)
        if kinds[one.name] == "listed":
            by_socket[one.fd].append(one)
    assert found == {"allowed": {NOERROR}, "banned": {NXDOMAIN}, "listed": {NOERROR, NXDOMAIN}}
    for questions in by_socket.values():  # of one socket, and so of one worker
        assert all((first.rcode, then.rcode) != (NXDOMAIN, NOERROR) for first, then in pairwise(questions))


def test_the_list_acts_in_all_workers_as_soon_as_the_reload_is_done(reloaded: Reloaded) -> None:
    """Of the questions sent after that none for a listed name is answered, by whatever worker."""
    later = {one.rcode for one in reloaded.asked if one.name in SOON and one.sent > reloaded.told}
    assert later == {NXDOMAIN}
    assert len(reloaded.looked_up) == LOOKED_UP
    assert rcodes(reloaded.looked_up) == {NXDOMAIN}


def test_the_names_are_in_memory_once_for_all_workers(reloaded: Reloaded) -> None:
    """Sixteen octets a name for all workers together, a tenth of the names asked for; nothing in what is their own."""
    before, after = reloaded.before, reloaded.after
    workers = [name for name in after if name.startswith("worker")]
    assert len(workers) == 2
    assert all(after[name].policy_rss > OCTETS_A_NAME * LISTED / 2 for name in workers)  # each looked everywhere
    assert sum(after[name].policy_pss for name in workers) <= OCTETS_A_NAME * LISTED + PIECE
    grown = {name: after[name].own - before[name].own for name in workers}
    assert [name for name in workers if grown[name] > OWN_GROWTH] == [], grown


def test_the_supervisor_does_not_hold_the_list(reloaded: Reloaded) -> None:
    """Neither in objects nor mapped."""
    before, after = reloaded.before["supervisor"], reloaded.after["supervisor"]
    assert after.own - before.own < OWN_GROWTH
    assert after.policy_rss == 0


def test_opening_a_generation_does_not_read_its_names(reloaded: Reloaded) -> None:
    """A worker that starts has the policy at once: the header is read, and the pieces that lie about it."""
    files = sorted((reloaded.server.state / "generations").glob("*.generation"))
    before = memory_of(os.getpid())
    generation = open_generation(files[-1])
    opened = memory_of(os.getpid())
    assert generation.names > LISTED
    assert opened.policy_rss - before.policy_rss <= 2 * PIECE < files[-1].stat().st_size / 8
    assert opened.own - before.own < OWN_GROWTH


@pytest.mark.parametrize("what", ["a gzip file that ends early", "a page", "half of it binary", "names glued together"])
def test_a_broken_list_leaves_the_one_in_force(reloaded: Reloaded, what: str) -> None:
    """The reload says what is wrong with which file; the names stay withheld."""
    octets = reloaded.path.read_bytes()
    broken = {
        "a gzip file that ends early": compress(octets[: 4 << 20], 1)[:-1000],
        "a page": b"<!DOCTYPE html><html><body>" + octets.replace(b"\n", b"<br>\n"),
        "half of it binary": octets[: len(octets) // 2] + bytes(4096) + octets[len(octets) // 2 :],
        "names glued together": octets[: len(octets) // 2] + octets[len(octets) // 2 :].replace(b"\n", b""),
    }[what]
    server = reloaded.server
    try:
        reloaded.path.write_bytes(broken)
        outcome = server.ask_control("reload")
    finally:
        reloaded.path.write_bytes(octets)
    assert (outcome["ok"], outcome["generation"]) == (False, 2)
    (problem,) = outcome["problems"]
    assert problem.startswith(f"{reloaded.path}:1:1: this is no list: ")
    assert rcodes(look_up(server, SOON)) == {NXDOMAIN}
    assert rcodes(look_up(server, ALLOWED)) == {NOERROR}


def test_the_same_list_again_is_the_same_generation(reloaded: Reloaded) -> None:
    """Compiled anew it has the same digest, so nothing is put in force."""
    assert reloaded.server.ask_control("reload") == reloaded.outcome


def test_a_list_has_one_digest_whatever_the_process(reloaded: Reloaded, tmp_path: Path) -> None:
    """Sets and dictionaries are laid out by another hash in each process; no octet of a generation hangs on that."""
    with reloaded.path.open() as file:
        (tmp_path / "names.txt").write_text("".join(islice(file, 50_000)))
    policy = {"zones": [{"name": "names", "file": str(tmp_path / "names.txt")}]}
    (tmp_path / "interdict.yaml").write_text(json.dumps({"state_dir": str(tmp_path / "state"), "policy": policy}))

    def digest(seed: str) -> str:
        command = [sys.executable, "-m", "resolver", "check", "--json", "--config", str(tmp_path / "interdict.yaml")]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        checked = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return str(json.loads(checked.stdout)["digest"])

    assert digest("1") == digest("2")
