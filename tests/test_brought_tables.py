"""Tables and texts of other programs: each was read wrongly, or not at all, before."""

import json
import re
import zipfile

import pytest
from brought import folder, labels, noted, png, table
from sources import built, faces, write

from anigan_jax.data import discover, pack_files
from anigan_jax.data.discover import Options
from anigan_jax.errors import UserError

COLORS = ("blue", "red", "green")
NAMES = [f"{i:03d}.png" for i in range(12)]
HAIR = [COLORS[i % 3] for i in range(12)]
PAIRS = [*zip(NAMES, HAIR, strict=True)]


def hair(path, **options) -> list:
    return [label.get("hair") for label in labels(path, **options).values()]


def test_a_class_of_held_out_images_alone_is_named(tmp_path):
    held = built(tmp_path, write(tmp_path / "a", faces(12)), test=0.4)
    name = held.examples()["names"][-1]
    rows = "".join(f"{i}.png,{'c' if f'{i}.png' == name else 'ab'[i % 2]}\n" for i in range(12))
    path = write(tmp_path / "b", {**faces(12), "labels.csv": f"file,class\n{rows}"})
    pack = built(tmp_path, path, test=0.4)
    assert pack.manifest["counts"]["untrained"] == 1
    assert any("--data.test 0" in line for line in pack_files.notes(pack.manifest))
    assert "untrained" not in built(tmp_path, path).manifest["counts"]


CAPTIONS = ("a girl with {} hair and red eyes", "a girl who smiles")


@pytest.mark.parametrize(
    "layout",
    [
        "by name",
        "captions",
        "text",
        "caption",
        "lines",
        "a list in text",
        "sentences",
    ],
)
def test_several_captions_of_an_image(tmp_path, layout):
    said = {n: [words.format(color) for words in CAPTIONS] for n, color in PAIRS}
    records = {
        key: [{"file_name": name, key: each} for name, each in said.items()]
        for key in ("captions", "text", "caption")
    }
    lines = {key: "\n".join(map(json.dumps, each)) for key, each in records.items()}
    bracketed = [{"file_name": n, "text": f"[{c} hair, red eyes]"} for n, c in PAIRS]
    # Karpathy's split of Flickr8k.
    sentences = [
        {"filename": n, "sentences": [{"raw": x, "tokens": x.split()} for x in each]}
        for n, each in said.items()
    ]
    files = {
        "by name": {"captions.json": json.dumps(said)},
        "captions": {"captions.json": json.dumps(records["captions"])},
        "text": {"metadata.jsonl": lines["text"]},
        "caption": {"captions.json": json.dumps(records["caption"])},
        "lines": {"captions.jsonl": lines["captions"]},
        "a list in text": {"metadata.jsonl": "\n".join(map(json.dumps, bracketed))},
        "sentences": {"captions.json": json.dumps({"images": sentences, "dataset": "flickr8k"})},
    }
    found = labels(folder(tmp_path, files[layout]))
    assert [found[name] for name in NAMES] == [{"hair": c, "eyes": "red"} for c in HAIR]


@pytest.mark.parametrize(
    "text",
    [
        "1girl, ({} hair:1.2), red eyes, (o)_(o)",
        "1girl, [[{} hair]], {{red eyes}}, (o)_(o)",
        "1girl, ({} hair, red eyes:1.3), (o)_(o)",
        "(0.99) 1girl\n(0.87) {}_hair\n(0.66) red_eyes\n(0.5) (o)_(o)",
    ],
)
def test_weights_of_picture_generators_are_no_part_of_a_tag(tmp_path, text):
    files = {f"{n[:-4]}.txt": text.replace("{}", c, 1) for n, c in PAIRS}
    found = labels(folder(tmp_path, files), "hair", "eyes", "1girl", "(o) (o)")
    tags = {"eyes": "red", "1girl": "1girl", "(o) (o)": "(o) (o)"}
    assert [found[name] for name in NAMES] == [{"hair": c, **tags} for c in HAIR]


@pytest.mark.parametrize("tag", ["saber (fate)", "(saber (fate):1.1)", "{saber (fate)}"])
def test_brackets_of_a_tag_stay(tmp_path, tag):
    files = {f"{n[:-4]}.txt": f"{c} hair, {tag}" for n, c in PAIRS}
    found = labels(folder(tmp_path, files), "saber (fate)").values()
    assert {label["saber (fate)"] for label in found} == {"saber (fate)"}


POSES = {"labels": [[name, [0.5, -0.25, 1.0]] for name in NAMES]}
OBJECTS = [{"file_name": n, "objects": {"bbox": [[1, 1, 2, 2]], "categories": [0]}} for n in NAMES]


@pytest.mark.parametrize("name", ["dataset.json", "metadata.jsonl"])
def test_a_found_file_that_says_nothing_of_images_stops_nothing(tmp_path, name):
    lines = "\n".join(map(json.dumps, OBJECTS))
    path = folder(tmp_path, {name: {"dataset.json": json.dumps(POSES)}.get(name, lines)})
    assert set(map(str, labels(path).values())) == {"{}"}
    found = discover.survey(path, Options()).findings
    assert [(finding.file, finding.code) for finding in found] == [(name, "silent")]
    with pytest.raises(UserError, match="--tags none"):
        labels(path, tags=name)


def test_labels_of_stylegan_by_name_and_several_of_an_image(tmp_path):
    each = {name: i % 3 for i, name in enumerate(NAMES)}
    path = folder(tmp_path / "one", {"dataset.json": json.dumps({"labels": each})})
    assert [label["class"] for label in labels(path).values()] == ["0", "1", "2"] * 4
    several = [[name, [i % 2, 1 - i % 2, int(i % 3 > 0)]] for i, name in enumerate(NAMES)]
    path = folder(tmp_path / "two", {"dataset.json": json.dumps({"labels": several})})
    found = labels(path)
    for name, bits in several:
        told = [found[name][f"label {i}"] == f"label {i}" for i in range(3)]
        assert told == list(map(bool, bits))


@pytest.mark.parametrize("layout", ["json", "csv", "tags"])
def test_scores_of_a_tagger_are_tags(tmp_path, layout):
    each = {
        n: {
            "1girl": 0.99,
            f"{c}_hair": 0.8,
            f"{COLORS[i % 3 - 1]}_hair": 0.4,
            "smile": 0.3 + i / 100,
        }
        for i, (n, c) in enumerate(PAIRS)
    }
    columns = ["1girl", "smile", *(f"{c}_hair" for c in COLORS)]
    cells = ([n, *(str(of.get(c, 0.01)) for c in columns)] for n, of in each.items())
    rows = "".join(f"{','.join(row)}\n" for row in cells)
    files = {
        "json": json.dumps(each),
        "csv": f"file,{','.join(columns)}\n{rows}",
        "tags": json.dumps({n: {"tags": of} for n, of in each.items()}),
    }
    path = folder(tmp_path, {"tags.csv": files[layout]})
    found = labels(path, "smile")
    assert [label["smile"] == "smile" for label in found.values()] == [i >= 5 for i in range(12)]
    if layout != "tags":
        # Of several colors the surest.
        assert hair(path) == HAIR
        assert noted(path)["scores"] == "5 columns"


def test_a_single_share_measures_something(tmp_path):
    rows = table(*(f"{c},{0.1 * i:.1f}" for i, c in enumerate(COLORS)), head="file,hair,quality")
    path = folder(tmp_path, {"labels.csv": rows})
    assert hair(path) == HAIR
    assert "scores" not in noted(path)


@pytest.mark.parametrize("said", ["blue hair", "1girl", "smile, solo"])
def test_folders_are_the_classes_that_were_asked_for(tmp_path, said):
    names = [f"{('miku', 'rin')[i % 2]}/{i}.png" for i in range(12)]
    rows = "".join(f"{i},{said}\n" for i in range(12))
    path = folder(tmp_path, {"tags.csv": rows}, names)
    assert {label["class"] for label in labels(path, "class").values()} == {"miku", "rin"}
    assert "no attribute" not in noted(path, "class")


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("filename,left,top,width,height", "1,2,4,3"),
        ("file,x1,y1,x2,y2", "1,2,5,5"),
        ("image,xmin,ymin,xmax,ymax", "1,2,5,5"),
        ("image_id,x_1,y_1,width,height", "1,2,4,3"),
    ],
)
def test_boxes_by_other_names(tmp_path, head, row):
    rows = "".join(f"{name},{row}\n" for name in NAMES)
    found = discover.survey(folder(tmp_path, {"boxes.csv": f"{head}\n{rows}"}), Options())
    assert {item.box for item in found.items} == {(1, 2, 4, 3)}


def test_boxes_without_sides_are_refused(tmp_path):
    path = folder(tmp_path, {"boxes.csv": "file,x1,y1,w,y2\n000.png,1,2,3,4\n"})
    with pytest.raises(UserError, match=r"file,x,y,w,h .or file,x1,y1,x2,y2"):
        labels(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("set.zip.001", "cat FILE"),
        ("set.tar.partaa", "cat FILE"),
        ("faces.tfrecords", "tensorflow-datasets"),
        ("data_batch_1", "cifar10"),
        ("train-images-idx3-ubyte.gz", "tfds:mnist"),
        (".1.png.icloud", "not downloaded"),
    ],
)
def test_what_is_no_image_comes_with_what_to_do(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"\x1f\x8b" if name.endswith("gz") else b"x")
    with pytest.raises(UserError, match="holds no images.*" + re.escape(said)):
        labels(tmp_path)


def test_parts_of_a_zip_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("0.png", png())
    assert len(labels(tmp_path / "set.zip")) == 1
    (tmp_path / "set.z01").write_bytes(b"PK\3\4")
    for path in (tmp_path / "set.zip", tmp_path / "set.z01", tmp_path):
        with pytest.raises(UserError, match="zip -s 0"):
            labels(path)


def test_what_lies_in_icloud_is_counted(tmp_path):
    path = folder(tmp_path, {".x.png.icloud": "bplist00"})
    assert discover.survey(path, Options()).ignored == {"in iCloud, not downloaded": 1}
