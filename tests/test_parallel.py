"""The same numbers from 1, 2 and 4 devices, by pmap and by shard_map."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import FULL, PLAIN, digests, packed, run_steps, start

from anigan_jax import config as configs
from anigan_jax.errors import UserError
from anigan_jax.networks.dcgan import Discriminator
from anigan_jax.optimizers import Optimizer
from anigan_jax.runtime import devices as parallel
from anigan_jax.training import step as train_step


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return packed(FULL, tmp_path_factory.mktemp("cache")).images


@pytest.mark.long
def test_pmap_and_shard_map_give_the_same_bits(images):
    _, state = start(FULL)
    ends = [
        run_steps(FULL, images, state, 4, length=2, devices=4, mapper=mapper)
        for mapper in ("pmap", "shard_map")
    ]
    assert digests(ends[0][0]) == digests(ends[1][0])
    for name, values in ends[0][1].items():
        np.testing.assert_array_equal(values, ends[1][1][name])


@pytest.mark.long
def test_device_counts_agree_with_sgd(images):
    """1e-5 relative on every parameter after 5 steps, batch norm synchronized.

    The first losses are of the images and the noise alone.
    """
    sgd = Optimizer(name="sgd", learning_rate=1e-2)
    config = dataclasses.replace(PLAIN, optimizers={"g": sgd, "d": sgd})
    _, state = start(config)
    (one, lines), *rest = (run_steps(config, images, state, 5, devices=n) for n in (1, 2, 4))
    for other, more in rest:
        for name in ("loss/d", "loss/g"):
            np.testing.assert_allclose(more[name][0], lines[name][0], rtol=2e-6)
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
            scale = np.abs(a).max() or 1.0
            np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=1e-5)
    moved = [
        float(np.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(state.params), strict=True)
    ]
    assert max(moved) > 1e-3


@pytest.mark.long
def test_device_counts_agree_with_adam_in_losses_and_scores(images):
    _, state = start(PLAIN)
    one, other = (run_steps(PLAIN, images, state, 5, devices=n)[1] for n in (1, 4))
    for name in ("loss/g", "loss/d", "score/real", "score/fake"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-4, atol=1e-4)


@pytest.mark.fault(25)
def test_a_batch_that_the_devices_do_not_divide_is_refused():
    with pytest.raises(UserError, match=r"not a multiple of 4.*1, 2"):
        parallel.choose_devices(4, 6)
    with pytest.raises(UserError, match="has 4"):
        parallel.choose_devices(64, 64)


def test_replicas_that_differ_are_named():
    devices = jax.devices()[:2]
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shards = [jax.device_put(np.float32(i), d) for i, d in enumerate(devices)]
    odd = jax.make_array_from_single_device_arrays((), sharding, shards)
    with pytest.raises(AssertionError, match="weight"):
        parallel.assert_replicated({"weight": odd})
    parallel.assert_replicated({"weight": parallel.replicate(np.ones(3), devices)})


def test_several_processes_take_shard_map_and_say_why(monkeypatch):
    assert parallel.mapper_of("shard_map", 2) == ("shard_map", "")
    assert parallel.mapper_of("pmap", 1) == ("pmap", "")
    taken, why = parallel.mapper_of("pmap", 2)
    assert taken == "shard_map" and "time out" in why and "\n" not in why
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "pmap", None)
    parallel.map_step(lambda state, shared, local: state, "pmap", jax.devices()[:2])


class OfEachDevice(Discriminator):
    """A D whose batch norm was written without the mapped axis."""

    def build(self, axis_name=None, dtype="float32"):
        return super().build(None, dtype)


@pytest.mark.parametrize("kind", [Discriminator, OfEachDevice])
def test_a_network_that_parts_the_devices_is_found(kind, images):
    """In one process too, where no signal has to be passed on."""
    d = kind(size=16, base_channels=4)
    config = dataclasses.replace(PLAIN, method=dataclasses.replace(PLAIN.method, discriminator=d))
    chosen = jax.devices()[:2]
    axis = parallel.axis_of(chosen)
    method, data = config.method.make(axis), {"a": {"image": np.asarray(images)}}
    config = configs.resolve(config, len(images))
    step = train_step.make_super_step(config, method, method.phases[0], 1, axis)
    shared = parallel.replicate({"data": data, "constants": {}}, chosen)
    state = parallel.replicate(jax.tree.map(np.asarray, start(config)[1]), chosen)
    local = {"device": np.arange(2, dtype=np.int32)}
    _, (_, health) = parallel.map_step(step, "pmap", chosen)(state, shared, local)
    assert bool(health.replicated) == (kind is Discriminator)
    assert (int(health.stop), int(health.first_nonfinite)) == (0, -1)
