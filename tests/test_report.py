"""The report of real runs: what it collects, its page without a browser, its event files."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_dirs import FLOOR, HOSTILE, Page, judged
from tiny import process_env, untrained

from anigan_jax.report import collect, files
from anigan_jax.report import page as report_page
from anigan_jax.report import tables as report_tables
from anigan_jax.storage import metrics_file


@pytest.fixture
def run(trained, tmp_path):
    """A copy to write into."""
    return trained("FULL").copy(tmp_path / "run").run


def test_the_dict_of_a_run(run):
    found = collect.collect(judged(run), "mine")
    assert (found["name"], found["step"], found["images_seen"]) == ("tiny", 8, 64)
    lines = metrics_file.read_metrics(run / "metrics.jsonl")
    curve = found["curves"]["series"]["loss/g"]
    assert found["curves"]["x"] == list(range(1, 9))
    np.testing.assert_allclose(curve["low"], [m["loss/g"] for m in lines[1:]], rtol=1e-5)
    assert curve["high"] is None
    assert curve["numbers"]["last"] == lines[-1]["loss/g"]
    rate = [8 / m["images_per_sec"] for m in lines[1:]]
    np.testing.assert_allclose(found["seconds"], sum(rate), rtol=1e-9)
    # By hand: the leaves of the players' parameters as they are saved.
    manifest = json.loads((run / "checkpoints/step_000000008/manifest.json").read_text())
    of_g = [d for path, d in manifest["leaves"].items() if path.startswith(".params['g']")]
    assert found["parameters"]["g"] == sum(int(np.prod(d["shape"])) for d in of_g)
    assert found["settings"]["method.discriminator.spectral"] == "true"
    assert found["settings"]["method"] == "GAN"
    assert found["commands"]["train"] == ["anigan", "train", "--resume", str(run)]
    assert found["ledger"]["first"] == {"step": 0, "fingerprint": lines[0]["fingerprint"]}
    assert found["ledger"]["gaps"] == []
    assert found["warnings"] == [{"step": 8, "text": "coverage fell"}]
    assert found["scores"]["floor"] == FLOOR
    want = {"step": 4, "kid": 0.02, "variety": None, "rule": ""}
    assert found["scores"]["best"] == want
    assert found["scores"]["series"]["coverage-vgg16"] == [0.5, None]
    assert found["outputs"].keys() == {"accuracy", "evaluate", "probe"}
    quality = found["outputs"]["evaluate"]
    assert quality["tables"][0].title == "Checkpoint of step 8"
    assert [one["caption"] for one in quality["pictures"]] == ["step 8, closest"]
    assert found["slides"]["steps"] == [4, 8]
    assert list(found["slides"]["panels"]) == ["ema", "samples"]


@pytest.mark.long
def test_the_verb_checks_draws_and_writes(run, verb):
    code, said, _ = verb("report", run)
    assert code == 0
    assert "run: 2 of 2 kept checkpoints have the recorded fingerprint\n" in said
    assert said.splitlines()[-1].startswith(f"{run / 'report.html'}  (")
    assert Image.open(next((run / "out/interpolate").glob("step_000000008_*.gif"))).n_frames == 60
    assert (run / "out/kernels" / "step_000000008.png").exists()
    assert not (run / "out/table").exists()
    page = Page(run / "report.html")
    assert "same" in page.text
    assert "differs" not in page.texts["script"][0]
    # A second time there is nothing to draw.
    before = {p: p.stat().st_mtime_ns for p in (run / "out/interpolate").iterdir()}
    assert verb("report", run)[0] == 0
    assert before == {p: p.stat().st_mtime_ns for p in (run / "out/interpolate").iterdir()}


def test_a_false_ledger_is_told(run, verb):
    path = run / "metrics.jsonl"
    lines = metrics_file.read_metrics(path)
    lines[4]["fingerprint"] = "00000bad"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["step"] != 6))
    file = max(
        (run / "checkpoints/step_000000008/state").rglob("*"), key=lambda p: p.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    code, said, _ = verb("report", run)
    assert code == 0
    assert "LEDGER DIFFERS: 0 of 2 kept" in said
    assert "step 5 is followed by step 7, but a line is due every 1" in said
    assert re.search(r"step 4 has fingerprint [0-9a-f]{8}, recorded is 00000bad", said)
    assert "step 8 cannot be read" in said
    # Looking changes nothing: no checkpoint is set aside.
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "step_000000004",
        "step_000000008",
    ]
    page = Page(run / "report.html")
    assert [a for tag, a in page.tags if a.get("role") == "alert"]


def test_steps_between_logged_ones_are_no_gaps():
    lines = [{"step": step, "fingerprint": "00"} for step in (0, 10, 20, 40)]
    found = collect.ledger(lines, 10, [{"step": 15, "computed": "aa", "fault": None}])
    assert found["gaps"] == [[20, 40]]
    assert found["checked"][0]["state"] == "not recorded"
    assert collect.ledger(lines[:3], 10, None)["gaps"] == []
    assert collect.ledger([*lines[:3], lines[2]], 10, None)["gaps"] == [[20, 20]]
    assert collect.ledger(lines[1:3], 10, None)["gaps"] == [[0, 10]]
    assert collect.verdict(collect.ledger(lines[:3], 10, None))[0]
    assert not collect.verdict(found)[0]


@pytest.mark.long
def test_steps_in_which_a_player_rested_are_no_faults():
    rest = {"loss/d": None, "score/real": None, "repeats/d": 0.0, "repeats/g": 1.0, "loss/g": 1.0}
    work = {"loss/d": 0.5, "score/real": 0.6, "repeats/d": 1.0, "repeats/g": 0.0, "loss/g": None}
    broken = {**work, "loss/d": None}
    lines = [{"step": i, **line} for i, line in enumerate((rest, work, rest, broken), start=1)]
    series = collect.curves(lines)["series"]
    assert series["loss/d"]["not_finite"] == 1
    assert series["loss/g"]["not_finite"] == series["score/real"]["not_finite"] == 0


def test_texts_without_the_data(tmp_path, verb, monkeypatch):
    """All that is drawn comes from the checkpoint: the pack is not even looked for."""
    run = untrained(tmp_path / "there", "TEXT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    code, said, _ = verb("report", run)
    assert code == 0
    assert "1 of 1" not in said  # no line was logged that it could be compared with
    assert "no step has been logged yet" in said
    for folder in ("table", "interpolate", "kernels"):
        assert list((run / "out" / folder).glob("step_000000000*")), folder
    assert not (tmp_path / "empty").exists()


@pytest.mark.long
def test_no_draw_runs_no_code_and_starts_no_backend(run):
    mark = run / "executed"
    (run / "config.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nraise RuntimeError('here')\n"
    )
    code = (
        "import sys\nfrom anigan_jax.cli import main\n"
        f"try: main.main(['report', {str(run)!r}, '--no-draw'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized() and 'matplotlib' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=process_env(), check=False)
    assert done.returncode == 0, done.stderr
    assert "the checkpoints were not examined" in done.stdout
    assert not mark.exists()


def test_what_cannot_be_built_is_left_out(run, verb):
    about = json.loads((run / "run.json").read_text())
    about["config"]["method"]["class"] = "anigan_jax.methods.gan:NotHere"
    (run / "run.json").write_text(json.dumps(about))
    code, said, _ = verb("report", run)
    assert code == 0
    assert "left out of run: the checkpoints are not examined" in said
    assert "NotHere" in said
    shutil.rmtree(run / "checkpoints")
    (run / "previews/samples/step_000000004.png").write_bytes(b"no picture")
    code, said, _ = verb("report", run)
    assert code == 0
    assert "there is no checkpoint" in said
    assert f"left out: {run / 'previews/samples/step_000000004.png'}" in said
    assert "there is no checkpoint" in Page(run / "report.html").text


def test_a_run_that_has_just_begun(run, verb):
    for path in run.iterdir():
        if path.name != "run.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert verb("report", run, "--no-draw")[0] == 0
    assert "no step has been logged yet" in Page(run / "report.html").text
    (run / "metrics.jsonl").write_text('{"step": 0, "fingerprint": "00"}\n{"step": 1, "lo')
    assert verb("report", run, "--no-draw")[0] == 0


def test_a_page_asks_for_nothing_outside(run, verb):
    judged(run)
    assert verb("report", run, "--no-draw")[0] == 0
    page = Page(run / "report.html")
    assert page.asked
    assert all(asked.startswith(("data:", "#")) for asked in page.asked)
    for style in page.texts["style"]:
        assert "@import" not in style
        assert not re.search(r"url\((?!['\"]?data:)", style)
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for script in page.texts["script"][1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(page.texts["script"]) == 3
    assert (run / "report.html").stat().st_size < 8e6
    for part in (
        "KID (vgg16)",
        "too few images for a covariance",
        "coverage fell",
        "D before training",
        "of them among",
        "8" * 64,
    ):
        assert part in page.text, part
    assert "50.0 % [25.0, 75.0]" in page.text
    # Everything that is shown has a name for those who do not see it.
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    labeled = [a for tag, a in page.tags if a.get("role") == "img"]
    assert labeled and all(a["aria-label"] for a in labeled)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {asked[1:] for asked in page.asked if asked.startswith("#")} <= set(ids)


def test_hostile_names_stay_text(run, tmp_path, verb):
    told = json.loads((run / "run.json").read_text())
    told["name"] = HOSTILE
    told["overrides"] = ["--data.path", HOSTILE]
    told["config"]["data"][HOSTILE] = HOSTILE
    (run / "run.json").write_text(json.dumps(told))
    with (run / "metrics.jsonl").open("a") as file:
        line = {"step": 9, f"loss/{HOSTILE}": 1.0, "fingerprint": HOSTILE, "warnings": [HOSTILE]}
        file.write(json.dumps(line) + "\n")
    judged(run)
    path = run / "out/probe" / "step_000000008.json"
    path.write_text(path.read_text().replace("no brown eyes", HOSTILE.replace('"', "")))
    odd = run.with_name("<script>alert(1)<!-- \udc80")
    run.rename(odd)
    out = tmp_path / "page.html"
    assert verb("report", odd, "--no-draw", "--out", out)[0] == 0
    page = Page(out)
    assert len(page.texts["script"]) == 3
    assert page.data["runs"][0]["label"].startswith("<script>alert(1)<!-- ")
    assert all(a["src"].startswith("data:") for tag, a in page.tags if tag == "img")
    assert not set("<>&") & set(page.texts["script"][0])


BROKEN = {
    "run.json": "{",
    "run.json of another kind": '{"name": "x"}',
    "metrics.jsonl": '{"step": 0}\n{"step": 1,\n{"step": 2}\n',
    "metrics.jsonl of words": '{"step": 0, "loss/g": "high"}\n',
    "metrics.jsonl of lists": "[1]\n",
    "protocol.json": "[]",
    "best.json": '{"step": 4}',
    "evaluation.jsonl": '{"kid-vgg16": 1}\n',
    "weights.safetensors": "short",
    "out/evaluate/step_000000009.json": '{"step": 9, "sets": {"generated": {"n": 1}}}',
    "out/accuracy/step_000000009.json": "{}",
    "out/probe/step_000000009.json": "nothing",
    "out/probe/step_000000009.json of other tasks": '{"tasks": {"hair": {}}}',
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_folder_is_refused(run, verb, what):
    path = run / what.split(" of ")[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(BROKEN[what])
    code, _, error = verb("report", run, "--no-draw")
    assert code == 2
    assert error.startswith("error: ")
    assert str(path) in error
    assert not (run / "report.html").exists()


def test_where_the_page_goes(run, trained, tmp_path, verb, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both = run, trained("FULL").run
    for given, wanted in (
        ((run, "--out", "page.txt"), "--out page.txt must end in .html"),
        ((run, run.parent / "run"), "given twice"),
        ((tmp_path / "none",), "is not a run directory"),
        ((run, "--out", run / "run.json" / "page.html"), "cannot be written"),
    ):
        code, _, error = verb("report", *given, "--no-draw")
        assert code == 2
        assert wanted in error
    code, said, _ = verb("report", *both, "--no-draw")
    assert code == 0
    assert said.splitlines()[-1].startswith("report.html  (")
    page = Page(tmp_path / "report.html")
    labels = [one["label"] for one in page.data["runs"]]
    assert labels == collect.labels(list(both))
    assert len({label.split("/")[-1] for label in labels}) == 1
    assert {len(chart["series"]) for chart in page.data["charts"]} == {2}


def test_settings_that_differ(run):
    here, there = (collect.collect(run, name) for name in "ab")
    there["settings"] = {**there["settings"], "seed": "7", "more": "1"}
    rows = {row["name"]: row for row in report_page.setting_rows([here, there])}
    assert [name for name, row in rows.items() if row["differs"]] == ["seed", "more"]
    assert rows["more"]["values"] == [None, "1"]
    here["overrides"] = ["--batch-size", "8", "--data.no-edges"]
    rows = report_page.setting_rows([here])
    assert [row["name"] for row in rows if row["differs"]] == ["batch_size"]


def test_previews_are_few_and_small(tmp_path):
    noise = np.random.default_rng(0)
    (tmp_path / "previews/samples").mkdir(parents=True)
    for step in range(0, 1000, 10):
        image = Image.fromarray(noise.integers(0, 256, (80, 80, 3), dtype=np.uint8))
        image.save(tmp_path / "previews/samples" / f"step_{step:09d}.png")
    found = files.slides(tmp_path)
    assert len(found["steps"]) == 24
    assert (found["steps"][0], found["steps"][-1]) == (0, 990)
    missing: list[str] = []
    whole = report_page._slides(found, 10**9, missing)
    size = sum(map(len, whole["panels"][0]["at"].values()))
    less = report_page._slides(found, size // 2, missing)
    assert size // 3 < sum(map(len, less["panels"][0]["at"].values())) <= size // 2
    assert (less["steps"][0], less["steps"][-1]) == (0, 990)
    big = report_page.embedded(_saved(tmp_path / "big.png", (3000, 1500)))
    assert (big["width"], big["height"]) == (1100, 550)


def _saved(path: Path, size) -> Path:
    Image.new("RGB", size, "red").save(path)
    return path


def test_the_newest_pictures_of_each_verb(tmp_path):
    """Of any folder in RUN/out: no list of verbs has to know it."""
    out = tmp_path / "out"
    for name in ("interpolate/step_000000009_seed_0", "interpolate/step_000000010_seed_3"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        _saved(out / f"{name}.png", (4, 4))
        _saved(out / f"{name}.gif", (4, 4))
    for step in (5, 20):
        (out / f"translate/step_{step:09d}_ab").mkdir(parents=True)
        _saved(out / f"translate/step_{step:09d}_ab/rows.png", (4, 4))
    (out / "edit/blue_hair").mkdir(parents=True)
    for name in ("sheet", "directions", "0007"):
        _saved(out / f"edit/blue_hair/{name}.png", (4, 4))
    (out / "mine").mkdir()
    for end in ("ba", "closest", "ba_closest"):
        _saved(out / f"mine/step_000000020_{end}.png", (4, 4))
    (out / "mine/step_000000020.json").write_text('{"step": 20, "score": 0.5}')
    assert files.verbs(tmp_path) == ["edit", "interpolate", "mine", "translate"]
    found = {verb: files.pictures(tmp_path, verb) for verb in files.verbs(tmp_path)}
    assert {verb: [one["caption"] for one in each] for verb, each in found.items()} == {
        # Of a folder of many pictures, those that show them together.
        "edit": ["blue_hair", "blue_hair"],
        "interpolate": ["step 10, seed 3"],
        "mine": ["step 20, B to A", "step 20, B to A, closest", "step 20, closest"],
        "translate": ["step 20, A to B"],
    }
    still = {verb: [one["moving"] is None for one in each] for verb, each in found.items()}
    assert still == {
        "edit": [True] * 2,
        "interpolate": [False],
        "mine": [True] * 3,
        "translate": [True],
    }
    (table,) = report_tables.newest(tmp_path, "mine")
    assert table.rows == (("step", "20"), ("score", "0.5"))
