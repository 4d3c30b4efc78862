"""Tag files and prompts; the rows are of the real raw tag file."""

import pytest
from real import DATA, needs_data

from anigan_jax.data import labels
from anigan_jax.data.labels import Label, Tag
from anigan_jax.data.synthetic import painted
from anigan_jax.errors import UserError

# Real rows, with the trailing tab and the stray blank of the file.
ROWS = {
    "2": "original:25774\tblonde hair:25457\tdoll:1040\tdress:16585\tpink eyes:3896\ttagme:13190\t",
    "10": "princess style:14\tblonde hair:25453\thug:854\t",
    "13": "game cg:20513\tblue eyes:24094\tred hair:7200\tshort hair:26373\t",
    "20": "vocaloid:18460\thatsune miku:12200\tlong hair:54450\t",
    "25": "angel beats :586\ttachibana kanade:350\twings:8029\t",
}


def test_real_rows():
    want = {
        "2": Label("blonde", "pink"),
        "10": Label("blonde", None),
        "13": Label("red", "blue"),
        "20": Label(),
        "25": Label(),
    }
    assert {key: labels.choose(labels.parse_raw(row)) for key, row in ROWS.items()} == want
    assert labels.parse_raw(ROWS["25"])[0] == Tag("angel beats", 586)


@pytest.mark.parametrize(
    ("cell", "want"),
    [
        ("", []),
        ("\t\t", []),
        ("1000:3\t", [Tag("1000", 3)]),
        ("07-ghost:23", [Tag("07-ghost", 23)]),
        ("re:zero:123", [Tag("re:zero", 123)]),
        ("  Red   Hair : 7 \t", [Tag("red hair", 7)]),
    ],
)
def test_odd_tags(cell, want):
    assert labels.parse_raw(cell) == want


@pytest.mark.parametrize("cell", ["red hair", "red hair:", "red hair:many", "red hair:-1", ":x"])
def test_tags_without_a_count_are_refused(cell):
    with pytest.raises(ValueError, match="tag:count"):
        labels.parse_raw(cell)


def test_rules_differ_where_a_part_has_several_colors():
    row = labels.parse_raw("blue hair:5\tred hair:9\tgreen hair:7\tred eyes:1\t")
    assert labels.choose(row, "max-count") == Label("red", "red")
    assert labels.choose(row, "last") == Label("green", "red")
    assert labels.choose(row, "unique") == Label(None, "red")
    assert labels.conflicts(row)
    twice = labels.parse_raw("red hair:5\tred hair:9\t")
    assert labels.choose(twice, "unique") == Label("red", None)
    assert not labels.conflicts(twice)
    equal = labels.parse_raw("blue hair:5\tred hair:5\t")
    assert labels.choose(equal, "max-count") == Label("blue", None)


@pytest.mark.parametrize("text", ["long hair", "bicolored eyes", "hair", "aqua", "aqua hair bow"])
def test_what_is_no_color(text):
    assert labels.color(text, "hair") is None
    assert labels.color(text, "eyes") is None


def test_spellings():
    assert labels.color("grey hair", "hair") == "gray"
    assert labels.color("Blond hair", "hair") == "blonde"
    assert labels.color("yellow hair", "hair") is None
    assert labels.color("yellow eyes", "eyes") == "yellow"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("blue hair green eyes", Label("blue", "green")),
        ("aqua eyes purple hair", Label("purple", "aqua")),
        ("red hair", Label("red", None)),
        ("black eyes", Label(None, "black")),
        ("Red hair, blue eyes", Label("red", "blue")),
    ],
)
def test_captions(text, want):
    assert labels.parse_caption(text) == want
    assert labels.parse_caption(str(want)) == want


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "COLOR"),
        ("red", "COLOR"),
        ("red hair blue", "COLOR"),
        ("red nose", "nose"),
        ("long hair", "long"),
        ("bleu hair", "blue"),
        ("red hair blue hair", "twice"),
    ],
)
def test_bad_captions(text, reason):
    with pytest.raises(ValueError, match=reason):
        labels.parse_caption(text)


ONE_HOT = "7," + ",".join("1" if i in (4, 11 + 6) else "0" for i in range(23))


@pytest.mark.parametrize(
    ("text", "key", "want"),
    [
        (f"2,{ROWS['2']}\n13,{ROWS['13']}\n", "13", Label("red", "blue")),
        ("\ufeff0,aqua hair blue eyes\r\n1,red hair red eyes\r\n", "0", Label("aqua", "blue")),
        (ONE_HOT + "\n", "7", Label("purple", "yellow")),
    ],
)
def test_tables_are_told_by_their_content(text, key, want):
    table = labels.read_table(text, "t.csv")
    assert table.labels[key] == want
    assert table.faults == []


def test_faulty_rows_are_named():
    table = labels.read_table(
        "1,aqua hair blue eyes\n2,mauve hair blue eyes\n1,red hair red eyes\n3,\n", "t"
    )
    assert table.labels == {"1": Label("aqua", "blue")}
    assert [(key, code) for key, code, _ in table.faults] == [
        ("2", "unknown tag"),
        ("1", "conflict"),
        ("3", "unknown tag"),
    ]
    two_hot = "7," + ",".join("1" if i in (4, 5, 17) else "0" for i in range(23))
    table = labels.read_table(f"{ONE_HOT.replace('7,', '8,', 1)}\n{two_hot}\n9,1,0\n", "t")
    assert table.labels == {"8": Label("purple", "yellow"), "7": Label("purple", None)}
    assert [(k, c) for k, c, _ in table.faults] == [("7", "conflict"), ("9", "unknown tag")]


@pytest.mark.parametrize("text", ["", "id;name\n1;x\n", "a,b,c\n1,2,3\n"])
def test_other_tables_are_refused(text):
    with pytest.raises(UserError):
        labels.read_table(text, "t")


def test_painted_faces_use_the_same_colors_in_the_same_order():
    assert painted.HAIR_COLORS == labels.HAIR
    assert painted.EYE_COLORS == labels.EYES


@needs_data
def test_the_real_files():
    read = {
        name: labels.read_table((DATA / path).read_text(), path)
        for name, path in {
            "captions": "anime_faces_64/tags.csv",
            "one_hot": "konachan_faces_96/label.csv",
            "raw": "konachan_faces_96/tags_clean.head.csv",
        }.items()
    }
    assert {name: len(t.labels) for name, t in read.items()} == {
        "captions": 36736,
        "one_hot": 11418,
        "raw": 22,
    }
    assert all(t.faults == [] for t in read.values())
    # Rows of the raw file with both colors are those of the one-hot file, and agree.
    both = {k: v for k, v in read["raw"].labels.items() if v.hair and v.eyes}
    assert len(both) == 4
    assert all(read["one_hot"].labels[key] == label for key, label in both.items())
