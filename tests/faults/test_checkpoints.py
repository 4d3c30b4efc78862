"""Checkpoints under kill -9, power loss, flipped bits, retention and wrong models."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import disk, saves, soak
from faults.saves import SAVES, script
from tiny import process_env, untrained

from anigan_jax.errors import MachineError, UserError
from anigan_jax.storage import checkpoint, metrics_file
from anigan_jax.storage import manifest as checkpoint_files

LIKE = saves.state(0)
OLD, NEW = 1, 2


def what_is_there(folder: Path) -> int:
    """Which state a start finds; it must be whole, and nothing may be told to be damaged."""
    told = []
    found = checkpoint.restore(folder, LIKE, report=told.append)
    assert not told
    value = found.manifest["meta"]["value"]
    assert checkpoint.leaf_digests(found.state) == checkpoint.leaf_digests(saves.state(value))
    return value


@pytest.mark.long
@pytest.mark.fault(1, 39)
@pytest.mark.parametrize(
    "scenario", ["next_step", pytest.param("same_step", marks=pytest.mark.slow)]
)
def test_a_kill_at_every_file_boundary_leaves_the_old_or_the_new(scenario, tmp_path):
    """SIGKILL before each of Python's own file operations of a save and of the pruning after it.

    Tensorstore's writes, in C++, are cut in `test_every_crash_...`.
    """
    saves.begin(tmp_path / "before")
    command = script("kill", scenario, tmp_path)
    done = subprocess.run(command, env=process_env(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert killed > 50
    places, found = set(), []
    for number in range(1, killed + 1):
        places.add((tmp_path / str(number) / "killed_at").read_text().split()[0])
        folder = tmp_path / str(number) / "checkpoints"
        found.append(what_is_there(folder))
        checkpoint.prune(folder, 1)
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
        assert what_is_there(folder) == found[-1]
    assert places >= {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
    # One moment divides the kills before the new state from those after it.
    assert found == sorted(found)
    assert set(found) == {OLD, NEW}


@pytest.mark.fault(1)
@pytest.mark.slow
def test_ckpt_chaos_finds_nothing(tmp_path):
    """Another project's harness: it kills, resumes and compares the end, in whole processes.

    At 10 of its points, evenly taken; Orbax's own files have random names, so that it cannot
    tell which checkpoint was the newest.
    """
    pytest.importorskip("ckpt_chaos")
    command = [sys.executable, "-W", "ignore", str(SAVES), "steps", "2", "{out}"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ckpt_chaos", "run", "--work", str(tmp_path)),
            *("--max-points", "10", "--jobs", "2"),
            *("--step-regex", r"resumed from step (\d+)", "--result-file", "{out}/result"),
            *("--fail-on", "HARD_FAIL,SILENT_DIVERGENCE,CONTROL_FAIL", "--", *command),
        ],
        env=process_env(),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout


@pytest.mark.fault(2)
@pytest.mark.slow
def test_a_training_killed_at_random_times_ends_as_one_that_was_not(tmp_path, capsys):
    """Two kills of one family; `soak.py` alone kills all families 100 times."""
    folder = tmp_path / "soak"
    assert soak.main(["--kills", "2", "--family", "gan", "--folder", str(folder)]) == 0
    assert "| gan | 2 |" in capsys.readouterr().out
    # The comparison sees one bit of one line.
    metrics = folder / "gan" / "again" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    line = json.loads(lines[60])
    line["fingerprint"] = f"{int(line['fingerprint'], 16) ^ 1:08x}"
    lines[60] = json.dumps(line) + "\n"
    metrics.write_text("".join(lines))
    different = soak.differences(folder / "gan" / "whole", folder / "gan" / "again")
    assert different == ["metrics.jsonl, line 61"]


def outcomes(calls: list, tmp_path: Path, look) -> dict[str, list]:
    """Crash -> what `look` finds after it at each moment; equal disks are looked at once."""
    known, found = {}, {}
    at = tmp_path / "run"
    for _, crash, left in disk.crashes(tmp_path / "before", at, calls):
        key = tuple(sorted(left.items(), key=lambda item: item[0]))
        if key not in known:
            place = disk.put(left, tmp_path / "disk")
            known[key] = look(place)
            shutil.rmtree(place)
        found.setdefault(crash, []).append(known[key])
    return found


def is_whole(folder: Path) -> bool:
    try:
        return what_is_there(folder) in (OLD, NEW)
    except (UserError, AssertionError):
        return False


@disk.needs_strace
@pytest.mark.long
@pytest.mark.fault(1, 3, 39)
@pytest.mark.parametrize("scenario", ["next_step", "same_step"])
def test_every_crash_of_a_save_leaves_the_old_or_the_new(scenario, tmp_path):
    """After each system call, of tensorstore too, and inside each write: killed, or no power."""
    saves.begin(tmp_path / "before")
    # What a save of that step left long ago, killed at its end: not to be taken for `OLD`.
    checkpoint.save(tmp_path / "past", 1, saves.state(3), {"value": 3})
    (tmp_path / "past" / "step_000000001").rename(tmp_path / "before" / ".old-1-99999999")
    calls = disk.recorded(scenario, tmp_path)
    found = outcomes(calls, tmp_path, what_is_there)
    assert found.keys() == {"kill", "power", "names"}
    for crash, values in found.items():
        assert len(values) > 50
        assert set(values) == {OLD, NEW}, crash
        assert values == sorted(values), f"{crash}: the new state was there and is gone"
    # The replay is true: without a crash it ends as the folder itself.
    whole = disk.Disk(tmp_path / "before", tmp_path / "run")
    for call in calls:
        whole.do(*call)
    assert whole.left("now", "now") == disk.Disk(tmp_path / "run").left("now", "now")
    # The control: without those that sync, the same calls may lose both.
    loose = [call for call in calls if call[0] != "fsync"]
    assert not all(outcomes(loose, tmp_path, is_whole)["names"])


@pytest.mark.fault(3)
def test_files_and_folders_are_synced_before_the_rename_and_the_parent_after(tmp_path, monkeypatch):
    saves.begin(tmp_path / "run" / "checkpoints")
    done = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        done.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink().as_posix()))
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        done.append(("rename", path.as_posix()))
        content = sorted(p.as_posix() for p in (path, *path.rglob("*")))
        done.append(("content", content))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    folder = tmp_path / "run" / "checkpoints"
    checkpoint.save(folder, 2, saves.state(2), {})
    at = next(i for i, (what, _) in enumerate(done) if what == "rename")
    before = {path for what, path in done[:at] if what == "fsync"}
    assert set(done[at + 1][1]) <= before
    assert done[at + 2 :] == [("fsync", str(folder)), ("fsync", str(folder.parent))]


def damaged(path: Path, kind: str) -> bytes:
    data = bytearray(path.read_bytes())
    if kind == "empty":
        return b""
    if kind == "cut":
        return bytes(data[:-1])
    place = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[kind]
    data[place] ^= 1 << (place % 8)
    return bytes(data)


@pytest.mark.fault(4)
@pytest.mark.parametrize("kind", ["first", "middle", "last", "cut", "empty"])
def test_damage_in_any_file_is_named_survived_and_kept(kind, tmp_path):
    saves.begin(tmp_path / "model")
    checkpoint.save(tmp_path / "model", 2, saves.state(2), {"value": 2})
    newest = tmp_path / "model" / "step_000000002"
    names = sorted(p.relative_to(newest) for p in newest.rglob("*") if p.is_file())
    assert len(names) > 8
    for number, name in enumerate(names):
        folder = shutil.copytree(tmp_path / "model", tmp_path / str(number))
        bad = damaged(newest / name, kind)
        (folder / newest.name / name).write_bytes(bad)
        told = []
        found = checkpoint.restore(folder, LIKE, report=told.append)
        assert found.manifest["meta"]["value"] == OLD
        assert len(told) == 1
        assert newest.name in told[0]
        assert name.name in told[0]
        assert (folder / f"{newest.name}.corrupt" / name).read_bytes() == bad
        # The next save of that step, damaged too, is kept beside it.
        if number == 0:
            checkpoint.save(folder, 2, saves.state(2), {})
            (folder / newest.name / name).write_bytes(bad)
            assert checkpoint.restore(folder, LIKE, report=told.append).step == 1
            assert len(checkpoint_files.corrupt(folder)) == 2


@pytest.mark.long
@pytest.mark.fault(4)
def test_no_byte_of_a_checkpoint_can_change_unseen(tmp_path):
    saves.begin(tmp_path)
    path = tmp_path / "step_000000001"
    for file in (p for p in path.rglob("*") if p.is_file()):
        data = file.read_bytes()
        # The large file of random numbers is hashed like the others.
        for place in range(0, len(data), 1 + len(data) // 300):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            file.write_bytes(changed)
            assert checkpoint_files.examine(path, 1)[1], (file.name, place)
        file.write_bytes(data)
    assert not checkpoint_files.examine(path, 1)[1]


@pytest.mark.fault(4)
def test_a_checkpoint_under_another_step_s_name_is_not_taken_for_it(tmp_path):
    saves.begin(tmp_path)
    shutil.copytree(tmp_path / "step_000000001", tmp_path / "step_000000009")
    told = []
    assert checkpoint.restore(tmp_path, LIKE, report=told.append).step == 1
    assert "it is of step 1" in told[0]


@pytest.mark.fault(4, 30)
def test_what_cannot_be_read_for_now_is_not_called_damaged(tmp_path):
    """Too few open files: the checkpoint stays as it is."""
    saves.begin(tmp_path)
    path = tmp_path / "step_000000001"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(MachineError):
            checkpoint_files.examine(path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert what_is_there(tmp_path) == OLD


@pytest.mark.long
@pytest.mark.fault(5)
def test_a_run_without_a_whole_checkpoint_is_refused_and_not_begun_anew(tmp_path, verb):
    run = untrained(tmp_path / "run", "FULL")
    file = run / "checkpoints" / "step_000000000" / "manifest.sha256"
    file.write_bytes(b"")
    for _ in range(2):
        code, _, err = verb("train", tmp_path / "run" / "tiny_config.py", "--workdir", run)
        assert code == 2, err
        assert "damaged" in err
        assert "Traceback" not in err
    assert not (run / "metrics.jsonl").exists()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000000000.corrupt"]


# Orbax complains of a file that went while it was read; the next checkpoint is read then.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.fault(39)
def test_a_reader_beside_retention_always_finds_a_whole_checkpoint(tmp_path):
    """A process saves and keeps one; this one reads all the while."""
    folder = tmp_path / "checkpoints"
    saves.begin(folder)
    writer = subprocess.Popen(
        script("steps", "25", folder), env=process_env(), stdout=subprocess.DEVNULL
    )
    seen, told = [], []
    while writer.poll() is None:
        found = checkpoint.restore(folder, LIKE, report=told.append)
        assert found.state["count"] == found.step
        seen.append(found.step)
    assert writer.returncode == 0
    assert told == []
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert checkpoint.steps(folder) == [25]


@pytest.mark.fault(40)
def test_metrics_cut_anywhere_lose_and_double_no_line(tmp_path):
    """A kill may cut what was written after the checkpoint, at any byte."""
    path, step = tmp_path / "metrics.jsonl", 5
    lines = [json.dumps({"step": n, "loss/g": n / 3}) + "\n" for n in range(9)]
    safe = len("".join(lines[: step + 1]))
    text = "".join(lines)
    for size in range(safe, len(text) + 1):
        path.write_text(text[:size])
        assert [m["step"] for m in metrics_file.read_metrics(path)] == list(
            range(text[:size].count("\n"))
        )
        file = metrics_file.MetricsFile(path, step)
        file.write(json.loads(lines[step + 1]))
        file.close()
        assert path.read_text() == "".join(lines[: step + 2])
