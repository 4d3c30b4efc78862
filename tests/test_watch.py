"""The watch of several processes: who is lost, who is stuck, and who only waits."""

import json
import queue
import socket
import subprocess
import sys
import threading
import time

import pytest

from anigan_jax.runtime import watch


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watch, "BEAT", 0.05)


@pytest.fixture
def watches(request):
    """Three members of a watch in this process, and what each was told at its end."""
    silent, stuck = getattr(request, "param", (30, 30))
    told = [queue.Queue() for _ in range(3)]
    made = [
        watch.Watch(rank, 3, silent, stuck, end=lambda *said, q=told[rank]: q.put(said))
        for rank in range(3)
    ]
    door = made[0].listen()
    for one in made[1:]:
        one.join(door)
    deadline = time.monotonic() + 5
    while len(made[0].lines) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    yield made, told, door
    for one in made:
        one.leave()


def verdicts(told, but):
    return [told[rank].get(timeout=5) for rank in range(3) if rank not in but]


def test_a_broken_line_is_a_lost_process_with_its_step(watches):
    made, told, _ = watches
    made[2].at(40, "step")
    time.sleep(0.3)
    made[2].over.set()
    made[2].lines[0].shutdown(socket.SHUT_RDWR)
    assert verdicts(told, {2}) == [("process 2, step 40 (step) has ended", 4)] * 2


def test_the_loss_of_process_0_is_seen_by_all(watches):
    made, told, _ = watches
    made[0].at(7, "save")
    time.sleep(0.3)
    made[0].over.set()
    for line in made[0].lines.values():
        line.shutdown(socket.SHUT_RDWR)
    assert verdicts(told, {0}) == [("process 0, step 7 (save) has ended", 4)] * 2


@pytest.mark.parametrize("watches", [(0.5, 30)], indirect=True)
def test_a_silent_process(watches):
    """Its line stands, and nothing comes: as after SIGSTOP."""
    made, told, _ = watches
    made[1].over.set()
    assert verdicts(told, {1}) == [("process 1, step 0 (start) is silent for 0.5 s", 4)] * 2


@pytest.mark.parametrize("watches", [(30, 0.6)], indirect=True)
def test_who_waits_for_a_stuck_one_is_no_suspect(watches):
    """0 and 2 wait in the dispatch of step 8; 1 compiles, for ever."""
    made, told, _ = watches
    for rank, phase in enumerate(("step", "compile", "step")):
        made[rank].at(8, phase)
    said = verdicts(told, set())
    assert said == [("process 1, step 8 (compile): no progress for 0.6 s", 4)] * 3


@pytest.mark.parametrize("watches", [(30, 0.6)], indirect=True)
def test_who_is_behind_is_the_stuck_one(watches):
    made, told, _ = watches
    made[0].at(9, "step")
    made[1].at(9, "step")
    made[2].at(8, "step")
    assert verdicts(told, set())[0][0].startswith("process 2, step 8 (step): no progress")


@pytest.mark.parametrize("watches", [(30, 0.6)], indirect=True)
def test_progress_and_goodbyes_are_no_faults(watches):
    made, told, _ = watches
    made[2].leave()
    for step in range(12):
        for one in made[:2]:
            one.at(step, "step")
        time.sleep(0.1)
    assert all(one.empty() for one in told)


@pytest.mark.parametrize("watches", [(30, 0.6)], indirect=True)
def test_process_0_that_is_stuck_in_a_save_is_named(watches):
    """As the driver tells it: the others wait for it, at the step of their last dispatch."""
    made, told, _ = watches
    made[0].at(12, "save")
    for one in made[1:]:
        one.at(8, "step")
        threading.Thread(target=one.meet, daemon=True).start()
    assert verdicts(told, set())[0][0].startswith("process 0, step 12 (save): no progress")


@pytest.mark.parametrize("watches", [(0.5, 30)], indirect=True)
def test_after_a_failed_exchange_the_hanging_process_is_named(watches):
    """It still beats; the others gave up waiting for it."""
    made, told, _ = watches
    for one in made:
        one.at(8, "compile" if one is made[2] else "step")
    for one in made[:2]:
        threading.Thread(target=one.verdict, daemon=True).start()
    said = verdicts(told, set())[0][0]
    assert said.startswith("process 2, step 8 (compile): the others could not exchange data")


def test_one_that_never_comes_is_missed():
    told = queue.Queue()
    first = watch.Watch(0, 2, 0.5, 30, end=lambda *said: told.put(said))
    first.listen()
    assert told.get(timeout=5) == ("process 1, step 0 (start) is silent for 0.5 s", 4)


def test_an_end_that_cannot_be_told_is_an_end():
    """The log's disk is full: nothing can be printed."""
    code = (
        "import sys; sys.stderr = open('/dev/full', 'w'); "
        "from anigan_jax.watch import Watch; Watch(1, 2, 5, 5).end('lost', 4)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 4


def test_a_refusal_ends_all_with_its_words(watches):
    made, told, _ = watches
    made[1].leave("process 1: no such data", 2)
    assert verdicts(told, {1}) == [("process 1: no such data", 2)] * 2


def test_meetings(watches):
    """Nobody goes on before all have come, time after time."""
    made, _, _ = watches
    passed = []

    def go(one):
        for number in range(3):
            one.meet()
            passed.append(number)

    threads = [threading.Thread(target=go, args=(one,)) for one in made[:2]]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert passed == []
    go(made[2])
    for thread in threads:
        thread.join(5)
    assert sorted(passed) == sorted(list(range(3)) * 3)
    # The first of a round may come only after all of the round before have met.
    # Nobody is two rounds ahead; the thread that writes it down may be late by one.
    assert passed.index(2) >= 6 - 2


def test_strangers_are_sent_away():
    """Who does not know the word gets no place, and does not keep others from theirs."""
    told = queue.Queue()
    first = watch.Watch(0, 2, 30, 30, end=lambda *said: told.put(said))
    door = first.listen()
    hellos = (b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b"[]\n", b'{"token": "x", "rank": 1}\n')
    mute = socket.create_connection(("127.0.0.1", door["port"]), timeout=5)
    wrong_rank = {"token": door["token"], "rank": 5}
    for hello in (*hellos, json.dumps(wrong_rank).encode() + b"\n"):
        with socket.create_connection(("127.0.0.1", door["port"]), timeout=5) as line:
            line.sendall(hello)
            assert line.recv(10) == b""
    with pytest.raises(OSError):
        watch.Watch(1, 2, 30, 30).join({**door, "token": "guessed"})
    second = watch.Watch(1, 2, 30, 30, end=lambda *said: told.put(said))
    second.join({**door, "hosts": ["no.such.host.invalid", "127.0.0.1"]})
    time.sleep(0.3)
    assert told.empty()
    second.leave()
    first.leave()
    mute.close()
