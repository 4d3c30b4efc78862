"""The seeds' networks: parameter counts, shapes, initial values, PyTorch equality."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NAMES, drawn, shrunk

from anigan_jax import config_file
from anigan_jax.errors import UserError
from anigan_jax.methods.players import Networks, split_variables
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.methods.translation import Translation
from anigan_jax.networks import dcgan as specs
from anigan_jax.networks import describe
from anigan_jax.networks.text import TextGenerator

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


@pytest.mark.long
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
            assert float(jnp.abs(y).max()) <= 1 or "r3gan" in name
        else:
            assert y.shape[0] == 2
            maps = isinstance(settings, Translation) and y.shape[3:] == (1,)
            assert y.size == 2 or maps or role in ("classifier", "image", "text")


@pytest.mark.long
def test_initial_values():
    config = config_file.load("ref_dcgan64")
    method = config.method.make(None)
    params, _, _ = jax.jit(method.init)(jax.random.key(0), {})
    kernel = params["d"]["down4"]["weight"]["kernel"]
    assert abs(float(kernel.std()) - 0.02) < 2e-4
    gain = params["d"]["down4_norm"]["scale"]
    assert abs(float(gain.mean()) - 1) < 0.01
    assert 0.01 < float(gain.std()) < 0.03


@pytest.mark.long
def test_keras_initial_values():
    params, _, _ = jax.jit(config_file.load("csc412_keras_dcgan").method.make(None).init)(
        jax.random.key(0), {}
    )
    kernel = params["d"]["down4"]["weight"]["kernel"]
    limit = np.sqrt(6 / (25 * (128 + 256)))
    assert abs(float(jnp.abs(kernel).max()) - limit) < 0.01 * limit
    assert (params["d"]["down4_norm"]["scale"] == 1).all()


def torch_dcgan(base, z, g, d):
    """pytorch/examples' networks, with what settings of G and D change in UCSD's."""
    from torch import nn
    from torch.nn.utils import spectral_norm

    made, sides = [], [z, 8 * base, 4 * base, 2 * base, base, 3]
    for i, (a, b) in enumerate(itertools.pairwise(sides)):
        conv = nn.ConvTranspose2d(a, b, 4, *((2, 1) if i else (1, 0)), bias=False)
        after = [nn.BatchNorm2d(b), nn.ReLU()] if i < 4 else [nn.Tanh()]
        made += [spectral_norm(conv) if g.spectral else conv]
        made += reversed(after) if g.activation_first else after
    judge, sides = [], [3, base, 2 * base, 4 * base, 8 * base, 1]
    for i, (a, b) in enumerate(itertools.pairwise(sides)):
        conv = nn.Conv2d(a, b, 4, *((2, 1) if i < 4 else (1, 0)), bias=d.bias)
        norm = [nn.BatchNorm2d(b)] if 0 < i < 4 and d.batch_norm else []
        judge += [spectral_norm(conv) if d.spectral else conv, *norm, nn.LeakyReLU(0.2)]
    return nn.Sequential(*made), nn.Sequential(*judge[:-1])


def carry(torch, net, plan, params, stats):
    """Our parameters, and u and v of spectral norm, into a torch network."""
    layers, block = iter(plan), None
    for module in net:
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data = torch.tensor(np.asarray(params[f"{block.name}_norm"]["scale"]))
        if not isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            continue
        block = next(layers)
        own, kernel = params[block.name], np.asarray(params[block.name]["weight"]["kernel"])
        order = (2, 3, 0, 1) if isinstance(module, torch.nn.ConvTranspose2d) else (3, 2, 0, 1)
        weight = module.weight_orig if block.spectral else module.weight
        weight.data = torch.tensor(kernel.transpose(order).copy())
        if block.bias:
            module.bias.data = torch.tensor(np.array(own["bias"]))
        if block.spectral:
            held = stats["spectral"][block.name]["weight"]
            places = np.asarray(held["v"]).reshape(kernel.shape[:3]).transpose(2, 0, 1)
            module.weight_u = torch.tensor(np.array(held["u"]))
            module.weight_v = torch.tensor(places.ravel().copy())
    assert next(layers, None) is None


def changed(name, base, z, *flags):
    """A config's networks with flags, narrow: (settings of G, of D)."""
    config = config_file.override(config_file.load(name), list(flags), "")
    g = dataclasses.replace(config.method.generator, base_channels=base, z_dim=z)
    return g, dataclasses.replace(config.method.discriminator, base_channels=base)


IN_G = ("--method.generator.spectral", "--method.generator.activation-first")
MIYATO = ("--method.discriminator.no-batch-norm", "--method.discriminator.bias")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("ref_dcgan64", ()),
        ("ucsd_dcgan", ()),
        ("ucsd_sn_dcgan", ()),
        ("ucsd_sn_dcgan", IN_G),
        ("ucsd_sn_dcgan", MIYATO),
    ],
)
def test_dcgans_equal_pytorch(name, flags):
    """Whole networks in training mode, weights carried over; spectral norm iterates once."""
    torch = pytest.importorskip("torch")
    base, z = 4, 8
    settings = changed(name, base, z, *flags)
    x = np.random.default_rng(0).normal(size=(3, 1, 1, z)).astype("f")
    for made, net in zip(settings, torch_dcgan(base, z, *settings), strict=True):
        plan = made.build()
        shapes = jax.eval_shape(lambda x, n=plan: n.init(jax.random.key(0), x, train=False), x)
        params, stats = (drawn(t) for t in split_variables({"net": shapes}))
        params, stats = params["net"], stats["net"]
        for block in plan.blocks:
            if block.norm:
                params[f"{block.name}_norm"]["bias"] *= 0
        carry(torch, net, plan.blocks, params, stats)
        run = {"train": True, "power_iterate": True, "mutable": list(stats)}
        y, _ = plan.apply({"params": params, **stats}, jnp.array(x), **run)
        want = net(torch.tensor(x.transpose(0, 3, 1, 2).copy())).detach().numpy()
        np.testing.assert_allclose(y, want.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
        x = np.asarray(y)


@pytest.mark.long
def test_spectral_norm_of_g_iterates_in_training_alone():
    settings = specs.Generator(z_dim=4, size=8, base_channels=2, spectral=True)
    nets, z = Networks(settings.build(), None, False, None), jnp.ones((2, 4))
    init = lambda: nets.g.init(jax.random.key(0), z[:, None, None, :], train=False)  # noqa: E731
    params, stats = (drawn(tree["g"]) for tree in split_variables({"g": jax.eval_shape(init)}))
    for train in (True, False):
        _, after = nets.fake(params, stats, z, train=train)
        same = jax.tree.map(np.array_equal, after["spectral"], stats["spectral"])
        assert set(jax.tree.leaves(same)) == {not train}


def test_norms_that_follow_z():
    """Self-modulation: gains times 1 + gain and biases plus bias, linear in relu(W z + b)."""
    settings = specs.Generator(z_dim=3, size=16, base_channels=2, self_modulation=5)
    net, z = settings.build(), np.random.default_rng(0).normal(size=(2, 1, 1, 3)).astype("f")
    variables = {
        name: drawn(tree)
        for name, tree in jax.eval_shape(
            lambda: net.init(jax.random.key(0), z, train=False)
        ).items()
    }
    _, maps = net.apply(variables, z, train=False, features=True)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    s = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["batch_stats"])
    hidden = z[:, 0, 0] @ p["modulation"]["weight"]["kernel"] + p["modulation"]["bias"]
    assert hidden.shape == (2, 5)
    gain, bias = np.split(
        np.maximum(hidden, 0) @ p["stem_norm"]["text"]["kernel"] + p["stem_norm"]["text"]["bias"],
        2,
        axis=1,
    )
    x = np.einsum("bi,hwio->bhwo", z[:, 0, 0], p["stem"]["weight"]["kernel"])
    deviation = np.sqrt(s["stem_norm"]["var"] + 1e-5)
    x = (x - s["stem_norm"]["mean"]) / deviation * p["stem_norm"]["scale"] + p["stem_norm"]["bias"]
    want = np.maximum(x * (1 + gain[:, None, None]) + bias[:, None, None], 0)
    np.testing.assert_allclose(maps[0], want, rtol=1e-4, atol=1e-5)
    # Every norm follows it, and a plain generator has neither layer.
    followers = {name for name, tree in p.items() if "text" in tree}
    assert followers == {"stem_norm", "up1_norm"}
    plain = dataclasses.replace(settings, self_modulation=0).build()
    none = jax.eval_shape(lambda: plain.init(jax.random.key(0), z, train=False))["params"]
    assert set(p) - set(none) == {"modulation"}
    assert not any("text" in tree for tree in none.values())


def test_self_modulation_is_refused_beside_texts():
    with pytest.raises(UserError, match="self_modulation"):
        TextGAN(generator=TextGenerator(self_modulation=4)).make()


@pytest.mark.parametrize("size", [0, 4, 48, 65])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(UserError, match="size"):
        specs.generator_plan(specs.Generator(size=size))
