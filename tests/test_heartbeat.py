"""Heartbeats of several processes: which is lost, which is stuck, and which only wait."""

import contextlib
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from tiny import PLAIN

from anigan_jax import api
from anigan_jax.errors import UserError
from anigan_jax.runtime import heartbeat, processes


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)


@pytest.fixture
def group(request):
    """Three members in this process, what each was ended with, and how to reach process 0."""
    timeout, stall_timeout = getattr(request, "param", (30, 30))
    ends = [queue.Queue() for _ in range(3)]
    members = [
        heartbeat.Heartbeat(
            rank, 3, timeout, stall_timeout, end=lambda *end, q=ends[rank]: q.put(end)
        )
        for rank in range(3)
    ]
    server = members[0].serve("127.0.0.1")
    for member in members[1:]:
        member.join(server)
    deadline = time.monotonic() + 5
    while len(members[0].connections) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    yield members, ends, server
    for member in members:
        member.leave()


def results(ends, but):
    return [ends[rank].get(timeout=5) for rank in range(3) if rank not in but]


def soon(condition):
    """Waits until it holds: a beat says it, and takes its time."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_a_broken_connection_is_a_lost_process_with_its_step(group):
    members, ends, _ = group
    members[2].at(40, "step")
    soon(lambda: members[0].ranks[2].step == 40)
    members[2].closed.set()
    members[2].connections[0].shutdown(socket.SHUT_RDWR)
    assert results(ends, {2}) == [("process 2, step 40 (step): it has ended", 4)] * 2


def test_the_loss_of_process_0_is_seen_by_all(group):
    members, ends, _ = group
    members[0].at(7, "save")
    soon(lambda: all(member.ranks[0].step == 7 for member in members[1:]))
    members[0].closed.set()
    for connection in members[0].connections.values():
        connection.shutdown(socket.SHUT_RDWR)
    assert results(ends, {0}) == [("process 0, step 7 (save): it has ended", 4)] * 2


@pytest.mark.parametrize("group", [(0.5, 30)], indirect=True)
def test_a_silent_process(group):
    """Its line stands, and nothing comes: as after SIGSTOP."""
    members, ends, _ = group
    members[1].closed.set()
    assert results(ends, {1}) == [("process 1, step 0 (start): no heartbeat for 0.5 s", 4)] * 2


@pytest.mark.parametrize("group", [(30, 0.6)], indirect=True)
def test_who_waits_for_a_stuck_one_is_no_suspect(group):
    """0 and 2 wait in the dispatch of step 8; 1 compiles, for ever."""
    members, ends, _ = group
    for rank, phase in enumerate(("step", "compile", "step")):
        members[rank].at(8, phase)
    assert results(ends, set()) == [("process 1, step 8 (compile): no progress for 0.6 s", 4)] * 3


@pytest.mark.parametrize("group", [(30, 0.6)], indirect=True)
def test_who_is_behind_is_the_stuck_one(group):
    members, ends, _ = group
    members[0].at(9, "step")
    members[1].at(9, "step")
    members[2].at(8, "step")
    assert results(ends, set())[0][0].startswith("process 2, step 8 (step): no progress")


@pytest.mark.long
@pytest.mark.parametrize("group", [(30, 0.6)], indirect=True)
def test_progress_and_goodbyes_are_no_faults(group):
    members, ends, _ = group
    members[2].leave()
    for step in range(12):
        for one in members[:2]:
            one.at(step, "step")
        time.sleep(0.1)
    assert all(end.empty() for end in ends)


@pytest.mark.parametrize("group", [(30, 0.6)], indirect=True)
def test_process_0_that_is_stuck_in_a_save_is_named(group):
    """As the driver tells it: the others wait for it, at the step of their last dispatch."""
    members, ends, _ = group
    members[0].at(12, "save")
    for one in members[1:]:
        one.at(8, "step")
        threading.Thread(target=one.barrier, daemon=True).start()
    assert results(ends, set())[0][0].startswith("process 0, step 12 (save): no progress")


@pytest.mark.parametrize("group", [(0.5, 30)], indirect=True)
def test_after_a_failed_exchange_the_hanging_process_is_named(group):
    """It still beats; the others gave up waiting for it."""
    members, ends, _ = group
    for one in members:
        one.at(8, "compile" if one is members[2] else "step")
    for one in members[:2]:
        threading.Thread(target=one.diagnose, daemon=True).start()
    assert results(ends, set())[0][0].startswith(
        "process 2, step 8 (compile): the other processes could not exchange data"
    )


def test_one_that_never_comes_is_missed():
    ends = queue.Queue()
    first = heartbeat.Heartbeat(0, 2, 0.5, 30, end=lambda *end: ends.put(end))
    first.serve("127.0.0.1")
    assert ends.get(timeout=5) == ("process 1, step 0 (start): no heartbeat for 0.5 s", 4)


def test_a_process_ends_though_nothing_can_be_printed():
    """The log's disk is full: nothing can be printed."""
    code = (
        "import sys; sys.stderr = open('/dev/full', 'w'); "
        "from anigan_jax.runtime.heartbeat import Heartbeat; Heartbeat(1, 2, 5, 5).end('lost', 4)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 4


def test_a_refusal_ends_all_with_its_words(group):
    members, ends, _ = group
    members[1].leave("process 1: no such data", 2)
    assert results(ends, {1}) == [("process 1: no such data", 2)] * 2


def test_barriers(group):
    """Nobody goes on before all have come, time after time."""
    members, _, _ = group
    passed = []

    def go(one):
        for number in range(3):
            one.barrier()
            passed.append(number)

    threads = [threading.Thread(target=go, args=(one,)) for one in members[:2]]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert passed == []
    go(members[2])
    for thread in threads:
        thread.join(5)
    assert sorted(passed) == sorted(list(range(3)) * 3)
    # The first of a round may come only after all of the round before have met.
    # Nobody is two rounds ahead; the thread that writes it down may be late by one.
    assert passed.index(2) >= 6 - 2


def test_strangers_are_sent_away():
    """One without the key gets no rank, and does not keep the others from theirs."""
    ends = queue.Queue()
    first = heartbeat.Heartbeat(0, 2, 30, 30, end=lambda *end: ends.put(end))
    server = first.serve("127.0.0.1")
    address = ("127.0.0.1", server["port"])
    # Neither one that says nothing nor one that stops halfway blocks the next.
    silent = socket.create_connection(address, timeout=5)
    halfway = socket.create_connection(address, timeout=5)
    halfway.sendall(b'{"key": ')
    strangers = (
        b"GET / HTTP/1.1\r\n\r\n",
        b"{}\n",
        b"[]\n",
        b"3\n",
        b"\xff\n",
        b'{"key": "x", "rank": 1}\n',
        b'{"key": 1, "rank": 1}\n',
        b"x" * 200_000,
        *(json.dumps({"key": server["key"], "rank": r}).encode() + b"\n" for r in (0, 5, "1", -1)),
    )
    for message in strangers:
        connection = socket.create_connection(address, timeout=5)
        # It may hang up before it has read all.
        with connection, contextlib.suppress(ConnectionError):
            connection.sendall(message)
            assert connection.recv(10) == b""
    guesses = heartbeat.Heartbeat(1, 2, 30, 30, end=lambda *end: None)
    guesses.join({**server, "key": "guessed"})
    second = heartbeat.Heartbeat(1, 2, 30, 30, end=lambda *end: ends.put(end))
    second.join({**server, "hosts": ["no.such.host.invalid", "127.0.0.1"]})
    soon(lambda: list(first.connections) == [1])
    assert ends.empty()
    second.leave()
    first.leave()
    silent.close()
    halfway.close()


def test_work_without_steps_is_progress(monkeypatch):
    """Packing for an hour: the others would end all after half of one."""
    told = []
    monkeypatch.setattr(processes, "BUSY", 0.02)
    group = processes.ALONE._replace(heartbeat=SimpleNamespace(at=lambda *at: told.append(at)))
    with processes.busy(group, "data"):
        time.sleep(0.3)
    assert told and set(told) == {(0, "data")}
    count = len(told)
    time.sleep(0.1)
    assert len(told) == count


def test_one_process_that_is_announced_is_alone(monkeypatch, tmp_path):
    """What it raises reaches its caller; several end together."""
    for name, value in zip(processes.OWN, ("localhost:1", "1", "0"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(api, "verified", lambda *rest: (_ for _ in ()).throw(UserError("seen")))
    with pytest.raises(UserError, match="seen"), api.opened(PLAIN, tmp_path / "run"):
        pass
