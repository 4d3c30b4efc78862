"""A machine with an accelerator that JAX does not use: one line says what to install."""

import dataclasses
import os
import subprocess
import sys
from unittest import mock

import pytest
from tiny import PLAIN, process_env

from anigan_jax import api
from anigan_jax.cli import bench
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment
from anigan_jax.training import replay

GOOGLE = ("sys/bus/pci/devices/0000:00:05.0/vendor", "0x1ae0\n")


def machine(root, *files):
    """A file system with these files: paths, or (path, text)."""
    for file in files:
        path, text = (file, "") if isinstance(file, str) else file
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "environ", "found"),
    [
        ((), {}, {}),
        (("dev/nvidia0",), {}, {"gpu": "cuda"}),
        # A driver, and a container that was handed no device of it.
        (("proc/driver/nvidia/gpus/0000:01:00.0/information",), {}, {"gpu": "cuda"}),
        (("dev/nvidiactl", "proc/driver/nvidia/version"), {}, {}),
        (("dev/nvidia0",), {"CUDA_VISIBLE_DEVICES": ""}, {}),
        (("dev/nvidia0",), {"NVIDIA_VISIBLE_DEVICES": "void"}, {}),
        (("dev/nvidia0",), {"CUDA_VISIBLE_DEVICES": "0"}, {"gpu": "cuda"}),
        (("dev/accel0",), {}, {"tpu": "tpu"}),
        # What other makers put into a folder of that name.
        (("dev/accel/accel0",), {}, {}),
        (("dev/vfio/0", GOOGLE), {}, {"tpu": "tpu"}),
        (("dev/vfio/0", (GOOGLE[0], "0x8086\n")), {}, {}),
        # A network card of Google's cloud alone.
        (("dev/vfio/vfio", GOOGLE), {}, {}),
        ((), {"TPU_ACCELERATOR_TYPE": "v5litepod-4"}, {"tpu": "tpu"}),
        (("dev/nvidia0", "dev/accel0"), {}, {"gpu": "cuda", "tpu": "tpu"}),
    ],
)
def test_what_a_machine_has(tmp_path, files, environ, found):
    assert environment.accelerators(machine(tmp_path, *files), environ) == found


def test_the_warning_names_the_command(tmp_path, monkeypatch):
    root = machine(tmp_path, "dev/nvidia0")
    monkeypatch.setattr(environment, "_installed", lambda package: False)
    told = environment.unused_accelerator(root, {})
    assert "GPU" in told and "pip install 'anigan_jax[cuda]'" in told and "\n" not in told
    monkeypatch.setattr(environment, "_installed", lambda package: "cuda12" in package)
    told = environment.unused_accelerator(root, {})
    assert "pip" not in told and "JAX_PLATFORMS=cuda" in told
    # Whoever names a platform means it, and a machine without one needs no word.
    assert not environment.unused_accelerator(root, {"JAX_PLATFORMS": "cpu"})
    assert not environment.unused_accelerator(tmp_path / "none", {})


def test_bench_warns_as_train_does(monkeypatch, capsys):
    done = type("Done", (), {"returncode": 0})
    done.stdout = '["cpu", {"NPROC": "2", "jaxlib": "0"}, "this machine has a GPU"]\n'
    monkeypatch.setattr(bench.subprocess, "run", lambda *words, **rest: done)
    assert bench._machine("auto") == ("cpu", "2 CPU threads, jaxlib 0")
    assert capsys.readouterr().err == "warning: this machine has a GPU\n"


def flags_of(config, workdir):
    """The XLA flags that a run of a config sets, of an environment without any."""
    with mock.patch.dict(os.environ, {"XLA_FLAGS": ""}):
        api.prepare(config, workdir)
        return os.environ["XLA_FLAGS"].split()


def test_kernels_that_need_not_be_exact_are_kept_and_taken_again(tmp_path):
    run = dataclasses.replace(PLAIN.run, kernels="fastest")
    free = dataclasses.replace(PLAIN, run=run)
    kept = tmp_path / "run" / "algorithms.txt"
    dump, load = (
        f"--xla_gpu_{w}={kept}" for w in ("dump_autotune_results_to", "load_autotune_results_from")
    )
    assert "--xla_gpu_deterministic_ops=true" in flags_of(PLAIN, kept.parent)
    assert not [flag for flag in flags_of(PLAIN, kept.parent) if "autotune" in flag]
    first = flags_of(free, kept.parent)
    assert {"--xla_gpu_deterministic_ops=false", dump} <= {*first} and load not in first
    # XLA writes there before anything else does.
    assert kept.parent.is_dir()
    kept.write_text("")
    again = flags_of(free, kept.parent)
    assert {dump, load} <= {*again}
    # XLA knows these words, and where the run lies is no fact of its bits.
    code = (
        "from anigan_jax.runtime import environment as e; e.start(); print(e.facts()['XLA_FLAGS'])"
    )
    env = {**process_env(), "XLA_FLAGS": " ".join(again)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "xla_gpu_deterministic_ops=false" in done.stdout and str(kept) not in done.stdout


def test_what_no_run_repeats_is_not_replayed(tmp_path):
    exact, free = (
        {"platform": "gpu", "XLA_FLAGS": f"--xla_gpu_deterministic_ops={word}"}
        for word in ("true", "false")
    )
    replay.repeatable(tmp_path, {"facts": exact})
    # On a CPU the flag has no meaning.
    replay.repeatable(tmp_path, {"facts": {**free, "platform": "cpu"}})
    for recorded in ({"facts": free}, {"facts": exact, "resumed": [{"facts": free}]}):
        with pytest.raises(UserError, match="fastest"):
            replay.repeatable(tmp_path, recorded)


def test_a_run_takes_no_kernels_of_one_before_it(tmp_path):
    """In one process; what the user has set stays."""
    run = dataclasses.replace(PLAIN.run, kernels="fastest")
    free = dataclasses.replace(PLAIN, run=run)
    with mock.patch.dict(os.environ, {"XLA_FLAGS": "--xla_cpu_enable_fast_min_max=false"}):
        api.prepare(free, tmp_path / "a")
        api.prepare(PLAIN, tmp_path / "b")
        found = os.environ["XLA_FLAGS"].split()
    assert "--xla_gpu_deterministic_ops=true" in found
    assert not [flag for flag in found if "autotune" in flag or flag.endswith("ops=false")]
    assert "--xla_cpu_enable_fast_min_max=false" in found


@pytest.mark.parametrize(("given", "devices", "want"), [("1", 4, 16), ("40", 4, 40), ("3", 1, 3)])
def test_simulated_devices_have_threads_enough(given, devices, want):
    with mock.patch.dict(os.environ, {"NPROC": given}):
        environment.prepare("cpu", devices)
        assert os.environ["NPROC"] == str(want)


def test_another_platform_than_this_process_has_is_refused():
    environment.start("cpu")
    with pytest.raises(UserError, match="JAX has started on 'cpu'"):
        environment.start("gpu")
