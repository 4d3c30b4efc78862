"""The bench: work counted by hand and by XLA, sides that do the same, the verb in processes."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from tiny import CARTOON, CYCLE, FULL, PLAIN, R3, TEXT, anigan

from anigan_jax import config_file
from anigan_jax.bench import cases, flops, layers, runner, table
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.methods.schedule import Schedule
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator
from anigan_jax.report.table import as_text

NARROW = ("--method.generator.base-channels", "4", "--method.discriminator.base-channels", "4")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "bench_cache"))


def with_schedule(config, **schedule):
    method = dataclasses.replace(config.method, schedule=Schedule(**schedule))
    return dataclasses.replace(config, method=method)


def test_work_of_published_models():
    """GFLOP an image, counted by hand: k4 DCGAN with and without shared latents, CycleGAN."""
    known = {"ref_dcgan64": 2.28, "aiub_dcgan": 2.48}
    for name, want in known.items():
        assert abs(flops.per_image(config_file.load(name)) / 1e9 - want) < 0.01
    generator = ResnetGenerator(base_channels=64, blocks=4)
    method = CycleGAN(generator=generator, discriminator=PatchDiscriminator())
    config = dataclasses.replace(config_file.load("ref_cyclegan"), method=method)
    assert abs(flops.per_image(config) / 1e9 / 62.7 - 1) < 0.02


def test_work_of_schedules():
    """Each update counts as often as it is done."""
    d, g = (with_schedule(PLAIN, d=5, g=1), with_schedule(PLAIN, d=1, g=5))
    one = flops.per_image(PLAIN)
    nets = flops.passes(PLAIN)
    extra_d = 4 * 2 * nets["discriminator"].trained
    fake = nets["generator"].forward
    assert abs(flops.per_image(d) - (one + extra_d + fake)) < 1
    more = 4 * (nets["generator"].trained + nets["discriminator"].inward)
    assert abs(flops.per_image(g) - (one + more + fake)) < 1
    turns = with_schedule(PLAIN, kind="alternate", d_steps=1, g_steps=1)
    assert abs(2 * flops.per_image(turns) - (one + fake)) / one < 0.2
    told = flops.per_image(with_schedule(PLAIN, kind="as_printed"), {"d": 1.0, "g": 1.0})
    assert abs(told - one) < 1
    assert np.isnan(flops.per_image(config_file.load("sjtu_text_encoder")))


@pytest.mark.long
def test_xla_counts_about_the_same_work(tmp_path):
    """Of a DCGAN whose convolutions are most of it; 0.9 to 1.1 of ours."""
    method = dataclasses.replace(
        PLAIN.method,
        generator=dataclasses.replace(PLAIN.method.generator, base_channels=32),
        discriminator=dataclasses.replace(PLAIN.method.discriminator, base_channels=32),
    )
    run = dataclasses.replace(PLAIN.run, devices=1)
    config = dataclasses.replace(PLAIN, method=method, batch_size=128, run=run)
    side = cases.ours(config, tmp_path)
    side.run()
    assert abs(side.facts()["xla_flops"] / side.facts()["flops"] - 1) < 0.1


@pytest.mark.long
@pytest.mark.parametrize(
    "config", [FULL, TEXT, R3, CYCLE, CARTOON], ids=["dynamic", "text", "r3", "cycle", "cartoon"]
)
def test_every_family_is_a_side(config, tmp_path):
    side = cases.ours(config, tmp_path)
    side.run()
    assert side.images == config.batch_size * side.facts()["steps"]
    assert side.facts()["compile_s"] > 0 and side.facts()["flops"] > 0
    assert (side.facts()["repeats"].get("d", 0) >= 1) == (config is FULL)


@pytest.mark.long
def test_without_data_the_same_step_is_run(tmp_path):
    """The batch is a constant; losses are finite and the state moves."""
    side = cases.ours(PLAIN, tmp_path, data=False)
    side.run()
    assert side.facts()["steps"] >= 1
    from anigan_jax.training import input

    assert input.gather.__name__ == "gather" and input.to_batch.__name__ == "to_batch"


@pytest.mark.long
def test_a_whole_run_tells_what_logging_and_checkpoints_take(tmp_path):
    found = cases.whole_run(PLAIN, tmp_path, 8)
    assert found["images_per_sec"] > 0
    assert 0 < found["log_s"] < found["event_s"] < 60


@pytest.mark.long
def test_each_convolution_in_both_forms():
    rows = layers.measure(PLAIN, 2, "float32", 1)
    names = {(row["network"], row["layer"]) for row in rows}
    assert ("generator", "rgb") in names and ("discriminator", "down1") in names
    for row in rows:
        assert set(row["gflops_per_sec"]) == {"blocks", "native"}
        assert all(rate > 0 for rate in row["gflops_per_sec"].values())
    assert "*" in as_text(layers.tables(rows))


def worker(label: str, side: str, speeds, **facts):
    made = object.__new__(runner.Worker)
    made.spec = {"label": label, "side": side, "dtype": "float32"}
    made.speeds, made.facts = speeds, facts
    return made


def test_rows_follow_from_the_medians(tmp_path):
    """Numbers by hand: a peak of 200 GFLOP/s, 1 GFLOP an image."""
    workers = [
        worker("matrix product", "gemm", [99.0, 100.0, 500.0], flops=2e9),
        worker("ours", "ours", [90.0, 100.0, 110.0], flops=1e9, compile_s=2.0, repeats={}),
        worker("ours, no data", "no data", [125.0], flops=1e9),
        worker("PyTorch", "torch", [25.0], repeats={"d": 4.0, "g": 4.0}),
    ]
    wanted = runner.Wanted("x", [], [4], ["float32"], ["torch"], 3, "cpu", [0], 50)
    run = {"images_per_sec": 95.0, "event_s": 0.5, "log_s": 0.01, "memory_mb": 700}
    again = {"compile_s": 1.0, "memory_mb": 500}
    workers[1].facts |= {"memory_mb": 900, "host": True}
    found = runner._rows(wanted, workers, 4, run, again)
    about = {"batch": 4, "dtype": "float32", "devices": 0}
    peak, mine, bare, torch = ({**row, **about} for row in found)
    assert peak["gflops_per_sec"] == 200
    assert mine["of_peak"] == 0.5 and abs(mine["spread"] - 0.2) < 1e-9
    assert abs(mine["feed"] - 0.2) < 1e-9 and bare["ours_is"] == 0.8
    # 50 steps take 2 s bare, 0.5 s of logging and 0.5 s of a checkpoint.
    assert abs(mine["overhead"] - 1 / 3) < 1e-9
    told = [mine[f"memory_{what}mb"] for what in ("", "run_", "compiling_")]
    assert told == [500, 700, 900] and mine["compile_cached_s"] == 1.0
    # It did four times the updates of a step.
    assert torch["ours_is"] == 1.0
    # A peer that could not be built is told of, and leaves the others as they are.
    failed = {"side": "compiled", **about, "failed": "out of memory"}
    rows = [peak, mine, bare, torch, failed]
    text = as_text(table.tables(rows))
    assert "PyTorch" in text and "33.3%" in text and "out of memory" in text
    # Nor are numbers made up where the work of a network is unknown.
    workers[1].facts["flops"] = float("nan")
    unknown = [{**row, **about} for row in runner._rows(wanted, workers, 4, run, again)]
    assert not any("of_peak" in row for row in unknown[1:]) and "nan" not in str(unknown)
    assert "nan" not in as_text(table.tables(unknown))
    table.picture("x", "here", unknown, tmp_path / "unknown.png")
    path = tmp_path / "deep" / "bars.png"
    table.picture("x", "here", rows, path)
    assert Image.open(path).size[0] > 500


def test_a_schedule_of_one_and_two_has_three_updates(tmp_path):
    """A number of updates that is always 1 is not logged; it counts all the same."""
    method = dataclasses.replace(PLAIN.method, schedule=Schedule(g=2))
    config = dataclasses.replace(PLAIN, method=method)
    side = cases.ours(config, tmp_path)
    side.run()
    assert side.facts()["repeats"] == {"d": 1.0, "g": 2.0}
    assert runner._updates(side.facts()) == 3.0


def test_settings_that_it_varies_are_those_of_the_config():
    wanted = runner.Wanted("x", ["--flip"], [4], ["bfloat16"], [], 3, "cpu", [2], 50)
    ours = next(s for s in runner.sides(wanted, 4, "bfloat16", 2, False) if s["label"] == "ours")
    assert ours["overrides"][-6:] == [
        *("--batch-size", "4", "--run.devices", "2", "--method.dtype", "bfloat16")
    ]
    plain = dataclasses.replace(wanted, typed=False)
    assert "--method.dtype" not in runner.sides(plain, 4, "float32", 2, False)[1]["overrides"]


@pytest.mark.slow
def test_the_verb(tmp_path):
    """Every side in a process of its own, on a narrow config."""
    pytest.importorskip("torch")
    picture = tmp_path / "bench.png"
    args = ("bench", "quickstart", "--batch", "4", "--windows", "1", "--json", *NARROW)
    done = anigan(*args, "--peer", "torch", "lax", "--picture", picture, timeout=1200)
    assert done.returncode == 0, done.stderr
    rows = {r["side"]: r for r in json.loads(done.stdout)["rows"]}
    # Where there is glibc, PyTorch is also measured with our settings of it; where the CPU
    # multiplies bfloat16, in that.
    assert {name for name in rows if "memory retained" not in name and "AMP" not in name} == {
        "matrix product",
        "ours",
        "ours, no data",
        "lax.conv_transpose",
        "PyTorch",
        "PyTorch, channels-last",
    }
    mine = rows["ours"]
    assert mine["compile_cached_s"] < mine["compile_s"]
    assert 0 < mine["overhead"] < 1 and mine["memory_mb"] > 50
    assert picture.exists()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--batch", "0"), "--batch"),
        (("nothing_such",), "no config"),
        (("colour_classifier", "--dtype", "bfloat16"), "float32"),
        (("quickstart", "--seed", "x"), "seed"),
        (("quickstart", "--layers", "--peer", "lax"), "leave out --peer"),
    ],
)
def test_mistakes_are_told(verb, args, told):
    code, out, err = verb("bench", *args)
    assert code == 2 and told in out + err
