"""Kubeflow Trainer, Ray Train, SkyPilot: held against their APIs, and run with stand-ins."""

import json
import os
import re
import runpy
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api import models
from launchers import ANIGAN, FOREIGN, LAUNCH, put, told

from anigan_jax import config_file
from anigan_jax.config_file import override
from anigan_jax.errors import UserError
from anigan_jax.runtime import processes
from anigan_jax.runtime.processes import ENGINES, OWN, SKYPILOT

AGAIN = (4, 134, 143)


@pytest.fixture
def anigan(tmp_path, monkeypatch):
    """The stand-in first in PATH, and nothing in the environment of what a cluster would say."""
    put(tmp_path / "bin", "anigan", ANIGAN.format(python=sys.executable))
    for name in os.environ:
        if name.startswith((*FOREIGN, "SKYPILOT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)


def test_the_docs_name_every_engine_with_its_variables():
    text = (LAUNCH.parent / "docs" / "scaling.md").read_text()
    for file, names in ENGINES.items():
        assert f"launch/{file}" in text and all(name in text for name in names), file
    # Of one run: the table's last column.
    table = text.partition("## One run on six engines")[2].partition("\n\nThe last column")[0]
    prints = re.findall(r"`([0-9a-f]{8})` \|$", table, re.M)
    assert len(prints) == len(ENGINES) and len(set(prints)) == 1


def test_every_engine_has_a_file_and_tells_each_process_its_place():
    """By the names in the table alone, a process finds rank, number and process 0."""
    given = {"JAX_COORDINATOR_ADDRESS": "a:1", "SLURM_STEP_NODELIST": "a[1-2]"}
    given |= {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n"}
    known = {OWN: "a:1", SKYPILOT: f"10.0.0.1:{processes.PORT}"}
    for file, names in ENGINES.items():
        assert (LAUNCH / file).is_file()
        told = {names.where: given[names.where], names.world: "2", names.rank: "1"}
        found = processes.detect(told)
        assert found[:2] == (1, 2), file
        # SLURM's first host is found by JAX.
        assert found.address == known.get(names), file
        assert not processes.is_first(told) and processes.is_first({**told, names.rank: "0"})
    alone = {"SKYPILOT_NODE_IPS": "10.0.0.1", "SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0"}
    assert processes.detect(alone) == (0, 1, None)
    # Whoever sets JAX's own means them, and TPUs know their places by themselves.
    both = {**alone, "SKYPILOT_NUM_NODES": "2"}
    own = dict(zip(OWN, ("b:2", "3", "2"), strict=True))
    assert processes.detect(both | own) == (2, 3, "b:2")
    assert processes.detect({**both, "TPU_WORKER_HOSTNAMES": "a,b"}) == (None, 2, None)
    with pytest.raises(UserError, match="SKYPILOT_NODE_RANK is '2'"):
        processes.detect({**both, "SKYPILOT_NODE_RANK": "2"})


def trainjob() -> tuple[dict, dict]:
    runtime, job = yaml.safe_load_all((LAUNCH / "kubeflow_trainjob.yaml").read_text())
    return runtime, job


def test_the_trainjob_is_of_its_api():
    runtime, job = trainjob()
    # The models drop what they do not know, and refuse what has a wrong type or lacks a field.
    for kind, given in (("TrainingRuntime", runtime), ("TrainJob", job)):
        model = getattr(models, f"TrainerV1alpha1{kind}")
        assert model.from_dict(given).to_dict() == given
        assert given["kind"] == kind and given["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    job["spec"]["trainer"]["numNode"] = 3
    assert models.TrainerV1alpha1TrainJob.from_dict(job).to_dict() != job


def test_the_trainjob_fits_together():
    runtime, job = trainjob()
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    trainer, template = job["spec"]["trainer"], runtime["spec"]["template"]["spec"]
    # The policy by which the Trainer sets the variables of ENGINES.
    assert runtime["spec"]["mlPolicy"] == {"numNodes": trainer["numNodes"], "jax": {}}
    (node,) = template["replicatedJobs"]
    label = node["template"]["metadata"]["labels"]
    assert label == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    spec = node["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    # The Trainer looks for the container of this name.
    assert container["name"] == node["name"] == "node"
    env = {each["name"]: each["value"] for each in trainer["env"]}
    assert not env.keys() & set(OWN)
    gpus = trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    assert env["JAX_LOCAL_DEVICE_IDS"] == ",".join(map(str, range(gpus)))
    # Every exit code but those that would come again restarts all.
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert not set(rule["onExitCodes"]["values"]) & set(AGAIN)
    assert template["failurePolicy"]["maxRestarts"] > 0
    assert pod["restartPolicy"] == "Never" and spec["backoffLimit"] == 0
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    places = dict(zip(trainer["args"][::2], trainer["args"][1::2], strict=False))
    assert {str(Path(places[k]).parent) for k in ("--workdir", "--data.path")} <= folders
    verb, name = trainer["command"][1:]
    config = override(config_file.load(name), trainer["args"][2:], "test")
    assert verb == "train" and config.flip and str(config.data.path) == places["--data.path"]


def test_a_sky_task_starts_a_process_on_each_machine(anigan, tmp_path):
    (task,) = yaml.safe_load_all((LAUNCH / "skypilot.yaml").read_text())
    # Fields of SkyPilot's YAML specification, of those that a run may want.
    known = "name num_nodes resources workdir file_mounts volumes setup run envs secrets"
    assert set(task) <= set(known.split())
    recovery = task["resources"]["job_recovery"]
    assert set(recovery["recover_on_exit_codes"]) == set(AGAIN)
    _, _, gpus = task["resources"]["accelerators"].partition(":")
    where = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    where |= {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_GPUS_PER_NODE": gpus}
    assert str(task["num_nodes"]) == where["SKYPILOT_NUM_NODES"]
    # With a home of its own: the machine's Python of the setup is not there.
    script = task["run"].replace("aiub_dcgan", "exit-143")
    environment = {**os.environ, **where, "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-ec", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 143, done.stderr
    (said,) = told(done.stdout).values()
    assert said["env"]["JAX_LOCAL_DEVICE_IDS"] == ",".join(map(str, range(int(gpus))))
    words = said["argv"]
    config = override(config_file.load("aiub_dcgan"), words[4:], "test")
    assert config.run.devices == task["num_nodes"] * int(gpus) and config.flip
    places = dict(zip(words[2::2], words[3::2], strict=False))
    assert str(Path(places["--workdir"]).parent) in task["volumes"]
    assert places["--data.path"] in task["file_mounts"]
    lint = ["bash", "-n", "-c", task["setup"]]
    assert subprocess.run(lint, check=False).returncode == 0


class Ray:
    """Ray Train's names as launch/ray_train.py uses them; workers are threads."""

    def __init__(self, world: int):
        self.world, self.settings, self.starts = world, {}, 0
        self.gate, self.local, self.shared = threading.Barrier(world), threading.local(), {}

    def modules(self) -> dict[str, types.ModuleType]:
        names = ("ray", "ray.train", "ray.train.collective", "ray.train.v2", "ray.train.v2.jax")
        made = {name: types.ModuleType(name) for name in names}
        made["ray"].train, made["ray"].util = (
            made["ray.train"],
            types.SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"),
        )
        made["ray.train"].collective = made["ray.train.collective"]
        made["ray.train"].get_context = lambda: self.local.context
        made["ray.train.collective"].broadcast_from_rank_zero = self.broadcast
        made["ray.train.collective"].barrier = self.gate.wait
        for name in ("FailureConfig", "RunConfig", "ScalingConfig"):
            setattr(made["ray.train"], name, dict)
        made["ray.train.v2.jax"].JaxConfig = dict
        made["ray.train.v2.jax"].JaxTrainer = self.trainer
        return made

    def broadcast(self, data):
        if self.local.context.get_world_rank() == 0:
            self.shared["data"] = data
        self.gate.wait()
        return self.shared["data"]

    def trainer(self, worker, *, train_loop_config, jax_config, scaling_config, run_config):
        assert jax_config == {}, "Ray must not start jax.distributed in the worker"
        assert scaling_config["num_workers"] == self.world
        self.settings = {"scaling": scaling_config}
        restarts = run_config["failure_config"]["max_failures"]

        def one(rank, found):
            self.local.context = types.SimpleNamespace(
                get_world_rank=lambda: rank, get_world_size=lambda: self.world
            )
            try:
                found[rank] = worker(train_loop_config)
            except RuntimeError as error:
                found[rank] = error

        def fit():
            while True:
                self.starts, found = self.starts + 1, {}
                threads = [threading.Thread(target=one, args=(i, found)) for i in range(self.world)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                errors = [each for each in found.values() if isinstance(each, Exception)]
                if not errors:
                    return types.SimpleNamespace(return_value=found[0])
                if self.starts > restarts:
                    raise errors[0]

        return types.SimpleNamespace(fit=fit)


def ray_train(monkeypatch, *words) -> tuple[Ray, int]:
    """Runs the script with stand-ins; (what Ray saw, exit code)."""
    ray = Ray(2)
    for name, module in ray.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["ray_train.py", *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(LAUNCH / "ray_train.py"), run_name="__main__")
    return ray, stop.value.code


def test_ray_workers_each_start_a_process(anigan, tmp_path, monkeypatch, capfd):
    words = ("quickstart", "--workdir", "a b")
    put(tmp_path / "bin", "anigan", ANIGAN.format(python=sys.executable))
    ray, code = ray_train(monkeypatch, "--gpus", "2", *words)
    assert (code, ray.starts) == (0, 1)
    assert ray.settings["scaling"]["resources_per_worker"] == {"GPU": 2}
    said = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    found = {one["env"]["JAX_PROCESS_ID"]: processes.detect(one["env"]) for one in said}
    assert {rank: place[:2] for rank, place in found.items()} == {"0": (0, 2), "1": (1, 2)}
    assert len({place.address for place in found.values()}) == 1
    assert {one["env"]["JAX_LOCAL_DEVICE_IDS"] for one in said} == {"0,1"}
    for one in said:
        assert one["argv"][:4] == ["train", *words]
        config = override(config_file.load("quickstart"), one["argv"][4:], "test")
        assert (config.run.platform, config.run.devices) == ("gpu", 4)


@pytest.mark.parametrize("code", AGAIN)
def test_ray_starts_again_what_can_go_on(anigan, monkeypatch, code):
    with pytest.raises(RuntimeError, match=f"exit code {code}"):
        ray_train(monkeypatch, "--gpus", "0", "--restarts", "1", f"exit-{code}")


def test_ray_does_not_start_again_what_would_fail_again(anigan, monkeypatch):
    for code in (2, 3):
        ray, told = ray_train(monkeypatch, "--gpus", "0", "--restarts", "9", f"exit-{code}")
        assert (told, ray.starts) == (code, 1)
