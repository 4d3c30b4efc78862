"""Texts, tags and prompts as people bring them: each was once read wrongly, or not at all."""

import json

import numpy as np
import pytest
from brought import WORDS, folder, labels, table

from anigan_jax.data import captions, discover, label_text
from anigan_jax.data.attributes import DEFAULT, Attribute
from anigan_jax.data.discover import Options
from anigan_jax.errors import UserError


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


def test_tags_by_their_kinds(tmp_path):
    said = [{"general": ["smile"], "artist": ["x"]}, {"general": ["blue_hair"], "artist": ["y"]}]
    lines = [{"file_name": f"{i:03d}.png", "tags": said[i % 2]} for i in range(12)]
    text = "\n".join(map(json.dumps, lines))
    found = labels(folder(tmp_path, {"metadata.jsonl": text}), "smile")
    assert [label["smile"] for label in found.values()] == ["smile", "no smile"] * 6


@pytest.mark.parametrize("text", ["{} :3", "{} in 16:9"])
def test_a_text_that_ends_as_a_count_is_a_text(tmp_path, text):
    said = (text.format("blue hair"), "red hair", "blue hair", "red hair")
    found = labels(folder(tmp_path, {"tags.csv": table(*said, head="id,tags", end="")}))
    assert [label["hair"] for label in found.values()] == ["blue", "red"] * 6


@pytest.mark.parametrize("mark", [";", "|", "、"])
def test_tags_between_other_marks(tmp_path, mark):
    said = (f"1girl{mark}blue_hair{mark}smile", f"1girl{mark}red_hair")
    found = labels(folder(tmp_path, {"tags.csv": table(*said, head="file,tags")}), "smile", "hair")
    assert [(label["smile"], label["hair"]) for label in found.values()] == [
        *(("smile", "blue"), ("no smile", "red"))
    ] * 6


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


def test_lists_of_tags_without_a_header_are_no_classes(tmp_path):
    said = ("1girl;smile", "1girl", "1girl;hat")
    found = labels(folder(tmp_path, {"tags.csv": table(*said, head="")}), "smile")
    assert [label["smile"] for label in found.values()] == ["smile", "no smile", "no smile"] * 4


@pytest.mark.parametrize("mark", [";", "|", "; "])
def test_colors_in_tags_that_are_joined(tmp_path, mark):
    said = {f"{i:03d}.txt": f"{('blue', 'red')[i % 2]}_hair{mark}smile" for i in range(12)}
    found = labels(folder(tmp_path, said), "hair", "smile")
    assert [label["hair"] for label in found.values()] == ["blue", "red"] * 6
    assert {label["smile"] for label in found.values()} == {"smile"}


def test_one_letter_in_the_last_row_is_enough(tmp_path):
    text = table("blue", "red", images=11) + "011.png,doré"
    assert label_text.decoded(text.encode("cp1252")).endswith("doré")


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
