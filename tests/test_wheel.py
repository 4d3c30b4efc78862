"""The wheel: installed into an empty environment, it needs no file of the checkout."""

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tiny import NAMES, process_env

ROOT = Path(__file__).resolve().parent.parent
BUILT_FROM = ("anigan_jax", "configs", "pyproject.toml", "README.md", "LICENSE")
# One process for all configs, since starting JAX takes longer than describing.
DESCRIBE = """
import sys
from anigan_jax.cli import main
for name in sys.argv[1:]:
    try:
        main.main(["describe", name])
    except SystemExit as stop:
        assert stop.code == 0, f"{name}: {stop.code}"
folders = sorted({m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)})
print(*folders, sep="\\n", file=sys.stderr)
"""
pytestmark = [pytest.mark.slow, pytest.mark.long]


def run(*command, cwd: Path) -> subprocess.CompletedProcess:
    env = {k: v for k, v in process_env().items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # Of a copy, because setuptools builds in the source tree.
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        path = ROOT / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", ".",
        cwd=source)  # fmt: skip
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """bin/ of an environment with the wheel, and these tests' dependencies by their path.

    A .pth file in that path is not read, so an editable install stays out of sight.
    """
    env = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", "--without-pip", env, cwd=env)
    site = next(env.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "--python", env / "bin/python", "install", "--no-deps", "--no-index",
        "--ignore-installed", wheel, cwd=env)  # fmt: skip
    return env / "bin"


def files_of(folder: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = files_of("anigan_jax") | {f"anigan_jax/{name}" for name in files_of("configs")}
    assert held == wanted


def test_every_config_is_described(installed, tmp_path):
    old = ["seed_sn_dcgan"]
    done = run(installed / "python", "-c", DESCRIBE, *NAMES, *old, cwd=tmp_path)
    assert "seed_sn_dcgan is now called ucsd_sn_dcgan" in done.stderr
    loaded = {Path(line) for line in done.stderr.splitlines() if line.startswith("/")}
    assert any(path.name == "quickstart.py" or "anigan_jax" in path.parts for path in loaded)
    checkout = {ROOT / "anigan_jax", ROOT / "configs", ROOT / "tests"}
    assert not [path for path in loaded if checkout & set(path.parents)]


def test_quickstart_trains(installed, tmp_path):
    words = "--run.steps 4 --run.sample-every 4 --run.checkpoint-every 4 --batch-size 4"
    size = "--data.count 40 --method.generator.base-channels 4"
    run(installed / "anigan", "train", "quickstart", "--workdir", "r", *words.split(),
        *size.split(), "--method.discriminator.base-channels", 4, cwd=tmp_path)  # fmt: skip
    lines = (tmp_path / "r/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 4
    assert list((tmp_path / "r/previews/samples").iterdir())
