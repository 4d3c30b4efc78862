"""Images by their seeds, walks and sheets: `sample`, `interpolate`, and the same in Python."""

import stat
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image
from tiny import untrained

import anigan_jax
from anigan_jax import rng
from anigan_jax.cli import main
from anigan_jax.core import generator_of
from anigan_jax.errors import UserError
from anigan_jax.sampling import grids, latents, prompts, seeds
from anigan_jax.storage import images, video

PROMPT = "blue hair red eyes"


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("noise") / "run", "FULL")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("text") / "run", "TEXT")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_a_list_of_seeds():
    assert seeds.read("0-3,7") == [0, 1, 2, 3, 7]
    assert seeds.read(" 7, 0 - 3,2,4294967295") == [7, 0, 1, 2, 3, 4294967295]
    for wrong in ("", "a", "-1", "3-1", "1-", "1,,2", "0.5", "4294967296", "0-4000000000"):
        with pytest.raises(UserError, match="--seeds"):
            seeds.read(wrong)


@pytest.mark.long
@pytest.mark.parametrize("family", ["noise", "text"])
def test_a_file_a_seed_has_the_same_bytes_whatever_is_made_with_it(family, request, verb, tmp_path):
    """More than a batch, another order, alone; and as the library gives it."""
    run, got = request.getfixturevalue(family), {}
    for name in ("0-19,7,4294967295", "19,3", "3"):
        code, _, error = verb("sample", run, "--seeds", name, "--out", tmp_path / name)
        assert code == 0, error
        got[name] = files(tmp_path / name)
    first = got["0-19,7,4294967295"]
    assert sorted(first)[:2] == ["0000.png", "0001.png"]
    assert len(first) == 21
    assert len(set(first.values())) > 15
    assert got["3"]["0003.png"] == got["19,3"]["0003.png"] == first["0003.png"]
    assert got["19,3"]["0019.png"] == first["0019.png"]
    with Image.open(tmp_path / "3" / "0003.png") as image:
        pixels = np.asarray(image)
    model = anigan_jax.load(run)
    assert (model.generate(seeds=range(2, 5))[1] == pixels).all()
    assert (model.generate(1, seed=3)[0] == pixels).all()
    assert (model.generate(30, seed=3)[0] == pixels).all()


def test_the_place_in_a_batch_changes_no_bit(noise):
    """Before they are rounded, too."""
    model = anigan_jax.load(noise).model
    z = grids.latents_of(model.method, [5])
    params, stats = generator_of(model.state)
    draw, made = jax.jit(model.method.generate), []
    for at in range(grids.BATCH):
        others = grids.latents_of(model.method, range(10 * at, 10 * at + grids.BATCH))
        others[at] = z
        made.append(np.asarray(draw(params, stats, others))[at])
    assert all((image == made[0]).all() for image in made)


def test_latents_are_those_that_seeds_always_had(noise):
    method = anigan_jax.load(noise).method
    for seed in (0, 3, 2**32 - 1):
        key = rng.stream_key(rng.root_key(seed), rng.Stream.SAMPLE)
        want = np.asarray(rng.normal(rng.example_keys(key, np.arange(300)), (method.z_dim,)))
        assert (grids.latents(method, 300, seed) == want).all()
        assert (grids.latents_of(method, [1, seed])[1] == want[0]).all()
    assert (grids.latents(method, 2, 2**32 + 3) == grids.latents(method, 2, 3)).all()


def test_prompts_of_seeds(text, verb, tmp_path):
    words = ("--prompt", PROMPT, "--prompt", "red hair")
    code, out, error = verb("sample", text, "--seeds", "0-2", *words, "--out", tmp_path / "a")
    assert code == 0, error
    assert "6 images" in out
    names = sorted(files(tmp_path / "a"))
    assert [name[:19] for name in names[::2]] == [f"000{i}_blue_hair_red_" for i in range(3)]
    with Image.open(tmp_path / "a" / names[2]) as image:
        pixels = np.asarray(image)
    run = anigan_jax.load(text)
    assert (run.generate(seeds=[1], prompt=PROMPT)[0] == pixels).all()
    assert (run.generate(1, seed=1, prompt=PROMPT)[0] == pixels).all()
    code, out, error = verb("sample", text, "--seeds", "0-2", "--grid", *words)
    assert code == 0, error
    assert Image.open(out.strip()).width > 3 * 18 + 2


@pytest.mark.long
def test_a_sheet_of_seeds(noise, verb, tmp_path):
    code, out, error = verb("sample", noise, "--seeds", "4,2,9", "--grid")
    assert code == 0, error
    path = Path(out.strip())
    assert path.name == "step_000000000_seeds_4_2_9.png"
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (2 * 18 + 2, 2 * 18 + 2, 3)
    made = anigan_jax.load(noise).generate(seeds=[2])
    assert (sheet[2:18, 20:36] == made[0]).all()
    out = tmp_path / "mine.png"
    assert verb("sample", noise, "--n", 2, "--scale", 3, "--out", out)[1] == f"{out}\n"
    assert Image.open(out).size == (2 * 50 + 2, 52)


def test_the_default_place_is_in_the_run(noise, verb):
    code, out, _ = verb("sample", noise, "--seeds", "1", "--truncation", "0.7", "--scale", "2")
    folder = noise / "out/sample/step_000000000_truncated_0.7_lanczos_x2"
    assert (code, out) == (0, f"{folder}  (1 images)\n")
    assert Image.open(folder / "0001.png").size == (32, 32)


def test_truncated_latents_are_those_of_a_normal_distribution_cut_off():
    z = np.random.default_rng(0).standard_normal((40_000,)).astype(np.float32)
    for limit in (0.5, 1.0, 2.0):
        cut = grids.truncated(z, limit)
        assert cut.dtype == np.float32
        assert np.abs(cut).max() <= limit
        want = scipy.stats.truncnorm(-limit, limit)
        assert scipy.stats.kstest(cut, want.cdf).pvalue > 0.01
        # Each keeps its quantile.
        assert (np.argsort(cut) == np.argsort(z)).mean() > 0.99
    np.testing.assert_allclose(grids.truncated(z, 30.0), z, rtol=1e-6)
    np.testing.assert_allclose(grids.truncated([-9, 0, 9], 1.0), [-1, 0, 1], atol=1e-6)


def test_truncation_of_the_library(noise):
    run = anigan_jax.load(noise)
    plain, cut = run.generate(8), run.generate(8, truncation=0.1)
    assert cut.astype(float).std(axis=0).mean() < plain.astype(float).std(axis=0).mean()
    assert (run.generate(8, truncation=50) == plain).all()
    assert (run.generate(seeds=[0], truncation=0.1)[0] == cut[0]).all()


def test_enlargement():
    small = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    near = images.enlarged(small, 2, "nearest")
    assert (near[:, ::2, 1::2] == small).all()
    smooth = images.enlarged(small, 3)
    assert smooth.shape == (3, 12, 15, 3)
    assert (images.enlarged(small[1:2], 3)[0] == smooth[1]).all()
    flat = np.full((1, 4, 4, 3), 77, np.uint8)
    assert (images.enlarged(flat, 4) == 77).all()


def test_walks_through_seeds(noise, verb, tmp_path):
    words = ("--seeds", "3,8", "--frames", 6)
    code, out, error = verb("interpolate", noise, *words, "--out", tmp_path / "walk.gif")
    assert (code, out) == (0, f"{tmp_path / 'walk.gif'}\n"), error
    assert Image.open(tmp_path / "walk.gif").n_frames == 6
    code, out, error = verb("interpolate", noise, *words, "--scale", 2)
    assert code == 0, error
    gif, sheet = map(Path, out.split())
    assert gif.name == "step_000000000_seeds_3_8_lanczos_x2.gif"
    assert Image.open(gif).size == (32, 32)
    # Ten steps a leg; a leg begins at its seed.
    tiles = np.asarray(Image.open(sheet))
    ends = images.enlarged(anigan_jax.load(noise).generate(seeds=[3, 8]), 2)
    for i in range(2):
        assert np.abs(tiles[2 + 34 * i : 34 + 34 * i, 2:34] - ends[i].astype(int)).max() <= 1


def test_walks_through_seeds_lead_through_their_texts(text):
    """A stop is what its seed draws, with its own words; one text for all stays that text."""
    run = anigan_jax.load(text)
    held = latents.of_seeds(run.model, [5, 7, 9, 11])
    assert len(np.unique(held.text, axis=0)) > 1
    walk = grids.walk(run.model, held.z, 8, "walk", held.text)
    stops = np.stack([np.asarray(frame) for frame in walk.frames[::2]])
    assert (stops == run.generate(seeds=[5, 7, 9, 11])).all()
    one = np.tile(held.text[:1], (4, 1))
    for some in (one, one[0]):
        frame = grids.walk(run.model, held.z, 4, "walk", some).frames[1]
        assert (np.asarray(frame) == grids.generated(run.model, held.z, one)[1]).all()


def test_a_row_of_a_prompt_depends_on_no_other(text):
    """What it leaves open neither; and it is what Python makes of that prompt alone."""
    model = anigan_jax.load(text).model
    asked = prompts.read(model, ["red hair", "blue eyes"], "prompt")
    both, rows = prompts.ask(model, asked, 6, 0)
    alone, told = prompts.ask(model, asked[1:], 4, 0)
    assert (rows[6:10] == told).all()
    assert len(np.unique(told, axis=0)) > 1
    assert (both[1, :4] == alone[0]).all()
    assert (both[0] == anigan_jax.load(text).generate(6, prompt="red hair")).all()
    # Statistics count on independent images.
    _, twice = prompts.ask(model, asked[:1] * 2, 6, 0, same=False)
    assert (twice[:6] != twice[6:]).any()


def test_walks_by_seeds_are_those_of_the_texts(text, verb, tmp_path):
    """Without a prompt; the text of a prompt stays."""
    run, sheet = anigan_jax.load(text), tmp_path / "sheet.png"
    held = latents.of_seeds(run.model, [5, 7])
    file = latents.write(held, run.config, tmp_path / latents.FILE)
    for words, made in (
        (("--seeds", "5,7"), run.generate(seeds=[5, 7])),
        (("--latent", file), run.generate(seeds=[5, 7])),
        (("--seeds", "5,7", "--prompt", PROMPT), run.generate(seeds=[5, 7], prompt=PROMPT)),
    ):
        assert verb("interpolate", text, *words, "--frames", 2, "--out", sheet)[0] == 0
        tiles = np.asarray(Image.open(sheet))
        for i in range(2):
            assert (tiles[2 + 18 * i : 18 + 18 * i, 2:18] == made[i]).all()


def test_a_file_a_latent_is_named_by_it(noise, verb, tmp_path):
    """Names of one file, of folders and of none; the pixels of the seeds that they are of."""
    run, out = anigan_jax.load(noise), tmp_path / "made"
    names = ["a/me.jpg", "a/me.png", "../up", "A/ME.jpg", "7"]
    held = latents.of_seeds(run.model, [5, 7, 9, 11, 13, 15])._replace(names=names)
    file = latents.write(held, run.config, tmp_path / latents.FILE)
    words = ("sample", noise, "--latent", file, "--out", out)
    code, said, error = verb(*words)
    assert (code, said) == (0, f"{out}  (6 images)\n"), error
    got = files(out)
    assert len({name.casefold() for name in got}) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"made", latents.FILE}
    for name, seed in (("7.png", 13), ("0005.png", 15)):
        assert (np.asarray(Image.open(out / name)) == run.generate(seeds=[seed])[0]).all()
    assert verb(*words)[0] == 0
    code, _, error = verb(*words, "--scale", 2)
    assert code == 2
    assert "give another --out" in error
    assert files(out) == got
    assert verb(*words[:-1], tmp_path / "large", "--scale", 2)[0] == 0
    assert Image.open(tmp_path / "large" / "7.png").size == (32, 32)
    sheet = tmp_path / "sheet.png"
    assert verb(*words[:-1], sheet)[1] == f"{sheet}\n"
    code, _, error = verb(*words, "--grid")
    assert code == 2
    assert "must end in .png" in error


def test_a_file_a_latent_has_its_text_or_that_of_a_prompt(text, verb, tmp_path):
    run = anigan_jax.load(text)
    file = latents.write(latents.of_seeds(run.model, [5, 7]), run.config, tmp_path / latents.FILE)
    out = tmp_path / "texts"
    for words in ((), ("--prompt", PROMPT)):
        assert verb("sample", text, "--latent", file, "--out", out, *words)[0] == 0
    (asked,) = out.glob("7_blue_hair*.png")
    for path, prompt in ((out / "7.png", None), (asked, PROMPT)):
        made = run.generate(seeds=[7], prompt=prompt)[0]
        assert (np.asarray(Image.open(path)) == made).all()


FFMPEG = """#!/bin/sh
for last; do :; done
cat > "$last"
echo "$@" > "$(dirname "$0")/said"
"""


def test_walks_as_videos(noise, verb, tmp_path, monkeypatch):
    """By a stand-in that keeps the frames which it is given."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "ffmpeg"
    fake.write_text(FFMPEG)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    out = tmp_path / "walk.mp4"
    words = ("interpolate", noise, "--stops", 2, "--frames", 4, "--out", out)
    code, _, error = verb(*words)
    assert code == 0, error
    assert out.stat().st_size == 4 * 16 * 16 * 3
    said = (tmp_path / "bin" / "said").read_text()
    assert "-s 16x16 -r 1000/60" in said
    assert verb(*words, "--fps", 24)[0] == 0
    assert "-s 16x16 -r 24 " in (tmp_path / "bin" / "said").read_text()
    fake.write_text("#!/bin/sh\ncat > /dev/null\necho 'Unknown encoder' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"ffmpeg cannot write .*broken.mp4: Unknown encoder"):
        video.save_mp4([Image.new("RGB", (3, 5))], tmp_path / "broken.mp4", 25)
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "walk.mp4"}
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    code, _, error = verb(*words[:-1], tmp_path / "none.mp4")
    assert (code, error.count("\n")) == (2, 1)
    assert "ffmpeg, which is not installed" in error
    assert not (tmp_path / "none.mp4").exists()


def test_an_odd_side_is_padded_by_the_real_ffmpeg(tmp_path):
    try:
        video.need_ffmpeg()
    except UserError:
        pytest.skip("no ffmpeg")
    frames = [Image.new("RGB", (17, 15), (10 * i, 0, 0)) for i in range(5)]
    path = video.save_mp4(frames, tmp_path / "a.mp4", 25)
    probe = subprocess.run(["ffmpeg", "-i", path], capture_output=True, text=True).stderr
    assert "18x16" in probe


def test_a_walk_has_its_speed_and_its_frames(noise, tmp_path, verb):
    """A GIF counts in hundredths; a folder of frames has the pictures of the film."""
    words = ("interpolate", noise, "--stops", 2, "--frames", 4, "--out")
    for fps, milliseconds in ((0, 60), (30, 30), (40, 30), (50, 20), (1, 1000)):
        out = tmp_path / f"{fps}.gif"
        assert verb(*words, out, "--fps", fps)[0] == 0
        with Image.open(out) as film:
            assert (film.info["duration"], film.n_frames) == (milliseconds, 4)
    code, told, error = verb(*words, tmp_path / "frames")
    assert (code, told.strip()) == (0, str(tmp_path / "frames")), error
    made = sorted((tmp_path / "frames").iterdir())
    assert [path.name for path in made] == [f"{i:04d}.png" for i in range(4)]
    run = anigan_jax.load(noise)
    walk = grids.walk(run.model, grids.latents(run.method, 2, 0), 4, "walk")
    assert all(
        (np.asarray(Image.open(p)) == f).all() for p, f in zip(made, walk.frames, strict=True)
    )
    code, _, error = verb(*words, tmp_path / "frames")
    assert code == 2 and "empty" in error


BAD = {
    "too fast": (["interpolate", "RUN", "--fps", "51"], "at most 50"),
    "fps": (["interpolate", "RUN", "--fps", "-1"], "--fps is -1"),
    "fps of a folder": (["interpolate", "RUN", "--fps", "9", "--out", "x"], "leave it out"),
    "no list": (["sample", "RUN", "--seeds", "1-"], "not a list of seeds"),
    "with n": (["sample", "RUN", "--seeds", "1", "--n", "3"], "leave out --n and --seed"),
    "a folder for a sheet": (["sample", "RUN", "--n", "3", "--out", "x"], "writes a folder"),
    "a sheet for files": (["sample", "RUN", "--seeds", "3", "--out", "x.png"], "--grid"),
    "a photo for files": (["sample", "RUN", "--seeds", "3", "--out", "x.jpg"], "--grid"),
    "a file": (["sample", "RUN", "--seeds", "3", "--out", "there"], "there is a file"),
    "in a file": (["sample", "RUN", "--seeds", "3", "--out", "there/x"], "there is a file"),
    "another kind": (["sample", "RUN", "--seeds", "3", "--out", "x.gif"], "leave out .gif"),
    "truncation": (["sample", "RUN", "--truncation", "0"], "truncation is 0"),
    "scale": (["interpolate", "RUN", "--scale", "33"], "scale is 33; it must be 1 to 32"),
    "one seed": (["interpolate", "RUN", "--seeds", "5,5"], "--seeds 5,5 gives a path of 1 "),
    "one stop": (["interpolate", "RUN", "--stops", "1"], "--stops 1 gives a path of 1 latent"),
    "few frames": (["interpolate", "RUN", "--seeds", "5,7,9", "--frames", "2"], "--frames is 2; "),
    "no video": (["interpolate", "RUN", "--out", "walk.avi"], "must end in .gif, .mp4, .png"),
    "prompt": (["sample", "RUN", "--seeds", "1", "--prompt", PROMPT], "without texts"),
    "checkpoint": (["sample", "RUN", "--seeds", "1", "--checkpoint", "7"], "no checkpoint of step"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_leaves_nothing(name, noise, verb, tmp_path, monkeypatch):
    words, said = BAD[name]
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    code, out, error = verb(*[noise if word == "RUN" else word for word in words])
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert said in error
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_bad_arguments_of_the_library(noise):
    run = anigan_jax.load(noise)
    for given, said in (
        ({}, "how many"),
        ({"n": 1, "seeds": [1]}, "leave out n, seed and latents"),
        ({"seeds": []}, "one or more"),
        ({"seeds": [-1]}, "has -1"),
        ({"n": 1, "truncation": -1}, "truncation is -1"),
    ):
        with pytest.raises(UserError, match=said):
            run.generate(**given)


def test_every_picture_verb_chooses_its_checkpoint(verb):
    for name in main.GROUPS["pictures of a run"]:
        assert "--checkpoint best|latest|STEP" in verb("help", name)[1]
