"""Captions in varied wording, free prompts, and the characters of a text."""

import re

import numpy as np
import pytest
from real import DATA, needs_data

from anigan_jax.data import captions
from anigan_jax.data.captions import Prompt
from anigan_jax.data.labels import EYES, HAIR, Label
from anigan_jax.errors import UserError


def test_every_wording_of_every_pair_says_what_it_is_made_from():
    for label in captions.pairs():
        texts = captions.captions(label)
        assert len(set(texts)) == len(captions.WORDINGS)
        assert all(captions.parse_prompt(text) == label for text in texts)
        assert max(map(len, texts)) <= captions.LENGTH


def test_a_pairs_place_is_its_index():
    pairs = captions.pairs()
    assert len(set(pairs)) == len(HAIR) * len(EYES) == 132
    assert pairs[HAIR.index("blue") * len(EYES) + EYES.index("red")] == Label("blue", "red")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("blue hair red eyes", Label("blue", "red")),
        ("Red Eyes, AQUA hair.", Label("aqua", "red")),
        ("grey hair and silver-haired", None),
        ("a blond girl", None),
        ("red hair", Label("red", None)),
        ("a girl with green eyes", Label(None, "green")),
        ("blonde hair, blue eyes", Label("blonde", "blue")),
        ("her hair is grey", Label("gray", None)),
        ("a blue-eyed girl with black hair", Label("black", "blue")),
    ],
)
def test_free_prompts(text, want):
    if want is None:
        with pytest.raises(ValueError, match="hair"):
            captions.parse_prompt(text)
    else:
        assert captions.parse_prompt(text) == want


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("mauve hair", "'mauve'"),
        ("bleu hair", "did you mean 'blue'"),
        ("red nose", "'nose'"),
        ("a girl", "no color"),
        ("", "no color"),
        ("white eyes", "'white' is no color of eyes"),
        ("red hair blue hair", "twice"),
        ("<script>", "'<script>'"),
    ],
)
def test_prompts_that_are_not_understood(text, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        captions.parse_prompt(text)


def test_prompt_files_name_every_fault():
    lines = ["1,blue hair blue eyes", "", "2,red hair", "aqua eyes, purple hair"]
    assert captions.read_prompts(lines, "p") == [
        Prompt("blue hair blue eyes", Label("blue", "blue")),
        Prompt("red hair", Label("red", None)),
        Prompt("aqua eyes, purple hair", Label("purple", "aqua")),
    ]
    with pytest.raises(UserError, match=r"line 1.*line 3.*Known colors"):
        captions.read_prompts(["nonsense", "1,red hair", "2,mauve eyes"], "p")
    with pytest.raises(UserError, match="no prompts"):
        captions.read_prompts(["", " "], "p")


@needs_data
def test_the_real_prompt_file():
    lines = (DATA / "konachan_faces_96/sample_testing_text.txt").read_text().splitlines()
    prompts = captions.read_prompts(lines, "p")
    assert len(prompts) == 16
    assert sum(bool(prompt.label.hair and prompt.label.eyes) for prompt in prompts) == 10


def counts_of(**cells: int) -> np.ndarray:
    grid = np.zeros((len(HAIR), len(EYES)))
    for name, count in cells.items():
        hair, eyes = name.split("_")
        grid[HAIR.index(hair), EYES.index(eyes)] = count
    return grid.ravel()


def test_a_missing_color_is_drawn_as_the_data_has_it():
    counts = counts_of(red_blue=300, red_green=100, black_brown=50)
    red = Prompt("red hair", Label("red", None))
    drawn = [captions.complete(red, counts, 0, i) for i in range(2000)]
    share = np.mean([p.label.eyes == "blue" for p in drawn])
    assert abs(share - 0.75) < 0.04  # four standard deviations
    assert {p.label.eyes for p in drawn} == {"blue", "green"}
    assert all(p.text == str(p.label) for p in drawn)
    assert drawn == [captions.complete(red, counts, 0, i) for i in range(2000)]
    eyes = captions.complete(Prompt("", Label(None, "brown")), counts, 0, 0)
    assert eyes.label == Label("black", "brown")
    # A color that the data never has takes the other part from all of it.
    pink = {captions.complete(Prompt("", Label("pink", None)), counts, 0, i) for i in range(200)}
    assert {p.label.eyes for p in pink} == {"blue", "green", "brown"}
    whole = Prompt("her hair is red, blue eyes", Label("red", "blue"))
    assert captions.complete(whole, counts, 0, 0) is whole


def test_characters():
    codes = captions.codes(["Ab z", "é!", "x" * 99])
    assert codes.shape == (3, captions.LENGTH)
    assert codes.dtype == np.uint8
    assert codes[0, :6].tolist() == [1, 2, 27, 26, 0, 0]
    assert codes[1].tolist() == [0] * captions.LENGTH
    assert codes[2].tolist() == [24] * captions.LENGTH
    assert codes.max() <= len(captions.ALPHABET)
