"""The verbs `import` and `check`, and their workers: hostile folders, mistakes, kills."""

import json
import os
import subprocess
import sys
import time

import files
import numpy as np
import pytest
from sources import Deadly, faces, write
from tiny import anigan, process_env

from anigan_jax.data import dataset, ingest
from anigan_jax.data.images import Images


@pytest.mark.long
def test_workers_find_the_same_as_one_process(tmp_path):
    contents = {f"{i:04}.png": files.noise_file(i % 500, size=32) for i in range(560)}
    contents["0100.png"] = b"bad"
    path = write(tmp_path / "x", contents)
    source = Images(path, size=16, policy="skip")
    packs = [dataset.build(source, tmp_path / str(n), workers=n) for n in (1, 2)]
    assert packs[0].manifest == packs[1].manifest
    assert packs[0].manifest["counts"]["duplicate"] == 60


@pytest.mark.long
def test_a_script_without_a_guard_is_not_run_again_by_workers(tmp_path):
    path = write(tmp_path / "x", {f"{i:04}.png": files.noise_file(i % 9) for i in range(520)})
    code = (
        "print('once')\nfrom pathlib import Path\nfrom anigan_jax.data import dataset, images\n"
        f"dataset.build(images.Images({path!r}), Path({str(tmp_path / 'cache')!r}))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=process_env(), timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
    assert len(list((tmp_path / "cache").glob("*/manifest.json"))) == 1


@pytest.mark.long
@pytest.mark.fault(35)
def test_a_decoder_that_dies_or_hangs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "CHUNK", 4)
    monkeypatch.setattr(ingest, "CHUNK_SECONDS", 16.0)
    monkeypatch.setattr(ingest, "FILE_SECONDS", 8.0)
    contents = {f"{i:02}.png": files.noise_file(i, size=32) for i in range(18)}
    contents |= {"05-dies.png": files.noise_file(98), "16-hangs.png": files.noise_file(99)}
    source = Deadly(write(tmp_path / "x", contents), size=16)
    found = ingest.scan(source, tmp_path, workers=2)
    assert {f.file: f.code for f in found.findings} == {
        "05-dies.png": "crashed",
        "16-hangs.png": "crashed",
    }
    assert len(found.order) == 18


def hostile(folder) -> dict[str, str]:
    """A folder of every bad kind among good images; {file: code}."""
    want = {name: code for name, (_, code) in files.BAD.items()}
    write(folder, {**faces(3), **{name: data for name, (data, _) in files.BAD.items()}})
    outside = folder.parent / "outside.png"
    outside.write_bytes(files.noise_file(90))
    (folder / "escape.png").symlink_to(outside)
    (folder / "nowhere.png").symlink_to("missing.png")
    os.mkfifo(folder / "pipe.png")
    odd = os.fsdecode(b"caf\xe9.png")
    (folder / odd).write_bytes(b"bad")
    return {**want, "escape.png": "link", "nowhere.png": "link", "pipe.png": "special",
            odd: "format"}  # fmt: skip


@pytest.mark.long
@pytest.mark.fault(14)
def test_a_hostile_folder_is_named_file_by_file(tmp_path, verb):
    folder = tmp_path / "faces"
    want = hostile(folder)
    assert len(want) >= 25
    page = tmp_path / "page.html"
    code, out, err = verb("check", folder, "--size", 32, "--json", "--html", page)
    assert code == 1, err
    report = json.loads(out)
    got = {f["file"]: f["code"] for f in report["findings"] if f["refused"]}
    assert got == want
    assert report["usable"] == 3
    assert "half.jpg" in page.read_text()
    assert "caf\\udce9.png" in page.read_text()
    words = ("import", folder, "--size", 32, "--out", tmp_path / "pack")
    # Its words are of bytes that are no text: the streams of a process take them.
    done = anigan(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "pack").exists()
    done = anigan(*words, "--policy", "skip", "--test", 0)
    assert done.returncode == 0, done.stderr
    made = dataset.open_pack(tmp_path / "pack")
    assert len(made.images) == 3
    assert {name for name, *_ in made.manifest["refused"]} == set(want)
    for i in range(3):
        assert (made.images[i] == np.asarray(files.noise(i).resize((32, 32), 1))).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "faces", "outside.png", "pack", "page.html"]  # fmt: skip


@pytest.mark.long
def test_import_again_other_data_and_damage(tmp_path, verb):
    folder = tmp_path / "x"
    write(folder, faces(4))
    out = tmp_path / "pack"
    args = ("import", folder, "--out", out, "--size", 32, "--test", 0)
    assert verb(*args)[0] == 0
    stamp = (out / "manifest.json").stat().st_mtime_ns
    assert "unchanged" in verb(*args)[1]
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    write(folder, {"9.png": files.noise_file(9)})
    code, _, err = verb(*args)
    assert code == 2
    assert "--overwrite" in err
    assert len(dataset.open_pack(out).images) == 4
    assert verb(*args, "--overwrite")[0] == 0
    assert len(dataset.open_pack(out).images) == 5
    data = bytearray((out / "pixels.bin").read_bytes())
    data[7] ^= 1
    (out / "pixels.bin").write_bytes(data)
    assert "damaged" in verb("check", out)[2]
    assert "damaged" in verb(*args)[2]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    assert verb("import", folder, "--out", tmp_path / "mine", "--overwrite")[0] == 2
    assert (tmp_path / "mine/thesis.txt").exists()


@pytest.mark.long
def test_a_killed_import_leaves_no_half_pack(tmp_path):
    folder = tmp_path / "x"
    image = files.noise_file(1, "JPEG")
    write(folder, {f"{i:05}.jpg": image + b"%d" % i for i in range(6000)})
    out = tmp_path / "out" / "pack"
    command = [sys.executable, "-m", "anigan_jax", "import", folder, "--out", out]
    for wait in (0.1, 0.6):
        before = set(out.parent.glob(".pack-*"))
        process = subprocess.Popen(command, env=process_env(), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not set(out.parent.glob(".pack-*")) - before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        process.wait()
        assert not out.exists()
        assert len(list(out.parent.iterdir())) == 1
        for left in out.parent.iterdir():
            # What was made just now may be another process's, and is left alone.
            os.utime(left, (1, 1))
    done = anigan("import", folder, "--out", out)
    assert done.returncode == 0, done.stderr
    # What the killed ones left is gone too.
    assert [p.name for p in out.parent.iterdir()] == ["pack"]
    dataset.verify(dataset.open_pack(out))


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("import",), "SOURCE"),
        (("import", "x"), "--out"),
        (("import", "missing", "--out", "p"), "missing"),
        (("check", "a", "b", "c"), "a --also b c"),
        (("check", "missing"), "missing"),
        (("check", "x", "--size", "4"), "at least 8"),
        (("check", "x", "--test", "1"), "below 1"),
        (("check", "tfds:no_such_set"), "no_such_set"),
        (("check", "x", "--polcy", "skip"), "--policy"),
        (("check", "x", "--html", "no/such/folder/p.html"), "cannot be written"),
        (("import", "x/0.png", "--out", "p"), "neither"),
        (("import", "x", "--out", "x/0.png"), "not a pack"),
    ],
)
def test_mistakes_are_explained(tmp_path, monkeypatch, args, hint, verb):
    write(tmp_path / "x", faces(2))
    monkeypatch.chdir(tmp_path)
    code, out, err = verb(*args)
    assert code == 2, out
    assert hint in err + out
    assert "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_a_pack_is_no_second_domain(tmp_path, verb):
    folder, pack = write(tmp_path / "x", faces(3)), tmp_path / "pack"
    assert verb("import", folder, "--out", pack, "--size", 32, "--test", 0)[0] == 0
    for words in ((folder, pack), (pack, folder)):
        code, _, err = verb("import", *words, "--out", tmp_path / "both", "--size", 32)
        assert code == 2
        assert "is a pack" in err and "anigan import SOURCE SOURCE_B" in err


def test_rows_of_labels_without_an_image_are_one_line(tmp_path, verb):
    """They are no fault of the images; a label file of a larger set has thousands."""
    folder = write(tmp_path / "x", {**faces(3), "bad.png": b"bad"})
    rows = [f"{i},red hair blue eyes" for i in range(40)]
    (tmp_path / "x/tags.csv").write_text("\n".join(rows) + "\n")
    code, out, _ = verb("check", folder, "--size", 32)
    assert code == 1
    listed = [line for line in out.splitlines() if "no image" in line]
    assert len(listed) == 2, out
    assert "findings of kind 'no image' (--json lists all)" in listed[1]
    assert out.index("bad.png") < out.index("no image")


def test_a_pack_is_checked_for_programs_too(tmp_path, verb):
    pack = tmp_path / "pack"
    words = ("import", write(tmp_path / "x", faces(4)), "--size", 16, "--out", pack)
    assert verb(*words)[0] == 0
    code, out, _ = verb("check", pack, "--json")
    assert code == 0 and json.loads(out) == {"pack": str(pack), "images": 4}
    code, _, err = verb("check", pack, "--html", tmp_path / "page.html")
    assert code == 2 and "--html" in err
    code, _, err = verb("check", pack, "--also", tmp_path / "x")
    assert code == 2 and "is a pack" in err
