"""Four simulated CPU devices for every test; must run before JAX starts."""

import os

from anigan_jax import runtime

os.environ["NPROC"] = "16"
runtime.prepare("cpu", devices=4)
