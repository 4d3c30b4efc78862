"""Trains configs for a few steps and prints every leaf's digest, for `test_exact`."""

import json
import sys
import tempfile
from pathlib import Path

from anigan_jax import runtime

runtime.prepare("cpu")

from tiny import NAMES, arrays, digests, packed, run_steps, shrunk, start  # noqa: E402

names = sys.argv[1:] or NAMES
out = {}
with tempfile.TemporaryDirectory() as folder:
    for name in names:
        config = shrunk(name)
        pack = packed(config, Path(folder))
        end, _ = run_steps(config, arrays(config, pack), start(config, pack)[1], 3)
        out[name] = digests(end)
print(json.dumps(out))
