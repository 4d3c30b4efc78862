"""Several processes as one run: the same bits, and no death that goes unnoticed."""

import json
import signal
import time

import numpy as np
import pytest
from processes import (
    SIMULATED,
    Training,
    cold,
    leaves,
    ledger,
    newest,
    prints,
    ranks,
    same_end,
    saving,
    written,
)
from tiny import write_config

from anigan_jax.errors import UserError
from anigan_jax.runtime import processes
from anigan_jax.storage import metrics_file

pytestmark = pytest.mark.long

STEPS = 40
LENGTH = ("--run.steps", STEPS, "--run.checkpoint-every", 8)


def train(config, run):
    return "train", config, "--workdir", run, *LENGTH


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config file, a run by 2 processes x 2 devices, and one by 1 process x 4 devices."""
    folder = tmp_path_factory.mktemp("cluster")
    config = write_config(folder, "LEAST")
    stored = {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
    both = ranks(folder, 2, *train(config, folder / "two"), env=lambda rank: stored)
    assert [rank.ended(300) for rank in both] == [0, 0], both[0].said() + both[1].said()
    alone = Training(
        folder / "one.log",
        *train(config, folder / "one"),
        *("--run.platform", "cpu", "--run.devices", 4),
        env=SIMULATED,
    )
    assert alone.ended(300) == 0, alone.said()
    return folder, config, both


def test_two_processes_of_two_devices_are_one_of_four(trained):
    """Equal to rounding: Gloo sums over processes in another order than one process does."""
    folder, _, _ = trained
    first, second = (
        metrics_file.read_metrics(folder / name / "metrics.jsonl") for name in ("one", "two")
    )
    assert [line["step"] for line in first] == [line["step"] for line in second]
    # The start is the same bit for bit, and so are the images and the noise of step 1.
    assert first[0]["fingerprint"] == second[0]["fingerprint"]
    for name in ("loss/d", "loss/g", "score/real", "score/fake"):
        # The losses of the first step see the same weights; later ones amplify rounding.
        assert second[1][name] == pytest.approx(first[1][name], rel=1e-6)
        for one, two in zip(first[1:25], second[1:25], strict=True):
            assert two[name] == pytest.approx(one[name], rel=1e-4)
    assert json.loads((folder / "two" / "run.json").read_text())["facts"]["processes"] == 2


def test_steps_with_collectives_of_processes_are_not_stored(trained):
    """Read back, XLA's programs for CPUs lose the order in which Gloo tells collectives apart."""
    folder, _, _ = trained
    assert not [*(folder / "programs").glob("jit_body*")]


def test_only_the_first_process_writes_and_tells(trained):
    folder, _, both = trained
    assert "done:" in both[0].said() and "shard_map" in both[0].said()
    assert "done:" not in both[1].said()
    lines = metrics_file.read_metrics(folder / "two" / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(STEPS + 1))


def test_the_same_processes_again_give_the_same_bits_by_the_other_mapper_and_feed(trained):
    folder, config, _ = trained
    options = ("--run.mapper", "shard_map", "--run.input", "host")
    again = ranks(folder, 2, *train(config, folder / "again"), *options, name="again")
    assert [rank.ended(300) for rank in again] == [0, 0], again[0].said()
    same_end(folder / "again", folder / "two")


def test_replay_by_the_same_processes(trained):
    folder, _, _ = trained
    both = ranks(folder, 2, "replay", folder / "two", "--until", 10, devices=0, name="replay")
    assert [rank.ended(300) for rank in both] == [0, 0], both[0].said() + both[1].said()
    assert "identical through step 10" in both[0].said()


# (what is under way, who is killed, when); only the first process saves.
KILLS = (
    ("compile", 1, lambda run, _: written(run) >= 1),
    ("step", 0, lambda run, _: newest(run) >= 8),
    ("wait for a save", 1, saving),
    ("save", 0, saving),
)


@pytest.mark.slow
@pytest.mark.fault(36)
def test_a_killed_process_ends_the_other_and_the_run_resumes(trained, tmp_path):
    """Either killed, in each phase, then to the end: the bits of the run that nobody killed."""
    folder, config, _ = trained
    run = tmp_path / "run"
    for phase, victim, reached in KILLS:
        env = cold(tmp_path) if phase == "compile" else {}
        both = ranks(tmp_path, 2, *train(config, run), name=phase, env=lambda i, env=env: env)
        both[0].until(lambda reached=reached, pid=both[0].pid: reached(run, pid))
        both[victim].send_signal(signal.SIGKILL)
        start = time.monotonic()
        assert both[victim].ended() == -signal.SIGKILL
        # Without process 0 JAX may abort the others before they end by themselves.
        codes = (4,) if victim else (4, -signal.SIGABRT)
        assert both[1 - victim].ended(60) in codes, both[1 - victim].said()
        assert time.monotonic() - start < 20
        if both[1 - victim].returncode == 4:
            assert f"process {victim}, step" in both[1 - victim].said()
        else:
            assert "another task died" in both[1 - victim].said()
    both = ranks(tmp_path, 2, *train(config, run))
    assert [rank.ended(300) for rank in both] == [0, 0], both[0].said()
    same_end(run, folder / "two")


@pytest.mark.slow
@pytest.mark.fault(36)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_stopped_process_is_named(trained, tmp_path, victim):
    folder, config, _ = trained
    run = tmp_path / "run"
    both = ranks(tmp_path, 2, *train(config, run), "--run.heartbeat-timeout", 5)
    both[0].until(lambda: newest(run) >= 8)
    both[victim].send_signal(signal.SIGSTOP)
    start = time.monotonic()
    assert both[1 - victim].ended(60) == 4, both[1 - victim].said()
    assert time.monotonic() - start < 30
    assert f"process {victim}, step" in both[1 - victim].said()
    # When it wakes up, it finds that the others have gone.
    both[victim].send_signal(signal.SIGCONT)
    assert both[victim].ended(60) not in (0, None)
    both = ranks(tmp_path, 2, *train(config, run))
    assert [rank.ended(300) for rank in both] == [0, 0], both[0].said()
    same_end(run, folder / "two")


@pytest.mark.slow
@pytest.mark.fault(36)
def test_a_process_ten_times_slower_is_waited_for(trained, tmp_path):
    """One process sleeps nine tenths of the time: late in every collective, and not lost."""
    folder, config, _ = trained
    run = tmp_path / "run"
    short = ("train", config, "--workdir", run, "--run.steps", 8, "--run.checkpoint-every", 8)
    both = ranks(tmp_path, 2, *short, "--run.heartbeat-timeout", 10)
    # Compiled at full speed.
    both[0].until(lambda: written(run) >= 3)
    while both[1].poll() is None:
        both[1].send_signal(signal.SIGSTOP)
        time.sleep(0.018)
        both[1].send_signal(signal.SIGCONT)
        time.sleep(0.002)
    assert [rank.ended(300) for rank in both] == [0, 0], both[0].said() + both[1].said()
    assert prints(run) == {step: prints(folder / "two")[step] for step in range(9)}


@pytest.mark.slow
@pytest.mark.fault(6)
def test_a_signal_to_one_process_stops_all_at_one_step(trained, tmp_path):
    folder, config, _ = trained
    run = tmp_path / "run"
    both = ranks(tmp_path, 2, *train(config, run))
    both[0].until(lambda: written(run) > 2)
    both[1].send_signal(signal.SIGTERM)
    assert [rank.ended() for rank in both] == [143, 143], both[0].said() + both[1].said()
    assert 0 < newest(run) < STEPS
    both = ranks(tmp_path, 2, *train(config, run))
    assert [rank.ended(300) for rank in both] == [0, 0], both[0].said()
    same_end(run, folder / "two")


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("other", "named"),
    [
        (("--seed", 1), "seed"),
        (("--data.seed", 1), "data"),
        (("--run.log-every", 2), "run.log_every"),
    ],
)
def test_processes_that_were_started_differently_refuse(trained, tmp_path, other, named):
    _, config, _ = trained
    run = tmp_path / "run"
    both = ranks(tmp_path, 2, *train(config, run), extra=lambda i: other if i else ())
    assert [rank.ended() for rank in both] == [2, 2], both[0].said() + both[1].said()
    assert named in both[0].said()
    assert not (run / "run.json").exists()


def test_how_a_process_finds_its_place():
    explicit = {
        "JAX_COORDINATOR_ADDRESS": "host:1234",
        "JAX_NUM_PROCESSES": "3",
        "JAX_PROCESS_ID": "2",
    }
    assert processes.detect(explicit) == (2, 3, "host:1234")
    slurm = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a[1-4]"}
    assert processes.detect(slurm)[:2] == (1, 4)
    assert processes.detect({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"})[1] == 2
    alone = [
        {},
        {**slurm, "SLURM_NTASKS": "1"},
        # A shell within an allocation is no step of it.
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
        # On many clusters `salloc` starts it as one.
        {**slurm, "SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967290"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        # Left over from another program: says nothing of how many.
        {"JAX_COORDINATOR_ADDRESS": "host:1234"},
    ]
    assert [processes.detect(environment) for environment in alone] == [None] * len(alone)
    assert processes.detect({}, forced=True) == (None, None, None)
    assert processes.detect({**slurm, "SLURM_STEP_ID": "0"})[:2] == (1, 4)
    # The names of a slice are not those of all slices.
    slices = {"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2"}
    assert processes.detect(slices) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"JAX_PROCESS_ID": "3"}, "0 or more and below"),
        ({"JAX_PROCESS_ID": "-1"}, "0 or more and below"),
        ({"JAX_NUM_PROCESSES": "many"}, "0 or more and below"),
        ({"JAX_COORDINATOR_ADDRESS": "host"}, "host:port"),
        ({"JAX_COORDINATOR_ADDRESS": ""}, "missing"),
    ],
)
def test_half_a_place_is_refused(change, hint):
    explicit = {
        "JAX_COORDINATOR_ADDRESS": "host:1234",
        "JAX_NUM_PROCESSES": "3",
        "JAX_PROCESS_ID": "2",
    }
    with pytest.raises(UserError, match=hint):
        processes.detect({**explicit, **change})


@pytest.mark.slow
@pytest.mark.fault(24)
def test_a_run_goes_on_with_other_processes_and_devices(trained, tmp_path):
    """2 processes x 2 devices, then 1 device, then 4 of one process."""
    folder, config, _ = trained
    run = tmp_path / "run"

    def length(steps):
        return "train", config, "--workdir", run, "--run.steps", steps, "--run.checkpoint-every", 8

    both = ranks(tmp_path, 2, *length(8))
    assert [rank.ended(300) for rank in both] == [0, 0], both[0].said()
    for steps, devices in ((16, 1), (24, 4)):
        options = ("--run.platform", "cpu", "--run.devices", devices)
        one = Training(tmp_path / "log", *length(steps), *options, env=SIMULATED)
        assert one.ended(300) == 0, one.said()
        assert "devices" in one.said() or "processes" in one.said()
    resumed = json.loads((run / "run.json").read_text())["resumed"]
    assert [entry["step"] for entry in resumed] == [8, 16]
    assert "devices: 1 -> 4" in " ".join(resumed[1]["changed"])
    assert any("devices" in line for line in resumed[0]["changed"])
    # Bits up to the change; then the same images and noise: the next step's losses agree.
    before = {step: value for step, value in prints(run).items() if step <= 8}
    assert before == {step: prints(folder / "two")[step] for step in before}
    mine, whole = (metrics_file.read_metrics(r / "metrics.jsonl") for r in (run, folder / "two"))
    for name in ("loss/d", "loss/g"):
        assert mine[9][name] == pytest.approx(whole[9][name], rel=1e-5)
    assert np.isfinite([line["loss/g"] for line in mine if line.get("loss/g")]).all()
    assert len(ledger(run)) == 25
    assert leaves(run, 24)
