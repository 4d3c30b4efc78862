"""Distances of images and maps: by hand, by float64 loops, and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import draw

from anigan_jax import losses

ONE, OTHER = draw(0, 3, 5, 4, 3), draw(1, 3, 5, 4, 3)
HUGE = 1e4 * draw(2, 3, 5, 4, 3)

# From Y = 0.299 R + 0.587 G + 0.114 B: U is 0.436 / (1 - 0.114) of B - Y, V 0.615 / (1 - 0.299)
# of R - Y (Rec. 601); the matrix in the code is this, rounded to five digits.
RED, GREEN, BLUE = 0.299, 0.587, 0.114


def yuv(pixel):
    r, g, b = (float(value) for value in pixel)
    y = RED * r + GREEN * g + BLUE * b
    return y, 0.436 / (1 - BLUE) * (b - y), 0.615 / (1 - RED) * (r - y)


def huber64(x):
    return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5


def pixels(one, other):
    """Per image, the pairs of pixels in float64."""
    for a, b in zip(np.asarray(one, np.float64), np.asarray(other, np.float64), strict=True):
        yield list(zip(a.reshape(-1, 3), b.reshape(-1, 3), strict=True))


def l1_loop(one, other):
    return [np.mean([abs(a - b).mean() for a, b in image]) for image in pixels(one, other)]


def grayscale_loop(one, other):
    return [np.mean([abs(yuv(a)[0] - yuv(b)[0]) for a, b in image]) for image in pixels(one, other)]


def color_loop(one, other):
    found = []
    for image in pixels(one, other):
        total = 0.0
        for a, b in image:
            y, u, v = (p - q for p, q in zip(yuv(a), yuv(b), strict=True))
            total += abs(y) + huber64(u) + huber64(v)
        found.append(total / len(image))
    return found


def gram_loop(maps):
    maps = np.asarray(maps, np.float64)
    b, h, w, c = maps.shape
    out = np.zeros((b, c, c))
    for n in range(b):
        for i in range(h):
            for j in range(w):
                out[n] += np.outer(maps[n, i, j], maps[n, i, j])
    return out / (h * w * c)


def total_variation_loop(images):
    images = np.asarray(images, np.float64)
    _, h, w, c = images.shape
    out = []
    for x in images:
        down = [((x[i + 1, j] - x[i, j]) ** 2).sum() for i in range(h - 1) for j in range(w)]
        right = [((x[i, j + 1] - x[i, j]) ** 2).sum() for i in range(h) for j in range(w - 1)]
        out.append(sum(down) / ((h - 1) * w * c) + sum(right) / (h * (w - 1) * c))
    return out


PAIRS = {
    "l1": (losses.l1, l1_loop),
    "grayscale": (losses.grayscale, grayscale_loop),
    "color": (losses.color, color_loop),
}
ALONE = {
    "gram": (losses.gram, gram_loop),
    "total_variation": (losses.total_variation, total_variation_loop),
}
ALL = {
    **{name: (function, (ONE, OTHER)) for name, (function, _) in PAIRS.items()},
    **{name: (function, (ONE,)) for name, (function, _) in ALONE.items()},
    "huber": (losses.huber, (ONE,)),
}


@pytest.mark.parametrize("scale", [1e-3, 1, 30, 1e4])
@pytest.mark.parametrize("name", PAIRS)
def test_distances_equal_a_loop(name, scale):
    ours, loop = PAIRS[name]
    got = ours(scale * ONE, scale * OTHER)
    assert got.shape == (3,)
    # 1e-4: color differences of AnimeGAN are rounded to five digits.
    tolerance = 1e-4 if name == "color" else 2e-6
    np.testing.assert_allclose(got, loop(scale * ONE, scale * OTHER), rtol=tolerance)
    np.testing.assert_array_equal(got, ours(scale * OTHER, scale * ONE))


@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
@pytest.mark.parametrize("name", ALONE)
def test_functions_of_one_map_equal_a_loop(name, scale):
    ours, loop = ALONE[name]
    maps = scale * draw(3, 2, 4, 6, 5)
    want = np.array(loop(maps))
    atol = 1e-6 * np.abs(want).max()
    np.testing.assert_allclose(ours(maps), want, rtol=2e-6, atol=atol)


@pytest.mark.long
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("value", [0.0, -1.0, 0.3, 1e4])
def test_distance_of_equal_images_is_zero(name, value):
    constant = jnp.full((2, 4, 4, 3), value)
    ours, _ = PAIRS[name]
    for image in (constant, HUGE):
        assert np.asarray(ours(image, image)).max() == 0
        gradient = jax.grad(lambda x, ours=ours, y=image: ours(x, y).sum())(image)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("gap", [0.5, -0.25, 1e4])
def test_grey_differences_have_no_color(gap):
    """Luminance has weights that sum to 1, color differences ones that sum to 0."""
    one = draw(4, 2, 3, 3, 3)
    np.testing.assert_allclose(losses.l1(one + gap, one), abs(gap), rtol=1e-5)
    np.testing.assert_allclose(losses.grayscale(one + gap, one), abs(gap), rtol=1e-5)
    # Five digits leave 1e-5 of the gap.
    np.testing.assert_allclose(losses.color(one + gap, one), abs(gap), rtol=2e-5)


@pytest.mark.parametrize(
    ("pixel", "grey", "u", "v"),
    [
        ((1, 0, 0), 0.299, -0.14713, 0.615),
        ((0, 1, 0), 0.587, -0.28886, -0.51499),
        ((0, 0, 1), 0.114, 0.436, -0.10001),
    ],
)
def test_primaries_by_hand(pixel, grey, u, v):
    """Differences below 1 are squared and halved, beyond it they are linear."""
    one, zero = jnp.zeros((1, 2, 2, 3)) + jnp.array(pixel), jnp.zeros((1, 2, 2, 3))
    np.testing.assert_allclose(losses.grayscale(one, zero), grey, rtol=1e-6)
    small = grey + u**2 / 2 + v**2 / 2
    np.testing.assert_allclose(losses.color(one, zero), small, rtol=1e-5)
    large = 100 * (grey + abs(u) + abs(v)) - 1
    np.testing.assert_allclose(losses.color(100 * one, zero), large, rtol=1e-5)


def test_one_pixel_counts_by_its_share():
    zero = jnp.zeros((2, 4, 4, 3))
    one = zero.at[1, 2, 3].set(jnp.array([0.0, 0.6, 0.0]))
    np.testing.assert_allclose(losses.l1(one, zero), [0, 0.6 / 48], rtol=1e-6)
    np.testing.assert_allclose(losses.grayscale(one, zero), [0, 0.587 * 0.6 / 16], rtol=1e-6)


def test_total_variation_by_hand():
    """A checkerboard of -1 and 1 steps by 2 everywhere, a ramp by its slope one way only."""
    rows, columns = jnp.meshgrid(jnp.arange(4.0), jnp.arange(6.0), indexing="ij")
    board = 2 * ((rows + columns) % 2) - 1
    images = jnp.stack([board, 0.5 * rows, 3 * columns, 0 * rows - 7])[..., None]
    np.testing.assert_allclose(losses.total_variation(images), [8, 0.25, 9, 0], rtol=1e-6)


def test_gram_by_hand():
    """Constant maps a, b: each entry is a product over the number of channels."""
    maps = jnp.zeros((1, 3, 5, 2)).at[..., 0].set(2.0).at[..., 1].set(-3.0)
    np.testing.assert_allclose(losses.gram(maps)[0], [[2, -3], [-3, 4.5]], rtol=1e-6)
    # Where the features lie does not matter, only what occurs together.
    shuffled = draw(0, 1, 4, 4, 3)
    turned = shuffled[:, ::-1].swapaxes(1, 2)
    np.testing.assert_allclose(losses.gram(shuffled), losses.gram(turned), rtol=1e-5, atol=1e-7)
    values = np.linalg.eigvalsh(np.asarray(losses.gram(shuffled)[0], np.float64))
    assert values.min() > 0


X = np.array([-1e4, -30, -1.5, -1, -0.999, -1e-3, 0, 0.25, 1, 1.001, 7, 1e4, 1e30], np.float32)


def test_huber_by_hand_and_at_its_seam():
    """At the seam both branches have slope 1, and so has the gradient."""
    want = [huber64(float(x)) for x in X]
    np.testing.assert_allclose(losses.huber(jnp.array(X)), want, rtol=1e-6)
    slope = jax.grad(lambda x: losses.huber(x).sum())(jnp.array(X))
    np.testing.assert_allclose(slope, np.clip(X, -1, 1), rtol=1e-6)


def torch_color(torch, a, b):
    matrix = torch.tensor(losses.YUV)
    y, u, v = ((a - b) @ matrix.T).unbind(-1)
    huber = torch.nn.HuberLoss(reduction="none", delta=1.0)
    zero = torch.zeros_like(u)
    return (y.abs() + huber(u, zero) + huber(v, zero)).mean((1, 2))


def torch_peers(torch):
    f = torch.nn.functional

    def grey(a):
        return a @ torch.tensor([RED, GREEN, BLUE])

    def variation(a):
        down, right = a[:, 1:] - a[:, :-1], a[:, :, 1:] - a[:, :, :-1]
        return f.mse_loss(down, 0 * down, reduction="none").mean((1, 2, 3)) + (right**2).mean(
            (1, 2, 3)
        )

    return {
        "l1": lambda a, b: f.l1_loss(a, b, reduction="none").mean((1, 2, 3)),
        "grayscale": lambda a, b: f.l1_loss(grey(a), grey(b), reduction="none").mean((1, 2)),
        "color": lambda a, b: torch_color(torch, a, b),
        "gram": lambda a: torch.einsum("bijc,bijd->bcd", a, a) / a[0].numel(),
        "total_variation": variation,
        "huber": lambda a: f.huber_loss(a, torch.zeros_like(a), reduction="none", delta=1.0),
    }


@pytest.mark.parametrize("scale", [0.3, 3, 1e4])
@pytest.mark.parametrize("name", ALL)
def test_values_and_gradients_equal_pytorch(name, scale):
    torch = pytest.importorskip("torch")
    ours, arguments = ALL[name]
    arguments = [scale * value for value in arguments]
    peers = [torch.tensor(np.array(value), requires_grad=True) for value in arguments]
    theirs = torch_peers(torch)[name](*peers)
    got, pull = jax.vjp(ours, *arguments)
    want = theirs.detach().numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())
    weights = draw(5, *want.shape)
    (theirs * torch.tensor(np.array(weights))).sum().backward()
    for gradient, peer in zip(pull(weights), peers, strict=True):
        wanted = peer.grad.numpy()
        assert np.abs(wanted).max() > 0
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ALL)
def test_jit_equals_eager(name):
    function, arguments = ALL[name]
    eager, compiled = function(*arguments), jax.jit(function)(*arguments)
    assert compiled.dtype == jnp.float32
    np.testing.assert_allclose(compiled, eager, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_extremes_are_finite(name):
    function, arguments = ALL[name]
    for scale in (0.0, 1e4):
        values = [jnp.sign(argument) * scale for argument in arguments]
        got, pull = jax.vjp(function, *values)
        assert np.isfinite(got).all()
        assert all(np.isfinite(gradient).all() for gradient in pull(jnp.ones_like(got)))
        assert (np.abs(got).max() > 0) == (scale > 0)


@pytest.mark.parametrize("name", PAIRS)
def test_images_of_other_shapes_are_refused(name):
    """Broadcasting would compare one image with all."""
    function, _ = PAIRS[name]
    for shape in ((1, 5, 4, 3), (3, 1, 4, 3), (3, 5, 3, 3)):
        with pytest.raises(ValueError, match="differ"):
            function(ONE, draw(1, *shape))
