"""Labels, boxes and archives as people bring them: each was read wrongly, or not at all, before."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from brought import folder, labels, png, table

from anigan_jax.data import archives, boxes, captions, discover, label_text, matching
from anigan_jax.data.attributes import DEFAULT, Attribute
from anigan_jax.data.discover import Options
from anigan_jax.errors import UserError

WORDS = {
    "cp932": ("初音ミク", "鏡音リン", "巡音ルカ"),
    "gb18030": ("蓝色", "红色", "金发"),
    "big5": ("藍色", "紅色", "金髮"),
    "cp949": ("파랑", "빨강", "금발"),
    "cp1251": ("голубые", "красные", "зелёные", "светлые"),
    "cp1252": ("bleu clair", "doré", "noirâtre"),
    "utf-16": ("初音ミク", "голубые", "doré"),
}


@pytest.mark.parametrize("code", WORDS)
@pytest.mark.parametrize("how", ["table", "sidecars"])
def test_labels_of_any_encoding_keep_their_words(tmp_path, code, how):
    words = WORDS[code]
    if how == "table":
        files = {"labels.csv": table(*words, head="file,style").encode(code)}
    else:
        said = {f"{i:03d}": words[i % len(words)] for i in range(12)}
        files = {f"{key}.txt": f"{text}, smile".encode(code) for key, text in said.items()}
    path = folder(tmp_path, files)
    if how == "table":
        found = {label["style"] for label in labels(path).values()}
        assert found == {word.lower() for word in words}
        return
    for i, label in enumerate(labels(path, *words).values()):
        assert [word for word in label.values() if not word.startswith("no ")] == [
            words[i % len(words)].lower()
        ]


def test_a_damaged_byte_does_not_make_unicode_something_else():
    text = "初音ミク,青い髪\n" * 20
    damaged = text.encode().replace("青".encode(), b"\xff", 1)
    read = label_text.decoded(damaged)
    assert read.count("\ufffd") < 4
    assert read.count("初音ミク") == 20


def test_what_is_no_text_is_refused_with_what_to_do(tmp_path):
    noise = bytes(np.random.default_rng(0).integers(128, 255, 4096, np.uint8))
    try:
        said = label_text.of_bytes(noise, "labels.csv")
    except UserError as error:
        assert "labels.csv" in str(error) and "UTF-8" in str(error)
    else:
        assert "\ufffd" not in said


def test_a_text_is_of_the_image_beside_it(tmp_path):
    names = ["000.png", "000.jpg", "rejected/000.png", "001.png", "a/002.png"]
    files = {"000.txt": "blue hair", "001.txt": "red hair", "b/002.txt": "green hair"}
    found = labels(folder(tmp_path, files, names))
    hair = {name: label.get("hair") for name, label in found.items()}
    assert hair == {
        "000.png": "blue",
        "000.jpg": "blue",
        "rejected/000.png": None,
        "001.png": "red",
        # Its text is in another folder, and of no other image.
        "a/002.png": "green",
    }


def matched(names, keys) -> dict[str, str]:
    return matching.match(names, dict.fromkeys(keys))


@pytest.mark.parametrize(
    ("names", "keys", "want"),
    [
        # A backslash is a folder as '/' is.
        (["a/0.png", "b/0.png"], ["a\\0.png"], {"a/0.png": "a\\0.png"}),
        # The row of a.png is not of a.jpg beside it, but of a.jpg alone.
        (["0.png", "0.jpg"], ["0.png"], {"0.png": "0.png"}),
        (["0.jpg", "1.jpg"], ["0.png", "1.png"], {"0.jpg": "0.png", "1.jpg": "1.png"}),
        # Addresses of another machine: by as many folders as tell them apart.
        (
            ["a/0.png", "b/0.png"],
            ["/kaggle/input/a/0.png", "/kaggle/input/b/0.png"],
            {"a/0.png": "/kaggle/input/a/0.png", "b/0.png": "/kaggle/input/b/0.png"},
        ),
        (["a/0.png", "b/0.png"], ["/x/a/0.png"], {"a/0.png": "/x/a/0.png"}),
        (["s/a/0.png", "s/b/0.png"], ["a/0.png"], {"s/a/0.png": "a/0.png"}),
        (["a/0.png", "b/0.png"], ["/x/a/0.png", "/y/a/0.png"], {}),
        # A plain name is of all.
        (["a/0.png", "b/0.png"], ["0.png"], {"a/0.png": "0.png", "b/0.png": "0.png"}),
        # A row that is of an image is of no other, whatever ends alike.
        (
            ["train/miku/1.png", "test/miku/1.png"],
            ["train/miku/1.png"],
            {"train/miku/1.png": "train/miku/1.png"},
        ),
        (["train/a/1.png", "test/a/1.png"], ["x/a/1.png"], {}),
        (
            ["s/x/a/1.png", "s/y/a/1.png"],
            ["x/a/1.png", "a/1.png"],
            {"s/x/a/1.png": "x/a/1.png"},
        ),
        # Captions of Flickr are numbered; a name may hold a mark all the same.
        (["0.jpg"], ["0.jpg#0"], {"0.jpg": "0.jpg#0"}),
        (["a#1.png", "a.png"], ["a#1.png"], {"a#1.png": "a#1.png"}),
    ],
)
def test_rows_and_images(names, keys, want):
    assert matched(names, keys) == want


def test_tables_of_splits_may_say_here(tmp_path):
    lines = '{"file_name": "./000.png", "hair": "%s"}\n{"file_name": ".\\\\001.png", "hair": "%s"}'
    said = {"train": ("red", "blue"), "test": ("green", "pink")}
    files = {f"{split}/metadata.jsonl": lines % words for split, words in said.items()}
    names = {f"{split}/{i:03d}.png": words[i] for split, words in said.items() for i in (0, 1)}
    found = labels(folder(tmp_path, files, [*names]))
    assert {name: label["hair"] for name, label in found.items()} == names


@pytest.mark.parametrize("head", ["id,tags", ""])
def test_tags_with_blanks_between_need_not_all_have_a_line(tmp_path, head):
    said = ("1girl blue_hair smile solo", "1girl smile solo", "1girl red_hair ;d solo")
    found = labels(folder(tmp_path, {"tags.csv": table(*said, head=head, end="")}), "smile", "hair")
    assert [label["smile"] for label in found.values()] == ["smile", "smile", "no smile"] * 4
    assert [label.get("hair") for label in found.values()] == ["blue", None, "red"] * 4


def test_a_caption_with_one_underscore_makes_the_others_no_list_of_tags(tmp_path):
    said = ("the girl smiles at us", "she looks away", "a view of set_1")
    path = folder(tmp_path, {"captions.csv": table(*said, head="file,caption")})
    with pytest.raises(UserError, match="no attribute or tag 'girl'"):
        labels(path, "girl")


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


def test_of_several_boxes_the_largest_counts(tmp_path):
    rows = "file,x,y,w,h\n000.png,0,0,4,4\n000.png,1,1,2,2\n001.png,,,,\n002.png,1,1,1,1\n"
    path = folder(tmp_path, {"boxes.csv": rows}, 3)
    found = discover.survey(path, Options())
    assert [item.box for item in found.items] == [(0, 0, 4, 4), None, (1, 1, 1, 1)]
    assert {(f.file, f.code) for f in found.findings} == {
        ("000.png", "conflict"),
        ("001.png", "no box"),
    }
    assert boxes.read(path, [], path)["000.png"] == (0, 0, 4, 4)


def test_cells_that_hold_nothing_as_r_writes_them(tmp_path):
    found = labels(
        folder(tmp_path, {"labels.csv": table("anime", "chibi", "NA", head="file,style")})
    )
    assert [label.get("style") for label in found.values()] == ["anime", "chibi", None] * 4


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


def test_tags_by_their_kinds(tmp_path):
    said = [{"general": ["smile"], "artist": ["x"]}, {"general": ["blue_hair"], "artist": ["y"]}]
    lines = [{"file_name": f"{i:03d}.png", "tags": said[i % 2]} for i in range(12)]
    text = "\n".join(map(json.dumps, lines))
    found = labels(folder(tmp_path, {"metadata.jsonl": text}), "smile")
    assert [label["smile"] for label in found.values()] == ["smile", "no smile"] * 6


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


@pytest.mark.parametrize("text", ["{} :3", "{} in 16:9"])
def test_a_text_that_ends_as_a_count_is_a_text(tmp_path, text):
    said = (text.format("blue hair"), "red hair", "blue hair", "red hair")
    found = labels(folder(tmp_path, {"tags.csv": table(*said, head="id,tags", end="")}))
    assert [label["hair"] for label in found.values()] == ["blue", "red"] * 6


@pytest.mark.parametrize("head", ["ファイル名,キャラ", "файл,персонаж", "photo,who"])
def test_headers_of_other_words(tmp_path, head):
    names = [f"{name}{i}.png" for i in range(4) for name in ("alice", "bob", "carol")]
    rows = "\n".join(f"{name},{('miku', 'rin')[i % 2]}" for i, name in enumerate(names))
    found = labels(folder(tmp_path, {"labels.csv": f"{head}\n{rows}\n"}, names))
    column = head.split(",")[1]
    assert [found[name][column] for name in names] == ["miku", "rin"] * 6


def test_a_first_row_of_an_absent_image_is_no_header(tmp_path):
    for absent in ("999", "alice"):
        names = [f"{name}{i}.png" for i in range(4) for name in ("ann", "bob", "carol")]
        rows = "\n".join(
            f"{name[:-4]},{('blue', 'red')[i % 2]} hair" for i, name in enumerate(names)
        )
        found = labels(
            folder(tmp_path / absent, {"labels.csv": f"{absent},red hair\n{rows}\n"}, names)
        )
        assert [found[name]["hair"] for name in names] == ["blue", "red"] * 6


def test_the_column_that_names_images_is_that_of_most(tmp_path):
    rows = "\n".join(
        f"{i},{'18' if i == 3 else ('miku', 'rin')[i % 2]},{('blue', 'red')[i % 2]}"
        for i in range(24)
    )
    path = folder(
        tmp_path, {"labels.csv": f"id,name,hair\n{rows}\n"}, [f"{i}.png" for i in range(24)]
    )
    found = labels(path)
    assert [found[f"{i}.png"]["hair"] for i in range(24)] == ["blue", "red"] * 12


@pytest.mark.parametrize("mark", [";", "|", "、"])
def test_tags_between_other_marks(tmp_path, mark):
    said = (f"1girl{mark}blue_hair{mark}smile", f"1girl{mark}red_hair")
    found = labels(folder(tmp_path, {"tags.csv": table(*said, head="file,tags")}), "smile", "hair")
    assert [(label["smile"], label["hair"]) for label in found.values()] == [
        *(("smile", "blue"), ("no smile", "red"))
    ] * 6


def test_a_row_for_each_tag(tmp_path):
    said = {0: ("smile", "hat"), 1: ("hat", "solo"), 2: ("smile", "solo", "hat")}
    rows = [f"{i:03d}.png,{word}" for i in range(12) for word in said[i % 3]]
    path = folder(tmp_path, {"labels.csv": "ImageID,LabelName\n" + "\n".join(rows)})
    found = labels(path, "smile", "solo")
    assert [(label["smile"], label["solo"]) for label in found.values()] == [
        *(("smile", "no solo"), ("no smile", "solo"), ("smile", "solo"))
    ] * 4


def test_of_several_rows_the_colors_are_of_one_choice(tmp_path):
    rows = [f"{i:03d}.png,{color}" for i in range(12) for color in ("blue", ("blue", "red")[i % 2])]
    path = folder(tmp_path, {"labels.csv": "file,hair\n" + "\n".join(rows)})
    assert {label["hair"] for label in labels(path, tag_rule="max-count").values()} == {"blue"}
    one = labels(path, tag_rule="unique").values()
    assert [label.get("hair") for label in one] == ["blue", None] * 6


def test_single_words_and_numbers_are_classes(tmp_path):
    for number, (words, want) in enumerate(
        ((("cat", "dog", "fox"), ("cat", "dog", "fox")), (("0.0", "1.0", "2.0"), ("0", "1", "2")))
    ):
        path = folder(tmp_path / str(number), {"labels.csv": table(*words, head="")})
        assert [label["class"] for label in labels(path).values()] == [*want] * 4


@pytest.mark.parametrize("mark", ["x", "1", "✓"])
def test_an_empty_cell_beside_marks_is_no(tmp_path, mark):
    rows = table(f"{mark},", f",{mark}", ",", head="file,hat,glasses")
    found = labels(folder(tmp_path, {"labels.csv": rows}))
    assert [(label["hat"], label["glasses"]) for label in found.values()] == [
        *(("hat", "no glasses"), ("no hat", "glasses"), ("no hat", "no glasses"))
    ] * 4


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


def test_prompts_between_other_marks_and_what_they_do_not_want():
    assert captions.parse_prompt("blue hair、red eyes").label == {"hair": "blue", "eyes": "red"}
    assert captions.parse_prompt("blue hair\uff0cred eyes").label == {"hair": "blue", "eyes": "red"}
    for words in (
        "red eyes, no blue hair",
        "red eyes without blue hair",
        "red eyes but no blue hair",
    ):
        found = captions.parse_prompt(words)
        assert found.label == {"eyes": "red"}, words
        assert "blue hair" in "".join(found.passed_over)
    with pytest.raises(ValueError, match="blue hair"):
        captions.parse_prompt("no blue hair")
    for words in ("hair blue eyes red", "hair blue, eyes red", "eyes red, hair blue"):
        assert captions.parse_prompt(words).label == {"hair": "blue", "eyes": "red"}, words
    assert captions.parse_prompt("long hair blue eyes").label == {"eyes": "blue"}


def test_a_word_of_a_name_denies_nothing():
    named = (Attribute("series", ("kimetsu no yaiba", "naruto")), *DEFAULT)
    found = captions.parse_prompt("kimetsu no yaiba, blue hair", named)
    assert found.label == {"series": "kimetsu no yaiba", "hair": "blue"}
    found = captions.parse_prompt("a naruto xyz no blue hair", named)
    assert found.label == {"series": "naruto"}
    assert "xyz" in str(found.passed_over) and "no blue hair" in str(found.passed_over)


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


@pytest.mark.parametrize("cut", range(3))
def test_a_large_table_is_known_wherever_it_is_cut(monkeypatch, cut):
    monkeypatch.setattr(label_text, "GUESSED", 2000 + cut)
    text = "".join(f"{i:05d}.png,{WORDS['cp932'][i % 3]}\n" for i in range(400))
    assert label_text.decoded(text.encode("cp932")) == text


def test_one_damaged_byte_leaves_the_encoding(tmp_path):
    rows = table(*WORDS["cp932"], head="file,style", images=60).encode("cp932")
    damaged = rows.replace("鏡音リン".encode("cp932"), b"\x82\xff", 1)
    text = label_text.decoded(damaged)
    assert text.count("初音ミク") == 20


def test_of_several_rows_a_column_that_is_not_always_filled_stays(tmp_path):
    rows = [
        f"{i:03d}.png,{caption},{('anime', 'chibi')[i % 2] if first else ''}"
        for i in range(12)
        for caption, first in (("a girl", True), ("she smiles", False))
    ]
    # One contradicts itself: the first counts.
    rows.append("000.png,x,chibi")
    path = folder(tmp_path, {"labels.csv": "file,caption,style\n" + "\n".join(rows)})
    assert [label["style"] for label in labels(path).values()] == ["anime", "chibi"] * 6


def test_a_split_of_some_images_leaves_that_of_the_folders(tmp_path):
    names = [*(f"train/{i}.png" for i in range(8)), "test/8.png", "test/9.png"]
    kinds = [*("train",) * 4, *("val",) * 4]
    said = [(names[i], ("blue", "red")[i % 2], kind) for i, kind in enumerate(kinds)]
    rows = "".join(",".join(each) + "\n" for each in said)
    path = folder(tmp_path, {"labels.csv": f"file,hair,split\n{rows}"}, names)
    found = {item.name: item.held for item in discover.survey(path, Options()).items}
    assert [found[name] for name in names] == [*[False] * 4, *[True] * 6]
    assert "split" in str(discover.survey(path, Options(attributes=("split",))).attributes)


def test_a_column_of_few_numbers_names_no_images(tmp_path):
    names = [f"{i}.png" for i in range(20)]
    order = np.random.default_rng(0).permutation(3000)
    rows = "".join(f"{i},{i % 97},{('blue', 'red')[i % 2]}\n" for i in order)
    found = labels(folder(tmp_path, {"labels.csv": f"id,score,hair\n{rows}"}, names))
    assert [found[name]["hair"] for name in names] == ["blue", "red"] * 10


def test_the_nearest_text_alone_counts(tmp_path):
    files = {f"{i:03d}.txt": "red hair" for i in range(12)}
    files |= {f"{i:03d}.png.txt": "blue hair" for i in range(12)}
    assert {label["hair"] for label in labels(folder(tmp_path, files)).values()} == {"blue"}


def test_one_text_that_cannot_be_read_is_named(tmp_path):
    noise = bytes(np.random.default_rng(1).integers(128, 255, 999, np.uint8))
    files = {f"{i:03d}.txt": ("blue hair", "red hair")[i % 2] for i in range(11)}
    path = folder(tmp_path, {**files, "011.txt": noise})
    assert labels(path)["000.png"]["hair"] == "blue"


def test_captions_of_flickr(tmp_path):
    said = {i: ("a girl", f"{('blue', 'red')[i % 2]} hair") for i in range(12)}
    rows = "".join(f"{i:03d}.jpg#{n}\t{said[i][n]}\n" for i in said for n in (0, 1))
    path = folder(tmp_path, {"captions.txt": rows}, [f"{i:03d}.jpg" for i in range(12)])
    assert [label["hair"] for label in labels(path).values()] == ["blue", "red"] * 6


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


def test_lists_of_tags_without_a_header_are_no_classes(tmp_path):
    said = ("1girl;smile", "1girl", "1girl;hat")
    found = labels(folder(tmp_path, {"tags.csv": table(*said, head="")}), "smile")
    assert [label["smile"] for label in found.values()] == ["smile", "no smile", "no smile"] * 4


def test_shards_with_a_table_of_any_letter_case(tmp_path):
    for shard in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{shard}.zip", "w") as archive:
            for i in range(6):
                archive.writestr(f"{shard}{i}.png", png(i))
    rows = "".join(f"{s}{i}.png,{('blue', 'red')[i % 2]}\n" for s in "ab" for i in range(6))
    (tmp_path / "Labels.csv").write_text(f"file,hair\n{rows}")
    assert {label["hair"] for label in labels(tmp_path).values()} == {"blue", "red"}


def test_a_column_of_file_names_is_that_even_where_one_comes_twice(tmp_path):
    names = [f"f{i:03d}.png" for i in range(20)]
    rows = "".join(f"{i + 7},{name},{('blue', 'red')[i % 2]}\n" for i, name in enumerate(names))
    rows += "99,f000.png,blue\n"
    found = labels(folder(tmp_path, {"labels.csv": f"id,image_path,hair\n{rows}"}, names))
    assert [found[name]["hair"] for name in names] == ["blue", "red"] * 10


@pytest.mark.parametrize("head", [",image_path,hair", "id,img_path,hair"])
def test_the_number_of_a_row_is_no_name(tmp_path, head):
    """A shuffled frame of pandas: row N is not of image N."""
    names = [f"{i:05d}.png" for i in range(60)]
    order = np.random.default_rng(0).permutation(60)
    rows = "".join(f"{n},{names[i]},{('blue', 'red')[i % 2]}\n" for n, i in enumerate(order))
    found = labels(folder(tmp_path, {"labels.csv": f"{head}\n{rows}"}, names))
    assert [found[name]["hair"] for name in names] == ["blue", "red"] * 30


@pytest.mark.parametrize("mark", [";", "|", "; "])
def test_colors_in_tags_that_are_joined(tmp_path, mark):
    said = {f"{i:03d}.txt": f"{('blue', 'red')[i % 2]}_hair{mark}smile" for i in range(12)}
    found = labels(folder(tmp_path, said), "hair", "smile")
    assert [label["hair"] for label in found.values()] == ["blue", "red"] * 6
    assert {label["smile"] for label in found.values()} == {"smile"}


def test_folders_of_several_colors(tmp_path):
    names = [f"{color}_hair_red_eyes/{i}.png" for color in ("blue", "green") for i in range(3)]
    found = labels(folder(tmp_path, {}, names))
    assert [found[name]["hair"] for name in names] == ["blue"] * 3 + ["green"] * 3
    assert {label["eyes"] for label in found.values()} == {"red"}


def test_one_letter_in_the_last_row_is_enough(tmp_path):
    text = table("blue", "red", images=11) + "011.png,doré"
    assert label_text.decoded(text.encode("cp1252")).endswith("doré")


def test_rows_of_the_folder_beside_are_not_of_this_one(tmp_path):
    names = [f"{kind}/{i:03d}.png" for kind in ("real", "fake") for i in range(12)]
    rows = "".join(f"real/{i:03d}.png,{('blue', 'red')[i % 2]}\n" for i in range(12))
    folder(tmp_path, {"labels.csv": f"file,hair\n{rows}"}, names)
    assert set(map(str, labels(tmp_path / "fake").values())) == {"{}"}
    assert {label["hair"] for label in labels(tmp_path / "real").values()} == {"blue", "red"}


def test_numbers_beside_tags_are_no_tags(tmp_path):
    said = {i: ("a", "b", "c")[: 2 + i % 2] for i in range(12)}
    rows = [f"{i:03d}.png,{word},0.{i}{n}" for i in said for n, word in enumerate(said[i])]
    path = folder(tmp_path, {"labels.csv": "file,tag,score\n" + "\n".join(rows)})
    found = discover.survey(path, Options(attributes=("tags",))).attributes
    assert [name for name, _ in found] == ["c"]


def test_a_single_word_can_be_asked_for(tmp_path):
    path = folder(tmp_path, {"labels.csv": table("smile", "hat", "smile", head="")})
    assert [label["smile"] for label in labels(path, "smile").values()] == [
        *("smile", "no smile", "smile")
    ] * 4


def test_words_between_a_denial_and_what_it_denies():
    named = (Attribute("glasses", ("no glasses", "glasses")), *DEFAULT)
    for words in ("without the glasses", "without any glasses", "not wearing glasses",
                  "no visible glasses", "without glasses", "no glasses"):  # fmt: skip
        found = captions.parse_prompt(f"blue hair, {words}", named)
        assert found.label == {"hair": "blue", "glasses": "no glasses"}, words
