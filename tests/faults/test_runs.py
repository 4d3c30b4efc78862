"""Faults that meet a training: signals, a full or broken disk, NaN, memory, other devices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from processes import (
    Training,
    newest,
    prints,
    same_end,
    saving,
    steps_of,
    written,
)
from tiny import FULL, anigan, process_env, start, write_config

from anigan_jax.errors import UserError
from anigan_jax.runtime import environment
from anigan_jax.storage import checkpoint, metrics_file
from anigan_jax.training import artifacts

STEPS = 144
OFTEN = ("--run.checkpoint-every", 8, "--run.sample-every", 48)
LENGTH = ("--run.steps", STEPS, *OFTEN)


def train(config, run, *more):
    return "train", config, "--workdir", run, *LENGTH, *more


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A config file and a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    config = write_config(folder)
    done = anigan(*train(config, folder / "run"))
    assert done.returncode == 0, done.stderr
    return config, folder / "run"


def resumed(config, run, *more) -> Training:
    training = Training(run.parent / "resumed.log", *train(config, run, *more))
    assert training.ended() == 0, training.said()
    return training


@pytest.mark.slow
@pytest.mark.fault(6)
def test_signals_in_every_phase(whole, tmp_path):
    """While it starts, compiles, steps and saves; each time it goes on where it was."""
    config, undisturbed = whole
    run = tmp_path / "run"
    cold = {"XDG_CACHE_HOME": str(tmp_path)}
    phases = (
        ("start", signal.SIGTERM, lambda _: (run / "lock").exists(), {}),
        # Nothing compiled is at hand: the first dispatch takes seconds.
        ("compile", signal.SIGINT, lambda _: written(run) >= 1, cold),
        ("step", signal.SIGTERM, lambda _: newest(run) >= 40, {}),
        ("save", signal.SIGINT, lambda pid: newest(run) >= 80 and saving(run, pid), {}),
    )
    for phase, number, reached, env in phases:
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
    """While a save waits for its disk for many seconds: that save is lost, those before are not."""
    config, undisturbed = whole
    run = tmp_path / "run"
    slow = tmp_path / "slow"
    env = {"LD_PRELOAD": str(shim), "BREAK_FSYNC": str(tmp_path / "no"), "SLOW_FSYNC": str(slow)}
    training = Training(tmp_path / "log", *train(config, run), env=env)
    training.until(lambda: newest(run) >= 40)
    slow.write_text("20000")
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


@pytest.mark.slow
@pytest.mark.fault(7)
def test_a_second_signal_ends_a_compilation(whole, tmp_path):
    """Python runs no handler while XLA compiles."""
    config, _ = whole
    run = tmp_path / "run"
    cold = {"XDG_CACHE_HOME": str(tmp_path)}
    training = Training(tmp_path / "log", *train(config, run), env=cold)
    training.until(lambda: written(run) >= 1)
    time.sleep(1)
    sent = time.monotonic()
    training.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    training.send_signal(signal.SIGINT)
    assert training.ended(10) in (143, 130)
    assert time.monotonic() - sent < 2
    assert steps_of(run) == []


@pytest.mark.fault(6)
def test_a_signal_during_a_evaluation_does_not_wait_for_it(whole, tmp_path):
    """The evaluation is left for the next start, whose scores are those of an undisturbed run."""
    folder = tmp_path
    config = write_config(folder)
    judged = (*("--data.count", 400, "--data.test", 0.3, "--run.judge", "random"),)
    judged += ("--run.evaluate-every", 48, "--run.evaluate-n", 100)
    home = {"XDG_CACHE_HOME": str(tmp_path / "home")}
    calm = Training(tmp_path / "calm.log", *train(config, folder / "calm", *judged), env=home)
    assert calm.ended(300) == 0, calm.said()
    run = folder / "run"
    training = Training(tmp_path / "log", *train(config, run, *judged), env=home)
    # The line of the checkpoint's last step is written, then it is judged.
    training.until(lambda: written(run) >= 49 and newest(run) < 48)
    training.send_signal(signal.SIGTERM)
    assert training.ended() == 143, training.said()
    again = Training(tmp_path / "again.log", *train(config, run, *judged), env=home)
    assert again.ended() == 0, again.said()
    same_end(run, folder / "calm")
    lines = [metrics_file.read_metrics(r / "evaluation.jsonl") for r in (run, folder / "calm")]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [48, 96, 144]
    assert (run / "best.json").read_text() == (folder / "calm" / "best.json").read_text()


@pytest.mark.fault(8)
def test_a_sleep_changes_nothing_and_is_no_slow_step(whole, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"
    training = Training(tmp_path / "log", *train(config, run))
    training.until(lambda: newest(run) >= 40)
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


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", place]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs rights that this user does not have")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.fault(9)
def test_a_disk_that_fills_up(whole, small_disk, tmp_path):
    config, undisturbed = whole
    run = small_disk / "run"
    training = Training(tmp_path / "log", *train(config, run))
    training.until(lambda: newest(run) >= 40)
    with (small_disk / "ballast").open("wb") as file, pytest.raises(OSError):
        while True:
            file.write(bytes(2**16))
            file.flush()
    assert training.ended() == 4, training.said()
    assert "No space left" in training.said()
    assert "Traceback" not in training.said()
    assert newest(run) >= 40
    (small_disk / "ballast").unlink()
    resumed(config, run)
    same_end(run, undisturbed)


@pytest.mark.fault(9)
def test_a_disk_that_is_too_small_is_told_at_the_start(whole, small_disk, tmp_path):
    config, _ = whole
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free - 2**17))
    training = Training(tmp_path / "log", *train(config, small_disk / "run"))
    assert training.ended() == 2, training.said()
    assert "MB free" in training.said()
    assert newest(small_disk / "run") == 0


@pytest.mark.fault(9)
def test_a_limit_of_the_size_of_files(whole, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"
    # In blocks of 1,024 bytes: metrics.jsonl outgrows it first.
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 40; exec "$@"', "-", *_command(train(config, run))],
        env=process_env(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    resumed(config, run)
    same_end(run, undisturbed)


def _command(args):
    return [sys.executable, "-m", "anigan_jax", *map(str, args)]


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int fsync(int fd) {
  if (access(getenv("BREAK_FSYNC"), F_OK) == 0) { errno = EIO; return -1; }
  FILE *slow = getenv("SLOW_FSYNC") ? fopen(getenv("SLOW_FSYNC"), "r") : NULL;
  int milliseconds = 0;
  if (slow) {
    if (fscanf(slow, "%d", &milliseconds) == 1) usleep(milliseconds * 1000);
    fclose(slow);
  }
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A library that makes fsync fail, or wait for milliseconds that a file tells."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    built = folder / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, folder / "shim.c", "-ldl"], check=True)
    return built


@pytest.mark.fault(10)
@pytest.mark.fault(38)
def test_an_input_output_error_in_the_background_stops_the_run(whole, shim, tmp_path):
    config, undisturbed = whole
    run, broken = tmp_path / "run", tmp_path / "broken"
    env = {"LD_PRELOAD": str(shim), "BREAK_FSYNC": str(broken)}
    training = Training(tmp_path / "log", *train(config, run), env=env)
    training.until(lambda: newest(run) >= 40)
    broken.touch()
    assert training.ended() == 4, training.said()
    assert "Input/output error" in training.said()
    assert "Traceback" not in training.said()
    kept = newest(run)
    # By the boundary after the one whose save failed.
    assert metrics_file.read_metrics(run / "metrics.jsonl")[-1]["step"] <= kept + 3 * 8
    resumed(config, run)
    same_end(run, undisturbed)


@pytest.mark.fault(38)
def test_saves_slower_than_their_interval_come_one_after_another(whole, shim, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"
    slow = tmp_path / "slow"
    slow.write_text("30")
    env = {"LD_PRELOAD": str(shim), "BREAK_FSYNC": str(tmp_path / "no"), "SLOW_FSYNC": str(slow)}
    command = ("train", config, "--workdir", run, "--run.steps", 40, *OFTEN)
    training = Training(tmp_path / "log", *command, env=env)
    most = 0
    while training.poll() is None:
        most = max(most, len(list((run / "checkpoints").glob(".tmp-*"))))
        time.sleep(0.005)
    assert training.returncode == 0, training.said()
    assert most == 1
    assert prints(run) == {s: p for s, p in prints(undisturbed).items() if s <= 40}


@pytest.mark.fault(11)
def test_folders_that_cannot_be_written(whole, tmp_path):
    config, _ = whole
    file = tmp_path / "file"
    file.write_text("mine")
    closed = tmp_path / "closed"
    closed.mkdir()
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", closed, closed], capture_output=True)
    places = [
        file,
        file / "run",
        "/proc/run",
        *([closed / "run"] if not mounted.returncode else []),
    ]
    try:
        for place in places:
            training = Training(tmp_path / "log", *train(config, place))
            assert training.ended() == 2, training.said()
            assert "cannot be written" in training.said()
            assert "Traceback" not in training.said()
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", closed], check=True)
    assert file.read_text() == "mine"


@pytest.mark.fault(11)
def test_a_folder_that_is_deleted_while_it_trains(whole, tmp_path):
    config, _ = whole
    run = tmp_path / "run"
    training = Training(tmp_path / "log", *train(config, run))
    training.until(lambda: newest(run) >= 40)
    run.rename(tmp_path / "moved")
    assert training.ended() == 4, training.said()
    assert str(run) in training.said()
    assert "Traceback" not in training.said()
    (tmp_path / "moved").rename(tmp_path / "run")
    resumed(config, run)


@pytest.mark.fault(12)
def test_a_rate_that_is_far_too_high(whole, tmp_path):
    config, _ = whole
    run = tmp_path / "run"
    training = Training(tmp_path / "log", *train(config, run, "--g.rate", 1e18, "--d.rate", 1e18))
    assert training.ended() == 3, training.said()
    assert "diverged" in training.said()
    told = json.loads((run / artifacts.DIVERGED).read_text())
    step = metrics_file.read_metrics(run / "metrics.jsonl")[-1]["step"]
    # Within one super-step, of two steps here.
    assert 0 < told["step"] <= step <= told["step"] + 3
    assert told["leaves"]
    assert told["first"] in training.said()
    assert told["first"] in told["leaves"]
    for kept in steps_of(run):
        state = checkpoint.restore(run / "checkpoints", start(FULL)[1], at=kept).state
        assert not artifacts.not_finite(state)


@pytest.mark.fault(12)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_weight_is_named(whole, tmp_path, value):
    """In the checkpoint itself, with digests that fit."""
    config, undisturbed = whole
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    like = jax.tree.map(np.asarray, start(FULL)[1])
    found = checkpoint.restore(run / "checkpoints", like)
    kernel = np.array(found.state.params["g"]["rgb"]["weight"]["kernel"])
    kernel[0, 0, 0, 0] = value
    found.state.params["g"]["rgb"]["weight"]["kernel"] = kernel
    checkpoint.save(run / "checkpoints", found.step, found.state, found.manifest["meta"])
    command = ("train", config, "--workdir", run, "--run.steps", STEPS + 40, *OFTEN)
    training = Training(tmp_path / "log", *command)
    assert training.ended() == 3, training.said()
    told = json.loads((run / artifacts.DIVERGED).read_text())
    assert told["step"] == STEPS + 1
    assert told["first"] in told["leaves"]
    assert newest(run) == STEPS


@pytest.mark.fault(24)
@pytest.mark.slow
def test_other_devices_and_back(whole, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"

    def devices(count, steps):
        options = ("--run.platform", "cpu", "--run.devices", count)
        command = ("train", config, "--workdir", run, "--run.steps", steps, *OFTEN, *options)
        training = Training(tmp_path / "log", *command)
        assert training.ended() == 0, training.said()
        return training.said()

    assert "warning" not in devices(1, 40)
    assert "devices: 1 -> 4" in devices(4, 80)
    assert "devices: 4 -> 1" in devices(1, 120)
    mine, whole_prints = prints(run), prints(undisturbed)
    assert {s: mine[s] for s in range(41)} == {s: whole_prints[s] for s in range(41)}
    lines, others = (metrics_file.read_metrics(r / "metrics.jsonl") for r in (run, undisturbed))
    # The same weights, images and noise: the losses of the next step agree to rounding.
    for name in ("loss/d", "loss/g", "score/real"):
        assert lines[41][name] == pytest.approx(others[41][name], rel=1e-5)
    noted = json.loads((run / "run.json").read_text())["resumed"]
    assert [entry["step"] for entry in noted] == [40, 80]


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "options",
    [
        ("--run.platform", "gpu"),
        ("--run.platform", "tpu"),
        # One of two is missing.
        ("--run.devices", 2),
    ],
)
def test_devices_that_are_not_there(whole, tmp_path, options):
    config, _ = whole
    env = {"JAX_PLATFORMS": ""} if "--run.platform" in options else {}
    training = Training(tmp_path / "log", *train(config, tmp_path / "run", *options), env=env)
    assert training.ended() == 2, training.said()
    assert "Traceback" not in training.said()
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.fault(27)
def test_a_compiler_that_computes_wrong_numbers_stops_everything(monkeypatch):
    """As jax issue 39103 was seen: one element of a compiled result off by 0.8 %.

    Which processors it strikes is not known; so the compiler's part is played.
    """
    environment.self_test()
    usual = jax.jit

    def wrong(function):
        return lambda *args: usual(function)(*args).at[1].multiply(0.992)

    monkeypatch.setattr(jax, "jit", wrong)
    with pytest.raises(UserError, match="wrong numbers"):
        environment.self_test()


@pytest.mark.fault(27)
def test_other_versions_than_at_the_start_are_told_and_noted(whole, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    recorded = json.loads((run / "run.json").read_text())
    recorded["facts"]["jaxlib"] = "0.9.9"
    (run / "run.json").write_text(json.dumps(recorded))
    command = ("train", config, "--workdir", run, "--run.steps", STEPS + 8, *OFTEN)
    training = Training(tmp_path / "log", *command)
    assert training.ended() == 0, training.said()
    assert "jaxlib: 0.9.9 -> " in training.said()
    noted = json.loads((run / "run.json").read_text())["resumed"]
    assert noted[0]["step"] == STEPS
    assert "jaxlib" in noted[0]["changed"][0]


@pytest.mark.fault(28)
def test_memory_that_runs_out(whole, tmp_path):
    """Of a process that may take 5 GB of address space."""
    config, _ = whole
    run = tmp_path / "run"
    command = ("train", config, "--workdir", run, "--run.steps", 4, "--run.keep-checkpoints", 1)
    wide = _command((*command, "--method.generator.base-channels", 2000))
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 5000000; exec "$@"', "-", *wide],
        env=process_env(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4, done.stderr
    assert "batch_size" in done.stderr
    assert "Traceback" not in done.stderr


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
