"""Lowerings against XLA's own operators and PyTorch: values, gradients, second gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import draw

from anigan_jax.networks.ops import conv, correlation, winograd
from anigan_jax.networks.ops.correlation import NARROW


def close(got, want, tolerance=1e-5):
    scale = max(float(jnp.abs(want).max()), 1.0)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def compare(fast, slow, x, kernel, *, second=False):
    y, pull = jax.vjp(fast, x, kernel)
    want, pull_want = jax.vjp(slow, x, kernel)
    assert y.shape == want.shape
    close(y, want)
    dy = draw(9, *y.shape)
    for got, expected in zip(pull(dy), pull_want(dy), strict=True):
        close(got, expected)
    if not second:
        return

    def penalty(f):
        return lambda x, k: (jax.grad(lambda x: jnp.sum(jnp.tanh(f(x, k))))(x) ** 2).sum()

    got = jax.grad(penalty(fast), argnums=(0, 1))(x, kernel)
    expected = jax.grad(penalty(slow), argnums=(0, 1))(x, kernel)
    for a, b in zip(got, expected, strict=True):
        close(a, b)


# An odd and an even one.
SIDES = (7, 8)


# Where a form differs from the one before: (form, kernel's side, stride).
FORMS = [
    *((form, k, stride) for form in ("blocks", "native") for k in (3, 4, 5) for stride in (1, 2)),
    *(("winograd", k, stride) for k, stride in ((3, 1), (3, 2), (4, 2), (5, 2))),
    *(("folded", k, 1) for k in (3, 4)),
]


def take(form, monkeypatch):
    """Has every layer computed in a form, whichever this backend and size would take."""
    monkeypatch.setitem(conv.LOWERINGS, "cpu", "native" if form == "native" else "blocks")
    if form == "winograd":
        monkeypatch.setattr(winograd, "CHANNELS", 0)
        monkeypatch.setattr(winograd, "TILES", 0)
        monkeypatch.setattr(winograd, "SHARE", 9)
    if form == "folded":
        # The fewer of three and four.
        monkeypatch.setattr(correlation, "NARROW", 3)


@pytest.mark.parametrize(("form", "kernel", "stride"), FORMS)
def test_conv(form, kernel, stride, monkeypatch):
    take(form, monkeypatch)
    x, w = draw(0, 2, *SIDES, 3), draw(1, kernel, kernel, 3, 4)
    for pads in (((1, 1), (1, 1)), conv.same_pads(SIDES, kernel, stride)):
        compare(
            lambda x, w, pads=pads: conv.conv(x, w, stride=stride, pads=pads),
            lambda x, w, pads=pads: conv.conv_reference(x, w, stride=stride, pads=pads),
            x,
            w,
            second=kernel == 4,
        )


@pytest.mark.parametrize(("form", "kernel", "stride"), FORMS)
def test_conv_transpose(form, kernel, stride, monkeypatch):
    take(form, monkeypatch)
    x, w = draw(0, 2, *SIDES, 3), draw(1, kernel, kernel, 3, 4)
    for padding, extra in [(0, 0), (1, 0), (2, kernel % 2 * (stride - 1))]:
        options = {"stride": stride, "padding": padding, "output_padding": extra}
        compare(
            lambda x, w, o=options: conv.conv_transpose(x, w, **o),
            lambda x, w, o=options: conv.conv_transpose_reference(x, w, **o),
            x,
            w,
            second=kernel == 4,
        )


@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((1, 1), (0, 2))])
def test_gradient_of_a_kernel_with_few_outputs(pads):
    """Its sides are swapped where an image's channels would be the matrix's columns."""
    x, w = draw(0, 2, 6, 7, NARROW + 1), draw(1, 3, 3, NARROW + 1, 3)
    compare(
        lambda x, w: conv.correlate(x, w, pads),
        lambda x, w: conv.conv_reference(x, w, pads=pads),
        x,
        w,
        second=True,
    )


@pytest.mark.parametrize("padding", [1, 2])
def test_an_image_from_many_channels(padding):
    """Four pixels of an image are as few channels as one."""
    options = {"stride": 2, "padding": padding, "output_padding": padding - 1}
    compare(
        lambda x, w: conv.conv_transpose(x, w, **options),
        lambda x, w: conv.conv_transpose_reference(x, w, **options),
        draw(0, 2, 5, 4, NARROW + 1),
        draw(1, 4, 4, NARROW + 1, 3),
        second=True,
    )


@pytest.mark.parametrize("form", ["blocks", "native"])
def test_the_form_follows_the_backend(form, monkeypatch):
    """Blocks are never strided or dilated, natively layers are; both also in bfloat16."""
    take(form, monkeypatch)
    x, w = draw(0, 2, 8, 8, 3), draw(1, 4, 4, 3, 5)
    half = [a.astype(jnp.bfloat16) for a in (x, w)]
    for run, options in (
        (conv.conv, {"stride": 2, "pads": ((1, 1), (1, 1))}),
        (conv.conv_transpose, {"stride": 2, "padding": 1}),
    ):
        text = str(jax.make_jaxpr(lambda x, w, run=run, o=options: run(x, w, **o))(x, w))
        spread = "window_strides=(2, 2)" in text or "lhs_dilation=(2, 2)" in text
        assert spread == (form == "native")
        got = run(*half, **options)
        assert got.dtype == jnp.bfloat16
        close(got.astype(jnp.float32), run(x, w, **options), 2e-2)


def test_whole_map_and_single_pixel():
    x, w = draw(0, 2, 4, 4, 3), draw(1, 4, 4, 3, 5)
    compare(conv.conv, conv.conv_reference, x, w)
    options = {"stride": 1, "padding": 0}
    compare(
        lambda x, w: conv.conv_transpose(x, w, **options),
        lambda x, w: conv.conv_transpose_reference(x, w, **options),
        draw(0, 2, 1, 1, 3),
        w,
    )


@pytest.mark.parametrize("kernel", [3, 5])
def test_upsample_conv(kernel):
    def slow(x, w):
        big = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
        return conv.conv_reference(big, w, pads=((kernel // 2,) * 2,) * 2)

    compare(conv.upsample_conv, slow, draw(0, 2, 5, 6, 3), draw(1, kernel, kernel, 3, 4))


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_against_pytorch(kernel):
    torch = pytest.importorskip("torch")
    x, w = draw(0, 2, 6, 7, 3), draw(1, kernel, kernel, 3, 4)
    tx = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2), requires_grad=True)
    # Transposed convolution: HWIO -> (in, out, kh, kw).
    tw = torch.tensor(np.asarray(w).transpose(2, 3, 0, 1).copy(), requires_grad=True)
    extra = kernel % 2
    y, pull = jax.vjp(lambda x, w: conv.conv_transpose(x, w, padding=1, output_padding=extra), x, w)
    ty = torch.nn.functional.conv_transpose2d(tx, tw, stride=2, padding=1, output_padding=extra)
    close(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    dy = draw(5, *y.shape)
    ty.backward(torch.tensor(np.asarray(dy).transpose(0, 3, 1, 2)))
    dx, dw = pull(dy)
    close(dx, tx.grad.numpy().transpose(0, 2, 3, 1))
    close(dw, tw.grad.numpy().transpose(2, 3, 0, 1))
    tx.grad = None
    tk = torch.tensor(np.asarray(w).transpose(3, 2, 0, 1).copy(), requires_grad=True)
    y, pull = jax.vjp(lambda x, w: conv.conv(x, w, stride=2, pads=((1, 1), (1, 1))), x, w)
    ty = torch.nn.functional.conv2d(tx, tk, stride=2, padding=1)
    close(y, ty.detach().numpy().transpose(0, 2, 3, 1))
    dy = draw(5, *y.shape)
    ty.backward(torch.tensor(np.asarray(dy).transpose(0, 3, 1, 2)))
    dx, dw = pull(dy)
    close(dx, tx.grad.numpy().transpose(0, 2, 3, 1))
    close(dw, tk.grad.numpy().transpose(2, 3, 1, 0))


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match="stride"):
        conv.conv(draw(0, 1, 9, 9, 1), draw(1, 3, 3, 1, 1), stride=3)
    with pytest.raises(ValueError, match="stride"):
        conv.conv_transpose(draw(0, 1, 9, 9, 1), draw(1, 3, 3, 1, 1), stride=3)


def test_compiled_passes_have_no_dilation():
    """No pass of a stride-2 layer, of first or second order, is dilated."""

    def loss(x, w):
        hidden = conv.conv(x, w, stride=2, pads=((1, 1), (1, 1)))
        return jnp.sum(jnp.tanh(conv.conv_transpose(hidden, w.swapaxes(2, 3))))

    def penalty(x, w):
        return jnp.sum(jax.grad(loss)(x, w) ** 2)

    x, w = draw(0, 2, 8, 8, 3), draw(1, 4, 4, 3, 5)
    text = jax.jit(jax.grad(penalty, argnums=(0, 1))).lower(x, w).as_text()
    assert "stablehlo.convolution" in text
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    for line in lines:
        assert "dilate = [2" not in line and "stride = [2" not in line, line
