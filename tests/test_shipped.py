"""Models that come with the package, and the small files that they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import untrained

import anigan_jax
from anigan_jax import shipped
from anigan_jax.cli import evaluate
from anigan_jax.errors import UserError
from anigan_jax.storage import safetensors

LARGEST = 2 * 2**20


def different(images: np.ndarray) -> bool:
    """Whether (n, H, W, 3) images are pictures, and not the same one."""
    return images.std() > 20 and np.abs(images[0].astype(int) - images[1]).mean() > 3


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_model_is_small_and_names_no_folder(name):
    file = shipped.file_of(name)
    assert file.stat().st_size <= LARGEST
    held = safetensors.read(file)
    assert {str(array.dtype) for array in held.values()} <= {"float16", "float32", "int32"}
    config = anigan_jax.load(name).config
    assert config.data.drawn
    assert not config.parent.run
    assert "/" not in getattr(config.data, "path", "")


def test_there_is_one_for_noise_words_and_photos():
    assert shipped.NAMES == ("painted/noise", "painted/photos", "painted/words")


def test_faces_from_noise():
    images = anigan_jax.load("painted/noise").generate(4, seed=3)
    assert images.shape == (4, 64, 64, 3)
    assert different(images)


def test_words_change_what_they_name():
    run = anigan_jax.load("painted/words")
    blue, red = (
        run.generate(4, seed=1, prompt=f"{hair} hair green eyes")[:, 8:20, 20:44].mean((0, 1, 2))
        for hair in ("blue", "red")
    )
    assert blue[2] > blue[0] + 40
    assert red[0] > red[2] + 40


@pytest.mark.long
def test_photos_become_other_pictures():
    from anigan_jax.data.synthetic import photo

    source = np.stack([photo.paint(5, i, 64) for i in range(2)])
    run = anigan_jax.load("painted/photos")
    made = run.translate(source)
    assert different(made)
    assert np.abs(made.astype(int) - source).mean() > 5
    back = run.translate(made, "ba")
    assert np.abs(back.astype(int) - source).mean() < np.abs(made.astype(int) - source).mean()


def test_a_verb_takes_its_name_and_writes_where_it_is_called(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Twice: the folder of what it made has the name of the model.
    for seed in "01":
        code, out, error = verb("sample", "painted/noise", "--n", "4", "--seed", seed)
        assert code == 0, error
        path = tmp_path / out.strip()
        assert path.is_relative_to(tmp_path / "painted/noise/out/sample")
        assert Image.open(path).size[0] > 64


def test_a_name_that_is_none_is_refused(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = verb("sample", "painted/wrods")
    assert code == 2
    assert "painted/words" in error
    assert "Traceback" not in error
    with pytest.raises(UserError, match=r"runs/none does not exist$"):
        anigan_jax.load("runs/none")
    code, _, error = verb("evaluate", "painted/noise", "--checkpoint", "best")
    assert code == 2
    assert "Traceback" not in error
    for words in ((), ("--epochs", "1")):
        code, _, error = verb("history", "painted/noise", *words)
        assert (code, "holds only weights" in error) == (2, True), error


@pytest.mark.long
@pytest.mark.parametrize("name", ["FULL", "TEXT", "CYCLE"])
def test_small_weights_draw_as_the_run(verb, tmp_path, name):
    run = untrained(tmp_path / "run", name)
    code, out, error = verb("export", run, "--to", "weights", "--out", tmp_path / "w")
    assert code == 0, error
    assert "float16" in out
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["weights.safetensors"]
    small, whole = anigan_jax.load(tmp_path / "w"), anigan_jax.load(run)
    assert set(small.params) == {"g"}
    if name == "CYCLE":
        source = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
        pairs = [
            (small.translate(source, way), whole.translate(source, way)) for way in ("ab", "ba")
        ]
    else:
        prompt = "blue hair red eyes" if name == "TEXT" else None
        pairs = [(small.generate(4, prompt=prompt), whole.generate(4, prompt=prompt))]
    for one, other in pairs:
        # Half precision keeps 11 bits; images have 8.
        assert np.abs(one.astype(int) - other).max() <= 3
        assert other.std() > 1
    sizes = (tmp_path / "w", run)
    small_size, whole_size = ((p / "weights.safetensors").stat().st_size for p in sizes)
    assert small_size < 0.6 * whole_size


def test_small_weights_of_a_classifier_are_refused(verb, tmp_path):
    run = untrained(tmp_path / "run", "JUDGE")
    code, _, error = verb("export", run, "--to", "weights", "--out", tmp_path / "w")
    assert code == 2
    assert "no generator" in error
    assert not (tmp_path / "w").exists()


def test_a_name_stands_for_a_run_also_after_its_first_output(tmp_path, monkeypatch):
    """What verbs make of it lies in a folder of that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "painted/noise/out").mkdir(parents=True)
    evaluate._check_subject(Path("painted/noise"), "", None, True)
    with pytest.raises(UserError, match="leave out --against"):
        evaluate._check_subject(Path("painted/noise"), "FACES", None, True)
    (tmp_path / "fakes").mkdir()
    with pytest.raises(UserError, match="not a run directory"):
        evaluate._check_subject(Path("fakes"), "", None, True)


def test_it_can_be_published_and_says_what_it_was_trained_on(tmp_path, verb):
    code, _, err = verb("export", "painted/noise", "--to", "hub", "--out", tmp_path / "hub")
    assert code == 0, err
    card = (tmp_path / "hub/README.md").read_text()
    assert "Not measured" in card
    assert "averaged weights" in card
    assert "none needed" in card
    # Its file is older than the note of which weights it holds: those that it draws with.
    anigan_jax.load("painted/noise", weights="ema")
    with pytest.raises(UserError, match="only the averaged weights"):
        anigan_jax.load("painted/noise", weights="raw")
    words = ("--to", "weights", "--data-license", "CC BY 4.0", "--out", tmp_path / "small")
    code, _, err = verb("export", "painted/noise", *words)
    assert code == 0, err
    told = safetensors.metadata(tmp_path / "small" / safetensors.WEIGHTS)
    assert told["data_license"] == "CC BY 4.0"
    with pytest.raises(UserError, match="only the averaged weights"):
        anigan_jax.load(tmp_path / "small", weights="raw")
    assert anigan_jax.load(tmp_path / "small").generate(1, seed=0).shape == (1, 64, 64, 3)
