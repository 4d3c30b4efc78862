"""Tag files and prompts; the rows are of the real raw tag file."""

import pytest

from anigan_jax.data import labels
from anigan_jax.data.label_files import Row
from anigan_jax.data.labels import Label, Tag
from anigan_jax.data.synthetic import painted

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


def test_painted_faces_use_the_same_colors_in_the_same_order():
    assert painted.HAIR_COLORS == labels.HAIR
    assert painted.EYE_COLORS == labels.EYES


@pytest.mark.parametrize(
    ("row", "want", "unknown"),
    [
        (Row("aqua hair blue eyes"), Label("aqua", "blue"), []),
        (Row("blue hair red eyes smile long hair"), Label("blue", "red"), ["smile", "long hair"]),
        (Row("light blue hair red eyes"), Label("blue", "red"), ["light"]),
        (Row("1girl, blue_hair, long red eyes"), Label("blue", "red"), ["1girl", "long"]),
        (Row("1girl blue_hair red_eyes"), Label("blue", "red"), ["1girl"]),
        (Row("light_blue_hair hair_bow"), Label(), ["light blue hair", "hair bow"]),
        (Row("A girl with Blue hair, red eyes and a hat."), Label("blue", "red"), None),
        (Row(tags=(Tag("red_hair", 9), Tag("blue hair", 5))), Label("red"), []),
        (Row(classes={"hair": "blue", "eye_color": "red"}), Label("blue", "red"), []),
        (Row(classes={"class": "blue_hair"}), Label("blue"), []),
        (Row(classes={"hair": "", "eyes": ""}), Label(), []),
        (Row("glasses"), Label(), ["glasses"]),
    ],
)
def test_a_row_of_any_layout_is_read_for_its_colors(row, want, unknown):
    reading = labels.of_row(row)
    assert reading.label == want
    assert unknown is None or reading.unknown == unknown


def test_several_colors_of_a_caption_are_a_conflict():
    assert labels.of_row(Row("red hair blue hair"), "last") == (Label("blue"), True, [])
