"""Rows and columns of labels as people bring them: each was once read wrongly, or not at all."""

import numpy as np
import pytest
from brought import folder, labels, table

from anigan_jax.data import boxes, discover, matching
from anigan_jax.data.discover import Options


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


def test_a_column_of_few_numbers_names_no_images(tmp_path):
    names = [f"{i}.png" for i in range(20)]
    order = np.random.default_rng(0).permutation(3000)
    rows = "".join(f"{i},{i % 97},{('blue', 'red')[i % 2]}\n" for i in order)
    found = labels(folder(tmp_path, {"labels.csv": f"id,score,hair\n{rows}"}, names))
    assert [found[name]["hair"] for name in names] == ["blue", "red"] * 10


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
