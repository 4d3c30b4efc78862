"""The verbs of text GANs on good and bad input; trainings in real processes."""

import json
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image
from processes import leaves
from tiny import anigan, untrained, write_config

import anigan_jax
from anigan_jax.data.attributes import Attribute
from anigan_jax.methods import text_conditioning
from anigan_jax.sampling import prompts
from anigan_jax.storage import checkpoint, metrics_file
from anigan_jax.storage import images as record

pytestmark = pytest.mark.long

WITHOUT = "blue hair red eyes"


OPTIONS = ("--data.count", 200, "--data.without", WITHOUT)


def config_file(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    return write_config(folder, name)


@pytest.fixture(scope="module")
def gan(trained, tmp_path_factory):
    """A tiny text GAN, to write into."""
    return trained("TEXT", *OPTIONS).copy(tmp_path_factory.mktemp("text") / "gan")


@pytest.fixture(scope="module")
def judge(trained):
    return trained("JUDGE")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A GAN without texts, and a classifier of larger images; nothing asks what they learned."""
    folder = tmp_path_factory.mktemp("others")
    big = ("--data.size", "32", "--method.network.size", "32")
    return untrained(folder / "a", "PLAIN"), untrained(folder / "b", "JUDGE", *big)


def picture(found) -> Image.Image:
    code, out, err = found
    assert code == 0, err
    return Image.open(out.split()[-1])


def test_the_prompt_that_is_shown_is_one_of_the_data(trained, verb, tmp_path):
    made = trained("TEXT", *OPTIONS)
    line = next(line for line in made.said.splitlines() if "--prompt" in line)
    prompt = shlex.split(line)[shlex.split(line).index("--prompt") + 1]
    assert prompt != WITHOUT
    said = verb("sample", made.run, "--prompt", prompt, "--n", 2, "--out", tmp_path / "a.png")
    assert said[0] == 0 and "note" not in said[2]


def test_classes_of_a_run_are_in_its_example():
    labels = np.array([[0], [2], [2]], np.int32)
    attributes = (Attribute("class", ("miku", "rin", "luka chan")),)
    constants = text_conditioning.tables(text_conditioning.Encoder(), labels, attributes)
    texts = text_conditioning.askable(text_conditioning.Encoder(), constants)
    assert prompts.example(texts) == "luka chan"


def test_a_row_for_each_prompt(gan, tmp_path, verb):
    file = tmp_path / "prompts.txt"
    file.write_text("1,green hair blue eyes\n\n2,red hair\n")

    def sample(prompt):
        return picture(verb("sample", gan.run, "--prompt", prompt, "--prompts", file, "--n", 5))

    page = sample("aqua eyes, pink hair")
    assert page.height == 3 * 18 + 2
    assert page.width > 5 * 18 + 2
    first = page.tobytes()
    assert sample("aqua eyes, pink hair").tobytes() == first
    assert sample("aqua eyes, blue hair").tobytes() != first


def test_samples_without_a_prompt_take_texts_of_the_data(gan, verb):
    page = picture(verb("sample", gan.run, "--n", 3))
    assert page.size == (2 * 18 + 2, 2 * 18 + 2)


def test_the_table_of_colors(gan, verb):
    page = np.asarray(picture(verb("table", gan.run)))
    assert page.shape[0] > 12 * 18
    assert page.shape[1] > 11 * 18


def test_paths_between_prompts_and_between_latents(gan, verb):
    ends = ["--prompt", "red hair blue eyes", "--prompt", "blue hair green eyes"]
    code, out, err = verb("interpolate", gan.run, *ends, "--frames", 6, "--stops", 2)
    assert code == 0, err
    gif, sheet = out.split()
    assert Image.open(gif).n_frames == 10  # there and back
    tiles = np.asarray(Image.open(sheet))
    assert tiles.shape[1] > 10 * 18
    code, out, err = verb("interpolate", gan.run, *ends[:2], "--frames", 6, "--stops", 2)
    assert code == 0, err
    assert Image.open(out.split()[0]).n_frames == 6


def test_a_path_through_three_prompts(gan, verb):
    """It shows each of them, by the latents of a prompt alone, and goes back the same way."""
    words = [f"{hair} hair red eyes" for hair in ("red", "blue", "green")]
    ends = [word for text in words for word in ("--prompt", text)]
    code, out, err = verb("interpolate", gan.run, *ends, "--frames", 5, "--stops", 2)
    assert code == 0, err
    gif, sheet = out.split()
    assert Image.open(gif).n_frames == 8
    model = anigan_jax.load(gan.run).model
    asked = [prompts.read(model, [text], "--prompt")[0] for text in words]
    walk = prompts.between(model, asked, 2, 5, 0)
    want = [anigan_jax.load(gan.run).generate(2, prompt=text) for text in words]
    for frame, images in zip(walk.frames[:5:2], want, strict=True):
        assert (frame == np.asarray(record.grid(images, columns=2))).all()
    assert all((a == b).all() for a, b in zip(walk.frames[1:4], walk.frames[:4:-1], strict=True))
    # Frames that do not divide show all three, too.
    few = prompts.between(model, asked, 2, 4, 0).frames
    assert {frame.tobytes() for frame in walk.frames[:5:2]} <= {frame.tobytes() for frame in few}
    # Nine columns, the prompts above the first, the fifth and the last.
    assert Image.open(sheet).width > 9 * 18


def test_pictures_of_other_prompts_are_other_files(gan, verb):
    paths = {
        verb(*words, "--prompt", prompt)[1].split()[-1]
        for prompt in ("red hair", "blue eyes")
        for words in (("sample", gan.run, "--n", 1), ("history", gan.run, "--n", 1))
    }
    assert len(paths) == 4


def test_one_prompt_over_the_training(gan, verb):
    # keep_every keeps what keep_checkpoints alone would delete.
    assert checkpoint.steps(gan.run / "checkpoints") == [4, 8]
    page = picture(verb("history", gan.run, "--prompt", "red hair blue eyes", "--n", 2))
    assert page.height > 2 * 18


def test_accuracy_by_a_classifier(gan, judge, verb):
    words = ("accuracy", gan.run, "--classifier", judge.run, "--n", 2)
    code, out, err = verb(*words)
    assert code == 0, err
    for part in ("ceiling: ", "seen: ", "unseen: ", "shuffled", "chance", "other images"):
        assert part in out
    report = json.loads(verb(*words, "--json")[1])
    pairs = report["seen"]["pairs"] + report["unseen"]["pairs"]
    assert pairs <= 132
    assert report["seen"]["prompts"]["hair"]["n"] == 2 * report["seen"]["pairs"]
    for share in report["unseen"]["prompts"].values():
        assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1
    assert abs(report["seen"]["chance"]["hair"] - 1 / 12) < 0.02
    # A third of 60 images is held out, whole groups at a time.
    assert 5 < report["ceiling"]["prompts"]["hair"]["n"] < 40
    assert 0 <= report["ceiling"]["mean_over_colors"]["eyes"] <= 1


def test_a_classifier_tells_its_accuracy_at_the_end(judge):
    for part in ("accuracy/hair", "accuracy/eyes", "accuracy/both", "judged at step 8"):
        assert part in judge.said
    lines = (judge.run / "evaluation.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8]


BAD = {
    "color": (["sample", "GAN", "--prompt", "mauve hair"], ["'mauve'", "Known classes: hair"]),
    "typo": (["sample", "GAN", "--prompt", "bleu hair"], ["did you mean 'blue'"]),
    "attribute": (["table", "GAN", "--rows", "hat"], ["no attribute 'hat'", "hair, eyes"]),
    "empty": (["sample", "GAN", "--prompt", ""], ["no prompts"]),
    "file": (["sample", "GAN", "--prompts", "no.txt"], ["no.txt"]),
    "no texts": (["sample", "PLAIN", "--prompt", "red hair"], ["without texts"]),
    "no table": (["table", "PLAIN"], ["without texts"]),
    "too few": (
        ["interpolate", "GAN", *["--prompt", "red hair"] * 3, "--frames", "2"],
        ["--frames is 2"],
    ),
    "no judge": (["accuracy", "GAN", "--classifier", "GAN"], ["is not a run of a classifier"]),
    "no generator": (["sample", "JUDGE"], ["no generator"]),
    "judge with prompt": (["sample", "JUDGE", "--prompt", "red hair"], ["without texts"]),
    "judged": (["accuracy", "PLAIN", "--classifier", "JUDGE"], ["without texts"]),
    "seed": (
        ["sample", "GAN", "--prompt", "red hair", "--seed", "-1"],
        ["--seed is -1; it must be 0 to 4294967295"],
    ),
    "sizes": (["accuracy", "GAN", "--classifier", "BIG"], ["32 px", "16 px"]),
    "count": (["history", "GAN", "--prompt", "red hair", "--n", "0"], ["--n is 0"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_message_and_exit_code_2(gan, judge, others, name, verb):
    arguments, named = BAD[name]
    places = {"GAN": gan.run, "PLAIN": others[0], "JUDGE": judge.run, "BIG": others[1]}
    code, out, err = verb(*[places.get(argument, argument) for argument in arguments])
    assert code == 2, out + err
    assert all(part in err for part in named), err
    assert "Traceback" not in err


def prints(run) -> list[str]:
    return [line["fingerprint"] for line in metrics_file.read_metrics(run / "metrics.jsonl")]


def test_a_text_run_resumes_and_replays(gan, tmp_path):
    """As after a kill at step 4: the bits of the uninterrupted run; then `replay` proves it."""
    half = gan.copy(tmp_path / "two").run
    shutil.rmtree(half / "checkpoints/step_000000008")
    done = anigan("train", gan.config, "--workdir", half, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert leaves(half, 8) == leaves(gan.run, 8)
    assert prints(half) == prints(gan.run)
    done = anigan("replay", half)
    assert done.returncode == 0, done.stdout
    assert "identical through step 8" in done.stdout


def test_the_streamed_feed_carries_the_labels(gan, tmp_path):
    """Texts are drawn from labels that travel with the images: the same bits."""
    rest = ["--run.input", "host", "--run.mapper", "shard_map", *OPTIONS]
    done = anigan("train", gan.config, "--workdir", tmp_path / "run", *rest)
    assert done.returncode == 0, done.stderr
    assert prints(tmp_path / "run") == prints(gan.run)
    assert len(prints(gan.run)) == 9


def test_a_dry_run_of_texts_writes_nothing(gan, tmp_path, verb):
    code, out, err = verb("train", gan.config, "--workdir", tmp_path / "none", "--dry-run")
    assert code == 0, err
    assert "8 steps" in out
    assert not (tmp_path / "none").exists()


def test_constant_texts_that_changed_are_refused(gan, tmp_path, verb):
    run = gan.copy(tmp_path / "run").run
    data = bytearray((run / "constants.safetensors").read_bytes())
    data[-1] ^= 1
    (run / "constants.safetensors").write_bytes(data)
    code, _, err = verb("train", gan.config, "--workdir", run, *OPTIONS)
    assert code == 2
    assert "checksum" in err


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
def test_bad_settings_write_nothing(tmp_path, option, named, verb):
    config = write_config(tmp_path, "TEXT")
    code, _, err = verb("train", config, "--workdir", tmp_path / "run", *option)
    assert code == 2
    assert named in err
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_text_encoder_is_needed_only_at_the_start(tmp_path, verb):
    """Trained, read into a text GAN, deleted: the run resumes, reads prompts, and replays."""
    reader = config_file(tmp_path / "a", "SPELLER")
    done = anigan("train", reader, "--workdir", tmp_path / "encoder")
    assert done.returncode == 0, done.stderr
    assert "retrieval/image_to_text" in done.stdout
    text = config_file(tmp_path / "b", "READS")
    options = ["--method.encoder.path", tmp_path / "encoder"]
    command = ["train", text, "--workdir", tmp_path / "gan", *options]
    done = anigan(*command, "--run.steps", 4)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "encoder")
    done = anigan(*command)
    assert done.returncode == 0, done.stderr
    assert verb(*command, "--dry-run")[0] == 0
    words = ["a girl with silver hair and red eyes", "gray hair red eyes"]
    pages = [picture(verb("sample", tmp_path / "gan", "--prompt", w, "--n", 2)) for w in words]
    tiles = [np.asarray(page)[:, -38:] for page in pages]
    # Two wordings of one pair are two vectors, hence other pixels.
    assert (tiles[0] != tiles[1]).any()
    done = anigan("replay", tmp_path / "gan")
    assert "identical through step 8" in done.stdout, done.stdout + done.stderr


def test_a_pack_cannot_leave_out_what_it_holds(tmp_path, verb):
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
    assert verb(*whole, "--out", tmp_path / "whole")[0] == 0
    part = [*whole, "--without", "blue hair red eyes", "--out", tmp_path / "part"]
    assert verb(*part)[0] == 0
    assert "unchanged" in verb(*part)[1]
    config = config_file(tmp_path / "c", "IMAGES")
    found = {}
    for name in ("whole", "part"):
        words = ["train", config, "--workdir", tmp_path / f"run_{name}", "--data.path"]
        words += [tmp_path / name, "--data.without", "blue hair red eyes", "--dry-run"]
        found[name] = verb(*words)
    assert [found[name][0] for name in ("whole", "part")] == [2, 0]
    assert "import again with --without" in found["whole"][2]
    assert "8 images" in found["part"][1]
