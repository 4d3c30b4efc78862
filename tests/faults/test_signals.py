"""Signals, a sleep and a second process: a training ends well, or goes on where it was."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from faults.undisturbed import STEPS, resumed, train
from processes import (
    Training,
    cold,
    newest,
    same_end,
    saving,
    steps_of,
    written,
)
from tiny import write_config

from anigan_jax.runtime import signals
from anigan_jax.storage import checkpoint, metrics_file

pytestmark = pytest.mark.long


@pytest.mark.slow
@pytest.mark.fault(6)
def test_signals_in_every_phase(whole, tmp_path):
    """While it starts, compiles, steps and saves; each time it goes on where it was."""
    config, undisturbed = whole
    run = tmp_path / "run"
    phases = (
        ("start", signal.SIGTERM, lambda _: (run / "lock").exists(), {}),
        # Nothing compiled is at hand: the first dispatch takes seconds.
        ("compile", signal.SIGINT, lambda _: written(run) > lines, cold(tmp_path)),
        ("step", signal.SIGTERM, lambda _: newest(run) >= max(24, before + 1), {}),
        ("save", signal.SIGINT, lambda pid: newest(run) >= 56 and saving(run, pid), {}),
    )
    for phase, number, reached, env in phases:
        # Where this process was slow, the first phase got further than its start.
        if phase == "compile" and written(run):
            shutil.rmtree(run)
        lines, before = written(run), newest(run)
        training = Training(tmp_path / f"{phase}.log", *train(config, run), env=env)
        training.until(lambda reached=reached, pid=training.pid: reached(pid))
        # The first line of metrics comes just before a signal is waited for.
        time.sleep(0.5 if phase == "compile" else 0)
        sent = time.monotonic()
        training.send_signal(number)
        assert training.ended() == 128 + number, (phase, training.said())
        took, said = time.monotonic() - sent, training.said()
        if "within" in said:
            assert took < int(said.split("within ")[1].split(" s")[0])
        assert "Traceback" not in said
        # What was computed is kept: the newest checkpoint is that of the last line.
        if phase != "start":
            assert newest(run) == metrics_file.read_metrics(run / "metrics.jsonl")[-1]["step"] > 0
        assert newest(run) < STEPS
    resumed(config, run)
    same_end(run, undisturbed)


@pytest.mark.fault(7)
def test_a_second_signal_leaves_at_once(whole, shim, tmp_path):
    """While a save waits for its disk for seconds: that save is lost, those before are not."""
    config, undisturbed = whole
    run = tmp_path / "run"
    slow = tmp_path / "slow"
    env = {"LD_PRELOAD": str(shim), "BREAK_FSYNC": str(tmp_path / "no"), "SLOW_FSYNC": str(slow)}
    training = Training(tmp_path / "log", *train(config, run), env=env)
    training.until(lambda: newest(run) >= 24)
    slow.write_text("5000")
    training.send_signal(signal.SIGTERM)
    training.until(lambda: saving(run, training.pid))
    time.sleep(0.5)
    kept, sent = steps_of(run), time.monotonic()
    training.send_signal(signal.SIGTERM)
    assert training.ended(10) == 143
    assert time.monotonic() - sent < 3
    assert steps_of(run) == kept
    assert "resumes" not in training.said()
    for step in kept:
        assert not checkpoint.verify(run / "checkpoints" / f"step_{step:09d}", step)
    resumed(config, run)
    same_end(run, undisturbed)


@pytest.mark.parametrize(("apart", "typed"), [(0.0, False), (0.5, False), (0.5, True)])
def test_a_signal_that_comes_twice_at_once_is_one(apart, typed):
    """As GNU timeout sends it, to the process and to its group; a person presses later.

    Where somebody types, as in a notebook, that ends nothing: his variables would be gone.
    """
    script = (
        "import os, signal, sys, threading, time\n"
        f"{'sys.ps1 = 1' if typed else ''}\n"
        "from anigan_jax.runtime import signals\n"
        "with signals.caught() as stop:\n"
        "    stop.ready = True\n"
        # A slow machine may hear of the second one late.
        f"    signals.DOUBLED = {0.2 if apart else 5}\n"
        "    print('up', flush=True)\n"
        "    for _ in range(40): time.sleep(0.05)\n"
        "print('saved', stop.number, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "up\n"
    child.send_signal(signal.SIGTERM)
    time.sleep(apart or 0.01)
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=30)
    ends = apart and not typed
    assert child.returncode == (143 if ends else 0)
    assert ("saved 15" in said) == (not ends)


@pytest.mark.slow
@pytest.mark.fault(7)
def test_a_second_signal_ends_a_compilation(whole, tmp_path):
    """Python runs no handler while XLA compiles."""
    config, _ = whole
    run = tmp_path / "run"
    training = Training(tmp_path / "log", *train(config, run), env=cold(tmp_path))
    training.until(lambda: written(run) >= 1)
    time.sleep(1)
    sent = time.monotonic()
    training.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    training.send_signal(signal.SIGINT)
    assert training.ended(10) in (143, 130)
    assert time.monotonic() - sent < 5
    assert steps_of(run) == []


@pytest.mark.fault(6)
def test_a_signal_during_a_evaluation_does_not_wait_for_it(whole, tmp_path):
    """The evaluation is left for the next start, whose scores are those of an undisturbed run."""
    folder = tmp_path
    config = write_config(folder)
    judged = (*("--data.count", 400, "--data.test", 0.3, "--run.eval-network", "random"),)
    judged += ("--run.evaluate-every", 32, "--run.evaluate-n", 100)
    home = {"XDG_CACHE_HOME": str(tmp_path / "home")}
    calm = Training(tmp_path / "calm.log", *train(config, folder / "calm", *judged), env=home)
    assert calm.ended(300) == 0, calm.said()
    run = folder / "run"
    training = Training(tmp_path / "log", *train(config, run, *judged), env=home)
    # The line of the checkpoint's last step is written, then it is judged.
    training.until(lambda: written(run) >= 33 and newest(run) < 32)
    training.send_signal(signal.SIGTERM)
    assert training.ended() == 143, training.said()
    again = Training(tmp_path / "again.log", *train(config, run, *judged), env=home)
    assert again.ended() == 0, again.said()
    same_end(run, folder / "calm")
    lines = [metrics_file.read_metrics(r / "evaluation.jsonl") for r in (run, folder / "calm")]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [32, 64, 96]
    assert (run / "best.json").read_text() == (folder / "calm" / "best.json").read_text()


@pytest.mark.fault(8)
def test_a_sleep_changes_nothing_and_is_no_slow_step(whole, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"
    training = Training(tmp_path / "log", *train(config, run))
    training.until(lambda: newest(run) >= 24)
    training.send_signal(signal.SIGSTOP)
    time.sleep(4)
    before = written(run)
    training.send_signal(signal.SIGCONT)
    assert training.ended() == 0, training.said()
    same_end(run, undisturbed)
    lines = metrics_file.read_metrics(run / "metrics.jsonl")
    # 8 images took more than 4 s, were the sleep counted.
    speeds = [line["images_per_sec"] for line in lines[before - 8 : before + 8]]
    assert None in speeds
    assert all(speed > 8 * 2 / 4 for speed in speeds if speed)


@pytest.mark.fault(32)
def test_two_runs_at_the_same_instant(whole, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"
    both = [Training(tmp_path / f"{i}.log", *train(config, run)) for i in range(2)]
    codes = sorted(training.ended() for training in both)
    assert codes == [0, 2], both[0].said() + both[1].said()
    refused = next(training for training in both if training.returncode == 2)
    winner = next(training for training in both if training.returncode == 0)
    assert f"process {winner.pid} on {os.uname().nodename}" in refused.said()
    same_end(run, undisturbed)


def test_a_signal_in_what_can_raise_nothing_is_noted_and_prints_nothing(monkeypatch):
    """A callback of the garbage collector, where JAX has one: what it raises Python prints."""
    printed, given = [], [signal.SIGTERM, None]
    monkeypatch.setattr(sys, "unraisablehook", lambda found: printed.append(found.exc_type))

    def callback(phase, _):
        if phase == "stop":
            return
        if given[0]:
            os.kill(os.getpid(), given.pop(0))
            for _ in range(1000):
                pass
        raise ValueError

    with signals.caught() as stop:
        gc.callbacks.append(callback)
        try:
            gc.collect()
            assert stop.number == signal.SIGTERM
            assert printed == []
            gc.collect()
        finally:
            gc.callbacks.remove(callback)
    # What is no stop is printed as ever.
    assert ValueError in printed and SystemExit not in printed
