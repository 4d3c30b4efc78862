"""Image-to-image networks: against PyTorch, counted, and refused where they cannot be."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.resnet import (
    carry,
    nchw,
    nhwc,
    torch_cartoon_discriminator,
    torch_generator,
    torch_patch,
)
from tiny import draw

from anigan_jax import config_file
from anigan_jax.errors import UserError
from anigan_jax.networks import cartoon, dcgan, layers, resnet
from anigan_jax.networks.cartoon import CartoonDiscriminator, CartoonGenerator
from anigan_jax.networks.ops import norm as networks_ops_norm
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator

# --- layers


def agree(ours, theirs, x, *, value=1e-5, gradient=1e-5):
    """Output and input gradient of a function and of a torch module at x (B, H, W, C)."""

    @jax.jit
    def both(x, weights):
        y, pull = jax.vjp(ours, x)
        return y, pull(weights)[0]

    tx = nchw(x).requires_grad_()
    ty = theirs(tx)
    weights = draw(9, *nhwc(ty).shape)
    (ty * nchw(weights)).sum().backward()
    y, got = both(x, weights)
    want = nhwc(tx.grad)
    assert np.abs(want).max() > 0
    np.testing.assert_allclose(y, nhwc(ty), rtol=0, atol=value)
    np.testing.assert_allclose(got, want, rtol=0, atol=gradient * np.abs(want).max())
    return np.asarray(y)


@pytest.mark.parametrize(("mean", "scale"), [(0, 1), (3, 0.1), (0, 1e-3), (-2, 50)])
def test_instance_norm_equals_pytorch(mean, scale):
    torch = pytest.importorskip("torch")
    x = draw(0, 3, 5, 7, 4) * scale + mean
    peer = torch.nn.InstanceNorm2d(4)
    agree(lambda v: networks_ops_norm.instance_norm(v, 1e-5), peer, x, value=5e-6, gradient=2e-5)


def test_instance_norm_keeps_digits_where_the_mean_is_large():
    """Mean 100: what is left is the rounding of the mean, 8e-6 of a deviation."""
    x = 100 + draw(0, 3, 6, 6, 4)
    exact = np.asarray(x, np.float64)
    centered = exact - exact.mean((1, 2), keepdims=True)
    want = centered / np.sqrt((centered**2).mean((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(networks_ops_norm.instance_norm(x, 1e-5), want, rtol=0, atol=1.6e-5)


def test_instance_norm_gradient_equals_autodiff():
    def plain(x):
        centered = x - x.mean((1, 2), keepdims=True)
        return centered / jnp.sqrt((centered**2).mean((1, 2), keepdims=True) + 1e-5)

    x, weights = draw(0, 2, 5, 4, 3) * 2 + 100, draw(1, 2, 5, 4, 3)
    (got,) = jax.vjp(lambda v: networks_ops_norm.instance_norm(v, 1e-5), x)[1](weights)
    (want,) = jax.vjp(plain, x)[1](weights)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_instance_norm_of_a_constant_is_zero():
    y, pull = jax.vjp(
        lambda v: networks_ops_norm.instance_norm(v, 1e-5), jnp.full((1, 4, 4, 2), 7.0)
    )
    assert np.abs(y).max() == 0
    assert np.isfinite(pull(draw(0, 1, 4, 4, 2))[0]).all()


@pytest.mark.parametrize("pixels", [1, 3])
def test_reflect_equals_pytorch(pixels):
    torch = pytest.importorskip("torch")
    x, peer = draw(0, 2, 4, 6, 3), torch.nn.ReflectionPad2d(pixels)
    y = agree(lambda v: layers.reflect(v, pixels), peer, x, value=0, gradient=1e-6)
    assert y.shape == (2, 4 + 2 * pixels, 6 + 2 * pixels, 3)


@pytest.mark.parametrize("shape", [(1, 3, 8, 1), (1, 8, 3, 1), (1, 2, 2, 1)])
def test_reflect_refuses_a_border_as_large_as_the_map(shape):
    """As PyTorch does; NumPy would go on mirroring."""
    with pytest.raises(ValueError, match="3 pixels"):
        layers.reflect(jnp.zeros(shape), 3)


# --- plans


def counted(module, side):
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    made = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(made))


def shape_of(module, side):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    run = lambda x: module.init_with_output(jax.random.key(0), x, train=False)[0]  # noqa: E731
    return jax.eval_shape(run, images).shape


@pytest.mark.long
def test_the_reference_networks_have_the_references_parameters():
    """junyanz/pytorch-CycleGAN prints 11.378 M and 2.765 M."""
    assert counted(ResnetGenerator(size=256).build(), 256) == 11_378_179
    assert counted(PatchDiscriminator(size=256).build(), 256) == 2_764_737
    # 6 blocks at 128 px: 3 blocks of 2 (9 256^2 + 256) fewer.
    six = counted(ResnetGenerator(size=128, blocks=6).build(), 128)
    assert six == 11_378_179 - 3 * 2 * (9 * 256**2 + 256)


def test_sides_of_the_maps():
    net = PatchDiscriminator().build()
    assert {side: shape_of(net, side) for side in (256, 128, 64)} == {
        256: (2, 30, 30, 1),
        128: (2, 14, 14, 1),
        64: (2, 6, 6, 1),
    }
    # A 3x3 head keeps the side of the map.
    assert shape_of(PatchDiscriminator(head_kernel=3).build(), 64) == (2, 7, 7, 1)
    assert shape_of(CartoonDiscriminator().build(), 64) == (2, 16, 16, 1)
    assert shape_of(ResnetGenerator(blocks=1).build(), 64) == (2, 64, 64, 3)
    assert shape_of(CartoonGenerator(blocks=1).build(), 64) == (2, 64, 64, 3)


def test_widths_double_at_most_three_times():
    plan = resnet.discriminator_plan(
        PatchDiscriminator(size=256, base_channels=8, num_downsamples=5, num_flat_convs=2)
    )
    assert [block.features for block in plan] == [8, 16, 32, 64, 64, 64, 64, 1]
    plan = resnet.discriminator_plan(PatchDiscriminator(base_channels=8))
    assert [(block.features, block.stride) for block in plan] == [
        (8, 2),
        (16, 2),
        (32, 2),
        (64, 1),
        (1, 1),
    ]


def test_tsinghuas_cyclegan_judges_as_its_dcgan_with_a_map():
    """Norm after the first layer, the extra convolution; the logits stay a map of 4x4."""
    own = config_file.load("tsinghua_cyclegan").method.discriminator
    narrow = dataclasses.replace(
        config_file.load("tsinghua_dcgan").method.discriminator, base_channels=own.base_channels
    )
    assert resnet.discriminator_plan(own)[:-1] == dcgan.discriminator_plan(narrow)[:-1]
    assert shape_of(own.build(), 64) == (2, 4, 4, 1)


def test_cartoon_discriminator_has_seven_convolutions_and_two_halvings():
    plan = cartoon.discriminator_plan(CartoonDiscriminator())
    assert [block.op for block in plan] == ["conv"] * 7
    assert [block.stride for block in plan] == [1, 2, 1, 2, 1, 1, 1]
    assert [block.features for block in plan] == [32, 64, 128, 128, 256, 256, 1]
    assert [block.kernel for block in plan] == [3] * 7


def test_cartoon_generator_has_eight_blocks():
    plan = resnet.generator_plan(CartoonGenerator())
    assert sum(block.skip == "end" for block in plan) == 8
    assert [b.stride for b in plan].count(2) == 4
    # A norm follows the pair, not the convolution that changes the side.
    assert [b.norm for b in plan if b.stride == 2] == [False] * 4
    assert [b.norm for b in plan if b.name.endswith("_flat")] == [True] * 4


def test_biases_can_be_left_out_before_a_norm_only():
    plan = resnet.generator_plan(ResnetGenerator(bias=False))
    assert [b.name for b in plan if b.bias] == ["rgb"]
    plan = resnet.discriminator_plan(PatchDiscriminator(bias=False))
    assert [b.name for b in plan if b.bias] == ["down1", "logit"]
    for plan in (
        resnet.generator_plan(CartoonGenerator(bias=False, norm="none")),
        cartoon.discriminator_plan(CartoonDiscriminator(bias=False, norm="none")),
    ):
        assert all(block.bias for block in plan)
        assert not any(block.norm for block in plan)


# --- whole networks written out in PyTorch


def lively(params, seed=0):
    """The same tree with kernels of gain 1 and biases that are not 0."""
    draws = np.random.default_rng(seed)

    def one(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 25
        return jnp.array(draws.normal(size=leaf.shape) / np.sqrt(fan_in), jnp.float32)

    return jax.tree.map(one, params)


NETWORKS = {
    "resnet": (
        ResnetGenerator(size=16, base_channels=4, blocks=1),
        resnet.generator_plan,
        lambda norm: torch_generator(4, 1, norm),
    ),
    "cartoon": (
        CartoonGenerator(size=16, base_channels=4, blocks=1),
        resnet.generator_plan,
        lambda norm: torch_generator(4, 1, norm, flat=True),
    ),
    "no bias": (
        ResnetGenerator(size=16, base_channels=2, blocks=2, bias=False),
        resnet.generator_plan,
        lambda norm: torch_generator(2, 2, norm, bias=norm == "none"),
    ),
    "patch": (
        PatchDiscriminator(size=32, base_channels=4),
        resnet.discriminator_plan,
        lambda norm: torch_patch(4, norm=norm),
    ),
    "patch of 3x3": (
        PatchDiscriminator(
            size=16, base_channels=4, num_downsamples=2, num_flat_convs=0, head_kernel=3
        ),
        resnet.discriminator_plan,
        lambda norm: torch_patch(4, 2, 0, norm, head=3),
    ),
    "like its DCGAN's": (
        PatchDiscriminator(
            size=16,
            base_channels=4,
            num_downsamples=2,
            num_flat_convs=0,
            extra=True,
            head_kernel=3,
            first_norm=True,
            bias=False,
        ),
        resnet.discriminator_plan,
        lambda norm: torch_patch(4, 2, 0, norm, head=3, bias=norm == "none", tsinghua=True),
    ),
    "seven": (
        CartoonDiscriminator(size=16, base_channels=4),
        cartoon.discriminator_plan,
        lambda norm: torch_cartoon_discriminator(4, norm),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "norm"),
    [
        *((name, "instance") for name in NETWORKS),
        ("resnet", "none"),
        ("patch", "none"),
        ("like its DCGAN's", "none"),
    ],
)
def test_networks_equal_pytorch(name, norm):
    pytest.importorskip("torch")
    settings, plan, peer = NETWORKS[name]
    settings = dataclasses.replace(settings, norm=norm)
    net, side = settings.build(), settings.size
    # Larger than trained, and not square: the networks are fully convolutional.
    x = draw(3, 2, side + 8, side + 16, 3)
    variables = net.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False)
    assert set(variables) == {"params"}
    params = lively(variables["params"])
    ours = jax.jit(lambda v: net.apply({"params": params}, v, train=True))
    y = agree(ours, carry(peer(norm), params, plan(settings)), x, value=1e-4, gradient=1e-4)
    assert y.std() > 0.05
    generates = y.shape[-1] == 3
    assert y.shape[1:3] == x.shape[1:3] if generates else y.shape[1] < side / 2


@pytest.mark.long
def test_batch_norm_equals_pytorch_and_keeps_statistics():
    pytest.importorskip("torch")
    settings = ResnetGenerator(size=16, base_channels=4, blocks=1, norm="batch")
    net, plan = settings.build(), resnet.generator_plan(settings)
    x = draw(0, 3, 16, 16, 3)
    variables = net.init(jax.random.key(0), x, train=False)
    names = {f"{block.name}_norm" for block in plan if block.norm}
    assert len(names) == 1 + 2 + 2 + 2
    assert set(variables["batch_stats"]) == names
    params = dict(lively(variables["params"]))
    for name in names:
        width = len(params[name]["scale"])
        params[name] = {"scale": jnp.ones(width), "bias": jnp.zeros(width)}
    peer = carry(torch_generator(4, 1, "batch"), params, plan)
    told = {"params": params, "batch_stats": variables["batch_stats"]}
    run = jax.jit(lambda v: net.apply(told, v, train=True, mutable=["batch_stats"]))
    agree(lambda v: run(v)[0], peer, x, value=1e-4, gradient=1e-4)
    means = [m.running_mean for m in peer.modules() if hasattr(m, "running_mean")]
    new = run(x)[1]["batch_stats"]
    for theirs, block in zip(means, [b for b in plan if b.norm], strict=True):
        got = new[f"{block.name}_norm"]["mean"]
        np.testing.assert_allclose(got, theirs, rtol=0, atol=1e-5)
        assert np.abs(got).max() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_an_image_does_not_depend_on_its_batch(norm):
    """Batch norm alone mixes images; training and evaluation are one function without it."""
    net = PatchDiscriminator(
        size=16, base_channels=4, num_downsamples=2, num_flat_convs=0, norm=norm
    ).build()
    x = draw(0, 3, 16, 16, 3)
    variables = net.init(jax.random.key(0), x, train=False)
    variables = {**variables, "params": lively(variables["params"])}

    @functools.partial(jax.jit, static_argnums=1)
    def run(x, train):
        return net.apply(variables, x, train=train, mutable=["batch_stats"])[0]

    whole, other = run(x, True), run(x.at[1:].set(x[1:] * -2 + 1), True)
    mixes = norm == "batch"
    assert (np.abs(np.asarray(whole[0] - other[0])).max() == 0) == (not mixes)
    alone, evaluated = run(x[:1], True), run(x, False)
    assert np.allclose(whole[:1], alone, rtol=0, atol=1e-5) == (not mixes)
    assert np.array_equal(whole, evaluated) == (not mixes)


# --- refusals


@pytest.mark.parametrize("size", [-4, 0, 1, 3, 6, 18, 23, 66, 127])
@pytest.mark.parametrize("make", [ResnetGenerator, CartoonGenerator, CartoonDiscriminator])
def test_sizes_that_do_not_come_back_are_refused_with_a_near_one(make, size):
    with pytest.raises(UserError, match=r"generator\.size is -?\d+.*multiple of 4") as told:
        make(size=size).check("method.generator")
    near = int(re.search(r"such as (\d+)", str(told.value))[1])
    assert abs(near - size) <= 2 or near == 8
    assert str(told.value).endswith("8, the least") == (size < 8)
    make(size=near).check("method.generator")


@pytest.mark.parametrize("size", [8, 12, 16, 64, 100])
def test_sizes_that_are_taken_work(size):
    settings = ResnetGenerator(size=size, base_channels=1, blocks=1)
    settings.check("method.generator")
    assert shape_of(settings.build(), size) == (2, size, size, 3)


def test_a_generator_without_downs_or_channels_is_refused():
    for change in ({"num_downsamples": 0}, {"blocks": -1}, {"base_channels": 0}):
        with pytest.raises(UserError, match="at least 1"):
            ResnetGenerator(**change).check("method.generator")


@pytest.mark.parametrize("norm", ["instance", "none"])
@pytest.mark.parametrize(("downs", "flats", "head"), [(3, 1, 4), (2, 1, 4), (3, 2, 3), (2, 0, 3)])
def test_the_smallest_patch_discriminator_is_where_the_check_says(downs, flats, head, norm):
    """What the check takes has a map of logits, and what it refuses has none, or one whose
    instance norm would see single pixels."""
    taken = {}
    for size in range(2**downs * 2, 2**downs * 8, 2**downs):
        settings = PatchDiscriminator(
            size=size,
            base_channels=2,
            num_downsamples=downs,
            num_flat_convs=flats,
            head_kernel=head,
            norm=norm,
        )
        before_head = size // 2**downs - flats
        works = before_head - (head == 4) >= 1 and (norm == "none" or before_head >= 2)
        taken[size] = works
        if works:
            settings.check("method.discriminator")
            side = before_head - (head == 4)
            assert shape_of(settings.build(), size) == (2, side, side, 1)
        else:
            with pytest.raises(UserError, match=r"leave a map of .* fewer of them"):
                settings.check("method.discriminator")
    assert any(taken.values())


def test_a_70x70_patch_discriminator_of_16_pixels_is_refused():
    with pytest.raises(UserError, match="3 halvings of 16 px"):
        PatchDiscriminator(size=16).check("method.discriminator")
    with pytest.raises(UserError, match="multiple of 8, such as 24"):
        PatchDiscriminator(size=25).check("method.discriminator")
