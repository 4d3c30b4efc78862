"""Tag files and prompts; the rows are of the real raw tag file."""

import pytest
from real import DATA, needs_data

from anigan_jax.data import captions, labels
from anigan_jax.data.attributes import DEFAULT, EYES, HAIR, label, tag
from anigan_jax.data.labels import Tag
from anigan_jax.data.synthetic import painted
from anigan_jax.errors import UserError


def colors(hair=None, eyes=None):
    return label(hair=hair, eyes=eyes)


def chosen(row: str, rule="max-count"):
    """The label of a row of tags and how many there were."""
    table = labels.read_table(f"1,{row}", "t", rule)
    return table.labels["1"]


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
    read = labels.read_table("\n".join(f"{key},{row}" for key, row in ROWS.items()), "t")
    assert read.labels == want
    assert read.attributes == DEFAULT
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
    assert labels.color(text, "hair") is None
    assert labels.color(text, "eyes") is None


def test_spellings():
    assert labels.color("grey hair", "hair") == "gray"
    assert labels.color("Blond hair", "hair") == "blonde"
    assert labels.color("yellow_hair", "hair") == "yellow"
    assert labels.color("yellow eyes", "eyes") == "yellow"


@pytest.mark.parametrize(
    ("text", "want", "tags"),
    [
        ("blue hair green eyes", colors("blue", "green"), ()),
        ("aqua_eyes purple_hair", colors("purple", "aqua"), ()),
        ("Red hair, blue eyes", colors("red", "blue"), ()),
        ("long hair grey eyes", colors(None, "gray"), ()),
        ("red hair, hair between eyes, glasses", colors("red"), ("hair between eyes", "glasses")),
        ("red nose", {}, ("red nose",)),
        ("", {}, ()),
    ],
)
def test_captions(text, want, tags):
    given, others = labels.caption(text)
    assert {part: words[0].text for part, words in given.items()} == want
    assert others == tags


ONE_HOT = "7," + ",".join("1" if i in (4, 11 + 6) else "0" for i in range(23))


@pytest.mark.parametrize(
    ("text", "key", "want"),
    [
        (f"2,{ROWS['2']}\n13,{ROWS['13']}\n", "13", colors("red", "blue")),
        ("\ufeff0,aqua hair blue eyes\r\n1,red hair red eyes\r\n", "0", colors("aqua", "blue")),
        (ONE_HOT + "\n", "7", colors("purple", "yellow")),
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
    # What is understood of a faulty row stays.
    assert table.labels == {"1": colors("aqua", "blue"), "2": colors(None, "blue")}
    assert sorted((key, code) for key, code, _ in table.faults) == [
        ("1", "conflict"),
        ("2", "unknown tag"),
        ("3", "unknown tag"),
    ]
    two_hot = "7," + ",".join("1" if i in (4, 5, 17) else "0" for i in range(23))
    table = labels.read_table(f"{ONE_HOT.replace('7,', '8,', 1)}\n{two_hot}\n9,1,0\n", "t")
    assert table.labels == {"8": colors("purple", "yellow"), "7": colors("purple", None)}
    faults = sorted((k, c) for k, c, _ in table.faults)
    assert faults == [("7", "conflict"), ("9", "unknown tag")]


@pytest.mark.parametrize("text", ["", "id;name\n1;x\n", "a,b,c\n1,2,3\n"])
def test_other_tables_are_refused(text):
    with pytest.raises(UserError):
        labels.read_table(text, "t")


def test_painted_faces_use_the_same_colors_in_the_same_order():
    assert painted.HAIR_COLORS == HAIR
    assert painted.EYE_COLORS == EYES


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
    assert all(t.faults == [] and t.attributes == DEFAULT for t in read.values())
    # Rows of the raw file with both colors are those of the one-hot file, and agree.
    both = {k: v for k, v in read["raw"].labels.items() if len(v) == 2}
    assert len(both) == 4
    assert all(read["one_hot"].labels[key] == found for key, found in both.items())


# --- attributes that are found


def table_of(*rows: str, wanted=()) -> labels.Table:
    return labels.read_table("\n".join(rows), "t", wanted=wanted)


def test_colors_come_from_the_data():
    """Yellow hair and white eyes (SJTU), in captions and in raw tags."""
    for rows in (
        ("0,yellow hair green eyes", "1,gray hair white eyes"),
        ("0,yellow hair:10\tgreen eyes:5", "1,grey hair:3\twhite eyes:5\tlong hair:99"),
    ):
        table = table_of(*rows)
        assert table.attributes == (("hair", ("gray", "yellow")), ("eyes", ("green", "white")))
        assert table.labels["1"] == colors("gray", "white")
        assert table.faults == []
    prompt = captions.parse_prompt("yellow hair green eyes", table.attributes)
    assert prompt.label == colors("yellow", "green")


def test_other_words_are_classes_where_they_are_no_slip():
    rows = [f"{i},{'ombre' if i < 3 else 'red'} hair blue eyes" for i in range(20)]
    table = table_of(*rows, "20,rde hair blue eyes", "21,ombre hair long eyes")
    assert table.attributes[0] == ("hair", ("red", "ombre"))
    assert table.labels["20"] == colors(None, "blue")
    assert table.faults == [("20", "unknown tag", "'rde' is no color of hair; did you mean 'red'?")]
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
    # A column with one class tells nothing apart.
    assert table.attributes == (("hair", HAIR), tag("glasses"), ("character", ("miku", "rin")))
    want = {"hair": "blue", "glasses": "glasses", "character": "rin"}
    assert table.labels["9.png"] == want
    assert table.labels["1.png"] == {**want, "glasses": "no glasses"}
    assert table.labels["12.png"] == {"hair": "red", "glasses": "glasses"}
    assert [code for _, code, _ in table.faults] == ["unknown tag"]
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
    with pytest.raises(UserError, match=r"'smlie'.*near are 'smile'"):
        table_of(*rows, wanted=("smlie",))
    with pytest.raises(UserError, match="share"):
        table_of(*rows, wanted=("tags:many",))
