"""What users bring that no layout foresees: odd tables, names, archives and folders."""

import bz2
import gzip
import json

import files
import pytest
from archive_files import tar_entry, tar_of, zip_of
from sources import built, faces, scanned, write
from test_user_sources import COLORS, WANT, lines, under

from anigan_jax.data import label_text
from anigan_jax.errors import UserError

SIDECARS = [text.replace(" hair ", "_hair, ") for text in COLORS]
COCO = {
    "images": [{"id": 70 + i, "file_name": f"{i}.png"} for i in range(3)],
    "annotations": [{"image_id": 70 + i, "caption": text} for i, text in enumerate(COLORS)],
}
# Files beside 0.png, 1.png and 2.png, or beside images of the pattern in a pair.
LABELS = {
    "excel's delimiter": {"tags.csv": "sep=;\r\nid;tags\r\n" + lines("{i};{text}\r\n")},
    "excel's formula": ({"tags.csv": lines('="000{i}",{text}\n')}, "000{}.png"),
    "excel's apostrophe": ({"tags.csv": lines("'000{i},{text}\n")}, "000{}.png"),
    "ids as floats": {"tags.csv": lines("{i}.0,{text}\n")},
    "utf-16 without a mark": {"tags.csv": lines("{i},{text}\n").encode("utf-16-le")},
    "big-endian": {"tags.csv": lines("{i},{text}\n").encode("utf-16-be")},
    "western europe": ({"tags.csv": lines("fé{i},{text}\n").encode("cp1252")}, "fé{}.png"),
    "japan": ({"tags.csv": lines("顔{i},{text}\n").encode("cp932")}, "顔{}.png"),
    "a remark above": {"tags.csv": "# by me\n" + lines("{i},{text}\n")},
    "a header after a hash": {"tags.csv": "# tags,file\n" + lines("{text},{i}.png\n")},
    "the name behind": {"tags.csv": "Caption,File Name\n" + lines('"{text}",{i}.png\n')},
    "the name behind, no header": {"tags.csv": lines("{text},{i}.png\n")},
    "a path": {"tags.csv": "caption,where\n" + lines("{text},C:\\x\\{i}.png\n")},
    "named by md5": ({"tags.csv": "id,md5,tags\n" + lines("8{i},f00{i}e,{tags}\n")}, "f00{}e.png"),
    "another letter case": ({"tags.csv": lines("IMG_{i}.PNG,{text}\n")}, "img_{}.png"),
    "escapes": ({"tags.csv": lines("my%20face{i}.png,{text}\n")}, "my face{}.png"),
    "commas of Chinese": {"tags.csv": lines("{i}\uff0c{text}\uff0c微笑\n")},
    "a colon": {"tags.csv": lines("{i}: {text}\n")},
    "a blank": {"tags.csv": lines("{i} {text}\n")},
    "a list in a cell": {"tags.csv": "id,tags\n" + "".join(
        f'{i},"{c.split(", ")}"\n' for i, c in enumerate(SIDECARS))},
    "a name in capitals": {"Tags.CSV": lines("{i},{text}\n")},
    "captions.txt": {"captions.txt": "image,caption\n" + lines("{i}.png,a girl with {text} .\n")},
    "metadata.tsv": {"metadata.tsv": "file_name\ttext\n" + lines("{i}.png\t{text}\n")},
    "json by name": {"captions.json": json.dumps({f"{i}.png": c for i, c in enumerate(COLORS)})},
    "json of columns": {"captions.json": json.dumps({
        "file": {f"{i}": f"{i}.png" for i in range(3)}, "text": dict(enumerate(COLORS))})},
    "json with records": {"captions.json": json.dumps({"info": {}, "data": [
        {"picture": f"{i}.png", "text": c} for i, c in enumerate(COLORS)]})},
    "coco": {"captions.json": json.dumps(COCO)},
    "jsonl of other names": {
        "metadata.jsonl": lines('{{"where": "x/{i}.png", "said": "{text}"}}\r\n')},
    "sidecars behind the ending": {f"{i}.png.txt": c for i, c in enumerate(SIDECARS)},
    "sidecars of gallery-dl": {f"{i}.png.json": json.dumps({"id": i, "tags": c.split(", ")})
                               for i, c in enumerate(SIDECARS)},
    "sidecars of tags with names": {
        f"{i}.json": json.dumps({"tags": [{"name": tag} for tag in c.split(", ")]})
        for i, c in enumerate(SIDECARS)},
    "sidecars in capitals": {f"{i}.TXT": c for i, c in enumerate(SIDECARS)},
    "sidecars of a tag a line": {f"{i}.txt": f"long dress\n{c.replace(', ', chr(10))}\nsmile\n"
                                 for i, c in enumerate(SIDECARS)},
    "sidecars in a folder": (
        {f"texts/{i}.txt": c for i, c in enumerate(SIDECARS)}, "images/{}.png"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LABELS)
def test_labels_of_odd_layouts_are_read(layout, tmp_path):
    found = LABELS[layout]
    texts, pattern = found if isinstance(found, tuple) else (found, "{}.png")
    images = {pattern.format(i): files.noise_file(i) for i in range(3)}
    scan = scanned(tmp_path, write(tmp_path / "x", {**images, **texts}), size=16)
    assert [item.label for item in scan.items] == WANT
    assert not scan.catalogue.ignored


@pytest.mark.parametrize("name", ["labels.csv", "captions.txt"])
def test_tables_of_two_folders_are_of_the_images_beside_them(name, tmp_path):
    layout = {f"{folder}/{i}.png": files.noise_file(i + 10 * at)
              for at, folder in enumerate(("train", "test")) for i in range(2)}  # fmt: skip
    for at, folder in enumerate(("train", "test")):
        layout[f"{folder}/{name}"] = f"0.png,{COLORS[at]}\n1.png,{COLORS[at + 1]}\n"
    scan = scanned(tmp_path, write(tmp_path / "x", layout), size=16)
    got = {item.name: item.label for item in scan.items}
    assert [got[f"{f}/{i}.png"] for f in ("train", "test") for i in range(2)] == [
        *WANT[:2],
        *WANT[1:],
    ]
    write(tmp_path / "x", {name: "0.png,red hair\n"})
    if name == "labels.csv":
        with pytest.raises(UserError, match="several tables"):
            scanned(tmp_path, str(tmp_path / "x"))


def classes(tmp_path, table: dict, count: int = 6, **settings):
    scan = scanned(tmp_path, write(tmp_path / "x", {**faces(count), **table}), size=16, **settings)
    return {a.name: a.classes for a in scan.catalogue.attributes}, scan.findings


def test_cells_without_a_value_are_no_class(tmp_path):
    rows = "".join(f"{i},{('ann', 'bob', 'NaN')[i % 3]},#N/A\n" for i in range(9))
    found, _ = classes(tmp_path, {"tags.csv": f"id,artist,note\n{rows}"}, 9)
    assert found == {"artist": ("ann", "bob")}


def test_a_column_of_one_class_is_named(tmp_path):
    rows = "".join(f"{i},ann\n" for i in range(6))
    found, (finding,) = classes(tmp_path, {"tags.csv": f"id,artist\n{rows}"})
    assert (found, finding.code, finding.detail) == ({}, "no attribute", "artist 'ann' 6")
    with pytest.raises(UserError, match="'artist' has only one class"):
        scanned(tmp_path, str(tmp_path / "x"), attributes=("artist",))


def test_coco_categories_are_classes(tmp_path):
    tree = {
        "categories": [{"id": 1, "name": "Cat"}, {"id": 2, "name": "dog"}],
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(6)],
        "annotations": [{"image_id": i, "category_id": 1 + i % 2} for i in range(6)],
    }
    assert classes(tmp_path, {"dataset.json": json.dumps(tree)})[0] == {"category": ("cat", "dog")}


def test_escaped_tags_are_as_sites_write_them(tmp_path):
    texts = {f"{i}.txt": r"saber_\(fate\), sky" if i % 2 else "sky" for i in range(6)}
    assert "saber (fate)" in classes(tmp_path, texts, attributes=("tags",))[0]


def test_a_dataset_json_without_labels_is_none(tmp_path):
    assert classes(tmp_path, {"dataset.json": '{"labels": null}'}) == ({}, [])


def test_numbers_beside_images_are_classes_or_nothing(tmp_path):
    found, findings = classes(tmp_path, {f"{i}.txt": f"{i % 2}\n" for i in range(6)})
    assert (found, findings) == ({"class": ("0", "1")}, [])
    boxes = {f"{i}.txt": "0 0.5 0.5 0.1 0.2\n" for i in range(6)}
    assert not classes(tmp_path, boxes)[0]


def test_a_quote_that_is_never_closed_is_named(tmp_path):
    rows = [f"{i},blue hair\n" for i in range(30)]
    rows[5] = '5,"blue hair\n'
    _, findings = classes(tmp_path, {"tags.csv": "".join(rows)}, 30)
    assert ("tags.csv: 5", "bad row") in {(f.file, f.code) for f in findings}
    rows[1], rows[5] = '1,"blue hair\n', "5,blue hair\n"
    (tmp_path / "x/tags.csv").write_text("".join(rows))
    with pytest.raises(UserError, match=r"1 rows cannot be read \(tags.csv: 1"):
        scanned(tmp_path, str(tmp_path / "x"))


@pytest.mark.long
def test_a_table_of_another_name_is_named(tmp_path, verb):
    path = write(tmp_path / "x", {**faces(6), "list.csv": lines("{i},{text}\n"), "a.md": ""})
    out = verb("check", path, "--size", 16)[1]
    assert "list.csv" in out
    assert "--tags FILE" in out
    assert "tables" not in verb("check", path, "--size", 16, "--tags", "none")[1]
    for given in ("list.csv", "List.csv", f"{path}/list.csv"):
        out = verb("check", path, "--size", 16, "--tags", given)[1]
        assert "Not read: 1 .md." in out
        assert "blue 1" in out


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"PK\3\4", "spreadsheet"), (b"PAR1", "to_csv"), (b"\x1f\x8b", "unpack it first")],
)
def test_what_is_no_text_says_how_it_becomes_one(data, said):
    with pytest.raises(UserError, match=said):
        label_text.of_bytes(data + bytes(9), "tags.xlsx")


@pytest.mark.parametrize(
    "table",
    ["File;X;Y;W;H\n{i};2;2;20,5;20\n", "file, x, y, w, h\n{i}.png, 2, 2, 20, 20\n",
     "image_id\tx\ty\tw\th\n000{i}.jpg\t2\t2\t20\t20\n",
     "image_id x_1 y_1 width height\n{i}.png    2   2  20  20\n"],
)  # fmt: skip
def test_boxes_as_spreadsheets_write_them(table, tmp_path):
    head, row = table.split("\n", 1)
    rows = "".join(row.format(i=i) for i in range(3))
    path = write(tmp_path / "x", {**faces(3), "boxes.csv": f"{head}\n{rows}"})
    scan = scanned(tmp_path, path, size=16)
    assert all(item.box[:2] == (2, 2) for item in scan.items)
    assert not scan.findings


# --- images


def test_archives_are_told_by_content(tmp_path):
    pictures = faces(3)
    packed = zip_of(tmp_path / "a.zip", pictures.items()).read_bytes()
    tar = tar_of(tmp_path / "a.tar", [tar_entry(n, data=d) for n, d in pictures.items()])
    tar = tar.read_bytes()
    for name, data in {"b.cbz": packed, "c": packed, "d.tar": gzip.compress(tar), "e.zip": tar,
                       "f.tar.gz": tar, "g.tbz2": bz2.compress(tar)}.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
        assert len(scanned(tmp_path, str(tmp_path / name), size=16).order) == 3, name
    for name, data, said in (("h.zip", b"<!DOCTYPE html>", "download that failed"),
                             ("i.tar", b"version https://git-lfs", "git lfs pull")):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=said):
            scanned(tmp_path, str(tmp_path / name))


def test_names_that_a_zip_does_not_mark_as_unicode(tmp_path):
    entries = [("顔0.png", files.noise_file(0)), ("tags.csv", "顔0,blue hair\n")]
    path = zip_of(tmp_path / "a.zip", entries)
    # Bit 11 of the flags of each entry and of its place in the directory.
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        place = data.find(mark)
        while place >= 0:
            data[place + at] &= ~8
            place = data.find(mark, place + 1)
    path.write_bytes(data)
    (item,) = scanned(tmp_path, str(path), size=16).items
    assert (item.name, item.label["hair"]) == ("顔0.png", "blue")


def test_what_lies_beside_images_is_no_faulty_image(tmp_path):
    beside = {"tags.xlsx": b"PK\3\4", "net.pth": b"PK\3\4", "@eaDir/0.png": files.noise_file(7),
              "$RECYCLE.BIN/1.png": files.noise_file(8)}  # fmt: skip
    scan = scanned(tmp_path, write(tmp_path / "x", {**faces(3), **beside}), size=16)
    assert (len(scan.order), scan.faults) == (3, [])
    assert scan.catalogue.ignored == {".xlsx": 1, ".pth": 1, "hidden": 2}


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [("0.jxl", b"\xff\x0a", "JPEG XL; magick"), ("0.ppm", b"P6\n2 2", "PNM; magick"),
     ("0.rar", b"Rar!\x1a\x07\0", "RAR archive; unpack"), ("0.7z", b"7z\xbc\xaf'\x1c", "7-Zip"),
     ("0.png", b"version https://git-lfs", "git lfs pull"), ("0", b"PK\3\4", "unpack it first")],
)  # fmt: skip
def test_other_kinds_are_named_with_what_to_do(name, data, said, tmp_path):
    (fault,) = scanned(tmp_path, write(tmp_path / "x", {name: data + bytes(40)})).faults
    assert said in fault.detail


def test_sources_that_are_not_there(tmp_path, verb):
    assert "nothing is downloaded" in verb("check", "https://host/faces.zip")[2]
    for name in "ab":
        write(tmp_path / name, faces(1))
    code, _, err = verb("check", tmp_path / "a", f"{tmp_path}/?")
    assert (code, "is one source" in err, "matches 2" in err) == (2, True, True), err
    assert "give the folder" in verb("check", f"{tmp_path}/a/*.png")[2]
    arrow = write(tmp_path / "arrow", {"data-00000-of-00001.arrow": b"x", "state.json": "{}"})
    assert "to_parquet" in verb("check", arrow)[2]


def test_domains_that_are_spelled_otherwise_or_incomplete(tmp_path):
    layout = {**under("train_A", faces(3)), **under("Train-B", faces(2, 10))}
    scan = scanned(tmp_path, write(tmp_path / "x", layout), size=16)
    assert sorted(set(scan.parts)) == ["trainA", "trainB"]
    for names, said in ((("trainA", "testB"), "only domain A is there"),
                        (("testA", "testB"), "all is in testA and testB")):  # fmt: skip
        layout = {**under(names[0], faces(2)), **under(names[1], faces(2, 10))}
        with pytest.raises(UserError, match=said):
            scanned(tmp_path, write(tmp_path / names[0], layout))


def test_a_pack_is_no_part_of_a_joined_source(tmp_path, verb):
    pack = built(tmp_path, write(tmp_path / "a", faces(2)))
    code, _, err = verb("check", write(tmp_path / "b", faces(2, 5)), "--also", pack.path)
    assert (code, "is a pack" in err) == (2, True), err


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({**under("cat", faces(2)), **under("dog", faces(2, 5))}, "--data.attributes class makes"),
        ({**faces(3), "tags.csv": "0,hat\n1,hat\n2,hat\n"}, "--data.attributes tags takes"),
        ({**faces(3), "list.csv": "0,blue hair\n"}, "--data.tags FILE names"),
        (faces(3), "give --data.tags FILE"),
    ],
)
def test_a_training_that_needs_labels_says_what_would_give_them(layout, said, tmp_path):
    pack = built(tmp_path, write(tmp_path / "x", layout), size=16)
    with pytest.raises(UserError, match=said):
        pack.labels("train")


# --- words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sample", "painted/noise", "--seed", "1-5"), "--seeds 1-5 makes a PNG for each"),
        (("sample", "painted/noise", "--seed=1,2"), "--seeds 1,2 makes a PNG for each"),
        (("sample", "painted/noise", "--num-samples", "5"), "--num-samples is --n\n"),
        (("sample", "painted/noise", "--prompts", "blue hair"), "--prompt TEXT"),
        (("check", "x", "--resolution", "64"), "--resolution is --size"),
        (("check", "x", "--labels", "tags.csv"), "--labels is --tags"),
        (("import", "x", "--out", "y", "--also", "a", "--also", "b"), "--also A B"),
        (("train", "ucsd_sn_dcgan", "--workdir", "r", "--batch", "8"), "--batch is --batch-size"),
    ],
)
def test_flags_of_other_programs_are_answered_with_ours(words, said, verb):
    code, _, err = verb(*words)
    assert (code, said in err) == (2, True), err
