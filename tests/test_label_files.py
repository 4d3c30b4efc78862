"""Label files of every layout, and which image a row is of."""

import json
import tracemalloc
import unicodedata

import pytest
from real import DATA, needs_data
from test_tags import ROWS

from anigan_jax.data import label_files, label_text, labels, matching, words
from anigan_jax.data.attributes import DEFAULT, label
from anigan_jax.data.rows import Row, Rows, Tag
from anigan_jax.errors import UserError

ONE_HOT = "7," + ",".join("1" if i in (4, 11 + 6) else "0" for i in range(23))
BLUE_RED = label(hair="blue", eyes="red")


def said(text: str) -> labels.Table:
    return labels.table(label_files.read(text, "t").rows, "t")


@pytest.mark.parametrize(
    ("text", "key", "want"),
    [
        (f"2,{ROWS['2']}\n13,{ROWS['13']}\n", "13", label(hair="red", eyes="blue")),
        ("0,1girl:9000\tblue_hair:7200\tred_eyes:5000\t\n", "0", BLUE_RED),
        ("\ufeff0,aqua hair blue eyes\r\n1,red hair red eyes\r\n", "0",
         label(hair="aqua", eyes="blue")),
        (ONE_HOT + "\n", "7", label(hair="purple", eyes="yellow")),
        ('0,"blue hair, red eyes"\n', "0", BLUE_RED),
        ("0,blue hair, red eyes\n", "0", BLUE_RED),
        ("0;blue hair red eyes\n1;x hair\n", "0", BLUE_RED),
        ("0\tblue hair red eyes\n", "0", BLUE_RED),
        ("id,tags\n0,blue hair red eyes\n", "0", BLUE_RED),
        ("id,rating,tags\n0,s,1girl blue_hair red_eyes smile\n", "0", BLUE_RED),
        (",file,tags\n0,a.png,blue_hair\n1,b.png,red_hair\n", "b.png", label(hair="red")),
        ("Unnamed: 0,tags\n5,blue_hair\n", "5", label(hair="blue")),
        ("0,a.png,blue hair\n1,b.png,red hair\n", "b.png", label(hair="red")),
        ("picture,hair,eyes\n1.png,blue,red\n2.png,pink,red\n", "1.png", BLUE_RED),
        ("image_id,Black_Hair,Young\n1.jpg,1,-1\n2.jpg,-1,-1\n", "1.jpg", label(hair="black")),
        ("2\nBlack_Hair Blond_Hair Smiling\n1.jpg 1 -1 1\n2.jpg -1 1 1\n", "2.jpg",
         label(hair="blonde")),
        ("a.png blue hair red eyes\nb.png red hair\n", "a.png", BLUE_RED),
        ('{"file_name": "a.png", "text": "blue hair, red eyes"}\n', "a.png", BLUE_RED),
        ('{"file_name": "a.png", "tags": ["blue_hair", "red_eyes"]}\n', "a.png", BLUE_RED),
        ('{"file_name": "a.png", "hair": "blue", "eyes": "red", "n": 3}\n', "a.png", BLUE_RED),
        ('{"a.png": "blue hair red eyes"}', "a.png", BLUE_RED),
        ('{"a.png": {"tags": "blue_hair, red_eyes"}}', "a.png", BLUE_RED),
        ('[{"file_name": "a.png", "caption": "blue hair red eyes"}]', "a.png", BLUE_RED),
    ],
)  # fmt: skip
def test_layouts_are_told_by_their_content(text, key, want):
    assert said(text).labels[key] == want


def test_what_is_no_color_is_kept_for_others():
    def row(text: str) -> Row:
        return next(iter(label_files.read(text, "t").rows))[1]

    assert row("0,glasses\n1,hat\n") == Row("glasses")
    assert row('{"labels": [["a.png", 3]]}').classes == {"class": "3"}
    assert row('{"labels": [["a.png", [0, 0, 1]]]}').classes == {"class": "2"}
    # Tags with blanks between stay a text: all rows together tell what they are.
    said = row("file,artist,tags\na.png,me,1girl smile_now\n")
    assert said == Row("1girl smile_now", (), {"artist": "me"})
    assert words.read(said).tags == ("1girl", "smile now")
    celeba = row("1\nEyeglasses Young\n1.jpg 1 -1\n")
    assert celeba == Row(classes={"Eyeglasses": "1", "Young": "-1"})
    assert row("file,label\na.png,3\nb.png,4\n").classes == {"label": "3"}


def test_faulty_rows_are_named_and_the_others_read():
    two_hot = "7," + ",".join("1" if i in (4, 5, 17) else "0" for i in range(23))
    found = label_files.read(f"{ONE_HOT.replace('7,', '8,', 1)}\n{two_hot}\n9,1,0\n", "t")
    assert [key for key, _ in found.rows] == ["8", "7"]
    assert labels.table(found.rows, "t").labels["7"] == label(hair="purple")
    assert [(k, c) for k, c, _ in found.faults] == [("7", "conflict"), ("9", "bad row")]
    found = label_files.read('{"file_name": "a.png", "text": "x y"}\nno json\n', "t")
    assert (len(found.rows), found.faults[0][:2]) == (1, ("line 2", "bad row"))


@pytest.mark.parametrize(
    "text", ["", "\ufeff\n", "a line of prose\nand another\n", '{"labels": []}']
)
def test_a_file_without_a_row_is_refused(text):
    with pytest.raises(UserError, match=r"is empty|is not a label file"):
        label_files.read(text, "t")


@pytest.mark.parametrize(
    ("names", "keys", "want"),
    [
        (["0.png", "1.png"], ["0", "1"], ["0", "1"]),
        (["a/0.png", "b/0.png"], ["0"], ["0", "0"]),
        (["a/0.png", "b/0.png"], ["a/0", "b/0.png"], ["a/0", "b/0.png"]),
        (["00000.png", "00010.png"], ["0", "10"], ["0", "10"]),
        (["0.png", "10.png"], ["00000", "00010"], ["00000", "00010"]),
        (["1.png", "01.png"], ["1"], ["1", None]),
        (["01.png", "001.png"], ["1"], [None, None]),
        (["001.png"], ["1", "01"], [None]),
        ([f"{unicodedata.normalize('NFD', 'é')}.png"], ["é"], ["é"]),
        (["a/0.png"], ["images\\0.png"], ["images\\0.png"]),
        (["a/0.png", "b/0.png"], ["images/0.png"], [None, None]),
        (["0.png"], ["./0.jpg", "0.png"], ["0.png"]),
        (["1.5.png"], ["1.5"], ["1.5"]),
        (["0.png"], ["x"], [None]),
    ],
)
def test_which_row_is_of_which_image(names, keys, want):
    found = matching.match(names, keys)
    assert [found.get(name) for name in names] == want


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_of_spreadsheets(code):
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(code, b"")
    assert label_text.decoded(mark + "é,blue hair".encode(code)) == "é,blue hair"


def test_many_rows_are_short_in_memory():
    """25 tags of each image, and labels of them, in what a few objects would take."""
    words = [f"{i}_tag" for i in range(40)]
    table = "".join(f"{i},{','.join(words[(i + j) % 40] for j in range(25))}\n" for i in range(500))
    tracemalloc.start()
    rows = label_files.read(f"id,tags\n{table}", "t").rows
    made = labels.table(rows, "t", wanted=("tags",))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(made.attributes) == 40
    assert sum(c == a for a, c in made.labels["7"].items()) == 25
    assert kept / len(rows) < 800


def test_rows_are_those_that_were_read():
    pairs = [("a", Row("x, y")), ("b", Row("", (Tag("p", 3), Tag("q")), {"hair": "blue"})),
             ("a", Row(classes={"hair": "blue", "n": "1"}))]  # fmt: skip
    rows = Rows(pairs)
    assert list(rows) == pairs
    assert (len(rows), list(rows.names())) == (3, ["a", "b", "a"])
    some = rows.of({"a"})
    assert (len(some), list(some)) == (2, [pairs[0], pairs[2]])


def test_a_hostile_json_is_refused():
    for text in ("[" * 100_000, json.dumps({"labels": [1, None, ["a"], ["a", [0.5]]]})):
        with pytest.raises(UserError):
            label_files.read(text, "t")


@needs_data
def test_the_real_files():
    read = {
        name: label_files.read((DATA / path).read_text(), path)
        for name, path in {
            "captions": "anime_faces_64/tags.csv",
            "one_hot": "konachan_faces_96/label.csv",
            "raw": "konachan_faces_96/tags_clean.head.csv",
        }.items()
    }
    assert {name: len(t.rows) for name, t in read.items()} == {
        "captions": 36736,
        "one_hot": 11418,
        "raw": 22,
    }
    assert all(t.faults == [] for t in read.values())
    made = {name: labels.table(t.rows, name) for name, t in read.items()}
    assert all(t.attributes == DEFAULT and not t.conflicts for t in made.values())
    # Rows of the raw file with both colors are those of the one-hot file, and agree.
    both = {k: v for k, v in made["raw"].labels.items() if len(v) == 2}
    assert len(both) == 4
    assert all(made["one_hot"].labels[key] == found for key, found in both.items())
