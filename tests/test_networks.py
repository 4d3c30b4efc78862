"""The seeds' networks: parameter counts, shapes, initial values, PyTorch equality."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NAMES, shrunk

from anigan_jax import config_file
from anigan_jax.errors import UserError
from anigan_jax.methods.translation import Translation
from anigan_jax.networks import dcgan as specs
from anigan_jax.networks import describe

# Total and statistics of each network; CSC412's are the report's, the others follow from
# sum(k k in out) + biases + gains by hand.
COUNTS = {
    "csc412_keras_dcgan": ((2_734_531, 960), (1_086_273, 896)),
    "ref_dcgan64": ((3_578_624, 1_920), (2_767_360, 1_792)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    nets = describe.describe(config_file.load(name).method.networks())
    for player, (total, statistics) in zip(
        ("generator", "discriminator"), COUNTS[name], strict=True
    ):
        assert nets[player]["statistics"] == statistics
        assert nets[player]["parameters"] + nets[player]["statistics"] == total


def test_flops_of_the_reference():
    nets = describe.describe(config_file.load("ref_dcgan64").method.networks())
    # Two per multiplication: 4x4 stem, three doublings of 16 k k-taps, RGB.
    stem = 100 * 512 * 16
    ups = sum(16 * 16 * 4**i * (512 >> i) * (256 >> i) for i in range(3))
    assert nets["generator"]["flops"] == 2 * (stem + ups + 16 * 32 * 32 * 64 * 3)


class Plain(nn.Module):
    """A user's own network, with a layer of its own, a nested one, and no `train`."""

    @nn.compact
    def __call__(self, z):
        x = nn.Dense(4 * 4 * 8)(z.reshape(-1, 5)).reshape(-1, 4, 4, 8)
        x = nn.Sequential([nn.ConvTranspose(6, (4, 4), (2, 2)), nn.GroupNorm(2)])(x)
        return nn.tanh(nn.Conv(3, (3, 3))(x) * self.param("gain", nn.initializers.ones, (3,)))


class Trained(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(use_running_average=not train)(nn.Conv(2, (3, 3), (2, 2))(x))


def test_any_flax_module_is_described():
    found = describe.network(Plain(), ((1, 1, 1, 5),))
    assert [(r["layer"], r["kind"], r["shape"], r["parameters"]) for r in found["layers"]] == [
        ("(itself)", "Plain", [8, 8, 3], 3),
        ("Dense_0", "Dense", [128], 6 * 128),
        ("ConvTranspose_0", "ConvTranspose", [8, 8, 6], 16 * 8 * 6 + 6),
        ("GroupNorm_0", "GroupNorm", [8, 8, 6], 12),
        ("Conv_0", "Conv", [8, 8, 3], 9 * 6 * 3 + 3),
    ]
    want = [0, 5 * 128, 16 * 16 * 8 * 6, 0, 64 * 9 * 6 * 3]
    assert [row["flops"] for row in found["layers"]] == [2 * n for n in want]
    variables = jax.eval_shape(Plain().init, jax.random.key(0), jnp.zeros((1, 1, 1, 5)))
    assert found["parameters"] == sum(x.size for x in jax.tree.leaves(variables))
    found = describe.network(Trained(), ((1, 8, 8, 3),))
    assert (found["parameters"], found["statistics"]) == (54 + 2 + 4, 4)
    assert found["flops"] == 2 * 16 * 54


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_ranges(name):
    settings = shrunk(name).method
    images = jnp.ones((2, 16, 16, 3))
    for role, (net, shapes) in settings.networks().items():
        xs = jax.tree.map(
            lambda s: jnp.ones((2, *s[1:])), shapes, is_leaf=lambda s: isinstance(s[0], int)
        )
        mode = {"train": False} if hasattr(net, "blocks") else {}
        out = net.apply(net.init(jax.random.key(0), *xs, **mode), *xs, **mode)
        (y,) = jax.tree.leaves(out)
        if role == "generator":
            assert y.shape == images.shape
            assert float(jnp.abs(y).max()) <= 1
        else:
            assert y.shape[0] == 2
            maps = isinstance(settings, Translation) and y.shape[3:] == (1,)
            assert y.size == 2 or maps or role in ("classifier", "image", "text")


def test_initial_values():
    config = config_file.load("ref_dcgan64")
    method = config.method.make(None)
    params, _, _ = jax.jit(method.init)(jax.random.key(0), {})
    kernel = params["d"]["down4"]["weight"]["kernel"]
    assert abs(float(kernel.std()) - 0.02) < 2e-4
    gain = params["d"]["down4_norm"]["scale"]
    assert abs(float(gain.mean()) - 1) < 0.01
    assert 0.01 < float(gain.std()) < 0.03


def test_keras_initial_values():
    params, _, _ = jax.jit(config_file.load("csc412_keras_dcgan").method.make(None).init)(
        jax.random.key(0), {}
    )
    kernel = params["d"]["down4"]["weight"]["kernel"]
    limit = np.sqrt(6 / (25 * (128 + 256)))
    assert abs(float(jnp.abs(kernel).max()) - limit) < 0.01 * limit
    assert (params["d"]["down4_norm"]["scale"] == 1).all()


def torch_reference(base, z):
    from torch import nn

    g, sides = [], [z, 8 * base, 4 * base, 2 * base, base]
    for i, (a, b) in enumerate(itertools.pairwise(sides)):
        stride, pad = (2, 1) if i else (1, 0)
        conv = nn.ConvTranspose2d(a, b, 4, stride, pad, bias=False)
        g += [conv, nn.BatchNorm2d(b), nn.ReLU()]
    g += [nn.ConvTranspose2d(base, 3, 4, 2, 1, bias=False), nn.Tanh()]
    d, sides = [], [3, base, 2 * base, 4 * base, 8 * base]
    for i, (a, b) in enumerate(itertools.pairwise(sides)):
        norm = [nn.BatchNorm2d(b)] if i else []
        d += [nn.Conv2d(a, b, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(0.2)]
    d += [nn.Conv2d(8 * base, 1, 4, 1, 0, bias=False)]
    return nn.Sequential(*g), nn.Sequential(*d)


def test_the_reference_equals_pytorch():
    """The whole networks of pytorch/examples in training mode, weights carried over."""
    torch = pytest.importorskip("torch")
    base, z = 4, 8
    nets = torch_reference(base, z)
    config = config_file.load("ref_dcgan64")
    method = dataclasses.replace(
        config.method,
        generator=specs.Generator(z_dim=z, base_channels=base),
        discriminator=specs.Discriminator(base_channels=base),
    ).make(None)
    params, stats, _ = method.init(jax.random.key(0), {})
    plans = (
        specs.Generator(z_dim=z, base_channels=base).build(),
        specs.Discriminator(base_channels=base).build(),
    )
    x = np.random.default_rng(0).normal(size=(3, 1, 1, z)).astype("f")
    for player, net, plan in zip("gd", nets, plans, strict=True):
        tree = params[player]
        layers = iter(plan.blocks)
        for module in net:
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                block = next(layers)
                kernel = np.asarray(tree[block.name]["weight"]["kernel"])
                order = (
                    (2, 3, 0, 1) if isinstance(module, torch.nn.ConvTranspose2d) else (3, 2, 0, 1)
                )
                module.weight.data = torch.tensor(kernel.transpose(order).copy())
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.weight.data = torch.tensor(np.asarray(tree[f"{block.name}_norm"]["scale"]))
        variables = {"params": tree, **stats[player]}
        y, _ = plan.apply(variables, jnp.array(x), train=True, mutable=list(stats[player]))
        want = net(torch.tensor(x.transpose(0, 3, 1, 2).copy())).detach().numpy()
        np.testing.assert_allclose(y, want.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
        x = np.asarray(y)


@pytest.mark.parametrize("size", [0, 4, 48, 65])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(UserError, match="size"):
        specs.generator_plan(specs.Generator(size=size))
