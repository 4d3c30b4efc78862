"""Exported files by others: torch-fidelity scores one, jax2onnx writes another."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from oracles.fidelity import torch_fidelity
from test_export import opened, rows_of, run, session
from tiny import FULL, process_env

from anigan_jax.evaluation import features
from anigan_jax.export import onnx
from anigan_jax.export.generators import generators_of
from anigan_jax.metrics import frechet, kid
from anigan_jax.sampling import grids
from anigan_jax.storage import images as record


def test_torch_fidelity_scores_the_file_as_we_score_the_model(tmp_path, monkeypatch):
    """It opens the file, draws latents and takes moments itself; only the features are ours."""
    metrics = torch_fidelity("metrics")
    import torch
    from torch_fidelity import registry
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    network, trained, n = features.random(), opened(FULL), 300

    class Ours(FeatureExtractorBase):
        def __init__(self, name, layers, **_):
            super().__init__(name, layers)

        @staticmethod
        def get_provided_features_list():
            return ("features",)

        get_default_feature_layer_for_metric = staticmethod(lambda metric: "features")

        def forward(self, images):
            pixels = images.numpy().transpose(0, 2, 3, 1)
            pixels = pixels if pixels.dtype == np.uint8 else record.to_uint8(pixels)
            return (torch.from_numpy(features.of_images(network, pixels).astype(np.float64)),)

    monkeypatch.setitem(registry.FEATURE_EXTRACTORS_REGISTRY, "ours", Ours)
    (generator,) = generators_of(trained, "float32")
    path = tmp_path / "generator.onnx"
    path.write_bytes(onnx.write(generator, {})[0])
    real = np.random.default_rng(3).integers(0, 256, (200, 16, 16, 3), np.uint8)
    told = metrics.calculate_metrics(
        input1=str(path),
        input1_model_z_type="normal",
        input1_model_z_size=trained.method.z_dim,
        input1_model_num_samples=n,
        input2=torch.utils.data.ConcatDataset([torch.from_numpy(real.transpose(0, 3, 1, 2))]),
        feature_extractor="ours",
        feature_extractor_compile=False,
        kid=True,
        fid=True,
        kid_subsets=10,
        kid_subset_size=100,
        rng_seed=2020,
        batch_size=n,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    noise = registry.NOISE_SOURCE_REGISTRY["normal"]
    z = noise(np.random.RandomState(2020), (n, trained.method.z_dim)).numpy()
    made = grids.generated(trained.model, z)
    fake, true = (features.of_images(network, x).astype(np.float64) for x in (made, real))
    assert abs(told["frechet_inception_distance"] - frechet.distance(fake, true)) < 1e-3
    monkeypatch.setattr(np.random, "default_rng", np.random.RandomState)
    own = kid.kid(fake, true, 2020, subsets=10, size=100).mean
    assert abs(told["kernel_inception_distance_mean"] - own) < 1e-3 * abs(own)


@pytest.mark.long
@pytest.mark.skipif(
    not importlib.util.find_spec("jax2onnx"),
    reason="needs jax2onnx: pip install --no-deps jax2onnx==0.17.1 onnx-ir==1.1.0",
)
@pytest.mark.parametrize("name", ["FULL", "CYCLE"])
def test_jax2onnx_writes_what_makes_the_same_images(name, tmp_path):
    """From JAX's own operations, where ours comes from the plan of layers."""
    file = tmp_path / "theirs.onnx"
    command = [sys.executable, "-m", "oracles.converted", name, str(file)]
    folder = Path(__file__).parent
    done = subprocess.run(
        command, cwd=folder, env=process_env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    generator = generators_of(opened(getattr(tiny, name)), "float32")[0]
    inputs, theirs = rows_of(generator, 3), session(file.read_bytes())
    names = [given.name for given in theirs.get_inputs()]
    (found,) = theirs.run(None, dict(zip(names, inputs.values(), strict=True)))
    data, _ = onnx.write(generator, {})
    assert np.abs(found - run(session(data), inputs)).max() <= 1e-5
