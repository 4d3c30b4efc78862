"""`anigan export`: folders to publish, model cards, and what is refused."""

import json
import runpy
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from run_dirs import judged
from tiny import JUDGE, untrained

import anigan_jax
from anigan_jax import api
from anigan_jax.errors import UserError
from anigan_jax.export import hub, onnx
from anigan_jax.export.card import card
from anigan_jax.sampling import grids
from anigan_jax.storage import atomic, safetensors
from anigan_jax.storage import images as record


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("noise") / "run", "FULL")


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_hub_folder_opens_anywhere(verb, noise, tmp_path, monkeypatch, weights):
    code, out, error = verb(
        *("export", noise, "--to", "hub", "--out", tmp_path / "hub", "--weights", weights),
        *("--data-license", "CC0"),
    )
    assert code == 0, error
    assert len(out.splitlines()) == 6
    monkeypatch.chdir(tmp_path)
    run = anigan_jax.load("hub")
    whole = anigan_jax.load(noise, weights=weights)
    assert (run.generate(3, seed=1) == whole.generate(3, seed=1)).all()
    files = {path.name for path in Path("hub").iterdir()}
    assert files == {
        *("README.md", "config.json", "generator.json", "generator.onnx", "samples.png"),
        "weights.safetensors",
    }
    card = Path("hub/README.md").read_text()
    for words in ("License of the data: CC0", "Not measured", "anigan_jax.load(", "PaintedFaces"):
        assert words in card
    assert Image.open("hub/samples.png").size[0] > 8 * 16
    # Each file holds the weights that were asked for.
    want = whole.generate(3, seed=1).astype(int)
    session = onnxruntime.InferenceSession("hub/generator.onnx", providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"z": grids.latents(whole.method, 3, 1)})
    assert np.abs(record.to_uint8(made.transpose(0, 2, 3, 1)) - want).max() <= 1
    words = ("--to", "weights", "--weights", weights, "--out", tmp_path / "small")
    assert verb("export", noise, *words)[0] == 0
    assert np.abs(anigan_jax.load(tmp_path / "small").generate(3, seed=1) - want).max() <= 3


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_an_export_of_an_export_says_what_the_first_one_knew(verb, noise, tmp_path, weights):
    """Which weights they are, the license of the data and their checksum, in each kind of file."""
    folders, run = {}, noise
    for to in ("weights", "onnx", "stablehlo", "hub", "weights"):
        own = ("--weights", weights, "--data-license", "CC0") if run is noise else ()
        folders[to] = out = tmp_path / f"{to}_{len(folders)}"
        code, _, error = verb("export", run, "--to", to, "--out", out, *own)
        assert code == 0, error
        run = out if to == "weights" else run
    about = json.loads((folders["stablehlo"] / "generator.json").read_text())
    session = onnxruntime.InferenceSession(folders["onnx"] / "generator.onnx")
    files = [folders[to] / "weights.safetensors" for to in ("weights", "hub")]
    says = [session.get_modelmeta().custom_metadata_map, *map(safetensors.metadata, files)]
    # Beside the file too: what runs it in a browser reads no metadata.
    beside = json.loads((folders["onnx"] / "generator.json").read_text())
    assert beside.keys() == about.keys() and beside["inputs"] == about["inputs"]
    says.append(beside)
    known = {"weights": weights, "data_license": "CC0"}
    known["data_sha256"] = json.loads((noise / "run.json").read_text())["data_sha256"]
    for found in (about, *says):
        assert {name: found[name] for name in known} == known
    words = (folders["hub"] / "README.md").read_text()
    for said in ("CC0", known["data_sha256"], {"ema": "averaged weights", "raw": "as trained"}):
        assert (said[weights] if isinstance(said, dict) else said) in words
    own, (other,) = anigan_jax.load(run, weights=weights), {"ema", "raw"} - {weights}
    assert (own.generate(2) == anigan_jax.load(run).generate(2)).all()
    told = {"ema": "only the averaged weights", "raw": "were exported"}[weights]
    with pytest.raises(UserError, match=told):
        anigan_jax.load(run, weights=other)


def test_a_card_has_the_scores_of_its_step(noise, tmp_path):
    """Those of `anigan evaluate`, or else of the training's own evaluation."""
    run = judged(untrained(tmp_path / "run", "FULL"))
    line = {"step": 0, "kid-vgg16": 0.0211}
    with (run / "evaluation.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    trained = api.load(run, "latest")
    text = card(trained, {}, "")
    assert "| 0.0211 | 0.001 | lower |" in text
    assert "Protocol: " in text
    panel = run / "out/evaluate/step_000000008.json"
    panel.rename(panel.with_name("step_000000000.json"))
    text = card(trained, {}, "")
    assert "| 0.03 | 0.04 | 0.001 | lower |" in text
    assert "1,000 images against 40" in text


@pytest.mark.long
@pytest.mark.parametrize("name", ["TEXT", "CYCLE"])
def test_hub_folders_of_words_and_photos(verb, tmp_path, name, monkeypatch):
    run = untrained(tmp_path / "run", name)
    out = tmp_path / "hub"
    code, _, error = verb("export", run, "--to", "hub", "--out", out)
    assert code == 0, error
    found, whole = anigan_jax.load(out), anigan_jax.load(run)
    # What the card says is run as it stands there.
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "use.py").write_text(code.replace("PATH/OF/THIS/FOLDER", str(out)))
    Image.new("RGB", (50, 40), "blue").save(tmp_path / "me.jpg")
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path("use.py")
    if name == "TEXT":
        asked = {"n": 2, "prompt": "blue hair red eyes"}
        assert (found.generate(**asked) == whole.generate(**asked)).all()
        assert made["images"].shape == (8, 16, 16, 3)
    else:
        source = np.full((1, 16, 16, 3), 90, np.uint8)
        assert (found.translate(source, "ba") == whole.translate(source, "ba")).all()
        assert made["images"].shape == (1, 16, 16, 3)


@pytest.mark.long
def test_pixels_without_a_bound_are_clipped(verb, tmp_path):
    """The export itself compares with JAX; R3GAN's last layer has no tanh."""
    run = untrained(tmp_path / "run", "R3")
    code, out, error = verb("export", run, "--to", "onnx", "--out", tmp_path / "out")
    assert code == 0, error
    assert "and JAX are at most" in out


def refused(verb, out: Path, *words) -> str:
    """The one sentence; nothing is left beside what was there."""
    before = sorted(out.parent.rglob("*"))
    code, said, error = verb("export", *words, "--out", out)
    assert (code, said, error.count("\n")) == (2, "", 1), error
    assert sorted(out.parent.rglob("*")) == before
    return error


@pytest.fixture
def place(tmp_path):
    """Where a folder would be written, alone in its parent."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "out"


def test_what_is_missing_is_named(verb, noise, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for to in ("onnx", "hub"):
        assert "pip install 'anigan_jax[onnx]'" in refused(verb, place, noise, "--to", to)
    with mock.patch("importlib.util.find_spec", return_value=None):
        said = refused(verb, place, noise, "--to", "stablehlo")
    assert "pip install 'anigan_jax[stablehlo]'" in said


def test_opsets_that_nobody_reads(verb, noise, place, monkeypatch):
    for opset in ("3", "999"):
        said = refused(verb, place, noise, "--to", "onnx", "--opset", opset)
        assert f"--opset is {opset}; onnx " in said

    def refuse(*_):
        raise RuntimeError("ONNX Runtime only *guarantees* support for models up to 16\nmore")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    said = refused(verb, place, noise, "--to", "onnx")
    assert "refuses opset 17: ONNX Runtime only *guarantees*" in said


@pytest.mark.long
def test_places_that_are_taken(verb, noise, place, tmp_path):
    place.mkdir()
    (place / "mine.txt").write_text("x")
    assert "is not empty" in refused(verb, place, noise, "--to", "hub")
    assert "is a file" in refused(verb, place / "mine.txt", noise, "--to", "onnx")
    assert "cannot be written" in refused(verb, place / "mine.txt" / "x", noise, "--to", "onnx")
    empty = tmp_path / "empty"
    killed = atomic.partial(empty)
    for folder in (empty, killed):
        folder.mkdir()
    (killed / "half.onnx").touch()
    assert verb("export", noise, "--to", "onnx", "--out", empty)[0] == 0
    assert sorted(path.name for path in empty.iterdir()) == ["generator.json", "generator.onnx"]
    assert not killed.exists()


def test_a_full_disk_leaves_nothing(verb, noise, place, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub, "card", full)
    said = refused(verb, place, noise, "--to", "hub")
    assert "cannot be written: No space left on device" in said


def test_a_runtime_that_computes_something_else(verb, noise, place, monkeypatch):
    monkeypatch.setattr(onnx, "feeds", lambda inputs: {"z": 2 * inputs["z"]})
    assert "computes different images" in refused(verb, place, noise, "--to", "onnx")


def test_a_run_without_a_generator(verb, place, tmp_path):
    run = untrained(tmp_path / "judge", "JUDGE")
    assert JUDGE.method.has_generator is False
    for to in ("onnx", "stablehlo", "hub"):
        assert "no generator" in refused(verb, place, run, "--to", to)
    assert "not a run directory" in refused(verb, place, tmp_path, "--to", "onnx")
