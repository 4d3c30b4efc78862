"""What is taken out of a run: nothing of the user's is written over, and moved runs go on."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sources import faces, write
from tiny import untrained

import anigan_jax
from anigan_jax.errors import UserError
from anigan_jax.evaluation import checkpoint_quality
from anigan_jax.export import about
from anigan_jax.report import files, sinks
from anigan_jax.runtime import environment
from anigan_jax.sampling import latents
from anigan_jax.storage import lock, safetensors
from anigan_jax.trained import with_data


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("noise") / "run", "FULL")


@pytest.fixture(scope="module")
def cycle(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("cycle") / "run", "CYCLE")


def picture(path, color="red", side=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), color).save(path)
    return path


def test_seeds_in_a_folder_of_ones_own_pictures(verb, noise, tmp_path):
    mine = picture(tmp_path / "faces" / "0001.png").read_bytes()
    words = ("sample", noise, "--seeds", "0-2", "--out", tmp_path / "faces")
    code, _, error = verb(*words)
    assert code == 2
    assert "0001.png already exists" in error and "--out" in error
    assert (tmp_path / "faces/0001.png").read_bytes() == mine
    # Nor is another one written before that is seen.
    assert [path.name for path in (tmp_path / "faces").iterdir()] == ["0001.png"]
    # The same command once more is no loss.
    for _ in range(2):
        assert verb(*words[:-1], tmp_path / "new")[0] == 0
    # In its own folder a run's newer pictures take the place of older ones.
    place = noise / "out/sample"
    assert verb("sample", noise, "--seeds", "0")[0] == 0
    (written,) = place.glob("step_*/0000.png")
    written.write_bytes(b"older")
    assert verb("sample", noise, "--seeds", "0")[0] == 0
    assert Image.open(written).size


@pytest.mark.long
def test_photos_are_not_written_over(verb, cycle, tmp_path):
    photo = picture(tmp_path / "album/images/anna.png")
    before = photo.read_bytes()
    picture(tmp_path / "album/images/aaa.jpg")
    folder, album = tmp_path / "album/images", tmp_path / "album"
    for out, told in ((album, "anna.png already exists"), (folder, "is one of the inputs")):
        code, _, error = verb("translate", cycle, folder, "--out", out)
        assert (code, told in error) == (2, True), error
    assert not list(album.glob("*.png")) and len(list(folder.iterdir())) == 2
    assert verb("translate", cycle, photo, "--out", photo)[0] == 2
    # What was made is not read the next time.
    for _ in range(2):
        code, said, error = verb("translate", cycle, folder, "--out", folder / "new")
        assert (code, "(2)" in said) == (0, True), error
    assert photo.read_bytes() == before


@pytest.mark.long
def test_one_photo_becomes_one_picture(verb, cycle, tmp_path):
    photo = picture(tmp_path / "me.png", "blue")
    code, said, error = verb("translate", cycle, photo, "--out", tmp_path / "anime.png")
    assert (code, said.strip()) == (0, str(tmp_path / "anime.png")), error
    run = anigan_jax.load(cycle)
    size = run.config.method.size
    small = np.asarray(Image.open(photo).resize((size, size)))
    want = run.translate(small[None])[0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "anime.png")), want)
    # Of several, or of another kind, it is a folder.
    for words in ((photo, photo, "--out", "x.png"), (photo.parent, "--out", "x.png"),
                  (photo, "--out", "x.jpg")):  # fmt: skip
        code, _, error = verb("translate", cycle, *words)
        assert code == 2
        assert "folder" in error


def report(*judges, n):
    return {"protocols": dict.fromkeys(judges), "sets": {"generated": {"n": n}}}


def test_a_quick_look_does_not_take_the_place_of_many_images(tmp_path):
    path = tmp_path / "step_000000008.json"

    def save(*judges, n):
        said = report(*judges, n=n)
        place = checkpoint_quality.place_beside(path, said, ("closest",))
        page = {"closest": Image.new("RGB", (n, 1))}
        checkpoint_quality.write(json.dumps(said), page, place)
        return place.name

    assert save("random", n=20) == path.name
    # The same again is in the same place, and one of more images takes it.
    assert save("random", n=20) == path.name
    assert save("vgg16", n=1000) == path.name
    assert save("vgg16", "judge", n=50) == "step_000000008_by_vgg16_judge_50.json"
    kept = {
        p.name: json.loads(p.read_text())["sets"]["generated"]["n"] for p in tmp_path.glob("*.json")
    }
    assert kept == {
        path.name: 1000,
        "step_000000008_by_random_20.json": 20,
        "step_000000008_by_vgg16_judge_50.json": 50,
    }
    for name, n in kept.items():
        assert Image.open(tmp_path / name.replace(".json", "_closest.png")).width == n
    path.write_text("no JSON")
    assert checkpoint_quality.place_beside(path, report("vgg16", n=2), ()) == path


def test_weights_of_two_runs_in_one_folder(verb, noise, tmp_path):
    said = []
    for name in ("a", "b"):
        verb("export", noise, "--to", "weights", "--out", tmp_path / name)
        weights = tmp_path / name / safetensors.WEIGHTS
        shutil.copy(weights, tmp_path / f"{name}.safetensors")
        code, out, error = verb("sample", tmp_path / f"{name}.safetensors", "--n", 1)
        assert code == 0, error
        said.append(out)
    assert said[0] != said[1]


def test_what_is_published_has_no_folder_of_ones_own(noise):
    config = anigan_jax.load(noise).config
    config = dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, eval_second="/home/me/secret/judge"),
        parent=dataclasses.replace(config.parent, run="/home/me/secret/run@best"),
    )
    assert "secret" not in str(about.published(config))
    assert "secret" in str(config)


@pytest.mark.parametrize("switch", environment.SWITCHES)
def test_runs_do_not_depend_on_a_switch_of_jax(noise, switch, monkeypatch):
    """As a variable sets it; what a process switches on by itself is its own (test_read_again)."""
    import jax

    want = anigan_jax.load(noise).generate(2, seed=3)
    other = not environment.SWITCHES[switch]
    monkeypatch.setenv(switch.upper(), str(int(other)))
    jax.config.update(switch, other)
    try:
        np.testing.assert_array_equal(anigan_jax.load(noise).generate(2, seed=3), want)
    finally:
        jax.config.update(switch, environment.SWITCHES[switch])


@pytest.mark.parametrize("verb_of", ["sample", "interpolate", "history"])
def test_a_seed_that_would_be_another_is_refused(verb, noise, verb_of):
    for seed in (-1, 2**32):
        code, _, error = verb(verb_of, noise, "--seed", seed)
        assert code == 2
        assert str(2**32 - 1) in error


@pytest.mark.parametrize(
    "words", [{"n": 0}, {"n": 2.5}, {"seed": -1}, {"judges": "random"}, {"judges": []}]
)
def test_what_cannot_be_judged_is_said(noise, words):
    with pytest.raises(UserError, match=next(iter(words))):
        anigan_jax.load(noise).evaluate(**words)


@pytest.mark.long
def test_a_run_whose_images_were_moved(verb, tmp_path):
    data = write(tmp_path / "here", faces(44))
    words = ("--data.path", data, "--data.test", 0.2, "--run.steps", 1, "--batch-size", 8)
    small = ("--size", 16, "--method.generator.base-channels", 4, "--run.devices", 1)
    small += ("--method.discriminator.base-channels", 4)
    code, _, error = verb("train", "anime_faces", "--workdir", tmp_path / "run", *words, *small)
    assert code == 0, error
    wanted = ("--n", 6, "--judge", "random", "--json")
    code, before, error = verb("evaluate", tmp_path / "run", *wanted)
    assert code == 0, error
    (tmp_path / "here").rename(tmp_path / "there")
    code, _, error = verb("evaluate", tmp_path / "run", *wanted)
    assert code == 2
    assert "--data DATA" in error and "here" in error
    code, after, error = verb("evaluate", tmp_path / "run", "--data", tmp_path / "there", *wanted)
    assert (code, "note" in error) == (0, False), error
    assert json.loads(after)["sets"] == json.loads(before)["sets"]
    # Weights that were exported know no place at all.
    assert verb("export", tmp_path / "run", "--to", "weights", "--out", tmp_path / "w")[0] == 0
    assert "--data DATA" in verb("evaluate", tmp_path / "w", *wanted)[2]
    code, _, error = verb("evaluate", tmp_path / "w", "--data", tmp_path / "there", *wanted)
    assert code == 0, error
    # Others are told, and Python has the same.
    other = write(tmp_path / "other", faces(50))
    assert "not the images" in verb("evaluate", tmp_path / "run", "--data", other, *wanted)[2]
    found = anigan_jax.load(tmp_path / "run").evaluate(6, ["random"], data=tmp_path / "there")
    assert found["sets"]["generated"]["n"] == 6


def test_a_run_without_its_checkpoints_has_its_weights(verb, noise, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    verb("export", noise, "--to", "weights", "--out", tmp_path / "w")
    shutil.copy(noise / "run.json", bare)
    shutil.copy(tmp_path / "w" / safetensors.WEIGHTS, bare)
    code, _, error = verb("sample", bare, "--n", 1)
    assert code == 0, error
    code, _, error = verb("sample", bare, "--n", 1, "--checkpoint", 8)
    assert code == 2


def test_the_page_shows_the_report_of_the_most_images(tmp_path):
    for name in ("step_000000008", "step_000000008_by_random_50", "step_000000004"):
        (tmp_path / f"{name}.json").write_text("{}")
    assert files.newest(tmp_path, "*.json").stem == "step_000000008"


def test_two_runs_log_into_one_folder(noise, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(noise, copy)
    first, second = (
        sinks.place_of("tensorboard", run, folder=tmp_path / "out") for run in (noise, copy)
    )
    with lock.hold(first.log), lock.hold(second.log):
        pass
    assert not (noise / "log").exists()
    # Where the folder is the run's own, its training is not locked out.
    own = sinks.place_of("tensorboard", copy, folder=copy)
    with lock.hold(own.log), lock.hold(copy):
        pass


def test_what_is_read_is_not_written(verb, noise, cycle, tmp_path):
    photo = picture(tmp_path / "me.png")
    before = photo.read_bytes()
    for words in (("history", cycle, photo), ("compare", cycle, cycle, photo)):
        code, _, error = verb(*words, "--out", photo)
        assert (code, "is one of the inputs" in error) == (2, True), error
    assert photo.read_bytes() == before
    (tmp_path / "work").mkdir()
    (tmp_path / "work/latents.safetensors").write_bytes(b"found")
    code, _, error = verb("edit", noise, "--out", tmp_path / "work")
    assert (code, "already holds latents" in error) == (2, True), error


@pytest.mark.parametrize("verb_of", ["history", "kernels"])
def test_a_sheet_goes_where_it_is_told(verb, noise, tmp_path, verb_of):
    out = tmp_path / "new" / "sheet.png"
    code, said, error = verb(verb_of, noise, "--out", out)
    assert (code, said.strip()) == (0, str(out)), error
    assert Image.open(out).size
    assert verb(verb_of, noise, "--out", tmp_path / "sheet.jpg")[0] == 2


def test_latents_fit_the_weights_that_are_exported(noise, tmp_path):
    """Also of a run with a parent, which its exports do not name."""
    run = anigan_jax.load(noise)
    parent = dataclasses.replace(run.config.parent, run="runs/other@best")
    config = dataclasses.replace(run.config, parent=parent)
    held = latents.of_seeds(run.model, [1, 2])
    path = latents.write(held, config, tmp_path / "found.safetensors")
    read = latents.read(path, about.published(config), run.model)
    np.testing.assert_array_equal(read.z, held.z)
    other = dataclasses.replace(config, seed=config.seed + 1)
    with pytest.raises(UserError, match="another run"):
        latents.read(path, other, run.model)


def test_two_sources_that_were_moved_are_one_now():
    config = anigan_jax.load_config("tsinghua_cyclegan", "--data.path", "a", "--data.path-b", "b")
    moved = with_data(config, "both").data
    assert (moved.path, moved.path_b) == ("both", "")
    with pytest.raises(UserError, match="draws its own"):
        with_data(anigan_jax.load_config("quickstart"), "both")
    pattern = anigan_jax.load_config("anime_faces", "--data.path", "faces_[ab].zip")
    assert with_data(pattern, "") is pattern
