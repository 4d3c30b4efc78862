"""A machine with an accelerator that JAX does not use: one line says what to install."""

import pytest

from anigan_jax.cli import bench
from anigan_jax.runtime import environment

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
