"""Tag files and prompts; the rows are of the real raw tag file."""

import pytest

from anigan_jax.data import captions, label_files, labels, words
from anigan_jax.data.attributes import DEFAULT, EYES, HAIR, label, tag
from anigan_jax.data.rows import Row, Tag
from anigan_jax.data.synthetic import painted
from anigan_jax.errors import UserError


def colors(hair=None, eyes=None):
    return label(hair=hair, eyes=eyes)


def table_of(*lines: str, rule="max-count", wanted=()) -> labels.Table:
    return labels.table(label_files.read("\n".join(lines), "t").rows, "t", rule, wanted)


def chosen(row: str, rule="max-count"):
    return table_of(f"1,{row}", rule=rule).labels["1"]


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
        "2": colors("blonde", "pink"),
        "10": colors("blonde", None),
        "13": colors("red", "blue"),
        "20": colors(),
        "25": colors(),
    }
    read = table_of(*(f"{key},{row}" for key, row in ROWS.items()))
    assert read.labels == want
    assert read.attributes == DEFAULT
    assert label_files.parse_raw(ROWS["25"])[0] == Tag("angel beats", 586)


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
    assert label_files.parse_raw(cell) == want


@pytest.mark.parametrize("cell", ["red hair", "red hair:", "red hair:many", "red hair:-1", ":x"])
def test_tags_without_a_count_are_refused(cell):
    with pytest.raises(ValueError, match="tag:count"):
        label_files.parse_raw(cell)


def test_rules_differ_where_a_part_has_several_colors():
    row = "blue hair:5\tred hair:9\tgreen hair:7\tred eyes:1\t"
    assert chosen(row, "max-count") == colors("red", "red")
    assert chosen(row, "last") == colors("green", "red")
    assert chosen(row, "unique") == colors(None, "red")
    assert chosen("red hair:5\tred hair:9\t", "unique") == colors("red", None)
    assert chosen("blue hair:5\tred hair:5\t") == colors("blue", None)
    # 'short hair' has the most votes and names no color.
    assert chosen("game cg:20513\tred hair:7200\tshort hair:26373\t") == colors("red")


@pytest.mark.parametrize("text", ["long hair", "bicolored eyes", "hair", "aqua", "aqua hair bow"])
def test_what_is_no_color(text):
    assert words.color(text, "hair") is None
    assert words.color(text, "eyes") is None


def test_spellings():
    assert words.color("grey hair", "hair") == "gray"
    assert words.color("Blond hair", "hair") == "blonde"
    assert words.color("yellow_hair", "hair") == "yellow"
    assert words.color("yellow eyes", "eyes") == "yellow"


@pytest.mark.parametrize(
    ("row", "want", "tags"),
    [
        (Row("blue hair green eyes"), colors("blue", "green"), []),
        (Row("aqua_eyes purple_hair"), colors("purple", "aqua"), []),
        (Row("Red hair, blue eyes"), colors("red", "blue"), []),
        (Row("long hair grey eyes"), colors(None, "gray"), ["long hair"]),
        (Row("ombre hair long eyes"), colors("ombre"), ["long eyes"]),
        (Row("floating hair, red hair"), colors("red"), ["floating hair"]),
        (Row("red hair, hair between eyes, hat"), colors("red"), ["hair between eyes", "hat"]),
        (Row("red hair blue eyes, hat"), colors("red", "blue"), ["hat"]),
        (Row("red nose"), {}, ["red nose"]),
        (Row(), {}, []),
        (Row("blue hair red eyes smile long hair"), colors("blue", "red"), ["smile", "long hair"]),
        (Row("light blue hair red eyes"), colors("blue", "red"), ["light"]),
        (Row("1girl, blue_hair, long red eyes"), colors("blue", "red"), ["1girl", "long"]),
        (Row("1girl blue_hair red_eyes"), colors("blue", "red"), ["1girl"]),
        (Row("light_blue_hair hair_bow"), {}, ["light blue hair", "hair bow"]),
        (Row("A girl with Blue hair, red eyes and a hat."), colors("blue", "red"), None),
        (Row(tags=(Tag("red hair", 9), Tag("hat", 5))), colors("red"), ["hat"]),
        (Row(classes={"hair": "blue", "eye_color": "red"}), colors("blue", "red"), []),
        (Row(classes={"hair": "", "eyes": ""}), {}, []),
        (Row(classes={"artist": "Ann_B"}), {"artist": "ann b"}, []),
        (Row("glasses"), {}, ["glasses"]),
    ],
)
def test_what_a_row_of_any_layout_says(row, want, tags):
    said = words.read(row)
    assert {name: words[0].text for name, words in said.given.items() if words} == want
    assert tags is None or list(said.tags) == tags


def test_several_colors_of_a_caption_are_a_conflict():
    table = table_of("1,red hair blue hair", rule="last")
    assert table.labels == {"1": colors("blue")}
    assert table.conflicts == [("1", "several of hair; rule last")]


def test_faulty_rows_keep_what_is_understood():
    table = table_of("1,aqua hair blue eyes", "2,mauve hair blue eyes", "1,red hair red eyes")
    assert table.labels == {"1": colors("aqua", "blue"), "2": colors(None, "blue")}
    assert table.conflicts == [("1", "several rows; the first is used")]
    assert table.passed_over == {"'mauve hair'": 1}


def test_painted_faces_use_the_same_colors_in_the_same_order():
    assert painted.HAIR_COLORS == HAIR
    assert painted.EYE_COLORS == EYES


# --- attributes that are found


def test_colors_come_from_the_data():
    """Yellow hair and white eyes (SJTU), in captions and in raw tags."""
    for rows in (
        ("0,yellow hair green eyes", "1,gray hair white eyes"),
        ("0,yellow hair:10\tgreen eyes:5", "1,grey hair:3\twhite eyes:5\tlong hair:99"),
    ):
        table = table_of(*rows)
        assert table.attributes == (("hair", ("gray", "yellow")), ("eyes", ("green", "white")))
        assert table.labels["1"] == colors("gray", "white")
        assert "white" not in str(table.passed_over)
    prompt = captions.parse_prompt("yellow hair green eyes", table.attributes)
    assert prompt.label == colors("yellow", "green")


def test_other_words_are_classes_where_they_are_no_slip():
    rows = [f"{i},{'ombre' if i < 3 else 'red'} hair blue eyes" for i in range(20)]
    table = table_of(*rows, "20,rde hair blue eyes", "21,ombre hair long eyes")
    assert table.attributes[0] == ("hair", ("red", "ombre"))
    assert table.labels["20"] == colors(None, "blue")
    assert table.passed_over == {"'rde hair' (did you mean 'red'?)": 1, "'long eyes'": 1}
    assert table.labels["21"] == colors("ombre")


HEADED = ["file_name,Hair,glasses,character,hat"] + [
    f"{i}.png,{'Blue_Hair' if i % 2 else 'red'},{i % 3 == 0:d},{('miku', 'rin')[i % 2]},"
    f"{'yes' if i % 4 else ''}"
    for i in range(12)
]


@pytest.mark.parametrize("divider", [",", ";", "\t"])
def test_columns_of_a_table_with_a_header_are_attributes(divider):
    rows = [row.replace(",", divider) for row in [*HEADED, "12.png,red,1,mikku,yes"]]
    table = table_of(*rows)
    # An empty cell beside marks is a no.
    kinds = (("hair", HAIR), tag("glasses"), ("character", ("miku", "rin")), tag("hat"))
    assert set(table.attributes) == set(kinds)
    want = {"hair": "blue", "glasses": "glasses", "character": "rin", "hat": "hat"}
    assert table.labels["9.png"] == want
    assert table.labels["1.png"] == {**want, "glasses": "no glasses"}
    assert table.labels["12.png"] == {"hair": "red", "glasses": "glasses", "hat": "hat"}
    assert table.labels["4.png"]["hat"] == "no hat"
    assert table.passed_over == {"character 'mikku' (did you mean 'miku'?)": 1}
    only = table_of(*rows, wanted=("character", "hair"))
    assert [a.name for a in only.attributes] == ["character", "hair"]


def test_tags_are_attributes_where_they_are_wanted():
    smile = ("", "\tsmile:4")
    rows = [f"{i},red hair:9\tglasses:3{smile[i % 2]}\trare tag:1" for i in range(8)]
    rows += [f"{i},blue hair:9\tblue eyes:2" for i in range(8, 12)]
    assert table_of(*rows).attributes == DEFAULT
    table = table_of(*rows, wanted=("hair", "smile"))
    assert table.attributes == (("hair", HAIR), tag("smile"))
    assert table.labels["1"] == {"hair": "red", "smile": "smile"}
    assert table.labels["8"] == {"hair": "blue", "smile": "no smile"}
    table = table_of(*rows, wanted=("tags:0.4",))
    assert table.attributes == (tag("glasses"), tag("rare tag"))
    with pytest.raises(UserError, match=r"'smlie'.*similar: 'smile'"):
        table_of(*rows, wanted=("smlie",))
    with pytest.raises(UserError, match="share"):
        table_of(*rows, wanted=("tags:many",))


def test_columns_of_1_and_minus_1_are_there_or_not_and_colors_of_hair():
    lines = [f"{i}.png {1 if i % 2 else -1} {-1 if i % 2 else 1} {1 if i % 3 else -1}"
             for i in range(9)]  # fmt: skip
    table = table_of("9", "Black_Hair Blond_Hair Smiling", *lines)
    assert table.attributes == (("hair", HAIR), tag("smiling"))
    assert table.labels["1.png"] == {"hair": "black", "smiling": "smiling"}
    assert table.labels["6.png"] == {"hair": "blonde", "smiling": "no smiling"}


def test_a_column_that_measures_is_no_attribute_unless_it_is_wanted():
    rows = [f"{i}.png,{i // 3},{i % 2},{'ab'[i % 2]} b" for i in range(90)]
    table = table_of("file,score,label,who", *rows)
    assert table.attributes == (("label", ("0", "1")), ("who", ("a b", "b b")))
    table = table_of("file,score,label,who", *rows, wanted=("score",))
    assert len(table.attributes[0].classes) == 30


def test_a_column_of_colors_is_read_as_a_text():
    table = table_of("file,label", *(f"{i}.png,{('blue', 'red')[i % 2]}_hair" for i in range(4)))
    assert table.attributes == (("hair", HAIR),)
    assert table.labels["1.png"] == colors("red")
