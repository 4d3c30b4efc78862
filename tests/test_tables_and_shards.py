"""Which images a table is of, where a user named it, and what a source of shards holds."""

import dataclasses
import os
import time
from pathlib import Path

import files
import pytest
from archive_files import tar_entry, tar_of, zip_of
from PIL import Image
from sources import faces, scanned, write

from anigan_jax.data import dataset, labels, scratch, words
from anigan_jax.data.attributes import label
from anigan_jax.data.decode import Crop, decode
from anigan_jax.data.images import Images
from anigan_jax.data.rows import Row
from anigan_jax.errors import UserError
from anigan_jax.sampling import photos

SHARDS = {"faces-v1.0-0000": "blue", "faces-v1.0-0001": "green"}


def shard(path, color, seed):
    """Two faces, both with a text beside them, of the names that every shard has."""
    entries = []
    for i in range(2):
        entries += [
            tar_entry(f"{i}.png", data=files.noise_file(seed + i)),
            tar_entry(f"{i}.txt", data=f"{color} hair red eyes".encode()),
        ]
    return tar_of(path, entries)


def test_shards_that_differ_after_a_dot_keep_their_own_labels(tmp_path):
    (tmp_path / "x").mkdir()
    for number, (name, color) in enumerate(SHARDS.items()):
        shard(tmp_path / "x" / f"{name}.tar", color, 10 * number)
    found = scanned(tmp_path, str(tmp_path / "x"), size=16)
    assert {item.name: item.label["hair"] for item in found.items} == {
        f"{name}/{i}.png": color for name, color in SHARDS.items() for i in range(2)
    }
    assert not [f for f in found.findings if f.code == "conflict"]


def test_a_list_beside_shards_is_no_shard(tmp_path):
    """As img2dataset leaves 00000.tar with 00000.parquet and 00000_stats.json."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write(tmp_path / "x", {"00000_stats.json": "{}"})
    shard(tmp_path / "x" / "00000.tar", "blue", 0)
    rows = {"url": ["http://x"] * 2, "caption": ["red hair"] * 2, "key": ["0", "1"]}
    parquet.write_table(pa.table(rows), tmp_path / "x" / "00000.parquet")
    found = scanned(tmp_path, str(tmp_path / "x"), size=16)
    assert {item.name: item.label["hair"] for item in found.items} == {
        f"{i}.png": "blue" for i in range(2)
    }
    assert found.catalogue.ignored == {".parquet": 1, ".json": 1}


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["a.zip", "a.tar"], {"a.zip", "a.tar"}),
        (["x.target.zip", "y.tar.gz"], {"x.target", "y"}),
    ],
)
def test_each_shard_has_a_folder_of_its_own(names, folders, tmp_path):
    (tmp_path / "x").mkdir()
    for number, name in enumerate(names):
        path, data = tmp_path / "x" / name, files.noise_file(number)
        if name.endswith(".zip"):
            zip_of(path, [("0.png", data)])
        else:
            tar_of(path, [tar_entry("0.png", data=data)], "w:gz" if name.endswith("gz") else "w")
    found = scanned(tmp_path, str(tmp_path / "x"), size=16)
    assert {item.name.rpartition("/")[0] for item in found.items} == folders


def test_what_macos_leaves_beside_shards_is_passed_over(tmp_path):
    (tmp_path / "x").mkdir()
    for number, name in enumerate("ab"):
        zip_of(tmp_path / "x" / f"{name}.zip", [("0.png", files.noise_file(number))])
    (tmp_path / "x/._a.zip").write_bytes(b"\0\5\x16\7" + bytes(100))
    (tmp_path / "x/.thumb.png").write_bytes(files.noise_file(9))
    found = scanned(tmp_path, str(tmp_path / "x"), size=16)
    assert [item.name for item in found.items] == ["a/0.png", "b/0.png"]


def test_a_table_in_the_folder_of_a_split_is_of_that_split(tmp_path):
    layout = {f"{part}/{i}.png": files.noise_file(i + 10 * j)
              for j, part in enumerate(("train", "test")) for i in range(2)}  # fmt: skip
    layout["train/labels.csv"] = "file,hair,eyes\n0.png,blue,red\n1.png,pink,green\n"
    found = scanned(tmp_path, write(tmp_path / "x", layout), size=16)
    assert {item.name: item.label for item in found.items} == {
        "train/0.png": label(hair="blue", eyes="red"),
        "train/1.png": label(hair="pink", eyes="green"),
        "test/0.png": {},
        "test/1.png": {},
    }
    # A folder that is no split's holds a table of all.
    layout["labels/labels.csv"] = layout.pop("train/labels.csv")
    found = scanned(tmp_path, write(tmp_path / "y", layout), size=16)
    assert all(item.label for item in found.items)


@pytest.mark.parametrize("prefix", ["", "trainA/"])
def test_boxes_of_one_domain_crop_no_image_of_the_other(prefix, tmp_path):
    layout = {f"train{side}/{i}.png": files.noise_file(i + 10 * j)
              for j, side in enumerate("AB") for i in range(2)}  # fmt: skip
    layout["trainA/boxes.csv"] = f"file,x,y,w,h\n{prefix}0.png,8,8,20,20\n{prefix}1.png,9,9,20,20\n"
    found = Images(path=write(tmp_path / "x", layout)).catalogue()
    assert {item.name: item.box for item in found.items} == {
        "trainA/0.png": (8, 8, 20, 20),
        "trainA/1.png": (9, 9, 20, 20),
        "trainB/0.png": None,
        "trainB/1.png": None,
    }


def test_a_table_beside_an_archive_is_found_and_known_by_its_content(tmp_path):
    where = zip_of(tmp_path / "faces.zip", list(faces(3).items()))
    source = Images(path=str(where), size=16, tags="mine.csv")
    (tmp_path / "mine.csv").write_text("file,hair,eyes\n0.png,blue,red\n")
    packs = tmp_path / "packs"
    first = dataset.build(source, packs)
    (tmp_path / "mine.csv").write_text("file,hair,eyes\n0.png,pink,red\n1.png,blue,red\n")
    second = dataset.build(source, packs)
    assert first.manifest["sha256"] != second.manifest["sha256"]
    assert set(second.manifest["classes"]["hair"]) >= {"pink", "blue"}


def test_a_column_is_asked_for_by_its_own_name():
    years = range(1990, 1990 + words.MEASURE + 2)
    rows = [
        (f"{year}-{i}.png", Row(classes={"birth_year": str(year)}))
        for year in years
        for i in range(labels.FEWEST)
    ]
    for name in ("birth_year", "Birth_Year", "birth year"):
        (found,) = labels.table(rows, "labels.csv", wanted=(name,)).attributes
        assert found.name == "birth year"
        assert set(found.classes) == set(map(str, years)), name
    assert not labels.table(rows, "labels.csv").attributes


def test_pairs_are_left_out_of_labeled_images_alone(tmp_path):
    where = write(tmp_path / "x", faces(3))
    with pytest.raises(UserError, match="have none"):
        Images(path=str(where), without=("blue hair red eyes",)).catalogue()


def test_photos_need_no_labels(tmp_path):
    layout = {**faces(3), "captions.txt": "our holiday", "labels.csv": "file,hair\nz.png,blue\n"}
    where = write(tmp_path / "x", layout)
    assert len(photos.gather([Path(where)], photos.Cropping(), 16).names) == 3


def test_the_background_is_srgb_whatever_the_profile_of_a_picture():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 8, 16))
    crop = Crop(16, "center", background="#80c0ff")
    found = decode(files.encode(image, icc_profile=files.swapped_profile()), crop)
    assert found.pixels[:, 12].tolist() == [[128, 192, 255]] * 16
    # The picture's own red is its profile's blue.
    assert found.pixels[8, 2].tolist() == [0, 0, 255]
    assert "transparent" in dict(found.notes)


def test_settings_that_a_pack_does_not_follow_are_told(tmp_path):
    where = write(tmp_path / "x", faces(6))
    made, _ = dataset.import_to(Images(path=str(where), size=16, test=0.2), tmp_path / "pack")
    source = Images(path=str(tmp_path / "pack"), size=16)
    assert not source.unread(made)
    assert not dataclasses.replace(source, test=0.2).unread(made)
    for change in ({"test": 0.0}, {"crop": "pad"}, {"boxes": "b.csv"}, {"tags": "none"}):
        (name,) = change
        told = dataclasses.replace(source, **change).unread(made)
        assert f"data.{name}" in told and f"--{name}" in told
    # Of pictures, a pack is made with them.
    whole = Images(path=str(where), size=16, test=0.0, crop="pad", tags="none")
    assert not whole.unread(dataset.build(whole, tmp_path / "cache"))


def test_folders_of_a_users_own_stay_where_packs_are_made(tmp_path):
    """What a killed import left is gone; '.faces-backup' beside it is not."""
    own = [tmp_path / name for name in (".faces-backup", ".faces-12345678", ".faces-x")]
    for folder in own[:2]:
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    own[2].write_text("a file")
    left = tmp_path / ".faces-abcd_123"
    left.mkdir()
    (left / "lock").touch()
    for path in (*own, left):
        os.utime(path, (time.time() - 3600,) * 2)
    with scratch.temporary(tmp_path, "faces") as made:
        assert made.parent == tmp_path
    assert not left.exists()
    assert [path.exists() for path in own] == [True] * 3
    assert sorted(p.name for p in own[0].iterdir()) == ["mine.txt"]
