"""Import and check of whole sources."""

import io
import tarfile
import zipfile

import files
import numpy as np
import pytest
from PIL import Image
from real import DATA, needs_data
from sources import built, faces, scanned, write

from anigan_jax.data import dataset, ingest
from anigan_jax.data.decode import Crop, decode
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.report import data as check
from anigan_jax.report.table import as_text


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
        "tags.csv": "unknown tag",
        "1.png": "unlabeled",
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
    names = got.examples()["names"]
    for part, (start, stop) in got.manifest["parts"].items():
        for name, row in zip(names[start:stop], got.part(part), strict=True):
            number = int(name.rpartition("/")[2].removesuffix(".png"))
            assert (row == decode(files.noise_file(number), Crop(32)).pixels).all(), name
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
    assert got.manifest["counts"] == {"mirror": 60, "near": 60, "folders": 1}


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


def test_what_is_no_picture_lies_aside(tmp_path):
    beside = {"README": "x", "model.pth": b"\x80\x04", "film.mp4": b"\0\0\0 ftypisom",
              "notes.txt": "x", "__MACOSX/._1.png": b"x", ".hidden.png": b"x",
              "Thumbs.db": b"x"}  # fmt: skip
    pictures = {**faces(2), "bare": files.noise_file(7), "odd.dat": files.noise_file(8)}
    found = scanned(tmp_path, write(tmp_path / "x", {**pictures, **beside}))
    assert sorted(i.name for i in found.items) == ["0.png", "1.png", "bare", "odd.dat"]
    kinds = {"hidden": 3, ".txt": 1, ".pth": 1, ".mp4": 1, "without an ending": 1}
    assert found.catalogue.ignored == kinds
    assert codes(found) == {"odd.dat": "extension"}


@pytest.mark.fault(15)
def test_noted_files_are_used_by_their_rule(tmp_path):
    contents = {
        "cmyk.jpg": files.encode(files.noise(1).convert("CMYK"), "JPEG"),
        "deep.png": files.encode(
            Image.fromarray(np.arange(4096, 8192, dtype=np.uint16).reshape(64, 64))
        ),
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


def test_training_takes_a_pack_and_refuses_another_size(tmp_path):
    path = write(tmp_path / "x", faces(4))
    made, there = dataset.import_to(Images(path, size=32, test=0), tmp_path / "pack", workers=1)
    assert not there
    taken = dataset.build(Images(str(tmp_path / "pack"), size=32), tmp_path / "cache")
    assert (taken.images == made.images).all()
    with pytest.raises(UserError, match="--size 64"):
        dataset.build(Images(str(tmp_path / "pack"), size=64), tmp_path / "cache")


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
