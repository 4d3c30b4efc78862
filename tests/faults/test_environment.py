"""Rows 29, 30, 31 and 41: the machine around a run changes nothing of its bits.

Every run here trains the tiny model on the same files, in a process of its own, and ends in
the same leaves and the same pack as one in a plain environment.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import files
import pytest
from tiny import PLAIN, anigan, process_env

from anigan_jax.storage import metrics_file

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parent
STEPS = PLAIN.run.steps
CONFIG = f"""import dataclasses, sys
sys.path.insert(0, {str(HERE.parent)!r})
from tiny import PLAIN
from anigan_jax.data.images import Images
# Letters of other locales: \u0130\u0131\u00df\U0001f600
CONFIG = dataclasses.replace(PLAIN, data=Images(size=16, test=0))
"""
NAMES = ("I", "i", "\u0130", "\u0131", "\u00e4", "z", "Z", "\U0001f600", "a b", "line\nbreak")


def command(config: Path, data, run, *options) -> list[str]:
    flags = ["--workdir", run, "--data.path", data, *options]
    return [sys.executable, "-m", "anigan_jax", "train", *map(os.fsdecode, (config, *flags))]


def outcome(run, cache: Path) -> tuple:
    """Leaves of the last checkpoint, the metrics, the pack, as far as a run decides them."""
    path = Path(os.fsdecode(run))
    manifest = path / "checkpoints" / f"step_{STEPS:09d}" / "manifest.json"
    lines = metrics_file.read_metrics(path / "metrics.jsonl")
    for line in lines:
        line.pop("images_per_sec", None)
    packs = [json.loads(p.read_text()) for p in cache.glob("anigan_jax/packs/*/manifest.json")]
    return json.loads(manifest.read_text())["leaves"], lines, [p["files"] for p in packs]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """(config, folder of the images, what a run in a plain environment comes to)."""
    folder = tmp_path_factory.mktemp("plain")
    config = folder / "config_\u0131.py"
    config.write_text(CONFIG, encoding="utf-8")
    data = folder / "data"
    data.mkdir()
    for i in range(100):
        name = f"{NAMES[i % len(NAMES)]}{i}"
        (data / f"{name}.png").write_bytes(files.noise_file(i, size=16))
    env = {"XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        command(config, data, folder / "run"),
        env={**process_env(), **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return config, data, outcome(folder / "run", folder / "cache")


@pytest.fixture(scope="module")
def locales(tmp_path_factory):
    """LOCPATH of locales that a slim system lacks."""
    folder = tmp_path_factory.mktemp("locales")
    for name, charset in (("tr_TR", "ISO-8859-9"), ("de_DE", "UTF-8")):
        define = ["localedef", "-i", name, "-f", charset, str(folder / f"{name}.{charset}")]
        if not shutil.which("localedef") or subprocess.run(define, capture_output=True).returncode:
            pytest.skip(f"localedef cannot make {name}.{charset} here")
    return str(folder)


# name -> (what the shell does before, where the run's words go)
SHELLS = {
    "turkish": (
        "export LC_ALL=tr_TR.ISO-8859-9 PYTHONUTF8=1 PYTHONHASHSEED=7; umask 077",
        "2>&1 | true",
    ),
    "german": (
        "export LC_ALL=de_DE.UTF-8 PYTHONHASHSEED=8 GLIBC_TUNABLES=glibc.malloc.hugetlb=0; "
        "ulimit -n 64; unset HOME",
        "</dev/null",
    ),
    "ascii": ("export LC_ALL=C PYTHONCOERCECLOCALE=0; unset PYTHONUTF8", "<&- >&- 2>&-"),
}


@pytest.mark.fault(30)
@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_around_a_run_changes_nothing(plain, locales, tmp_path, name):
    config, data, want = plain
    before, after = SHELLS[name]
    env = {**process_env(), "LOCPATH": locales, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    line = f'{before}\n"$@" {after}\nexit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *command(config, data, tmp_path / "run")],
        env=env,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stderr
    assert outcome(tmp_path / "run", tmp_path / "cache") == want
    if name == "turkish":
        modes = {oct(p.stat().st_mode & 0o077) for p in (tmp_path / "run").rglob("*")}
        assert modes == {"0o0"}
    recorded = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert str(config) in recorded["command"]


@pytest.mark.fault(30)
@pytest.mark.parametrize("encoding", ["iso8859-9", "ascii"])
def test_a_locale_without_utf_8_is_refused_with_the_way_out(locales, tmp_path, encoding):
    locale = {"iso8859-9": "tr_TR.ISO-8859-9", "ascii": "C"}[encoding]
    env = {"LC_ALL": locale, "LOCPATH": locales, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = anigan("train", "quickstart", "--workdir", tmp_path / "run", env=env)
    assert done.returncode == 2
    assert f"reads file names as {encoding}; set PYTHONUTF8=1" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """Environment of a process whose clock and network are those of shim.c."""
    made = tmp_path_factory.mktemp("shim") / "shim.so"
    compiler = shutil.which("cc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler, or no LD_PRELOAD, here")
    make = [compiler, "-shared", "-fPIC", "-O1", "-o", made, HERE / "shim.c", "-ldl"]
    subprocess.run(make, check=True)
    return {"LD_PRELOAD": str(made)}


def finished(argv: list[str], **env: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        argv, env={**process_env(), **env}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.fault(29)
@pytest.mark.slow
def test_the_clock_changes_nothing(plain, shim, tmp_path):
    """Half of it from 1970 into the past, the other half in 2100; files of both times."""
    config, data, want = plain
    tell = [sys.executable, "-c", "import time; a = time.time(); sum(range(10**7)); "
            "print(a < 2000, time.time() < a - 10)"]  # fmt: skip
    assert finished(tell, **shim, CLOCK_FROM="1000").stdout == "True True\n"
    shutil.copytree(data, tmp_path / "data")
    half = str(STEPS // 2)
    for start, zone, steps in (
        ("1000", "Pacific/Kiritimati", half),
        ("4102444800", "America/St_Johns", str(STEPS)),
    ):
        for path in tmp_path.rglob("*"):
            os.utime(path, (int(start), int(start)))
        env = {**shim, "CLOCK_FROM": start, "TZ": zone, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        argv = command(config, tmp_path / "data", tmp_path / "run", "--run.steps", steps)
        finished(argv, **env)
    leaves, lines, packs = outcome(tmp_path / "run", tmp_path / "cache")
    assert (leaves, lines, packs) == want


@pytest.mark.fault(31)
def test_an_odd_run_folder(plain, tmp_path):
    """Blanks, a line break, an emoji, 255 bytes, through a link; the data through one too."""
    config, data, want = plain
    (tmp_path / "a b\nc \U0001f600").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a b\nc \U0001f600")
    (tmp_path / "faces").symlink_to(data)
    run = tmp_path / "link" / ("\U0001f600" + "x" * 251)
    done = finished(
        command(config, tmp_path / "faces", run), XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    assert outcome(run, tmp_path / "cache") == want
    assert "done" in done.stdout


@pytest.mark.fault(31)
@pytest.mark.parametrize("name", [b"caf\xe9", b"x" * 256])
def test_a_run_folder_that_cannot_be_is_refused(plain, tmp_path, name):
    config, data, _ = plain
    done = subprocess.run(
        command(config, data, os.fsencode(tmp_path) + b"/" + name),
        env={**process_env(), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr.decode(errors="replace")
    assert done.stderr.startswith(b"error: ") and b"Traceback" not in done.stderr
    assert os.listdir(tmp_path) in (["cache"], [])


VERBS = """
import contextlib, io, json, sys
from anigan_jax.cli import main as cli

if __name__ == "__main__":
    codes = []
    for argv in json.loads(sys.argv[1]):
        try:
            cli.main(argv)
        except SystemExit as stop:
            codes.append(stop.code)
    print(json.dumps(codes), file=sys.stderr)
"""
WORDS = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
PROXIES = dict.fromkeys(WORDS, "http://127.0.0.1:9")


@pytest.mark.fault(41)
@pytest.mark.slow
def test_no_verb_reaches_for_the_network(plain, shim, tmp_path):
    """Sockets fail and tell who tried; there is no home, and no cache that can be written."""
    config, data, _ = plain
    pack, run, log = tmp_path / "pack", tmp_path / "run", tmp_path / "network.log"
    (tmp_path / "verbs.py").write_text(VERBS)
    verbs = [
        ["import", data, "--out", pack, "--size", 16, "--test", "0.5"],
        ["check", pack],
        ["train", config, "--workdir", run, "--data.path", pack],
        ["sample", run, "--n", 4],
        ["interpolate", run, "--frames", 4, "--stops", 2],
        ["evaluate", run, "--judge", "random", "--n", 33],
        ["report", run],
        ["replay", run, "--until", 2],
        ["weights"],
        ["describe", config],
    ]
    env = {**process_env(), **shim, **PROXIES, "NETWORK_LOG": str(log), "HOME": "/dev/null"}
    env.pop("XDG_CACHE_HOME", None)
    tried = [sys.executable, "-c", "import socket; socket.create_connection(('example.com', 80))"]
    assert subprocess.run(tried, env=env, capture_output=True).returncode == 1
    assert log.read_text() == "example.com\n"
    log.unlink()
    told = json.dumps([list(map(str, argv)) for argv in verbs])
    done = subprocess.run(
        [sys.executable, tmp_path / "verbs.py", told], env=env, capture_output=True, text=True
    )
    assert json.loads(done.stderr.splitlines()[-1]) == [0] * len(verbs), done.stderr
    assert not log.exists(), log.read_text()


@pytest.mark.fault(41)
def test_a_home_that_cannot_be_written_is_told_with_the_way_out(tmp_path):
    done = anigan("train", "quickstart", "--workdir", tmp_path / "x", env={"HOME": "/dev/null",
                  "XDG_CACHE_HOME": ""})  # fmt: skip
    assert done.returncode == 2
    assert "XDG_CACHE_HOME" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.fault(33)
def test_a_run_does_not_go_on_with_other_data(plain, tmp_path):
    config, data, _ = plain
    faces, run = tmp_path / "faces", tmp_path / "run"
    shutil.copytree(data, faces)
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    half = command(config, faces, run, "--run.steps", str(STEPS // 2))
    finished(half, **env)
    before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*") if p.name != "lock")
    first, second = sorted(faces.iterdir())[:2]
    first.rename(faces / "renamed.png")
    second.unlink()
    argv = command(config, faces, run)
    done = subprocess.run(argv, env={**process_env(), **env}, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"renamed train/{first.name} to train/renamed.png" in done.stderr
    assert f"removed train/{second.name}" in done.stderr
    after = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*") if p.name != "lock")
    assert after == before
