"""What a second reading of the mends found: each input went wrong in a version between."""

import importlib
import importlib.util
import os
import sys
from unittest import mock

import flax.linen as nn
import jax
import pytest

from anigan_jax import own_code
from anigan_jax.data import boxes, captions, label_json, words
from anigan_jax.data.attributes import Attribute
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.methods import players
from anigan_jax.report import collect
from anigan_jax.runtime import environment
from anigan_jax.storage import run_code


def test_corners_beside_the_size_of_the_image():
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,640,480,face,100,50,200,150\n"
    assert boxes._of_table(text, "boxes.csv", []) == {"a.png": (100, 50, 100, 100)}


@pytest.mark.parametrize(
    ("written", "tags"),
    [
        ("(mermaid) ariel", ["(mermaid) ariel"]),
        ("[ai] bot", ["[ai] bot"]),
        ("grin :)", ["grin :)"]),
        ("(2) girls", ["(2) girls"]),
        ("(0.93) smile", ["smile"]),
        ("((blue hair:1.2))", ["blue hair"]),
        ("(blue hair", ["blue hair"]),
        ("red eyes:1.2)", ["red eyes"]),
    ],
)
def test_brackets_of_weights_and_of_names(written, tags):
    assert words.tag(written) == tags


@pytest.mark.parametrize(
    ("vectors", "classes", "faults"),
    [
        ([[1, 0, 0], [0, 0, 0], [0, 0, 1]], [{"class": "0"}, {}, {"class": "2"}], 0),
        ([[1, 0], [0.2, 0.8], [0, 1]], [{"class": "0"}, {"class": "1"}], 1),
        ([[1, 1], [0, 1]], [{"label 0": "1", "label 1": "1"}, {"label 0": "0", "label 1": "1"}], 0),
        ([[0.3, 0.1], [0.2, 0.8]], [{}, {}], 0),
    ],
)
def test_vectors_of_a_dataset_json(vectors, classes, faults):
    found = label_json._stylegan([[f"{i}.png", each] for i, each in enumerate(vectors)])
    assert [row.classes for _, row in found.rows] == classes
    assert len(found.faults) == faults


@pytest.mark.parametrize(
    ("name", "classes", "prompt"),
    [
        ("hair", ("blue", "multi-colored"), "multi-colored hair"),
        ("class", ("jeanne d\u2019arc", "x"), "jeanne d\u2019arc"),
        ("class", ("a::b", "x"), "a::b"),
        ("class", ("c/d", "x"), "c/d"),
    ],
)
def test_a_class_is_understood_as_it_is_called(name, classes, prompt):
    found = captions.parse_prompt(prompt, (Attribute(name, classes),))
    assert list(found.label.values()) == [prompt.removesuffix(" hair")]
    assert not found.passed_over


def test_columns_beside_tags_that_are_no_scores(tmp_path, noise_images):
    rows = ["file,label,rating,blue_hair,smile"]
    for i, path in enumerate(noise_images(tmp_path, 12)):
        rows.append(f"{path.name},{i % 2},{i % 3 / 2},{0.9 - i / 40},{i / 20}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (found,) = Images(path=str(tmp_path), size=8, attributes=("label",)).catalogue().attributes
    assert found == Attribute("label", ("0", "1"))
    (found,) = Images(path=str(tmp_path), size=8, attributes=("rating",)).catalogue().attributes
    assert len(found.classes) == 3


def test_a_table_without_labels_takes_none_from_another(tmp_path, noise_images):
    for part, color in (("train", "blue"), ("test", "")):
        (tmp_path / part).mkdir()
        files = noise_images(tmp_path / part, 4, part == "test")
        lines = ["file,hair", *(f"{path.name},{color}" for path in files)]
        (tmp_path / part / "labels.csv").write_text("\n".join(lines))
    found = Images(path=str(tmp_path), size=8).catalogue()
    assert sum(item.label.get("hair") == "blue" for item in found.items) == 4
    assert [finding.code for finding in found.findings] == ["silent"]


@pytest.fixture
def noise_images():
    import numpy as np
    from PIL import Image

    def write(folder, n, other=False):
        draw = np.random.default_rng(int(other))
        for i in range(n):
            pixels = draw.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            path = folder / f"{'other' * other}{i}.png"
            Image.fromarray(pixels).save(path)
            yield path

    return lambda *given: list(write(*given))


def test_the_last_step_is_no_gap_in_a_ledger():
    lines = [{"step": step, "fingerprint": "0"} for step in (0, 20, 40, 50, 60, 80)]
    assert collect.ledger(lines, 20, None)["gaps"] == []
    assert collect.ledger([*lines, {"step": 120}], 20, None)["gaps"] == [[80, 120]]


def test_code_that_was_kept_by_another_path_stays(tmp_path):
    """Weights of an earlier version name it so."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "s.py").write_text("A = 1\n")
    (tmp_path / "code" / "old.py").write_text("A = 2\n")
    (tmp_path / "s.py").write_text("A = 1\n")
    found = run_code.keep({"pkg/s.py": tmp_path / "s.py"}, tmp_path / "code")
    assert sorted(found) == ["pkg/s.py", "s.py"]
    assert not (tmp_path / "code" / "old.py").exists()
    own = own_code.importer(tmp_path / "code", found, trust=True)
    assert own("s.py").A == own("pkg/s.py").A == 1


def test_a_package_that_is_a_single_file_opens(tmp_path):
    (tmp_path / "__init__.py").write_text("A = 3\n")
    found = run_code.keep({"__init__.py": tmp_path / "__init__.py"}, tmp_path / "code")
    assert own_code.importer(tmp_path / "code", found, trust=True)("__init__.py").A == 3


class Wrapped(nn.Module):
    def __call__(*given, **options):
        return given[1]


def test_a_module_of_any_inputs_takes_one_and_two():
    for count in (1, 2):
        players.check_inputs("method.generator", Wrapped(), count)


def test_64_bits_that_a_process_chose_are_not_switched_off():
    with mock.patch.dict(os.environ), jax.enable_x64(True):
        # As the first call leaves it.
        os.environ["JAX_ENABLE_X64"] = "0"
        with pytest.raises(UserError, match="jax_enable_x64"):
            environment.prepare("cpu")
        assert jax.config.jax_enable_x64


SETTINGS = (
    "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass {}:\n    a: int = {}\n"
)


def test_two_files_of_one_name_are_refused(tmp_path, monkeypatch):
    """A run keeps code by its name: one would be taken for the other."""
    made = []
    for folder, number in (("one", 1), ("two", 2)):
        path = tmp_path / folder / "faces.py"
        path.parent.mkdir()
        path.write_text(SETTINGS.format("Own", number))
        name = f"faces_{folder}"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        made.append(module.Own())
    assert sorted(own_code.of(made[0]).files) == ["faces.py"]
    with pytest.raises(UserError, match="have the same name"):
        own_code.of(tuple(made))


def test_what_a_config_imports_of_another_folder_is_kept(tmp_path, monkeypatch):
    library, configs = tmp_path / "library" / "ownlib", tmp_path / "configs"
    library.mkdir(parents=True)
    configs.mkdir()
    (library / "__init__.py").write_text("")
    (library / "losses.py").write_text("WEIGHT = 7\n")
    (library / "net.py").write_text(SETTINGS.format("Net", 1))
    head = "from ownlib.losses import WEIGHT\nfrom ownlib.net import Net\n"
    (configs / "owncfg.py").write_text(head + SETTINGS.format("Own", "WEIGHT"))
    for folder in (configs, library.parent):
        monkeypatch.syspath_prepend(str(folder))
    module = importlib.import_module("owncfg")
    code = own_code.of((module.Own(), module.Net()))
    kept = ["ownlib/__init__.py", "ownlib/losses.py", "ownlib/net.py", "owncfg.py"]
    assert sorted(code.files) == sorted(kept)
    found = run_code.keep(code.files, tmp_path / "code")
    for name in [name for name in sys.modules if name.startswith(("ownlib", "owncfg"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if str(tmp_path) not in p])
    own = own_code.importer(tmp_path / "code", found, trust=True)
    assert own("owncfg.py").Own().a == 7
    assert own("ownlib/net.py").Net().a == 1
