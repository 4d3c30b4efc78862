"""SLURM, TPU pods and Kubernetes: held against the APIs they speak, and run with stand-ins."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api import models
from launchers import ANIGAN, LAUNCH, alive, put, told, until_all_run

from anigan_jax import config_file
from anigan_jax.config_file import override


def directives() -> dict[str, str]:
    """Option -> value of slurm.sbatch, which SLURM reads up to the first command."""
    found = {}
    for line in (LAUNCH / "slurm.sbatch").read_text().splitlines():
        if line.startswith("#SBATCH "):
            name, _, value = line.removeprefix("#SBATCH ").partition("=")
            found[name] = value
        elif line and not line.startswith("#"):
            return found
    return found


def test_slurm_is_told_to_requeue():
    # Options of sbatch's manual, of those that a run may want.
    known = (
        "--job-name --nodes --ntasks --ntasks-per-node --gpus-per-node --cpus-per-task --mem "
        "--time --output --open-mode --requeue --signal --partition --account --exclusive"
    )
    found = directives()
    assert set(found) <= set(known.split(" "))
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert len(found) == text.count("\n#SBATCH "), "some come after the first command"
    assert found["--requeue"] == ""
    assert found["--open-mode"] == "append"
    # To the processes, not to the shell: no 'B:'.
    assert re.fullmatch(r"TERM@\d+", found["--signal"])


LOST = (4, 134, 137, 139)


@pytest.mark.parametrize(
    ("code", "failures", "again"),
    [
        *((0, 0, False), (1, 0, False), (2, 0, False), (3, 0, False), (143, 0, True)),
        *((143, 99, True), *((code, 0, True) for code in LOST), (137, 4, True)),
        *((code, 5, False) for code in LOST),
    ],
)
def test_slurm_requeues_what_can_go_on(shell, tmp_path, code, failures, again):
    (tmp_path / "anigan-17.failures").write_text("4\n" * failures)
    put(
        tmp_path / "bin", "srun", '#!/bin/sh\nwhile [ "$1" != anigan ]; do shift; done\nexec "$@"\n'
    )
    put(tmp_path / "bin", "scontrol", '#!/bin/sh\necho "$@" >>requeued\nexit 1\n')
    process = shell(
        "slurm.sbatch",
        *(f"exit-{code}", "--workdir", "x y"),
        SLURM_JOB_ID="17",
        # Preemptions are no failures.
        SLURM_RESTART_COUNT="99",
        SLURM_GPUS_ON_NODE="4",
    )
    output, _ = process.communicate(timeout=20)
    assert process.returncode == code
    (said,) = told(output).values()
    assert said["argv"] == ["train", f"exit-{code}", "--workdir", "x y"]
    assert said["env"]["JAX_LOCAL_DEVICE_IDS"] == "0,1,2,3"
    requeued = tmp_path / "requeued"
    assert requeued.exists() == again
    assert not again or requeued.read_text() == "requeue 17\n"


def test_a_preempted_slurm_job_sees_its_processes_save(shell, tmp_path):
    put(
        tmp_path / "bin", "srun", '#!/bin/sh\nwhile [ "$1" != anigan ]; do shift; done\nexec "$@"\n'
    )
    put(tmp_path / "bin", "scontrol", '#!/bin/sh\necho "$@" >>requeued\n')
    process = shell("slurm.sbatch", "wait", SLURM_JOB_ID="17", SLURM_NTASKS_PER_NODE="8")
    output = until_all_run(process, 1)
    (said,) = told(output).values()
    assert "JAX_LOCAL_DEVICE_IDS" not in said["env"], "JAX gives each of 8 its own"
    os.killpg(process.pid, signal.SIGTERM)
    output += process.communicate(timeout=20)[0]
    with contextlib.suppress(ProcessLookupError):
        os.kill(said["child"], signal.SIGKILL)
    assert process.returncode == 143
    assert "saved" in output
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"


GCLOUD = """#!/bin/sh
# Two workers, each with a home of its own.
echo "$@" | head -1 >>"$ROOT/asked"
for last; do :; done
for worker in 0 1; do
  (cd "$ROOT/worker$worker" && exec sh -c "${last#--command=}") &
done
wait
"""


@pytest.mark.long
def test_tpu_workers_get_the_same_words(shell, tmp_path):
    put(tmp_path / "bin", "gcloud", GCLOUD)
    for worker in (0, 1):
        put(tmp_path / f"worker{worker}" / "code" / ".venv" / "bin", "anigan",
            ANIGAN.format(python=sys.executable))  # fmt: skip
    there = {"TPU": "pod", "ZONE": "zone-b", "DIR": "code", "ROOT": str(tmp_path)}
    words = ["wait", "--workdir", "it's $HOME", '"a" b']
    process = shell("tpu_pod.sh", *words, **there)
    logs = [tmp_path / f"worker{worker}" / "code" / "anigan.log" for worker in (0, 1)]
    deadline = time.monotonic() + 20
    while not all(log.exists() and told(log.read_text()) for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    said = [next(iter(told(log.read_text()).values())) for log in logs]
    assert [one["argv"] for one in said] == [["train", *words, "--distributed"]] * 2
    assert "pod --zone=zone-b --worker=all" in (tmp_path / "asked").read_text()
    # The same command, beside the run: it shows that one, and starts none.
    again = shell("tpu_pod.sh", *words, **there)
    text = ""
    while text.count("a run is under way here") < 2:
        text += again.stdout.readline()
    # Another program has worker 1's number.
    number = tmp_path / "worker1" / "code" / "anigan.pid"
    mine = number.read_text()
    stranger = subprocess.Popen(["sleep", "60"])
    number.write_text(f"{stranger.pid}\n")
    stop = shell("tpu_pod.sh", "stop", **there)
    assert "no run here" in stop.communicate(timeout=20)[0]
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    number.write_text(mine)
    stop = shell("tpu_pod.sh", "stop", **there)
    stop.communicate(timeout=20)
    output, _ = process.communicate(timeout=20)
    shown, _ = again.communicate(timeout=20)
    for one in said:
        os.kill(one["child"], signal.SIGKILL)
    assert output.count("saved") == shown.count("saved") == 2
    assert all(log.read_text().count('"argv"') == 1 for log in logs)
    assert not any(alive(one["pid"]) for one in said)


@pytest.mark.long
def test_a_tpu_s_old_number_does_not_keep_a_run_from_starting(shell, tmp_path):
    put(tmp_path / "bin", "gcloud", GCLOUD)
    stranger = subprocess.Popen(["sleep", "60"])
    for worker in (0, 1):
        code = tmp_path / f"worker{worker}" / "code"
        put(code / ".venv" / "bin", "anigan", ANIGAN.format(python=sys.executable))
        (code / "anigan.pid").write_text(f"{stranger.pid}\n")
    there = {"TPU": "pod", "ZONE": "zone-b", "DIR": "code", "ROOT": str(tmp_path)}
    output, _ = shell("tpu_pod.sh", "exit-0", "--distributed", **there).communicate(timeout=20)
    stranger.kill()
    stranger.wait()
    assert output.count('"argv": ["train", "exit-0", "--distributed"]') == 2


@pytest.mark.parametrize("environment", [{}, {"TPU": "pod"}, {"ZONE": "zone-b"}])
def test_a_tpu_needs_its_name_and_zone(shell, environment):
    process = shell("tpu_pod.sh", "cfg", **environment)
    process.communicate(timeout=20)
    assert process.returncode != 0


def jobset() -> tuple[dict, dict]:
    claim, jobset = yaml.safe_load_all((LAUNCH / "kubernetes_jobset.yaml").read_text())
    return claim, jobset


def test_the_jobset_is_of_its_api():
    claim, given = jobset()
    # The models drop what they do not know, and refuse what has a wrong type or lacks a field.
    assert models.JobsetV1alpha2JobSet.from_dict(given).to_dict() == given
    kind = models.IoK8sApiCoreV1PersistentVolumeClaim
    assert kind.from_dict(claim).to_dict() == claim
    given["spec"]["replicatedJobs"][0]["template"]["spec"]["completionMod"] = "Indexed"
    assert models.JobsetV1alpha2JobSet.from_dict(given).to_dict() != given


def test_the_jobset_fits_together():
    claim, given = jobset()
    (job,) = given["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert given["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert spec["parallelism"] == spec["completions"] == int(env["JAX_NUM_PROCESSES"])
    name = f"{given['metadata']['name']}-{job['name']}-0-0.{given['metadata']['name']}"
    assert env["JAX_COORDINATOR_ADDRESS"].rpartition(":")[0] == name
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert env["JAX_LOCAL_DEVICE_IDS"] == ",".join(map(str, range(gpus)))
    # An Indexed job's own annotation; podFailurePolicy asks for restartPolicy Never.
    assert "JAX_PROCESS_ID" in env and spec["completionMode"] == "Indexed"
    assert pod["restartPolicy"] == "Never" and spec["backoffLimit"] == 0
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"][:2]]
    assert claim["metadata"]["name"] in claims
    verb, name = container["command"][1:3]
    places = dict(zip(container["args"][::2], container["args"][1::2], strict=False))
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(Path(places[k]).parent) for k in ("--workdir", "--data.path")} <= folders
    config = override(config_file.load(name), container["args"][2:], "test")
    assert verb == "train" and config.flip and str(config.data.path) == places["--data.path"]
