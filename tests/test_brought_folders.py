"""Folders, splits and archives as people bring them: each was once read wrongly, or not at all."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from brought import WORDS, folder, labels, png, table

from anigan_jax.data import archives, discover
from anigan_jax.data.discover import Options


@pytest.mark.parametrize("name", ["labels.csv", "Labels.CSV"])
@pytest.mark.parametrize("row", ["images/{:03d}.png", "{:03d}.png"])
def test_a_table_beside_the_folder_of_its_images(tmp_path, name, row):
    rows = "\n".join(f"{row.format(i)},{('blue', 'red')[i % 2]}" for i in range(12))
    folder(
        tmp_path / "set", {name: f"file,hair\n{rows}"}, [f"images/{i:03d}.png" for i in range(12)]
    )
    found = labels(tmp_path / "set" / "images")
    assert [label["hair"] for label in found.values()] == ["blue", "red"] * 6


def test_a_table_beside_that_is_of_others_is_passed_over(tmp_path):
    folder(tmp_path / "images", {})
    (tmp_path / "labels.csv").write_text("file,hair\nx.png,blue\ny.png,red\n")
    assert set(map(str, labels(tmp_path / "images").values())) == {"{}"}
    # A source's key knows of it.
    from anigan_jax.data.images import digest

    before = digest(str(tmp_path / "images"))
    (tmp_path / "labels.csv").write_text("file,hair\nx.png,blue\ny.png,green\n")
    assert digest(str(tmp_path / "images")) != before


def test_names_of_classes_in_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kinds = {"label": {"names": ["miku", "rin", "luka"], "_type": "ClassLabel"}}
    rows = pa.table(
        {
            "image": [{"path": f"{i}.png", "bytes": png(i)} for i in range(12)],
            "label": [i % 3 for i in range(12)],
        },
        schema=pa.schema(
            [
                ("image", pa.struct([("path", pa.string()), ("bytes", pa.large_binary())])),
                ("label", pa.int64()),
            ],
            metadata={"huggingface": json.dumps({"info": {"features": kinds}})},
        ),
    )
    parquet.write_table(rows, tmp_path / "a.parquet")
    found = labels(tmp_path / "a.parquet")
    assert [label["label"] for label in found.values()] == ["miku", "rin", "luka"] * 4


def test_a_column_of_splits_holds_images_out(tmp_path):
    rows = table("blue,train", "red,train", "blue,test", head="file,hair,split")
    found = discover.survey(folder(tmp_path, {"labels.csv": rows}), Options())
    assert [item.held for item in found.items] == [False, False, True] * 4
    assert [name for name, _ in found.attributes] == ["hair"]
    # Of other words it is a class as any.
    rows = table("blue,north", "red,south", "blue,east", head="file,hair,split")
    found = discover.survey(folder(tmp_path, {"labels.csv": rows}), Options())
    assert {item.held for item in found.items} == {None}
    assert "split" in dict(found.attributes)


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (["training/0.png", "testing/1.png"], [True, False]),
        (["train2017/0.png", "val2017/1.png"], [False, True]),
        (["train/0.png", "dev/1.png"], [True, False]),
        # A folder of its own, beside images in none.
        (["0.png", "test/1.png"], [False, True]),
        # Val is a girl.
        (["miku/0.png", "val/1.png"], [None, None]),
    ],
)
def test_folders_of_splits(tmp_path, names, held):
    found = discover.survey(folder(tmp_path, {}, names), Options())
    assert {item.name: item.held for item in found.items} == dict(
        zip(sorted(names), held, strict=True)
    )


def test_classes_are_not_the_folder_that_all_have(tmp_path):
    names = [f"{who}/images/{i}.png" for who in ("miku", "rin") for i in range(3)]
    found = labels(folder(tmp_path, {}, names), "class")
    assert [found[name]["class"] for name in names] == ["miku"] * 3 + ["rin"] * 3


def test_files_of_a_sample_of_webdataset(tmp_path):
    files = {f"{i:06d}.caption.txt": ("blue hair", "red hair")[i % 2] for i in range(6)}
    found = labels(folder(tmp_path, files, [f"{i:06d}.image.png" for i in range(6)]))
    assert [label["hair"] for label in found.values()] == ["blue", "red"] * 3


def test_sources_without_labels_beside_others_are_told(tmp_path):
    from anigan_jax.data.images import Images

    told = folder(tmp_path / "a", {"labels.csv": table("blue", "red")})
    other = folder(tmp_path / "b", {}, 3)
    found = Images(path=str(told), also=(str(other),)).catalogue()
    assert sorted(f.file for f in found.findings if f.code == "no label") == [
        f"b/{i:03d}.png" for i in range(3)
    ]


def test_annotations_that_are_not_read_are_named(tmp_path):
    path = folder(tmp_path, {"annotations/instances_val2017.json": "[1]"}, 3)
    notes = [f for f in discover.survey(path, Options()).findings if f.code == "tables"]
    assert "instances_val2017.json" in str(notes)


def test_zips_of_windows(tmp_path):
    """Backslashes, and names in the code page of the place."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(4):
            info = zipfile.ZipInfo("x")
            info.filename = f"faces\\{i}.png"
            archive.writestr(info, png(i))
        info = zipfile.ZipInfo("y")
        info.filename = "..\\out.png"
        archive.writestr(info, png(9))
    found = discover.survey(path, Options())
    assert [item.name for item in found.items] == [f"faces/{i}.png" for i in range(4)]
    assert [f.code for f in found.findings] == ["path"]
    read = dict(archives.read(path, ["faces/2.png"]))
    assert read == {"faces/2.png": png(2)}


NAMES = {
    **{code: WORDS[code] for code in ("cp932", "gb18030", "cp1251")},
    "cp866": WORDS["cp1251"],
    "cp437": ("Mädchen", "Großmutter", "Häuser"),
}


@pytest.mark.parametrize("code", NAMES)
def test_names_in_zips_in_the_code_page_of_a_place(tmp_path, code):
    names = [f"{NAMES[code][i % 3]}{i}.png" for i in range(6)]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i, name in enumerate(names):
            # zipfile writes UTF-8 and says so: a name of as many bytes is put in its place.
            archive.writestr("n" * (len(name.encode(code)) - 2) + f"{i:02d}", png(i))
    data = out.getvalue()
    for i, name in enumerate(names):
        raw = name.encode(code)
        data = data.replace(("n" * (len(raw) - 2) + f"{i:02d}").encode(), raw)
    (tmp_path / "a.zip").write_bytes(data)
    found = discover.survey(tmp_path / "a.zip", Options())
    assert sorted(item.name for item in found.items) == sorted(names)
    assert dict(archives.read(tmp_path / "a.zip", [names[1]])) == {names[1]: png(1)}


@pytest.mark.parametrize(
    ("name", "said"),
    [("captions.txt", ""), ("captions.txt", "some prose"), ("labels.csv", b"PK\3\4xxxx")],
)
def test_what_lies_beside_a_folder_by_chance_is_no_matter(tmp_path, name, said):
    folder(tmp_path, {name: said}, [f"images/{i}.png" for i in range(3)])
    assert len(discover.survey(tmp_path / "images", Options()).items) == 3


def test_a_folder_is_the_same_however_it_is_spelled(tmp_path, monkeypatch):
    from anigan_jax.data.images import digest

    path = folder(tmp_path / "set", {"labels.csv": table("blue", "red")})
    want = digest(str(path))
    monkeypatch.chdir(path)
    assert digest(".") == want
    # One with labels of its own has nothing to do with those around it.
    (tmp_path / "labels.csv").write_text("file,hair\nx.png,blue\n")
    assert digest(str(path)) == want
    folder(tmp_path / "other/images", {}, 12)
    (tmp_path / "other/labels.csv").write_text(table("blue", "red"))
    monkeypatch.chdir(tmp_path / "other/images")
    assert {label["hair"] for label in labels(Path()).values()} == {"blue", "red"}


def test_a_split_of_some_images_leaves_that_of_the_folders(tmp_path):
    names = [*(f"train/{i}.png" for i in range(8)), "test/8.png", "test/9.png"]
    kinds = [*("train",) * 4, *("val",) * 4]
    said = [(names[i], ("blue", "red")[i % 2], kind) for i, kind in enumerate(kinds)]
    rows = "".join(",".join(each) + "\n" for each in said)
    path = folder(tmp_path, {"labels.csv": f"file,hair,split\n{rows}"}, names)
    found = {item.name: item.held for item in discover.survey(path, Options()).items}
    assert [found[name] for name in names] == [*[False] * 4, *[True] * 6]
    assert "split" in str(discover.survey(path, Options(attributes=("split",))).attributes)


def test_folders_and_repeated_names_in_zips_of_windows(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("faces\\", b""), ("faces\\a.png", png(1)), ("faces/a.png", png(2))):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, data)
        archive.writestr(".", png(3))
    found = discover.survey(path, Options())
    assert [f.code for f in found.findings if f.file.startswith("faces")] == ["repeated"]
    # The first is listed, and read.
    assert dict(archives.read(path, ["faces/a.png"])) == {"faces/a.png": png(1)}


def test_shards_with_a_table_of_any_letter_case(tmp_path):
    for shard in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{shard}.zip", "w") as archive:
            for i in range(6):
                archive.writestr(f"{shard}{i}.png", png(i))
    rows = "".join(f"{s}{i}.png,{('blue', 'red')[i % 2]}\n" for s in "ab" for i in range(6))
    (tmp_path / "Labels.csv").write_text(f"file,hair\n{rows}")
    assert {label["hair"] for label in labels(tmp_path).values()} == {"blue", "red"}


def test_folders_of_several_colors(tmp_path):
    names = [f"{color}_hair_red_eyes/{i}.png" for color in ("blue", "green") for i in range(3)]
    found = labels(folder(tmp_path, {}, names))
    assert [found[name]["hair"] for name in names] == ["blue"] * 3 + ["green"] * 3
    assert {label["eyes"] for label in found.values()} == {"red"}


def test_rows_of_the_folder_beside_are_not_of_this_one(tmp_path):
    names = [f"{kind}/{i:03d}.png" for kind in ("real", "fake") for i in range(12)]
    rows = "".join(f"real/{i:03d}.png,{('blue', 'red')[i % 2]}\n" for i in range(12))
    folder(tmp_path, {"labels.csv": f"file,hair\n{rows}"}, names)
    assert set(map(str, labels(tmp_path / "fake").values())) == {"{}"}
    assert {label["hair"] for label in labels(tmp_path / "real").values()} == {"blue", "red"}
