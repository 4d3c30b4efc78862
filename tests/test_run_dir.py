"""The run directory: what it records, what may move, and that reading leaves it alone."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import stat

import files
import jax
import pytest
from tiny import FULL, PLAIN, TEXT, packed, start, untrained

import anigan_jax
from anigan_jax import config as configs
from anigan_jax.data import dataset
from anigan_jax.data.images import Images
from anigan_jax.errors import MachineError, UserError
from anigan_jax.runtime import environment
from anigan_jax.storage import atomic, checkpoint, lock, manifest, run_dir
from anigan_jax.training import loop, replay


@pytest.fixture
def begun(tmp_path):
    """(run directory as a start leaves it, its pack)."""
    pack, run = packed(PLAIN, tmp_path / "packs"), tmp_path / "run"
    run.mkdir()
    run_dir.open_run(PLAIN, run, pack, ("anigan", "train"))
    return run, pack


def test_it_records_what_the_bits_rest_on(begun):
    run, pack = begun
    recorded = run_dir.read_run(run)
    assert run_dir.config_of(run, recorded) == PLAIN
    assert recorded["identity"] == configs.identity(PLAIN)
    assert recorded["data_sha256"] == pack.manifest["sha256"]
    assert recorded["command"] == ["anigan", "train"]
    assert recorded["code"] == {}
    facts = recorded["facts"]
    assert facts["source_sha256"] == environment.sources()
    assert len(facts["source_sha256"]) == 64
    assert "--xla_gpu_deterministic_ops=true" in facts["XLA_FLAGS"]
    assert f"--xla_force_host_platform_device_count={jax.device_count()}" in facts["XLA_FLAGS"]


def test_the_revision_is_that_of_the_checkout(monkeypatch, tmp_path):
    found = environment.revision.__wrapped__()
    if (environment.HOME.parent / ".git").exists():
        assert len(found.removesuffix("+")) == 40
        # A commit hook's variables are not ours.
        monkeypatch.setenv("GIT_DIR", str(tmp_path))
        assert environment.revision.__wrapped__() == found
    monkeypatch.setattr(environment, "HOME", tmp_path / "site-packages" / "anigan_jax")
    assert environment.revision.__wrapped__() == ""
    # A folder that is no repository, or no git at hand, is no fault.
    (tmp_path / "site-packages" / ".git").mkdir(parents=True)
    assert environment.revision.__wrapped__() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.revision.__wrapped__() == ""


def test_flags_that_came_too_late_are_not_recorded_and_warned_of(begun, monkeypatch):
    run, pack = begun
    assert environment.late_flags() == []
    before = environment.facts()["XLA_FLAGS"]
    late = "--xla_cpu_enable_fast_math=true --xla_force_host_platform_device_count=64"
    own = environment.os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=64")
    monkeypatch.setenv("XLA_FLAGS", f"{own} --xla_cpu_enable_fast_math=true")
    facts = environment.facts()["XLA_FLAGS"]
    assert facts == f"{before} --xla_cpu_enable_fast_math=false"
    assert sorted(environment.late_flags()) == late.split()
    header = loop._header(PLAIN, start(PLAIN)[1], pack, run, 0, 8)
    (warning,) = [line for line in header if "flags" in line]
    assert all(flag in warning for flag in late.split())


def test_a_change_of_the_source_drops_the_claim(begun, monkeypatch, capsys, verb):
    run, pack = begun
    run_dir.open_run(PLAIN, run, pack, ())
    assert "warning" not in capsys.readouterr().out
    old = environment.sources()
    monkeypatch.setattr(environment, "sources", lambda: "0" * 64)
    line = f"source_sha256: {old} -> {'0' * 64}"
    run_dir.open_run(PLAIN, run, pack, ())
    said = capsys.readouterr().out
    assert f"warning: {line}; the resumed run may not have the same bits" in said
    run_dir.note_resume(run, PLAIN, 4)
    assert run_dir.read_run(run)["resumed"][0]["changed"] == [line]
    # It is said once: the next start computes as the last one.
    run_dir.open_run(PLAIN, run, pack, ())
    assert "warning" not in capsys.readouterr().out
    monkeypatch.setattr(replay, "replay", lambda *_: (0, "identical through step 4"))
    _, out, _ = verb("replay", run)
    assert f"was resumed under other conditions at 4: {line}" in out
    monkeypatch.setattr(environment, "sources", lambda: old)
    _, out, _ = verb("replay", run)
    assert f"note: source_sha256: {'0' * 64} -> {old}; the bits may differ" in out


def test_another_commit_of_the_same_source_is_no_change(begun, monkeypatch):
    run, _ = begun
    monkeypatch.setattr(environment, "revision", lambda: "f" * 40)
    assert run_dir.changes(run_dir.read_run(run), PLAIN) == []


def test_data_that_moved_is_the_same_data(tmp_path):
    """The run goes on, and knows the new place."""

    def at(folder):
        config = dataclasses.replace(FULL, data=Images(str(folder), size=16, test=0))
        return config, dataset.build(config.data, tmp_path / "packs", workers=1)

    faces, run = tmp_path / "faces", tmp_path / "run"
    faces.mkdir()
    run.mkdir()
    for i in range(9):
        (faces / f"{i}.png").write_bytes(files.noise_file(i))
    config, pack = at(faces)
    run_dir.open_run(config, run, pack, ())
    moved, pack = at(faces.rename(tmp_path / "moved"))
    run_dir.open_run(moved, run, pack, ())
    run_dir.note_resume(run, moved, 0)
    assert run_dir.config_of(run, run_dir.read_run(run)) == moved
    assert "resumed" not in run_dir.read_run(run)
    # Other data at the same place are refused.
    (tmp_path / "moved" / "0.png").write_bytes(files.noise_file(77))
    changed, pack = at(tmp_path / "moved")
    with pytest.raises(UserError, match=r"the data of .* changed"):
        run_dir.open_run(changed, run, pack, ())


@pytest.mark.parametrize("place", ["os:system", "anigan_jax.config:resolve", "../x.py:A"])
def test_a_tampered_run_is_refused_whether_trusted_or_not(begun, place):
    run, _ = begun
    (run.parent / "x.py").write_text("raise SystemExit('it ran')\n")
    recorded = run_dir.read_run(run)
    recorded["config"]["method"]["class"] = place
    for code in ({}, {"x.py": "0" * 64}):
        (run / "run.json").write_text(json.dumps({**recorded, "code": code}))
        for trust in (False, True):
            with pytest.raises(UserError):
                anigan_jax.load(run, trust=trust)


def contents(run):
    """Path -> SHA-256 of all but what verbs made."""
    return {
        path.relative_to(run).as_posix(): path.is_file()
        and hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.rglob("*")
        if "out" not in path.relative_to(run).parts
    }


@pytest.fixture
def damaged(tmp_path):
    """(name of a tiny config) -> a run whose newest checkpoint is damaged."""

    def make(name, config):
        run = untrained(tmp_path / name.lower(), name)
        state = start(config, packed(config, tmp_path / "packs"))[1]
        meta = {"config_sha256": configs.fingerprint(config)}
        checkpoint.save(run / "checkpoints", 4, state.replace(step=state.step + 4), meta)
        largest = max(
            manifest.path_of(run / "checkpoints", 4).joinpath("state").rglob("*"),
            key=lambda path: path.stat().st_size,
        )
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
        return run

    return make


@pytest.mark.long
def test_reading_leaves_a_run_as_it_was(damaged, verb):
    run = damaged("FULL", FULL)
    before = contents(run)
    assert anigan_jax.load(run).generate(2).shape == (2, 16, 16, 3)
    for words in (
        ("sample", run, "--n", 2),
        ("interpolate", run, "--frames", 2, "--stops", 2),
        ("kernels", run),
        ("checkpoints", run),
    ):
        code, out, err = verb(*words)
        assert code == 0, (words, out, err)
        assert contents(run) == before, words
    assert verb("checkpoints", run, "--verify")[0] == 1
    assert anigan_jax.load(run, "latest").step == 0
    with pytest.raises(UserError, match="damaged"):
        anigan_jax.load(run, 4)
    assert contents(run) == before
    assert {path.name for path in (run / "out").iterdir()} >= {"sample", "interpolate"}


@pytest.mark.long
def test_asking_for_texts_leaves_a_run_as_it_was(damaged, verb):
    run = damaged("TEXT", TEXT)
    before = contents(run)
    for words in (("sample", run, "--prompt", "blue hair red eyes", "--n", 1), ("table", run)):
        code, out, err = verb(*words)
        assert code == 0, (words, out, err)
        assert contents(run) == before, words


def test_a_lock_of_another_machine_may_end_by_itself(tmp_path, monkeypatch):
    """A launcher starts again after 4, and never after 2."""
    with lock.hold(tmp_path):
        with pytest.raises(UserError, match="another process") as here:
            lock.hold(tmp_path)
        assert type(here.value) is UserError
        monkeypatch.setattr(lock.host, "node", lambda: "elsewhere")
        with pytest.raises(MachineError, match="if that machine is gone"):
            lock.hold(tmp_path)


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_disk_that_syncs_no_folders(tmp_path, monkeypatch, number, fails):
    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError) if fails else contextlib.nullcontext():
        atomic.save_text("x", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "x"
