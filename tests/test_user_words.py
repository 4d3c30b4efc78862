"""What users type and meet: usual names of flags, sizes, systems, large sets."""

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import files
import pytest
from sources import built, faces, write
from tiny import process_env

from anigan_jax import config_file
from anigan_jax.cli import common
from anigan_jax.data import dataset, isolated, remembered
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.sweep import grid


@pytest.mark.parametrize(
    ("name", "size", "small"),
    [("ucsd_sn_dcgan", 128, 4), ("ucsd_sn_dcgan", 96, 6), ("ref_text_gan", 80, 5),
     ("painted_cyclegan", 96, None), ("quickstart", 32, 4)],
)  # fmt: skip
def test_one_flag_sets_the_size_of_data_and_networks(name, size, small):
    for words in (["--size", str(size)], [f"--size={size}"]):
        config = common.settings(name, [*words, "--batch-size", "4"], "train")
        assert (config.data.size, config.method.size, config.batch_size) == (size, size, 4)
        config.method.make()
        if small:
            assert config.method.generator.start == config.method.discriminator.end == small


@pytest.mark.long
def test_every_verb_with_settings_takes_the_size(tmp_path):
    """Not `train` alone, of whose command line a sweep's and the bench's sides know nothing."""
    config = config_file.override(config_file.load("quickstart"), ["--size", "32"], "anywhere")
    assert config.data.size == config.method.generator.size == config.method.size == 32
    runs = grid.grid("quickstart", ["--run.steps", "2"], ["size=32,96"], 1, tmp_path)
    assert [run.config.method.size for run in runs] == [32, 96]
    assert [run.config.method.generator.start for run in runs] == [4, 6]


def test_help_begins_with_the_size_among_what_most_need(verb):
    code, out, _ = verb("train", "quickstart", "--help")
    first = out.partition("all settings:")[0]
    assert code == 0 and re.search(r"--size .*\(default: 64\)", first)
    assert "--seed" in first and "--flip" not in first


def test_sizes_that_differ_name_the_flag(verb):
    words = ("train", "ucsd_sn_dcgan", "--workdir", "r", "--data.path", "x")
    assert "--size 128 sets both" in verb(*words, "--data.size", 128)[2]
    code, _, err = verb(*words, "--size", 100)
    assert (code, "also for 96 and 80" in err) == (2, True), err


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--lr", "1e-4"), "--optimizers.g.learning-rate and --optimizers.d.learning-rate"),
        (("--learning-rate", "1e-4"), "--optimizers.d.learning-rate"),
        (("--epochs", "2"), "--run.epochs"),
        (("--data", "x"), "--data is --data.path"),
        (("--data.path", "a", "--data.path", "b"), "--data.also"),
        (("--data.path", "nothing_*"), "nothing matches"),
    ],
)
def test_usual_names_are_answered_with_ours(words, hint, verb):
    code, _, err = verb("train", "ucsd_sn_dcgan", "--workdir", "r", *words)
    assert (code, hint in err) == (2, True), err


@pytest.mark.parametrize(("name", "own"), [("resume", "train --resume RUN"), ("test", "evaluate")])
def test_verbs_of_other_programs_are_answered_with_ours(name, own, verb):
    code, _, err = verb(name, "runs/a")
    assert (code, f"`anigan {own}" in err) == (2, True), err


def test_a_batch_larger_than_the_data_names_one_that_fits(tmp_path, verb):
    path = write(tmp_path / "x", faces(20))
    held = len(built(tmp_path, path, size=64, test=0.1).part("test"))
    words = ("train", "ucsd_sn_dcgan", "--workdir", tmp_path / "r", "--data.path", path)
    code, _, err = verb(*words, "--dry-run")
    assert (code, f"has {20 - held} to train on and {held} held out" in err) == (2, True), err
    assert "--batch-size 16 fits" in err


def test_messages_name_what_the_user_named(tmp_path):
    pack = built(tmp_path, write(tmp_path / "mine", faces(2)))
    with pytest.raises(UserError) as told:
        pack.labels("train")
    assert str(tmp_path / "mine") in str(told.value)
    assert str(tmp_path / "cache") not in str(told.value)


def test_windows_is_told_in_a_sentence(monkeypatch, verb):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    code, _, err = verb("--help")
    assert (code, err.count("\n")) == (2, 1)
    assert "WSL" in err


def test_limits_that_cannot_be_set_are_left_out(monkeypatch):
    def refuse(*_):
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(isolated.resource, "setrlimit", refuse)
    isolated._limit()


STARTS_A_WORKER = """
import os, time
from anigan_jax.data import isolated
pool = isolated.pool(1)
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(60)
"""


def test_a_program_that_is_killed_leaves_no_worker_behind():
    words = [sys.executable, "-c", STARTS_A_WORKER]
    program = subprocess.Popen(words, stdout=subprocess.PIPE, env=process_env())
    worker = int(program.stdout.readline())

    def is_there() -> bool:
        stat = Path(f"/proc/{worker}/stat")
        if stat.exists():
            return stat.read_text().rpartition(")")[2].split()[0] != "Z"
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, 0)
            return True
        return False

    assert is_there()
    program.kill()
    program.wait()
    end = time.monotonic() + 20
    try:
        while is_there() and time.monotonic() < end:
            time.sleep(0.05)
        assert not is_there()
    finally:
        program.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def counted(monkeypatch) -> list:
    """The files that are hashed from here on; nothing is too young to be remembered."""
    hashed: list = []
    digest = hashlib.file_digest

    def noted(file, kind):
        hashed.append(file.name)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    monkeypatch.setattr(remembered, "YOUNG", 0.0)
    time.sleep(0.02)
    return hashed


def test_a_source_is_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    source = Images(write(tmp_path / "x", faces(4)), size=16)
    hashed = counted(monkeypatch)
    first = source.key()
    assert (len(hashed), source.key(), len(hashed)) == (4, first, 4)
    (tmp_path / "x/2.png").write_bytes(files.noise_file(9))
    time.sleep(0.02)
    assert source.key() != first
    assert len(hashed) == 8
    (tmp_path / "x/3.png").rename(tmp_path / "x/7.png")
    assert source.key() != first
    # What cannot be written is hashed each time.
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert source.key() == source.key()


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    Images(write(tmp_path / "x", faces(2)), size=16).key()
    assert not (tmp_path / "home").exists()


def test_a_pack_is_hashed_once_and_in_full_where_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    pack = built(tmp_path, write(tmp_path / "x", faces(4)))
    hashed = counted(monkeypatch)
    for _ in range(3):
        dataset.verify(pack, again=False)
    assert len(hashed) == len(pack.manifest["files"])
    dataset.verify(pack)
    assert len(hashed) == 2 * len(pack.manifest["files"])
    pixels = pack.path / "pixels.bin"
    pixels.write_bytes(bytes(pixels.stat().st_size))
    with pytest.raises(UserError, match="changed"):
        dataset.verify(pack, again=False)
