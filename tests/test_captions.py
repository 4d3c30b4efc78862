"""Captions in varied wording, free prompts, and the characters of a text."""

import re

import numpy as np
import pytest
from real import DATA, needs_data

from anigan_jax.core import Texts
from anigan_jax.data import attributes, captions, words
from anigan_jax.data.attributes import (
    DEFAULT,
    EYES,
    HAIR,
    Attribute,
    combinations,
    label,
    label_of,
    say,
    tag,
)
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.runtime.environment import config_folder
from anigan_jax.sampling import prompts

ROWS = combinations((len(HAIR), len(EYES)))
WORN = (*DEFAULT, tag("glasses"), tag("smile"), Attribute("character", ("hatsune miku", "asuka")))


def colors(hair=None, eyes=None):
    return label(hair=hair, eyes=eyes)


def test_texts_are_drawn_as_often_as_the_data_has_them():
    counts = np.zeros(len(ROWS))
    for eyes, count in (("blue", 300), ("green", 100)):
        wanted = attributes.row(DEFAULT, colors("red", eyes))
        counts[(wanted == ROWS).all(1)] = count
    texts = Texts(None, counts, np.ones(len(ROWS)), DEFAULT, ROWS)
    found = [prompt.label["eyes"] for prompt in prompts.from_data(texts, 2000, 0)]
    assert set(found) == {"blue", "green"}
    assert abs(np.mean([eyes == "blue" for eyes in found]) - 0.75) < 0.04


def test_every_wording_of_every_pair_says_what_it_is_made_from():
    assert len(ROWS) == 132
    for row in ROWS:
        want = label_of(DEFAULT, row)
        texts = captions.captions(want)
        assert len(set(texts)) == len(captions.WORDINGS)
        assert all(captions.parse_prompt(text).label == want for text in texts)
        assert max(map(len, texts)) <= captions.LENGTH


def test_wordings_of_further_attributes():
    shown = {**colors("blue", "red"), "glasses": "glasses", "smile": "no smile"}
    texts = captions.captions({**shown, "character": "asuka"}, WORN)
    assert texts[2] == "a girl with blue hair and red eyes, glasses, asuka"
    assert all(captions.parse_prompt(t, WORN).label.items() > colors("blue", "red").items()
               for t in texts)  # fmt: skip
    alone = captions.captions({"glasses": "no glasses"}, (tag("glasses"),))
    assert {captions.parse_prompt(t, (tag("glasses"),)).label["glasses"] for t in alone} == {
        "no glasses"
    }


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("blue hair red eyes", colors("blue", "red")),
        ("Red Eyes, AQUA hair.", colors("aqua", "red")),
        ("grey hair and silver-haired", colors("gray")),
        ("a blond girl", colors("blonde")),
        ("blonde girl with blue eyes", colors("blonde", "blue")),
        ("hair: blonde, eyes=red", colors("blonde", "red")),
        ("hair blonde eyes blue", colors("blonde", "blue")),
        ("her hair is blonde", colors("blonde")),
        # As people type them.
        ("\u201cblue hair\u201d, \u2018red eyes\u2019", colors("blue", "red")),
        ("blue hair/red eyes", colors("blue", "red")),
        ("hair color: blue; eye color: red", colors("blue", "red")),
        ("hair_color=blue, eye_colour blue", colors("blue", "blue")),
        ("blue colored hair, red-coloured eyes", colors("blue", "red")),
        ("((blue hair)) red eyes", colors("blue", "red")),
        ("(blue hair:1.2) [red eyes]", colors("blue", "red")),
        ("blue hair::2 red eyes::1", colors("blue", "red")),
        ("1.5::blue hair:: red eyes", colors("blue", "red")),
        ("red hair", colors("red", None)),
        ("a girl with green eyes", colors(None, "green")),
        ("blonde hair, blue eyes", colors("blonde", "blue")),
        ("her hair is grey", colors("gray", None)),
        ("a blue-eyed girl with black hair", colors("black", "blue")),
    ],
)
def test_free_prompts(text, want):
    assert captions.parse_prompt(text) == Prompt(text, want)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("mauve hair", "'mauve'"),
        ("bleu hair", "did you mean 'blue'"),
        ("red nose", "'red nose'"),
        ("a girl", "no class of hair or eyes"),
        ("", "no class of hair or eyes"),
        ("white eyes", "'white' is not a color of eyes"),
        ("red hair blue hair", "twice"),
        ("<script>", "'<script>'"),
    ],
)
def test_prompts_that_are_not_understood(text, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        captions.parse_prompt(text)


@pytest.mark.parametrize(
    ("text", "want", "lost"),
    [
        ("blue_hair, glasses, smile", {"hair": "blue", "glasses": "glasses", "smile": "smile"}, ""),
        ("bleu hair red eyes", {"eyes": "red"}, "not a color of hair; did you mean 'blue'"),
        ("red hair, smlie", {"hair": "red"}, "did you mean 'smile'"),
        ("red hair blue eyes in the rain", colors("red", "blue"), "'in' is not known"),
        (
            "Hatsune_Miku without glasses",
            {"character": "hatsune miku", "glasses": "no glasses"},
            "",
        ),
        ("no smile; character: asuka", {"smile": "no smile", "character": "asuka"}, ""),
        ("yellow hair brown eyes", colors("blonde", "brown"), "drawn as 'blonde hair'"),
        ("gray hair white eyes", {"hair": "gray"}, "'white' is not a color of eyes"),
        ("blue hair AND red eyes!", colors("blue", "red"), ""),
        # As picture generators and sites write them.
        ("((blue hair:1.2)), [red_eyes]", colors("blue", "red"), ""),
        ('"blue hair" | {{red eyes}}', colors("blue", "red"), ""),
        ("blue-hair, eyes: red, glasses::1.3", {**colors("blue", "red"), "glasses": "glasses"}, ""),
        ("a blue haired girl, hair=blue, -glasses", {"hair": "blue", "glasses": "no glasses"}, ""),
        ("red eyes, not blue hair", {"eyes": "red"}, "'not-blue' is not a color of hair"),
        ("golden hair cyan eyes", colors("blonde", "aqua"), "drawn as 'blonde hair'"),
    ],
)
def test_prompts_of_any_attributes(text, want, lost):
    got = captions.parse_prompt(text, WORN)
    assert got.label == want
    assert lost in "; ".join(got.passed_over)
    assert bool(lost) == bool(got.passed_over)


def test_marks_of_a_class_divide_nothing():
    named = (Attribute("who", ("saber (fate)", "fate/zero rin", "asuka")), *DEFAULT)
    for who in ("saber (fate)", "fate/zero rin"):
        found = captions.parse_prompt(f"{who}, (blue hair:1.1)", named)
        assert found.label == {"who": who, "hair": "blue"}


def test_the_tables_of_sjtu_are_understood():
    """Of every line both colors, where the data has yellow hair and white eyes; one without."""
    wide = (("hair", (*HAIR, "yellow")), ("eyes", (*EYES, "white")))
    wide = tuple(Attribute(*each) for each in wide)
    for name, count in (("iii", 4), ("iv", 12), ("v", 8)):
        file = config_folder() / "prompts" / f"sjtu_table_{name}.txt"
        lines = file.read_text().splitlines()
        prompts = captions.read_prompts(lines, name, wide)
        assert len(prompts) == count
        assert all(len(p.label) == 2 and not p.passed_over for p in prompts)
        assert [say(wide, p.label) for p in prompts] == lines[1:]
        assert len(captions.read_prompts(lines, name)) == count


def test_prompt_files_name_every_fault():
    lines = ["1,blue hair blue eyes", "", "2,red hair", "aqua eyes, purple hair"]
    assert captions.read_prompts(lines, "p") == [
        Prompt("blue hair blue eyes", colors("blue", "blue")),
        Prompt("red hair", colors("red", None)),
        Prompt("aqua eyes, purple hair", colors("purple", "aqua")),
    ]
    for head in ("id,prompt", "prompt", "ID,Caption", "\ufeffid,text"):
        assert captions.read_prompts([head, *lines], "p") == captions.read_prompts(lines, "p")
    with pytest.raises(UserError, match=r"line 1.*line 3.*Known classes: hair"):
        captions.read_prompts(["nonsense", "1,red hair", "2,mauve eyes"], "p")
    with pytest.raises(UserError, match=r"or 'blue eyes'\? Known classes: hair"):
        captions.read_prompts(["blue"], "p")
    with pytest.raises(UserError, match="no prompts"):
        captions.read_prompts(["", " "], "p")


@needs_data
def test_the_real_prompt_file():
    lines = (DATA / "konachan_faces_96/sample_testing_text.txt").read_text().splitlines()
    prompts = captions.read_prompts(lines, "p")
    assert len(prompts) == 16
    assert sum(len(prompt.label) == 2 for prompt in prompts) == 10


def counts_of(**cells: int) -> np.ndarray:
    grid = np.zeros((len(HAIR), len(EYES)))
    for name, count in cells.items():
        hair, eyes = name.split("_")
        grid[HAIR.index(hair), EYES.index(eyes)] = count
    return grid.ravel()


def test_a_missing_color_is_drawn_as_the_data_has_it():
    counts = counts_of(red_blue=300, red_green=100, black_brown=50)
    red = Prompt("red hair", colors("red", None))

    def complete(prompt, number):
        return captions.complete(prompt, DEFAULT, ROWS, counts, 0, number)

    drawn = [complete(red, i) for i in range(2000)]
    share = np.mean([p.label["eyes"] == "blue" for p in drawn])
    assert abs(share - 0.75) < 0.04  # four standard deviations
    assert {p.label["eyes"] for p in drawn} == {"blue", "green"}
    assert all(p.text == say(DEFAULT, p.label) for p in drawn)
    assert drawn == [complete(red, i) for i in range(2000)]
    eyes = complete(Prompt("", colors(None, "brown")), 0)
    assert eyes.label == colors("black", "brown")
    # A color that the data never has takes the other part from all of it.
    pink = [complete(Prompt("", colors("pink", None)), i) for i in range(200)]
    assert {p.label["eyes"] for p in pink} == {"blue", "green", "brown"}
    assert {p.label["hair"] for p in pink} == {"pink"}
    whole = Prompt("her hair is red, blue eyes", colors("red", "blue"))
    assert complete(whole, 0) is whole


def test_characters():
    codes = captions.codes(["Ab z", "é!", "x" * 99])
    assert codes.shape == (3, captions.LENGTH)
    assert codes.dtype == np.uint8
    assert codes[0, :6].tolist() == [1, 2, 27, 26, 0, 0]
    assert codes[1].tolist() == [0] * captions.LENGTH
    assert codes[2].tolist() == [24] * captions.LENGTH
    assert codes.max() <= len(captions.ALPHABET)


TAGS = (*DEFAULT, tag("hat"), tag("glasses"), tag("smile"))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("without hat and glasses", {"hat": "no hat", "glasses": "no glasses"}),
        ("no hat or glasses", {"hat": "no hat", "glasses": "no glasses"}),
        ("no hat and blue hair", {"hat": "no hat", "hair": "blue"}),
        ("no hat and a smile", {"hat": "no hat", "smile": "smile"}),
        ("smile and glasses", {"smile": "smile", "glasses": "glasses"}),
        ("she doesn't have glasses, smile", {"glasses": "no glasses", "smile": "smile"}),
        ("never wears a hat, smile", {"hat": "no hat", "smile": "smile"}),
        ("smile, no red or blue hair", {"smile": "smile"}),
        ("smile, red eyes", {"smile": "smile", "eyes": "red"}),
    ],
)
def test_what_is_denied_together_is_not_drawn(text, want):
    assert captions.parse_prompt(text, TAGS).label == want


ODD = (
    Attribute("class", ("k-on!", "steins;gate", "dr. stone", "love live!", "3", "blue-eyes dog")),
    tag("one eye closed"),
    tag("wide-eyed"),
    *DEFAULT,
)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("K-On!", {"class": "k-on!"}),
        ("Steins;Gate, blue hair", {"class": "steins;gate", "hair": "blue"}),
        ("Dr. Stone. Red eyes", {"class": "dr. stone", "eyes": "red"}),
        ("love live!, one_eye_closed", {"class": "love live!", "one eye closed": "one eye closed"}),
        (
            "without one eye closed, k-on!",
            {"one eye closed": "no one eye closed", "class": "k-on!"},
        ),
        ("wide-eyed, blue-eyed girl", {"wide-eyed": "wide-eyed", "eyes": "blue"}),
        ("Blue-Eyes Dog", {"class": "blue-eyes dog"}),
        ("class:3", {"class": "3"}),
        ("class=3, a blue eye", {"class": "3", "eyes": "blue"}),
        ("hair: blue", {"hair": "blue"}),
    ],
)
def test_names_with_marks_are_one_name(text, want):
    found = captions.parse_prompt(text, ODD)
    assert found.label == want and not found.passed_over


def test_what_is_passed_over_is_said_in_its_own_words():
    found = captions.parse_prompt("blue hair, xk-on!", ODD)
    assert "xk-on!" in found.passed_over[0] or "xk-on" in found.passed_over[0]
    assert not any("\ue000" <= letter <= "\uf8ff" for letter in "".join(found.passed_over))


def test_a_number_alone_before_a_comma_may_be_a_class():
    (one,) = captions.read_prompts(["3, blue hair"], "--prompt", ODD)
    assert one.label == {"class": "3", "hair": "blue"}
    # In a file of several lines it is the line's.
    lines = captions.read_prompts(["3,blue hair", "4,red hair"], "file", ODD)
    assert [prompt.label for prompt in lines] == [{"hair": "blue"}, {"hair": "red"}]


def test_letters_are_compared_in_one_form():
    both = Attribute("class", (words.plain("cafe\u0301"), words.plain("\uff2d\uff29\uff2b\uff35")))
    assert both.classes == ("caf\xe9", "miku")
    for text in ("caf\xe9", "cafe\u0301"):
        assert captions.parse_prompt(text, (both,)).label == {"class": "caf\xe9"}
    assert captions.parse_prompt("Miku", (both,)).label == {"class": "miku"}
