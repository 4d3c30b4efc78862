import dataclasses

import numpy as np

from anigan_jax import load_config
from anigan_jax.metrics.feature_scores import METRICS, Metric


def mean_distance(sets):  # sets.fake (N, d), sets.real (M, d): features by a judge
    return float(np.linalg.norm(sets.fake.mean(0) - sets.real.mean(0)))


METRICS["mean_distance"] = Metric(
    "mean_distance",
    title="Distance of means",
    better="lower",
    says="how far the mean features of both sets are apart",
    compute=mean_distance,
)

CONFIG = dataclasses.replace(load_config("quickstart"), name="measured")
