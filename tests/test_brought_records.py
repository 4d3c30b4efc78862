"""Records, splits and gaps as other programs write them: each was read wrongly before."""

import json
import sys
import zipfile

import files
import numpy as np
import pytest
from brought import folder, labels, noted, png, table
from PIL import Image, ImageCms

import anigan_jax
from anigan_jax.data import (
    attributes,
    boxes,
    dataset,
    decode,
    discover,
    isolated,
    label_files,
    pack_files,
    table_files,
    words,
)
from anigan_jax.data.attributes import Attribute
from anigan_jax.data.discover import Options
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment

COLORS = ("blue", "red", "green")
NAMES = [f"{i:04d}.png" for i in range(1, 13)]
HAIR = {name: COLORS[i % 3] for i, name in enumerate(NAMES)}


def hair(path, **options) -> list:
    return [label.get("hair") for label in labels(path, **options).values()]


@pytest.mark.parametrize("key", ["index", "own key"])
def test_records_that_name_their_images_below_another_key(tmp_path, key):
    """By pandas' index, and as the VGG annotator writes them."""
    each = {
        str(i) if key == "index" else f"{name}{1000 + i}": {"file_name": name, "hair": color}
        for i, (name, color) in enumerate(HAIR.items())
    }
    path = folder(tmp_path / "a", {"captions.json": json.dumps(each)}, NAMES)
    assert hair(path) == [*HAIR.values()]
    # A name as the key is still the name.
    plain = {name: {"hair": color} for name, color in HAIR.items()}
    path = folder(tmp_path / "b", {"captions.json": json.dumps(plain)}, NAMES)
    assert hair(path) == [*HAIR.values()]


def test_records_by_id_keep_their_key_beside_the_name_that_a_file_had(tmp_path):
    """As scrapers write them."""
    each = {
        name.removesuffix(".png"): {"path": f"https://x/{i:x}abc.jpg", "tags": [f"{color} hair"]}
        for i, (name, color) in enumerate(HAIR.items())
    }
    path = folder(tmp_path, {"captions.json": json.dumps(each)}, NAMES)
    assert hair(path) == [*HAIR.values()]


def test_records_within_a_record(tmp_path):
    lines = [
        json.dumps({"file_name": name, "source": "pixiv", "attributes": {"hair": color}})
        for name, color in HAIR.items()
    ]
    path = folder(tmp_path, {"metadata.jsonl": "\n".join(lines)}, NAMES)
    assert hair(path) == [*HAIR.values()]


def test_a_table_of_23_columns_with_a_header_is_no_one_hot_file(tmp_path):
    head = ",".join(["file", *(f"mark{i}" for i in range(23))])
    rows = [
        ",".join([name, *map(str, np.eye(23, dtype=int)[i % 4])]) for i, name in enumerate(NAMES)
    ]
    path = folder(tmp_path / "a", {"labels.csv": "\n".join([head, *rows])}, NAMES)
    found = labels(path, "mark3")
    assert [label["mark3"] for label in found.values()].index("mark3") == 3
    # Without a header it is NTU's: eyes, then hair.
    path = folder(tmp_path / "b", {"labels.csv": "\n".join(rows)}, NAMES)
    assert labels(path)[NAMES[0]] == {"eyes": "gray"}


@pytest.mark.parametrize("head", ["file,hair,eyes,created_at", ""])
def test_a_time_in_the_last_column_is_no_count(tmp_path, head):
    rows = [
        f"{n},{c} hair,red eyes,2024-01-05 12:30:{i:02}" for i, (n, c) in enumerate(HAIR.items())
    ]
    path = folder(tmp_path, {"labels.csv": "\n".join(filter(None, [head, *rows]))}, NAMES)
    assert hair(path) == [*HAIR.values()]


@pytest.mark.parametrize("head", ["", "id,tags"])
def test_counts_of_tags_are_still_read(tmp_path, head):
    rows = [f"{n},1girl:17697\t{color}_hair:7200\tre:zero:45\t" for n, color in HAIR.items()]
    text = "\n".join(filter(None, [head, *rows]))
    path = folder(tmp_path, {"tags.csv": text}, NAMES)
    assert hair(path) == [*HAIR.values()]


@pytest.mark.parametrize("mark", ["|", ";", ","])
def test_several_labels_in_a_cell(tmp_path, mark):
    said = (f"smile{mark}bow", f"smile{mark}hat", "hat", f"bow{mark}hat")
    rows = "".join(f'{name},"{said[i % 4]}"\n' for i, name in enumerate(NAMES))
    path = folder(tmp_path, {"labels.csv": f"file,labels\n{rows}"}, NAMES)
    found = labels(path, "smile", "hat")
    assert list(found.values())[:3] == [
        {"smile": "smile", "hat": "no hat"},
        {"smile": "smile", "hat": "hat"},
        {"smile": "no smile", "hat": "hat"},
    ]


@pytest.mark.parametrize(
    ("written", "tags"),
    [
        ("blue hair:0.98", ["blue hair"]),
        ("smile:.7", ["smile"]),
        (":3", [":3"]),
        ("16:9", ["16:9"]),
        ("re:zero", ["re:zero"]),
    ],
)
def test_a_weight_behind_a_tag(written, tags):
    assert words.tag(written) == tags


@pytest.mark.parametrize("text", ["0 0.5 6.1e-05 0.3 0.2", "0 nan 1e-7", "1 2 3"])
def test_numbers_of_boxes_are_no_captions(tmp_path, text):
    path = folder(tmp_path, {"000.txt": text, "001.txt": "0 1 1 1"})
    assert not any(labels(path).values())


def test_a_few_captions_among_empty_ones_stop_nothing(tmp_path):
    texts = {f"{i:03d}.txt": "" for i in range(40)}
    path = folder(tmp_path, {**texts, "007.txt": "blue hair"}, 40)
    assert "silent" in noted(path)
    assert not any(labels(path).values())
    path = folder(tmp_path, {f"{i:03d}.txt": f"{COLORS[i % 3]} hair" for i in range(6)}, 40)
    assert hair(path)[:4] == ["blue", "red", "green", "blue"]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train-00000-of-00001-566cc9b19d7203f8", "test-00000-of-00001-0123456789abcdef"),
        ("train-00000-of-00004", "validation-00000-of-00001"),
        ("train_images", "test_images"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("train2017", "val2017"),
    ],
)
def test_names_of_splits(tmp_path, train, test):
    names = [f"{train}/{i}.png" for i in range(4)] + [f"{test}/{i}.png" for i in range(2)]
    found = discover.survey(folder(tmp_path, {}, names), Options())
    assert {item.name.split("/")[0]: item.held for item in found.items} == {
        train: False,
        test: True,
    }
    assert table_files.split_of("test-hat") == "test-hat"


def test_splits_of_celeba_and_fer(tmp_path):
    for number, (column, said) in enumerate(
        [("partition", "012"), ("Usage", ("Training", "PublicTest", "PrivateTest"))]
    ):
        rows = "".join(f"{n},{COLORS[i // 4]},{said[i % 3]}\n" for i, n in enumerate(NAMES))
        text = f"file,hair,{column}\n{rows}"
        path = folder(tmp_path / str(number), {"labels.csv": text}, NAMES)
        found = discover.survey(path, Options())
        assert [a.name for a in found.attributes] == ["hair"]
        assert [item.held for item in found.items[:3]] == [False, True, True]


def test_photos_of_one_domain_alone_can_be_given_as_one(tmp_path):
    path = folder(tmp_path, {}, [f"testA/{i}.png" for i in range(3)])
    assert len(discover.survey(path, Options(), "A").items) == 3
    with pytest.raises(UserError, match="trainA and trainB"):
        discover.survey(path, Options())


def test_classes_in_lists_of_a_parquet_file(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from brought import png
    from pyarrow import parquet

    label = {"names": ["hat", "smile"], "_type": "ClassLabel"}
    for number, kind in enumerate(
        ({"feature": label, "_type": "Sequence"}, {"feature": label, "_type": "List"}, [label])
    ):
        features = {"labels": kind, "kind": {"names": ["a", "b"], "_type": "ClassLabel"}}
        about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        table = pa.table(
            {
                "image": [{"bytes": png(i), "path": None} for i in range(12)],
                "labels": [[[0], [1], [0, 1], []][i % 4] for i in range(12)],
                "kind": [[0, 1, -1][i % 3] for i in range(12)],
            }
        ).replace_schema_metadata(about)
        path = tmp_path / f"{number}.parquet"
        parquet.write_table(table, path)
        found = list(labels(path, "smile", "kind").values())
        assert [label["smile"] for label in found[:4]] == ["no smile", "smile", "smile", "no smile"]
        assert [label.get("kind") for label in found[:3]] == ["a", "b", None]


PIXELS = np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3), np.uint8)


def test_gaps_of_pandas_are_no_class(tmp_path):
    gap = float("nan")
    given = {"hair": ["red", "blue", gap, None] * 5, "hat": [True, False, gap, None] * 5}
    made = anigan_jax.pack(PIXELS, tmp_path / "faces", given, test=0)
    classes = json.loads((made / "manifest.json").read_text())["classes"]
    assert classes == {"hair": ["blue", "red"], "hat": ["no hat", "hat"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": [PIXELS[0], PIXELS[0, :4]]}, "several sizes"),
        ({"images": PIXELS, "labels": ["red"] * 20}, r"\{'hair'"),
        ({"images": PIXELS, "test": 20}, "share"),
    ],
)
def test_arrays_that_cannot_be_packed_say_why(tmp_path, given, said):
    with pytest.raises(UserError, match=said):
        anigan_jax.pack(out=tmp_path / "x", **given)


def test_a_path_object_in_a_setting_says_what_to_do():
    from anigan_jax import declared

    (told,) = declared.type_faults("data", Images(path=table_files.Path("faces")))
    assert "str(...)" in told


def test_workers_keep_to_what_a_container_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated.os, "sched_getaffinity", lambda _: range(8), raising=False)
    for quota, cores in (("250000 100000\n", 3), ("max 100000\n", 8), ("50000 100000", 1)):
        (tmp_path / "cpu.max").write_text(quota)
        monkeypatch.setattr(environment, "QUOTA", tmp_path / "cpu.max")
        assert environment.cores() == cores
    monkeypatch.setattr(environment, "QUOTA", tmp_path / "absent")
    assert environment.cores() == 8
    assert table("a", images=1)


def test_captions_that_end_in_a_period(tmp_path):
    said = (
        '"1girl, red hair, blue eyes."',
        '"Red hair. Blue eyes, smile"',
        '"a girl, with blue eyes!"',
    )
    rows = "".join(f"{n},{said[i % 3]}\n" for i, n in enumerate(NAMES))
    path = folder(tmp_path, {"captions.csv": f"file,caption\n{rows}"}, NAMES)
    found = list(labels(path).values())
    assert found[:2] == [{"hair": "red", "eyes": "blue"}] * 2
    assert found[2] == {"eyes": "blue"}


def test_a_long_cell_of_tags_is_read_as_a_short_one(tmp_path):
    many = ", ".join(f"tag {i}" for i in range(20))
    rows = "".join(
        f'{n},"{f"{many}, " if i % 2 else ""}{HAIR[n]} hair, red eyes"\n'
        for i, n in enumerate(NAMES)
    )
    path = folder(tmp_path / "a", {"metadata.csv": f"file_name,general_tags\n{rows}"}, NAMES)
    assert hair(path) == [*HAIR.values()]
    # A story is no list.
    story = "She walks by the sea, as she does each morning, and thinks of the blue of the sky " * 2
    rows = "".join(f'{n},{HAIR[n]},"{story}"\n' for n in NAMES)
    path = folder(tmp_path / "b", {"labels.csv": f"file,hair,comment\n{rows}"}, NAMES)
    assert set(noted(path)) == set()


def test_a_split_with_a_few_other_words_is_kept(tmp_path):
    names = [f"{i:03d}.png" for i in range(40)]
    said = ["", "unused", *("train" if i % 4 else "test" for i in range(38))]
    rows = "".join(f"{n},{COLORS[i % 3]},{said[i]}\n" for i, n in enumerate(names))
    path = folder(tmp_path / "a", {"labels.csv": f"file,hair,split\n{rows}"}, names)
    found = discover.survey(path, Options())
    assert [a.name for a in found.attributes] == ["hair"]
    assert [item.held for item in found.items[:4]] == [None, None, True, False]
    # A column of other words is a class.
    rows = "".join(f"{n},{('north', 'south', 'test')[i % 3]}\n" for i, n in enumerate(names))
    path = folder(tmp_path / "b", {"labels.csv": f"file,set\n{rows}"}, names)
    assert [a.name for a in discover.survey(path, Options()).attributes] == ["set"]


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("file,x,y,w,h,width,height", "{},40,30,80,60,512,512"),
        ("file,width,height,x,y,w,h", "{},512,512,40,30,80,60"),
        ("file,w,h,x1,y1,x2,y2", "{},512,512,40,30,120,90"),
        ("file,width,height,left,top,right,bottom", "{},512,512,40,30,120,90"),
        ("file,left,top,width,height", "{},40,30,80,60"),
    ],
)
def test_a_box_is_not_the_picture(head, row):
    text = "\n".join([head, row.format("a.png"), row.format("b.png")])
    assert boxes._of_table(text, "boxes.csv", [])["a.png"] == (40, 30, 80, 60)


def test_boxes_in_shares_are_told_once():
    with pytest.raises(UserError, match="shares of the picture"):
        boxes._of_table("file,x,y,w,h\na.png,0.25,0.05,0.5,0.5\n", "boxes.csv", [])


def test_boxes_of_shards_by_their_whole_names(tmp_path):
    for shard in "ab":
        with zipfile.ZipFile(tmp_path / f"{shard}.zip", "w") as archive:
            archive.writestr("0001.png", png(ord(shard)))
    text = "file,x,y,w,h\na/0001.png,1,2,4,4\nb/0001.png,2,1,4,4\n"
    (tmp_path / "boxes.csv").write_text(text)
    found = discover.survey(tmp_path, Options())
    assert [item.box for item in found.items] == [(1, 2, 4, 4), (2, 1, 4, 4)]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("bus", "car", "train"), ("bus", "car", "train")),
        (("train/bus", "train/car", "test/bus"), ("bus", "car")),
        (("all/bus", "all/train"), ("bus", "train")),
        (("train/bus", "train/car", "train"), ("bus", "car")),
    ],
)
def test_a_class_may_be_called_as_a_split_is(tmp_path, names, classes):
    path = folder(tmp_path, {}, [f"{name}/{i}.png" for name in names for i in range(3)])
    found = discover.survey(path, Options(attributes=("class",)))
    assert found.attributes[0].classes == classes
    loose = sum(item.name.count("/") == 1 for item in found.items) if "train/bus" in names else 0
    assert sum(not item.label for item in found.items) == loose


def test_what_is_hidden_is_neither_a_fault_nor_a_table(tmp_path):
    path = folder(tmp_path, {"tags.csv": table("blue hair", "red hair")})
    (path / ".#tags.csv").symlink_to("me@host.123")
    (path / ".venv/bin").mkdir(parents=True)
    (path / ".venv/bin/python").symlink_to(sys.executable)
    (path / ".Trash-1000/files").mkdir(parents=True)
    (path / ".Trash-1000/files/tags.csv").write_text(table("green hair"))
    found = discover.survey(path, Options())
    assert not [f for f in found.findings if f.refused]
    assert hair(path)[:2] == ["blue", "red"]
    # What is not hidden still is.
    (path / "out.png").symlink_to(sys.executable)
    assert [f.code for f in discover.survey(path, Options()).findings if f.refused] == ["link"]


@pytest.mark.parametrize("mark", [" ", ": "])
def test_a_blank_behind_the_name_and_commas_within(tmp_path, mark):
    rows = [f"{name}{mark}{color} hair, red eyes" for name, color in HAIR.items()]
    path = folder(tmp_path, {"captions.txt": "\n".join(rows)}, NAMES)
    assert hair(path) == [*HAIR.values()]


def test_a_stray_quote_in_a_large_table_is_named(tmp_path):
    rows = [f"{i:05d}.png,blue hair" for i in range(9000)]
    rows[20] = '00020.png,"blue hair'
    with pytest.raises(UserError, match="a quote is opened"):
        label_files.read("\n".join(["file,tags", *rows]), "labels.csv", ["00000.png"])


def test_flags_of_one_letter(tmp_path):
    rows = "".join(f"{n},{'YN'[i % 2]},{'FT'[i % 2]}\n" for i, n in enumerate(NAMES))
    path = folder(tmp_path, {"labels.csv": f"file,glasses,hat\n{rows}"}, NAMES)
    found = list(labels(path).values())[:2]
    assert found == [
        {"glasses": "glasses", "hat": "no hat"},
        {"glasses": "no glasses", "hat": "hat"},
    ]


def test_bytes_before_the_end_of_a_jpeg_are_no_damage():
    data = files.noise_file(0, "JPEG")
    assert data.endswith(b"\xff\xd9")
    whole = decode.decode(data, decode.Crop(32)).pixels
    odd = data[:-2] + bytes(65) + data[-2:]
    assert (decode.decode(odd, decode.Crop(32)).pixels == whole).all()
    noise = bytes(range(1, 66))
    for damaged in (data[: len(data) // 2] + data[-2:], data[:-2] + noise + data[-2:]):
        with pytest.raises(decode.Refusal):
            decode.decode(damaged, decode.Crop(32))


def test_a_linear_profile_is_not_srgb(monkeypatch):
    """By its name alone it was taken for it."""
    pixels = Image.fromarray(np.full((16, 16, 3), 128, np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, converted in (
        ("sRGB built-in", 0),
        ("GIMP built-in Linear sRGB", 1),
        ("sRGB-elle-V2-g10", 1),
    ):
        notes: list = []
        monkeypatch.setattr(decode, "_profile_name", lambda _, name=name: name)
        decode._to_srgb(pixels, profile, notes)
        assert len(notes) == converted


def test_ones_of_many_classes_take_the_room_of_the_answer():
    many = (Attribute("class", tuple(map(str, range(50_000)))), Attribute("b", ("x", "y")))
    found = attributes.one_hot(many, np.array([[7, 1], [49_999, 0]]))
    assert found.shape == (2, 50_002) and found.dtype == np.float32
    assert [np.flatnonzero(row).tolist() for row in found] == [[7, 50_001], [49_999, 50_000]]


def test_a_training_is_told_of_images_that_come_out_black(tmp_path):
    """Scanners write 12 bits into 16; of wider values the high byte is enough."""
    for most, told in ((4095, True), (65535, False)):
        (out := tmp_path / str(most)).mkdir()
        for i in range(20):
            rng = np.random.default_rng(i)
            values = rng.integers(most // 2, most, (16, 16), endpoint=True).astype(np.uint16)
            Image.fromarray(values).save(out / f"{i}.png")
        pack = dataset.build(Images(path=str(out), size=16), tmp_path / "cache")
        notes = [line for line in pack_files.notes(pack.manifest) if "(20 of the images)" in line]
        assert ["dark" in line for line in notes] == [False, True][: 1 + told]
        assert (pack.images.max() < 16) == told
