"""Fingerprints of every config at tiny width: what no change of the code may move.

`python tests/golden.py` writes them for this machine's CPU and jaxlib into
golden/fingerprints.json. Do that only where a change of the bits is intended, and say so.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

STEPS = 12
COUNTS = (1, 2)
# Tests compile quickly; this one is compiled as users compile it, too.
OPTIMIZED = "quickstart"
FILE = Path(__file__).parent / "golden" / "fingerprints.json"


def platform_key() -> str:
    """What CPU code is compiled for and by: other instructions round elsewhere."""
    import jaxlib

    flags = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        line = next(x for x in cpuinfo.read_text().splitlines() if x.startswith("flags"))
        flags = set(line.partition(":")[2].split())
    wanted = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")
    return f"jaxlib {jaxlib.__version__} " + " ".join(f for f in wanted if f in flags)


def alike(names) -> list[list[str]]:
    """The names in groups of configs that are one at tiny width: training each proves nothing."""
    from tiny import shrunk

    from anigan_jax.config import Run

    groups: dict = {}
    for name in names:
        config = dataclasses.replace(shrunk(name), name="", run=Run())
        groups.setdefault(config, []).append(name)
    return list(groups.values())


def prints(name: str, counts: tuple[int, ...], folder: Path) -> dict[str, list[str]]:
    """'NAME/DEVICES' -> fingerprints of the state after each of 12 steps from the seed."""
    import numpy as np
    from tiny import arrays, constants_of, packed, run_steps, shrunk, start, with_features

    config = with_features(shrunk(name), folder)
    method, parts = config.method, [STEPS]
    if hasattr(method, "content_steps"):
        # Both phases.
        config = dataclasses.replace(config, method=dataclasses.replace(method, content_steps=4))
        parts = [4, STEPS - 4]
    pack = packed(config, folder)
    constants, (_, first), found = constants_of(config, pack), start(config, pack), {}
    for devices in counts:
        state, said = first, []
        for steps in parts:
            rest = {"constants": constants, "devices": devices}
            state, metrics = run_steps(config, arrays(config, pack), state, steps, **rest)
            said += [f"{int(x):08x}" for x in np.asarray(metrics["fingerprint"])]
        found[f"{name}/{devices}"] = said
    return found


def by_a_process(name: str, env: dict[str, str]) -> dict[str, list[str]]:
    """What `prints` gives in another process, which compiles for itself."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, name],
            env={**env, "JAX_COMPILATION_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_users_compile(env: dict[str, str]) -> dict[str, list[str]]:
    """The fingerprints of one config that is compiled as users compile it."""
    from tiny import QUICK_COMPILE

    env = {name: value for name, value in env.items() if name not in QUICK_COMPILE}
    return {f"{name} optimized": found for name, found in by_a_process(OPTIMIZED, env).items()}


def merged(known: dict[str, dict], key: str, found: dict[str, list[str]]) -> dict[str, dict]:
    """The records with those of one kind of machine anew; what changed there is stale elsewhere."""
    stale = {name for name, prints in known.get(key, {}).items() if found.get(name) != prints}
    rest = {k: {n: p for n, p in v.items() if n not in stale} for k, v in known.items()}
    return {**rest, key: found}


def main() -> None:
    """Without arguments for the file; with names of configs as JSON for who asks."""
    from tiny import NAMES, QUICK_COMPILE

    from anigan_jax.runtime import environment

    asked, found, given = sys.argv[1:], {}, dict(os.environ)
    os.environ["NPROC"] = "16"
    if not asked:
        os.environ |= QUICK_COMPILE
        jax.config.update("jax_disable_most_optimizations", True)
    environment.prepare("cpu", devices=4)
    with tempfile.TemporaryDirectory() as folder:
        for group in alike(asked or NAMES):
            once = prints(group[0], COUNTS, Path(folder))
            for name in group:
                found |= {f"{name}/{n}": once[f"{group[0]}/{n}"] for n in COUNTS}
    if asked:
        print(json.dumps(found))
        return
    found |= as_users_compile(given)
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    FILE.write_text(json.dumps(merged(known, platform_key(), found), indent=1) + "\n")


if __name__ == "__main__":
    main()
