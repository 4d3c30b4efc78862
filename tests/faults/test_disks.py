"""A full, small, slow, broken, closed or vanished disk under a training."""

import shutil
import subprocess
import time

import pytest
from faults.undisturbed import OFTEN, argv, resumed, train
from processes import (
    Training,
    newest,
    prints,
    same_end,
)
from tiny import process_env

from anigan_jax.storage import metrics_file

pytestmark = pytest.mark.long


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
    training.until(lambda: newest(run) >= 24)
    with (small_disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(2**16))
    assert training.ended() == 4, training.said()
    assert "No space left" in training.said()
    assert "Traceback" not in training.said()
    assert newest(run) >= 24
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
        ["bash", "-c", 'ulimit -f 32; exec "$@"', "-", *argv(train(config, run))],
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


@pytest.mark.fault(10)
@pytest.mark.fault(38)
def test_an_input_output_error_in_the_background_stops_the_run(whole, shim, tmp_path):
    config, undisturbed = whole
    run, broken = tmp_path / "run", tmp_path / "broken"
    env = {"LD_PRELOAD": str(shim), "BREAK_FSYNC": str(broken)}
    training = Training(tmp_path / "log", *train(config, run), env=env)
    training.until(lambda: newest(run) >= 24)
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
    training.until(lambda: newest(run) >= 24)
    run.rename(tmp_path / "moved")
    assert training.ended() == 4, training.said()
    assert str(run) in training.said()
    assert "Traceback" not in training.said()
    (tmp_path / "moved").rename(tmp_path / "run")
    resumed(config, run)


def test_a_folder_that_another_run_has_taken_over_is_left_alone(whole, tmp_path):
    """As where one deletes a run, forgets that it still trains, and starts it anew."""
    config, _ = whole
    run, new = tmp_path / "run", tmp_path / "new"
    new.mkdir()
    for name, text in (("run.json", "{}"), ("lock", "process 1 on elsewhere\n")):
        (new / name).write_text(text)
    training = Training(tmp_path / "log", *train(config, run))
    training.until(lambda: newest(run) >= 24)
    run.rename(tmp_path / "deleted")
    new.rename(run)
    assert training.ended() == 4, training.said()
    assert "another process" in training.said() and "Traceback" not in training.said()
    assert sorted(p.name for p in run.iterdir()) == ["lock", "run.json"]
