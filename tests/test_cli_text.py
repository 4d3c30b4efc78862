"""The verbs of text GANs on good and bad input, in real processes."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import anigan, write_config

from anigan_jax.storage import checkpoint, metrics_file

WITHOUT = "blue hair red eyes"


def config_file(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    return write_config(folder, name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A tiny text GAN and a tiny classifier, each from a config file of its own."""
    folder = tmp_path_factory.mktemp("text")
    text = config_file(folder / "a", "TEXT")
    options = ["--data.count", 200, "--data.without", WITHOUT]
    done = anigan("train", text, "--workdir", folder / "gan", *options)
    assert done.returncode == 0, done.stderr
    judge = config_file(folder / "b", "JUDGE")
    made = anigan("train", judge, "--workdir", folder / "judge")
    assert made.returncode == 0, made.stderr
    plain = config_file(folder / "c", "PLAIN")
    assert anigan("train", plain, "--workdir", folder / "plain").returncode == 0
    big = [judge, "--data.size", 32, "--method.network.size", 32, "--run.steps", 4]
    assert anigan("train", *big, "--workdir", folder / "big").returncode == 0
    return folder, text, options, made


def picture(done) -> Image.Image:
    assert done.returncode == 0, done.stderr
    return Image.open(done.stdout.split()[-1])


def test_a_row_for_each_prompt(runs, tmp_path):
    gan = runs[0] / "gan"
    file = tmp_path / "prompts.txt"
    file.write_text("1,green hair blue eyes\n\n2,red hair\n")
    page = picture(
        anigan("sample", gan, "--prompt", "aqua eyes, pink hair", "--prompts", file, "--n", 5)
    )
    assert page.height == 3 * 18 + 2
    assert page.width > 5 * 18 + 2
    again = anigan("sample", gan, "--prompt", "aqua eyes, pink hair", "--prompts", file, "--n", 5)
    assert picture(again).tobytes() == page.tobytes()
    other = anigan("sample", gan, "--prompt", "aqua eyes, blue hair", "--prompts", file, "--n", 5)
    assert picture(other).tobytes() != page.tobytes()


def test_samples_without_a_prompt_take_texts_of_the_data(runs):
    page = picture(anigan("sample", runs[0] / "gan", "--n", 3))
    assert page.size == (2 * 18 + 2, 2 * 18 + 2)


def test_the_table_of_colors(runs):
    page = np.asarray(picture(anigan("table", runs[0] / "gan")))
    assert page.shape[0] > 12 * 18
    assert page.shape[1] > 11 * 18


def test_paths_between_prompts_and_between_latents(runs):
    gan = runs[0] / "gan"
    ends = ["--prompt", "red hair blue eyes", "--prompt", "blue hair green eyes"]
    done = anigan("interpolate", gan, *ends, "--frames", 6, "--stops", 2)
    assert done.returncode == 0, done.stderr
    gif, sheet = done.stdout.split()
    assert Image.open(gif).n_frames == 10  # there and back
    tiles = np.asarray(Image.open(sheet))
    assert tiles.shape[1] > 10 * 18
    done = anigan("interpolate", gan, *ends[:2], "--frames", 6, "--stops", 2)
    assert done.returncode == 0, done.stderr
    assert Image.open(done.stdout.split()[0]).n_frames == 6


def test_pictures_of_other_prompts_are_other_files(runs):
    gan = runs[0] / "gan"
    paths = {
        anigan(*verb, "--prompt", prompt).stdout.split()[-1]
        for prompt in ("red hair", "blue eyes")
        for verb in (("sample", gan, "--n", 1), ("history", gan, "--n", 1))
    }
    assert len(paths) == 4


def test_one_prompt_over_the_training(runs):
    gan = runs[0] / "gan"
    # keep_every keeps what keep_checkpoints alone would delete.
    assert checkpoint.steps(gan / "checkpoints") == [4, 8]
    page = picture(anigan("history", gan, "--prompt", "red hair blue eyes", "--n", 2))
    assert page.height > 2 * 18


def test_accuracy_by_a_classifier(runs):
    folder = runs[0]
    done = anigan("accuracy", folder / "gan", "--classifier", folder / "judge", "--n", 2)
    assert done.returncode == 0, done.stderr
    for part in ("ceiling: ", "seen: ", "unseen: ", "shuffled", "chance", "other images"):
        assert part in done.stdout
    report = json.loads(
        anigan(
            "accuracy", folder / "gan", "--classifier", folder / "judge", "--n", 2, "--json"
        ).stdout
    )
    pairs = report["seen"]["pairs"] + report["unseen"]["pairs"]
    assert pairs <= 132
    assert report["seen"]["prompts"]["hair"]["n"] == 2 * report["seen"]["pairs"]
    for share in report["unseen"]["prompts"].values():
        assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1
    assert abs(report["seen"]["chance"]["hair"] - 1 / 12) < 0.02
    # A third of 60 images is held out, whole groups at a time.
    assert 5 < report["ceiling"]["prompts"]["hair"]["n"] < 40
    assert 0 <= report["ceiling"]["mean_over_colors"]["eyes"] <= 1


def test_a_classifier_tells_its_accuracy_at_the_end(runs):
    made = runs[3]
    for part in ("accuracy/hair", "accuracy/eyes", "accuracy/both", "judged at step 8"):
        assert part in made.stdout
    lines = (runs[0] / "judge/evaluation.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8]


BAD = {
    "color": (["sample", "GAN", "--prompt", "mauve hair"], ["'mauve'", "Known colors"]),
    "typo": (["sample", "GAN", "--prompt", "bleu hair red eyes"], ["did you mean 'blue'"]),
    "empty": (["sample", "GAN", "--prompt", ""], ["no prompts"]),
    "file": (["sample", "GAN", "--prompts", "no.txt"], ["no.txt"]),
    "no texts": (["sample", "PLAIN", "--prompt", "red hair"], ["without texts"]),
    "no table": (["table", "PLAIN"], ["without texts"]),
    "too many": (["interpolate", "GAN", *["--prompt", "red hair"] * 3], ["3 times"]),
    "no judge": (["accuracy", "GAN", "--classifier", "GAN"], ["no run of a classifier"]),
    "no generator": (["sample", "JUDGE"], ["no generator"]),
    "judge with prompt": (["sample", "JUDGE", "--prompt", "red hair"], ["without texts"]),
    "judged": (["accuracy", "PLAIN", "--classifier", "JUDGE"], ["without texts"]),
    "seed": (["sample", "GAN", "--prompt", "red hair", "--seed", "-1"], ["--seed: -1 is below 0"]),
    "sizes": (["accuracy", "GAN", "--classifier", "BIG"], ["32 px", "16 px"]),
    "count": (["history", "GAN", "--prompt", "red hair", "--n", "0"], ["--n is 0"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_message_and_exit_code_2(runs, name):
    arguments, named = BAD[name]
    places = {"GAN": "gan", "PLAIN": "plain", "JUDGE": "judge", "BIG": "big"}
    done = anigan(*[runs[0] / places[a] if a in places else a for a in arguments])
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(part in done.stderr for part in named), done.stderr
    assert "Traceback" not in done.stderr


def test_a_text_run_resumes_and_replays(runs, tmp_path):
    """Half, then the whole: the bits of the uninterrupted run; then `replay` proves it."""
    folder, text, options, _ = runs
    for steps in (4, 8):
        done = anigan("train", text, "--workdir", tmp_path / "two", "--run.steps", steps, *options)
        assert done.returncode == 0, done.stderr
    leaves = [
        json.loads((run / "checkpoints/step_000000008/manifest.json").read_text())["leaves"]
        for run in (folder / "gan", tmp_path / "two")
    ]
    assert leaves[0] == leaves[1]
    done = anigan("replay", tmp_path / "two")
    assert done.returncode == 0, done.stdout
    assert "identical through step 8" in done.stdout


def test_the_streamed_feed_carries_the_labels(runs, tmp_path):
    """Texts are drawn from labels that travel with the images: the same bits."""
    folder, text, options, _ = runs
    rest = ["--run.input", "host", "--run.mapper", "shard_map", *options]
    done = anigan("train", text, "--workdir", tmp_path / "run", *rest)
    assert done.returncode == 0, done.stderr
    prints = [
        [m["fingerprint"] for m in metrics_file.read_metrics(run / "metrics.jsonl")]
        for run in (folder / "gan", tmp_path / "run")
    ]
    assert prints[0] == prints[1]
    assert len(prints[0]) == 9


def test_a_dry_run_of_texts_writes_nothing(runs, tmp_path):
    done = anigan("train", runs[1], "--workdir", tmp_path / "none", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "8 steps" in done.stdout
    assert not (tmp_path / "none").exists()


def test_frozen_texts_that_changed_are_refused(runs, tmp_path):
    _, text, options, _ = runs
    run = tmp_path / "run"
    done = anigan("train", text, "--workdir", run, "--run.steps", 4, *options)
    assert done.returncode == 0, done.stderr
    data = bytearray((run / "frozen.safetensors").read_bytes())
    data[-1] ^= 1
    (run / "frozen.safetensors").write_bytes(data)
    done = anigan("train", text, "--workdir", run, *options)
    assert done.returncode == 2
    assert "checksum" in done.stderr


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--data.without", "mauve hair red eyes"], "mauve"),
        (["--data.without", "red hair"], "names one part"),
        (["--method.int-beta", "2"], "int_beta"),
        (["--method.encoder.kind", "char_cnn_rnn"], "sjtu_text_encoder"),
        (["--method.encoder.kind", "precomputed", "--method.encoder.path", "x"], "'x'"),
    ],
)
def test_bad_settings_write_nothing(runs, tmp_path, option, named):
    done = anigan("train", runs[1], "--workdir", tmp_path / "run", *option)
    assert done.returncode == 2
    assert named in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_text_encoder_is_needed_only_at_the_start(runs, tmp_path):
    """Trained, read into a text GAN, deleted: the run resumes, reads prompts, and replays."""
    reader = config_file(tmp_path / "a", "READER")
    done = anigan("train", reader, "--workdir", tmp_path / "encoder", "--run.steps", 20)
    assert done.returncode == 0, done.stderr
    assert "retrieval/image_to_text" in done.stdout
    text = config_file(tmp_path / "b", "READS")
    options = ["--method.encoder.path", tmp_path / "encoder"]
    command = ["train", text, "--workdir", tmp_path / "gan", *options]
    done = anigan(*command, "--run.steps", 4)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "encoder")
    for more in ([], ["--dry-run"]):
        done = anigan(*command, *more)
        assert done.returncode == 0, done.stderr
    words = ["a girl with silver hair and red eyes", "gray hair red eyes"]
    pages = [picture(anigan("sample", tmp_path / "gan", "--prompt", w, "--n", 2)) for w in words]
    tiles = [np.asarray(page)[:, -38:] for page in pages]
    # Two wordings of one pair are two vectors, hence other pixels.
    assert (tiles[0] != tiles[1]).any()
    done = anigan("replay", tmp_path / "gan")
    assert "identical through step 8" in done.stdout, done.stdout + done.stderr


def test_a_pack_cannot_leave_out_what_it_holds(tmp_path):
    """`data.without` on a finished pack would silently train on the pair."""
    names = [f"{i:03}" for i in range(12)]
    rows = []
    for i, name in enumerate(names):
        pair = ("blue hair red eyes", "red hair blue eyes", "pink hair gray eyes")[i % 3]
        (tmp_path / "in").mkdir(exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "in" / f"{name}.png")
        rows.append(f"{name},{pair}")
    (tmp_path / "in" / "tags.csv").write_text("\n".join(rows) + "\n")
    whole = ["import", tmp_path / "in", "--size", 16, "--test", 0]
    assert anigan(*whole, "--out", tmp_path / "whole").returncode == 0
    part = [*whole, "--without", "blue hair red eyes", "--out", tmp_path / "part"]
    assert anigan(*part).returncode == 0
    assert "unchanged" in anigan(*part).stdout
    config = config_file(tmp_path / "c", "IMAGES")
    sizes = {}
    for name, code in (("whole", 2), ("part", 0)):
        run = ["train", config, "--workdir", tmp_path / f"run_{name}", "--data.path"]
        done = anigan(*run, tmp_path / name, "--data.without", "blue hair red eyes", "--dry-run")
        assert done.returncode == code, done.stderr
        sizes[name] = done
    assert "import again with --without" in sizes["whole"].stderr
    assert "8 images" in sizes["part"].stdout
