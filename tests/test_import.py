"""Import and check of whole sources, in processes where that is what users run."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import files
import numpy as np
import pytest
from PIL import Image
from real import DATA, needs_data
from tiny import anigan, process_env

from anigan_jax.data import dataset, ingest
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.report import data as check
from anigan_jax.report.table import as_text


def write(folder, contents: dict) -> str:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(folder)


def faces(count: int, start: int = 0, kind="PNG") -> dict:
    suffix = {"PNG": "png", "JPEG": "jpg"}[kind]
    return {f"{i}.{suffix}": files.noise_file(i, kind) for i in range(start, start + count)}


def built(tmp_path, path: str, **settings) -> dataset.Pack:
    settings = {"size": 32, "test": 0, **settings}
    return dataset.build(Images(path, **settings), tmp_path / "cache", workers=1)


def scanned(tmp_path, path: str, **settings) -> ingest.Scan:
    folder = tmp_path / "scan"
    folder.mkdir(exist_ok=True)
    return ingest.scan(Images(path, **{"size": 32, **settings}), folder, workers=1)


def codes(found: ingest.Scan) -> dict:
    return {f.file: f.code for f in found.findings}


def test_folder_zip_tar_and_nested_archives_give_the_same_pack(tmp_path):
    contents = {**faces(5), "deep/er/9.png": files.noise_file(9), "notes.txt": b"x"}
    folder = tmp_path / "folder"
    write(folder, contents)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for name in reversed(contents):
            z.write(folder / name, name)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as t:
        for name in reversed(contents):
            t.add(folder / name, name)
    write(tmp_path / "holder", {"a.zip": (tmp_path / "a.zip").read_bytes()})
    digests = {
        built(tmp_path, str(tmp_path / name)).manifest["sha256"]
        for name in ("folder", "a.zip", "a.tar.gz", "holder")
    }
    assert len(digests) == 1


def test_labels_of_the_three_kinds(tmp_path):
    one_hot = "2," + ",".join("1" if i in (9, 11 + 8) else "0" for i in range(23))
    tables = {
        "tags.csv": "0,aqua hair red eyes\n2,blue hair red eyes\n",
        "tags_clean.csv": "0,x:3\taqua hair:9\tred eyes:4\t\n2,red eyes:2\tblue hair:8\t\n",
        "label.csv": "0," + one_hot[2:] + "\n" + one_hot + "\n",
    }
    for name, text in tables.items():
        folder = tmp_path / name.split(".")[0]
        got = built(tmp_path, write(folder, {**faces(3), name: text}))
        hair = got.manifest["classes"]["hair"]
        eyes = got.manifest["classes"]["eyes"]
        columns = got.examples()
        assert columns["names"] == ["0.png", "1.png", "2.png"]
        assert columns["hair"][1] == columns["eyes"][1] == -1
        assert hair[columns["hair"][2]] == "blue"
        assert eyes[columns["eyes"][2]] == "red"
        kept = built(tmp_path, str(folder), unlabeled="drop")
        assert kept.examples()["names"] == ["0.png", "2.png"]


@pytest.mark.fault(34)
def test_label_faults_are_named(tmp_path):
    table = "0,aqua hair red eyes\n1,mauve hair red eyes\n2,red hair\n7,red hair red eyes\n"
    found = scanned(tmp_path, write(tmp_path / "x", {**faces(4), "tags.csv": table}))
    assert codes(found) == {
        "tags.csv: 1": "unknown tag",
        "2.png": "unlabeled",
        "3.png": "no label",
        "7": "no image",
    }


def test_two_label_files_need_a_choice(tmp_path):
    tables = {"tags.csv": "0,aqua hair red eyes\n", "label.csv": "0,aqua hair blue eyes\n"}
    path = write(tmp_path / "x", {**faces(2), **tables})
    with pytest.raises(UserError, match=r"several tables.*--tags"):
        built(tmp_path, path)
    got = built(tmp_path, path, tags="label.csv")
    assert got.manifest["classes"]["eyes"][got.examples()["eyes"][0]] == "blue"


def test_unpaired_folders_become_parts(tmp_path):
    layout = {}
    for index, side in enumerate(("trainA", "trainB", "testA", "testB")):
        images = faces(3 + index, 10 * index)
        layout |= {f"set/{side}/{name}": data for name, data in images.items()}
    got = built(tmp_path, write(tmp_path / "x", layout))
    sizes = {name: stop - start for name, (start, stop) in got.manifest["parts"].items()}
    assert sizes == {"trainA": 3, "trainB": 4, "testA": 5, "testB": 6}
    assert (got.part("testB")[0] == got.part("testB")[0]).all()
    assert got.images.shape == (3, 32, 32, 3)
    with pytest.raises(UserError, match="no part"):
        got.part("train")
    found = scanned(tmp_path, str(tmp_path / "x"))
    assert codes(found) == {"": "domains"}


def test_two_sources_become_domains(tmp_path):
    a = write(tmp_path / "photos", faces(6))
    b = write(tmp_path / "anime", faces(6, 20))
    got = built(tmp_path, a, path_b=b, test=0.3)
    names = got.examples()["names"]
    assert sorted(names) == sorted([f"{s}/{i}.png" for s, n in (("A", 0), ("B", 20))
                                    for i in range(n, n + 6)])  # fmt: skip
    for name, (start, stop) in got.manifest["parts"].items():
        assert all(n.startswith(name[-1]) for n in names[start:stop])
    alone = write(tmp_path / "x", {"trainA/0.png": files.noise_file(0)})
    with pytest.raises(UserError, match="trainB"):
        built(tmp_path, alone)


def test_boxes_crop_the_head(tmp_path):
    image = Image.new("RGB", (200, 100), "red")
    image.paste("lime", (100, 20, 160, 80))
    table = "file,width,height,x,y,w,h\na.png,200,100,110,31.6,40,40\nb.png,9,9,1,1,5,5\n"
    contents = {"a.png": files.encode(image), "c.png": files.noise_file(1), "boxes.csv": table}
    path = write(tmp_path / "x", contents)
    got = built(tmp_path, path)
    assert (got.images[0] == [0, 255, 0]).all()
    assert codes(scanned(tmp_path, path)) == {"b.png": "no image", "c.png": "no box"}
    centered = built(tmp_path, path, crop="center")
    assert (centered.images[0][16, 4] == [255, 0, 0]).all()


def test_twins_never_cross_the_split(tmp_path):
    contents = {}
    for i in range(60):
        image = files.noise(i)
        contents[f"a/{i}.png"] = files.encode(image)
        contents[f"b/{i}.png"] = files.encode(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        contents[f"c/{i}.jpg"] = files.encode(image, "JPEG", quality=60)
    got = built(tmp_path, write(tmp_path / "x", contents), test=0.2)
    names, groups = got.examples()["names"], got.examples()["groups"]
    parts = got.manifest["parts"]
    sides = [set(groups[start:stop]) for start, stop in (parts["train"], parts["test"])]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 60
    ids = [{n.split("/")[1].split(".")[0] for n in names[slice(*parts[p])]} for p in parts]
    assert not ids[0] & ids[1]
    assert len(names) == 180
    assert got.manifest["counts"] == {"mirror": 60, "near": 60}


def test_a_given_split_is_kept_but_its_leaks_are_left_out(tmp_path):
    layout = {f"train/{n}": d for n, d in faces(4).items()}
    layout |= {f"test/{n}": d for n, d in faces(3, 10).items()}
    layout["test/copy.png"] = layout["train/2.png"]
    path = write(tmp_path / "x", layout)
    got = built(tmp_path, path)
    assert got.manifest["parts"] == {"train": [0, 4], "test": [4, 7]}
    found = scanned(tmp_path, path)
    assert {(f.file, f.code) for f in found.findings} == {
        ("train/2.png", "duplicate"),
        ("test/copy.png", "leak"),
    }


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


def test_what_is_no_picture_lies_aside(tmp_path):
    beside = {"README": "x", "model.pth": b"\x80\x04", "film.mp4": b"\0\0\0 ftypisom",
              "notes.txt": "x", "__MACOSX/._1.png": b"x", ".hidden.png": b"x",
              "Thumbs.db": b"x"}  # fmt: skip
    pictures = {**faces(2), "bare": files.noise_file(7), "odd.dat": files.noise_file(8)}
    found = scanned(tmp_path, write(tmp_path / "x", {**pictures, **beside}))
    assert sorted(i.name for i in found.items) == ["0.png", "1.png", "bare", "odd.dat"]
    assert found.catalogue.ignored == len(beside)
    assert codes(found) == {"odd.dat": "extension"}


@pytest.mark.fault(14)
def test_a_hostile_folder_is_named_file_by_file(tmp_path):
    folder = tmp_path / "faces"
    want = hostile(folder)
    assert len(want) >= 25
    done = anigan("check", folder, "--size", 32, "--json", "--html", tmp_path / "page.html")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    got = {f["file"]: f["code"] for f in report["findings"] if f["refused"]}
    assert got == want
    assert report["usable"] == 3
    page = (tmp_path / "page.html").read_text()
    assert "half.jpg" in page
    assert "caf\\udce9.png" in page
    done = anigan("import", folder, "--size", 32, "--out", tmp_path / "pack")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "pack").exists()
    done = anigan(
        "import", folder, "--size", 32, "--out", tmp_path / "pack", "--policy", "skip", "--test", 0
    )
    assert done.returncode == 0, done.stderr
    made = dataset.open_pack(tmp_path / "pack")
    assert len(made.images) == 3
    assert {name for name, *_ in made.manifest["refused"]} == set(want)
    for i in range(3):
        assert (made.images[i] == np.asarray(files.noise(i).resize((32, 32), 1))).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "faces", "outside.png", "pack", "page.html"]  # fmt: skip


@pytest.mark.fault(15)
def test_noted_files_are_used_by_their_rule(tmp_path):
    contents = {
        "cmyk.jpg": files.encode(files.noise(1).convert("CMYK"), "JPEG"),
        "deep.png": files.encode(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))),
        "palette.png": files.encode(files.noise(3).convert("P")),
        "clear.png": files.picture((9, 9, 200, 60), (64, 64), "RGBA"),
        "turned.png": files.noise_file(5, exif=files.exif(6)),
        "wrong.jpg": files.noise_file(6),
        "grey.png": files.encode(files.noise(7).convert("L")),
    }
    found = scanned(tmp_path, write(tmp_path / "x", contents))
    assert codes(found) == {
        "cmyk.jpg": "cmyk",
        "deep.png": "16-bit",
        "palette.png": "palette",
        "clear.png": "transparent",
        "turned.png": "rotated",
        "wrong.jpg": "extension",
        "grey.png": "grey",
    }
    assert len(found.order) == 7
    text = as_text(check.tables(check.summary("x", found)))
    assert "cannot be used" not in text


def test_workers_find_the_same_as_one_process(tmp_path):
    contents = {f"{i:04}.png": files.noise_file(i % 500, size=32) for i in range(560)}
    contents["0100.png"] = b"bad"
    path = write(tmp_path / "x", contents)
    source = Images(path, size=16, policy="skip")
    packs = [dataset.build(source, tmp_path / str(n), workers=n) for n in (1, 2)]
    assert packs[0].manifest == packs[1].manifest
    assert packs[0].manifest["counts"]["duplicate"] == 60


def test_a_script_without_a_guard_is_told_so(tmp_path):
    """Its workers run the script again and die; that is not blamed on the images."""
    path = write(tmp_path / "x", {f"{i:04}.png": files.noise_file(i % 9) for i in range(520)})
    code = (
        "from pathlib import Path\nfrom anigan_jax.data import pack, sources\n"
        f"pack.build(sources.Images({path!r}), Path({str(tmp_path / 'cache')!r}))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=process_env(), timeout=120
    )
    assert "__name__ == '__main__'" in done.stderr
    assert not list((tmp_path / "cache").iterdir())


class Deadly(Images):
    """A source whose decoder dies or hangs on some files."""

    def make(self, item, payload):
        if "dies" in item.name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hangs" in item.name:
            time.sleep(600)
        return super().make(item, payload)


@pytest.mark.fault(35)
def test_a_decoder_that_dies_or_hangs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "CHUNK", 4)
    monkeypatch.setattr(ingest, "CHUNK_SECONDS", 8.0)
    monkeypatch.setattr(ingest, "FILE_SECONDS", 4.0)
    contents = {f"{i:02}.png": files.noise_file(i, size=32) for i in range(18)}
    contents |= {"05-dies.png": files.noise_file(98), "16-hangs.png": files.noise_file(99)}
    source = Deadly(write(tmp_path / "x", contents), size=16)
    found = ingest.scan(source, tmp_path, workers=2)
    assert {f.file: f.code for f in found.findings} == {
        "05-dies.png": "crashed",
        "16-hangs.png": "crashed",
    }
    assert len(found.order) == 18


def test_import_again_other_data_and_damage(tmp_path):
    folder = tmp_path / "x"
    write(folder, faces(4))
    out = tmp_path / "pack"
    args = ("import", folder, "--out", out, "--size", 32, "--test", 0)
    first = anigan(*args)
    assert first.returncode == 0, first.stderr
    stamp = (out / "manifest.json").stat().st_mtime_ns
    again = anigan(*args)
    assert "unchanged" in again.stdout
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    write(folder, {"9.png": files.noise_file(9)})
    refused = anigan(*args)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert len(dataset.open_pack(out).images) == 4
    assert anigan(*args, "--overwrite").returncode == 0
    assert len(dataset.open_pack(out).images) == 5
    data = bytearray((out / "pixels.bin").read_bytes())
    data[7] ^= 1
    (out / "pixels.bin").write_bytes(data)
    assert "damaged" in anigan("check", out).stderr
    assert "damaged" in anigan(*args).stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    other = anigan("import", folder, "--out", tmp_path / "mine", "--overwrite")
    assert other.returncode == 2
    assert (tmp_path / "mine/thesis.txt").exists()


def test_a_killed_import_leaves_no_half_pack(tmp_path):
    folder = tmp_path / "x"
    image = files.noise_file(1, "JPEG")
    write(folder, {f"{i:05}.jpg": image + b"%d" % i for i in range(6000)})
    out = tmp_path / "out" / "pack"
    command = [sys.executable, "-m", "anigan_jax", "import", folder, "--out", out]
    for wait in (0.1, 0.6):
        process = subprocess.Popen(command, env=process_env(), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not list(out.parent.glob(".pack-*")) and time.monotonic() < deadline:
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


def test_training_takes_a_pack_and_refuses_another_size(tmp_path):
    path = write(tmp_path / "x", faces(4))
    made, there = dataset.import_to(Images(path, size=32, test=0), tmp_path / "pack", workers=1)
    assert not there
    taken = dataset.build(Images(str(tmp_path / "pack"), size=32), tmp_path / "cache")
    assert (taken.images == made.images).all()
    with pytest.raises(UserError, match="--size 64"):
        dataset.build(Images(str(tmp_path / "pack"), size=64), tmp_path / "cache")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("import",), "say what"),
        (("import", "x"), "--out"),
        (("import", "missing", "--out", "p"), "missing"),
        (("check", "a", "b", "c"), "two domains"),
        (("check", "missing"), "missing"),
        (("check", "x", "--size", "4"), "at least 8"),
        (("check", "x", "--test", "1"), "below 1"),
        (("check", "tfds:no_such_set"), "no_such_set"),
        (("check", "x", "--polcy", "skip"), "--policy"),
        (("check", "x", "--html", "no/such/folder/p.html"), "cannot be written"),
        (("import", "x/0.png", "--out", "p"), "neither"),
        (("import", "x", "--out", "x/0.png"), "no pack"),
    ],
)
def test_mistakes_are_explained(tmp_path, args, hint):
    write(tmp_path / "x", faces(2))
    done = anigan(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert hint in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_the_page_escapes_names(tmp_path):
    name = "<script>alert(1)<\u200b>.png"
    found = scanned(tmp_path, write(tmp_path / "x", {**faces(2), name.replace("/", ""): b"bad"}))
    check.write_page(check.summary("x", found), found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") == len(check.summary("x", found)["parts"])


@needs_data
def test_the_real_sets(tmp_path):
    anime = dataset.build(Images(str(DATA / "anime_faces_64")), tmp_path / "cache")
    assert anime.manifest["count"] == 7800
    assert anime.manifest["counts"] == {"no image": 28936}
    assert min(anime.examples()["hair"]) >= 0
    konachan = dataset.build(Images(str(DATA / "konachan_faces_96"), size=96), tmp_path / "cache")
    assert konachan.manifest["count"] == 1200
    photos = dataset.build(Images(str(DATA / "us_congress_portraits")), tmp_path / "cache")
    assert photos.manifest["count"] == 430
    assert not {"no box", "box", "no image"} & set(photos.manifest["counts"])
    with pytest.raises(UserError, match="no images"):
        dataset.build(Images(str(DATA / "face_landmarks_68")), tmp_path / "cache")


@needs_data
def test_mirror_twins_of_real_faces_are_found(tmp_path):
    """As in the full set, where every face is there twice: a mirrored JPEG of each."""
    with zipfile.ZipFile(DATA / "anime_faces_64" / "faces.zip") as z:
        names = z.namelist()[:400]
        folder = {}
        for name in names:
            image = Image.open(io.BytesIO(z.read(name)))
            folder[name] = z.read(name)
            mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            folder[f"m{name}"] = files.encode(mirrored, "JPEG", quality=75)
    found = scanned(tmp_path, write(tmp_path / "x", folder), size=64)
    assert [p.code for p in found.pairs] == ["mirror"] * 400
    for pair in found.pairs:
        assert found.items[pair.index].name == f"m{found.items[pair.of].name}"
