"""Translations against their true partners: of stand-ins whose answer is known, and as a verb."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CYCLE, packed, start, thin_vgg, untrained

from anigan_jax.evaluation import features, sample_quality, translation_quality
from anigan_jax.methods import translation
from anigan_jax.metrics import paired
from anigan_jax.perceptual import lpips, store
from anigan_jax.sampling import grids
from anigan_jax.storage import safetensors
from anigan_jax.training import input


def heads() -> dict[str, np.ndarray]:
    """A thin VGG16 with heads of LPIPS."""
    draws = np.random.default_rng(5)
    return thin_vgg(16) | {name: draws.uniform(0, 1, 4).astype(np.float32) for name in lpips.HEADS}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(CYCLE, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def state():
    return start(CYCLE)[1]


def translations(method, state, pack):
    """What the held-out images become, by direction."""
    targets = sample_quality.targets(method, pack)
    model = grids.model_of(method, state, {})
    return {w: sample_quality.made(model, pack, w, t, 12, 0) for w, t in targets.items()}


def judged(pack, state, translate, vgg=None):
    """The report of a method that translates by plain functions of images."""
    wrapped = {way: lambda p, s, x, f=f: f(x) for way, f in translate.items()}
    method = start(CYCLE)[0]._replace(translate=wrapped, evaluate=translation.evaluator(wrapped))
    made = translations(method, state, pack)
    model, data = grids.model_of(method, state, {}), input.rows(CYCLE, pack, "test")
    return translation_quality.measure(model, pack, data, made, vgg)


def test_a_preview_is_there_and_back():
    ways = {"ab": lambda p, s, x: 0.5 * x, "ba": lambda p, s, x: -x}
    data = {d: {"image": np.full((9, 4, 4, 3), v, np.uint8)} for d, v in (("a", 255), ("b", 0))}
    state = SimpleNamespace(ema={}, params={"g": {}}, stats={"g": {}})
    found = translation.preview(ways, state, data)
    first = {name: panel[0, :, 0, 0, 0].tolist() for name, panel in found.items()}
    assert first == {"a_to_b": [1, 0.5, -0.5], "b_to_a": [-1, 1, 0.5]}


def test_who_changes_nothing_is_the_identity_baseline(pack, state):
    report = judged(pack, state, {"ab": lambda x: x, "ba": lambda x: x}, heads())
    assert report["pairs"] == 12
    for way in ("ab", "ba"):
        rows = report[way]
        assert rows["translation"] == rows["identity"]
        assert rows["blur"] != rows["identity"]
        assert rows["identity"]["lpips"] > 0
    assert set(report["l1"].values()) == {0.0}
    assert report["ab"]["truth"]["hair"].value == 1
    assert "truth" not in report["ba"]
    assert report["ba"]["translation"]["hair"] is None


def test_a_constant_translation_has_the_psnr_of_its_color(pack, state):
    report = judged(pack, state, {"ab": lambda x: jnp.zeros_like(x)})
    partners = pack.part("testB").astype(np.float64)
    # 0 is level 128 of 255 when rounded to even.
    error = ((partners - 128) ** 2).mean((1, 2, 3))
    want = np.mean(10 * np.log10(255**2 / error))
    np.testing.assert_allclose(report["ab"]["translation"]["psnr"], want, rtol=1e-6)
    assert report["ab"]["translation"]["lpips"] is None
    assert set(report["l1"]) == {"change/a"}


def test_distances_are_means_over_the_held_out_images(pack, state):
    report = judged(pack, state, {"ab": lambda x: x + 0.25, "ba": lambda x: 0.5 * x})
    a = pack.part("testA").astype(np.float64) / 127.5 - 1
    b = pack.part("testB").astype(np.float64) / 127.5 - 1
    want = {
        "change/a": 0.25,
        "identity/a": np.abs(0.5 * a).mean(),
        "cycle/a": np.abs(0.5 * (a + 0.25) - a).mean(),
        "change/b": np.abs(0.5 * b).mean(),
        "identity/b": 0.25,
        "cycle/b": np.abs(0.5 * b + 0.25 - b).mean(),
    }
    assert report["l1"].keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(report["l1"][name], value, rtol=1e-5, err_msg=name)


def test_a_sheet_shows_source_translation_and_partner(pack, state):
    method = start(CYCLE)[0]._replace(translate={"ab": lambda p, s, x: -x})
    made = translations(method, state, pack)
    sheet = np.asarray(translation_quality.sheet(made["ab"], pack, "ab"))
    left, top = sheet.shape[1] - 3 * 18, sheet.shape[0] - 12 * 18
    for column, want in enumerate((pack.part("testA"), 255 - pack.part("testA"))):
        got = sheet[top : top + 16, left + 18 * column : left + 18 * column + 16]
        np.testing.assert_array_equal(got, want[0])
    np.testing.assert_array_equal(
        sheet[top : top + 16, left + 36 : left + 52], pack.part("testB")[0]
    )


@pytest.mark.long
def test_the_verb(verb, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "cache_dir", lambda: tmp_path / "none")
    monkeypatch.setattr(features, "cache_home", lambda: tmp_path / "home")
    run = untrained(tmp_path / "run", "CYCLE")
    code, out, _ = verb("evaluate", run)
    assert code == 0
    assert "anigan weights vgg16" in out  # what brings LPIPS
    assert (run / "out/evaluate" / "step_000000000_ab.png").exists()
    safetensors.write(heads(), tmp_path / "vgg.safetensors")
    code, out, _ = verb("evaluate", run, "--json", "--vgg16", tmp_path / "vgg.safetensors")
    report = json.loads(out)
    assert code == 0
    assert report == json.loads((run / "out/evaluate" / "step_000000000.json").read_text())
    assert report["ab"]["identity"]["lpips"] > 0
    assert report["vgg16_sha256"] == store.content_sha256(heads())
    code, _, error = verb("evaluate", run, "--vgg16", tmp_path / "absent")
    assert code == 2
    assert "absent" in error
    code, _, error = verb("evaluate", untrained(tmp_path / "noise", "PLAIN"))
    assert code == 2
    assert "anigan weights vgg16" in error


@pytest.mark.long
def test_lpips_of_the_report_is_that_of_the_partners(pack, state):
    vgg = heads()
    rows = judged(pack, state, {"ab": lambda x: x}, vgg)["ab"]
    a, b = pack.part("testA"), pack.part("testB")
    params = jax.tree.map(jnp.asarray, safetensors.unflatten(vgg))
    want = lpips.lpips(params, a / 127.5 - 1.0, b / 127.5 - 1.0)
    np.testing.assert_allclose(rows["identity"]["lpips"], np.mean(want), rtol=1e-4)
    np.testing.assert_allclose(rows["identity"]["psnr"], paired.psnr(a, b).mean(), rtol=1e-12)
