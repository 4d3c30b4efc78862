"""R3GAN's networks: the published numbers, their start, grouped convolutions, resampling."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import r3gan as oracle
from test_conv import compare
from tiny import R3, draw, drawn

from anigan_jax import config_file
from anigan_jax.errors import UserError
from anigan_jax.networks import describe
from anigan_jax.networks.ops import conv, resample
from anigan_jax.networks.r3gan import R3Discriminator, R3Generator, generator_plan

PUBLISHED = {
    "ref_r3gan_ffhq64": (22_429_824, 22_381_440),
    "ref_r3gan_ffhq256": (23_057_952, 23_009_568),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_parameters(name):
    found = describe.describe(config_file.load(name).method.networks())
    assert tuple(net["parameters"] for net in found.values()) == PUBLISHED[name]
    assert all(net["statistics"] == 0 for net in found.values())


def test_widths_taper_and_the_last_map_is_the_image():
    lite = config_file.load("r3gan_lite").method.generator
    plan = {block.name: block for block in generator_plan(lite)}
    assert [plan[f"stage{i}_block1_out"].features for i in range(1, 6)] == [192, 192, 192, 96, 48]
    assert [plan[f"stage{i}_block1_conv"].groups for i in range(1, 6)] == [24, 24, 24, 12, 6]
    rows = {r["layer"]: r for r in describe.network(lite.build(), ((1, 1, 1, 64),))["layers"]}
    assert rows["rgb"]["shape"] == [64, 64, 3]
    # From 6x6 just as well.
    wide = dataclasses.replace(lite, size=96, start=6)
    rows = {r["layer"]: r for r in describe.network(wide.build(), ((1, 1, 1, 64),))["layers"]}
    assert rows["rgb"]["shape"] == [96, 96, 3]
    assert rows["constant"]["parameters"] == 36 * 192


def test_widths_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match="base_channels is 100"):
        R3Generator(base_channels=100, full_stages=1).build()
    with pytest.raises(UserError, match="base_channels is 20"):
        R3Discriminator(base_channels=20).build()


def started(settings, x):
    """First parameters; compiled whole, since layer by layer takes far longer."""
    net = settings.build()
    return jax.jit(lambda key: net.init(key, x, train=False)["params"])(jax.random.key(0))


@pytest.mark.long
def test_the_start_is_fixup():
    """10 blocks at 64 px: sqrt(2 / 1.04) x 10^(-1/4) = 0.77983; third convolutions are zero."""
    g = R3Generator(base_channels=64, full_stages=5)
    params = started(g, jnp.zeros((1, 1, 1, 64)))
    kernel = lambda name: np.asarray(params[name]["weight"]["kernel"])  # noqa: E731
    for name, fan in (("stage1_block1_in", 64), ("stage1_block1_conv", 9 * 16)):
        assert kernel(name).std() * math.sqrt(fan) == pytest.approx(0.77983, rel=0.03)
        assert not np.asarray(params[name]["bias"]).any()
    assert not kernel("stage5_block2_out").any()
    assert "bias" not in params["stage5_block2_out"]
    assert kernel("stem").std() == pytest.approx(1 / 8, rel=0.03)
    assert np.asarray(params["constant"]["constant"]).std() == pytest.approx(1, rel=0.1)
    d = R3Discriminator(base_channels=64, size=8)
    params = started(d, jnp.zeros((1, 8, 8, 3)))
    assert kernel("pool").shape == (4, 4, 1, 64)
    assert kernel("pool").std() == pytest.approx(1 / 4, rel=0.1)
    assert kernel("logit").std() == pytest.approx(1 / 8, rel=0.4)


@pytest.mark.long
@pytest.mark.parametrize("form", ["blocks", "native"])
@pytest.mark.parametrize(("kernel", "pads"), [(3, ((1, 1), (1, 1))), (2, ((0, 1), (1, 0)))])
def test_grouped_convolutions_equal_a_dense_one(form, kernel, pads, monkeypatch):
    """Values, gradients and second gradients of each form, beside zeros between the groups."""
    monkeypatch.setitem(conv.LOWERINGS, "cpu", form)
    groups, i, o = 3, 2, 4

    def dense(x, w):
        parts = [
            jnp.pad(w[..., o * g : o * (g + 1)], ((0, 0), (0, 0), (i * g, i * (2 - g)), (0, 0)))
            for g in range(groups)
        ]
        return conv.conv_reference(x, jnp.concatenate(parts, 3), pads=pads)

    x, w = draw(0, 2, 5, 6, groups * i), draw(1, kernel, kernel, i, groups * o)
    compare(lambda x, w: conv.grouped_conv(x, w, groups, pads=pads), dense, x, w, second=True)


def test_a_depthwise_kernel_over_the_whole_map():
    x, w = draw(0, 2, 4, 4, 5), draw(1, 4, 4, 1, 5)
    got = conv.grouped_conv(x, w, 5)
    np.testing.assert_allclose(got[:, 0, 0], (x * w[:, :, 0]).sum((1, 2)), rtol=2e-5, atol=1e-5)


@pytest.mark.long
def test_resampling_equals_pytorchs_filter():
    """By slices, as the strided depthwise convolution with (1, 3, 3, 1) has it; odd sides too."""
    torch = pytest.importorskip("torch")
    for ours, theirs, shape in (
        (resample.up, oracle.up, (2, 3, 5, 4)),
        (resample.down, oracle.down, (2, 6, 4, 3)),
    ):
        x = np.asarray(draw(2, *shape))
        peer = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
        want = theirs(peer)
        y, pull = jax.vjp(jax.jit(ours), x)
        np.testing.assert_allclose(y, want.detach().permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
        dy = np.asarray(draw(3, *y.shape))
        want.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
        slope = peer.grad.permute(0, 2, 3, 1)
        np.testing.assert_allclose(pull(dy)[0], slope, rtol=1e-5, atol=1e-6)
    # What is even everywhere stays so, away from the border.
    ones = jnp.ones((1, 8, 8, 1))
    assert (resample.up(ones)[:, 2:-2, 2:-2] == 1).all()
    assert (resample.down(ones)[:, 1:-1, 1:-1] == 1).all()


@pytest.mark.long
def test_bfloat16_enters_the_products_alone():
    method = dataclasses.replace(R3.method, labels=False)
    image, z = draw(0, 2, 16, 16, 3), draw(1, 2, 1, 1, 4)
    for settings, x in ((method.discriminator, image), (method.generator, z)):
        shapes = jax.eval_shape(settings.build().init, jax.random.key(0), x, train=False)
        full, half = (
            jax.jit(settings.build(dtype=dtype).apply, static_argnames="train")(
                drawn(shapes), x, train=False
            )
            for dtype in ("float32", "bfloat16")
        )
        assert half.dtype == full.dtype == jnp.float32
        assert 0 < float(jnp.abs(half - full).max()) < 0.05 * float(jnp.abs(full).max())
