"""Fingerprints of every config at tiny width: what no change of the code may move.

`python tests/golden.py` writes them for this machine's CPU and jaxlib into
golden/fingerprints.json. Do that only where a change of the bits is intended, and say so.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path

STEPS = 12
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


def prints(name: str, devices: int, folder: Path) -> list[str]:
    """The fingerprint of the state after each of 12 steps of a config, from its seed."""
    import numpy as np
    from tiny import arrays, constants_of, packed, run_steps, shrunk, start, with_features

    config = with_features(shrunk(name), folder)
    method, parts = config.method, [STEPS]
    if hasattr(method, "content_steps"):
        # Both phases.
        config = dataclasses.replace(config, method=dataclasses.replace(method, content_steps=4))
        parts = [4, STEPS - 4]
    pack = packed(config, folder)
    _, state = start(config, pack)
    found = []
    for steps in parts:
        rest = {"constants": constants_of(config, pack), "devices": devices}
        state, metrics = run_steps(config, arrays(config, pack), state, steps, **rest)
        found += [f"{int(x):08x}" for x in np.asarray(metrics["fingerprint"])]
    return found


def main() -> None:
    os.environ["NPROC"] = "16"
    from anigan_jax.runtime import environment

    environment.prepare("cpu", devices=4)
    from tiny import NAMES

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            for devices in (1, 2):
                found[f"{name}/{devices}"] = prints(name, devices, Path(folder))
                print(name, devices, found[f"{name}/{devices}"][-1], flush=True)
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    FILE.write_text(json.dumps({**known, platform_key(): found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
