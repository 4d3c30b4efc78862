"""The text GAN's networks: SJTU's layers, PyTorch's numbers, and how texts join."""

import jax
import numpy as np
import pytest
from tiny import digests

from anigan_jax import config_file
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks import describe
from anigan_jax.networks import text as specs


def test_layers_of_the_seed():
    """k5, filters 256-128-64-3 and 64-128-256-512, a projection to 256, 1x1 then 4x4."""
    nets = describe.describe(config_file.load("sjtu_text_gan").method.networks())
    g = {row["layer"]: row for row in nets["generator"]["layers"]}
    assert [row["shape"] for row in g.values() if row["kind"] != "BatchNorm"] == [
        [256],
        [4, 4, 512],
        [8, 8, 256],
        [16, 16, 128],
        [32, 32, 64],
        [64, 64, 3],
    ]
    assert g["stem"]["parameters"] == (100 + 256) * 8192 + 8192
    assert g["stem_norm"]["parameters"] == g["stem_norm"]["statistics"] == 2 * 512
    assert g["up1"]["parameters"] == 25 * 512 * 256 + 256
    assert g["rgb"]["parameters"] == 25 * 64 * 3 + 3
    d = {row["layer"]: row for row in nets["discriminator"]["layers"]}
    assert [d[f"down{i}"]["shape"] for i in (1, 2, 3, 4)] == [
        [32, 32, 64],
        [16, 16, 128],
        [8, 8, 256],
        [4, 4, 512],
    ]
    # The map and the repeated text meet in the 1x1 convolution.
    assert d["joint"]["parameters"] == (512 + 256) * 512 + 512
    assert d["logit"]["parameters"] == 16 * 512 + 1
    narrow = describe.describe(config_file.load("sjtu_text_gan_128").method.networks())
    assert narrow["generator"]["layers"][0]["shape"] == [128]


def carry(module, tree, name):
    """Weights of a layer and its norm into PyTorch."""
    import torch

    kernel = np.asarray(tree[name]["weight"]["kernel"])
    orders = {
        torch.nn.ConvTranspose2d: (2, 3, 0, 1),
        torch.nn.Conv2d: (3, 2, 0, 1),
        torch.nn.Linear: (1, 0),
    }
    module.weight.data = torch.tensor(kernel.transpose(orders[type(module)]).copy())
    module.bias.data = torch.tensor(np.array(tree[name]["bias"]))
    return module


def norm(tree, name):
    import torch

    made = torch.nn.BatchNorm2d(len(tree[name]["scale"]))
    made.weight.data = torch.tensor(np.array(tree[name]["scale"]))
    return made


def test_the_seeds_networks_equal_pytorch():
    """G and D of SJTU written out in PyTorch, training mode, weights carried over."""
    torch = pytest.importorskip("torch")
    from torch.nn.functional import leaky_relu, pad, relu

    base, z_dim, dim, length, b = 4, 8, 6, 5, 3
    values = np.random.default_rng(0)
    z, words, images = (
        values.normal(size=shape).astype("f") for shape in ((b, z_dim), (b, length), (b, 64, 64, 3))
    )
    g = specs.TextGenerator(z_dim=z_dim, base_channels=base, text_dim=dim).build()
    d = specs.TextDiscriminator(base_channels=base, text_dim=dim).build()
    made = g.init(jax.random.key(0), z[:, None, None], (words,), train=False)
    (got,), _ = g.apply(made, z[:, None, None], (words,), train=True, mutable=["batch_stats"])
    t, tw = made["params"], torch.tensor(words)
    told = leaky_relu(carry(torch.nn.Linear(length, dim), t, "text")(tw), 0.2)
    x = torch.cat([torch.tensor(z), told], 1)
    x = carry(torch.nn.Linear(z_dim + dim, 128 * base), t, "stem")(x)
    x = x.reshape(b, 4, 4, 8 * base).permute(0, 3, 1, 2)
    x = relu(norm(t, "stem_norm")(x))
    for i, width in enumerate((8 * base, 4 * base, 2 * base), 1):
        up = torch.nn.ConvTranspose2d(width, width // 2, 5, 2, 2, 1)
        x = relu(norm(t, f"up{i}_norm")(carry(up, t, f"up{i}")(x)))
    x = torch.tanh(carry(torch.nn.ConvTranspose2d(base, 3, 5, 2, 2, 1), t, "rgb")(x))
    want = x.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

    made = d.init(jax.random.key(1), images, (words,), train=False)
    (got,), _ = d.apply(made, images, (words,), train=True, mutable=["batch_stats"])
    t, x = made["params"], torch.tensor(images.transpose(0, 3, 1, 2).copy())
    for i, (a, c) in enumerate(((3, base), (base, 2 * base), (2 * base, 4 * base)), 1):
        # TensorFlow's "same" for k5 and stride 2 on even sides: 1 before, 2 after.
        x = carry(torch.nn.Conv2d(a, c, 5, 2), t, f"down{i}")(pad(x, (1, 2, 1, 2)))
        x = leaky_relu(norm(t, f"down{i}_norm")(x), 0.2)
    x = carry(torch.nn.Conv2d(4 * base, 8 * base, 5, 2), t, "down4")(pad(x, (1, 2, 1, 2)))
    x = leaky_relu(norm(t, "down4_norm")(x), 0.2)
    told = leaky_relu(carry(torch.nn.Linear(length, dim), t, "text")(tw), 0.2)
    x = torch.cat([x, told[:, :, None, None].expand(b, dim, 4, 4)], 1)
    joint = carry(torch.nn.Conv2d(8 * base + dim, 8 * base, 1), t, "joint")
    x = leaky_relu(norm(t, "joint_norm")(joint(x)), 0.2)
    x = carry(torch.nn.Conv2d(8 * base, 1, 4), t, "logit")(x)
    np.testing.assert_allclose(np.ravel(got), x.detach().numpy().ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("join", ["concat", "product", "inner"])
def test_several_texts_equal_one_at_a_time(join):
    """The trunk runs once for all texts; each logit is that of its text alone."""
    settings = specs.TextDiscriminator(
        size=16,
        base_channels=4,
        text_dim=6,
        join=join,
        spectral=True,
        batch_norm=False,
        first_norm=False,
    )
    net = settings.build()
    values = np.random.default_rng(0)
    images, one, other = (
        values.normal(size=s).astype("f") for s in ((2, 16, 16, 3), (2, 5), (2, 5))
    )
    variables = net.init(jax.random.key(0), images, (one,), train=False)
    both = net.apply(variables, images, (one, other), train=False)
    alone = [net.apply(variables, images, (t,), train=False)[0] for t in (one, other)]
    np.testing.assert_allclose(both, alone, rtol=1e-6)
    assert abs(np.asarray(both[0] - both[1])).max() > 1e-5
    # One power iteration for all, however many texts.
    rest = {"train": True, "power_iterate": True, "mutable": ["spectral"]}
    _, once = net.apply(variables, images, (one,), **rest)
    _, twice = net.apply(variables, images, (one, other), **rest)
    assert digests(once) == digests(twice)


def joined_to(join):
    """Logits (2,), the last map (2, 4, 4, 2), projected texts (2, T), the last layer by hand."""
    net = specs.TextDiscriminator(
        size=8, base_channels=2, text_dim=3, join=join, batch_norm=False, first_norm=False
    ).build()
    values = np.random.default_rng(0)
    x, t = values.normal(size=(2, 8, 8, 3)).astype("f"), values.normal(size=(2, 5)).astype("f")
    variables = net.init(jax.random.key(0), x, (t,), train=False)
    (y,), maps = net.apply(variables, x, (t,), train=False, features=True)
    phi = np.asarray(maps[0], np.float64)
    assert phi.shape == (2, 4, 4, 2)
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    told = t @ params["text"]["weight"]["kernel"] + params["text"]["bias"]
    head = params["logit"]
    return np.ravel(y), phi, told, lambda a: a @ head["weight"]["kernel"] + head["bias"]


def test_the_product_is_miyatos_projection():
    """f(x, t) = psi(phi(x)) + <V t, phi(x)>, phi summed over places."""
    y, phi, told, head = joined_to("product")
    phi = phi.sum((1, 2))
    np.testing.assert_allclose(y, head(phi)[:, 0] + (told * phi).sum(1), rtol=1e-5)


def test_the_inner_product_has_a_weight_for_each_place():
    """f(x, t) = <V t + b, W phi(x)>, phi flattened."""
    y, phi, told, head = joined_to("inner")
    np.testing.assert_allclose(y, (told * head(phi.reshape(2, -1))).sum(1), rtol=1e-5)


def test_norms_that_follow_the_text():
    """Gains times 1 + gain and biases plus bias, linear in the text; z alone before."""
    settings = specs.TextGenerator(z_dim=3, size=8, base_channels=2, text_dim=4, join="norm")
    net = settings.build()
    values = np.random.default_rng(0)
    z, words = values.normal(size=(2, 1, 1, 3)).astype("f"), values.normal(size=(2, 5)).astype("f")
    variables = net.init(jax.random.key(0), z, (words,), train=False)
    (_,), maps = net.apply(variables, z, (words,), train=False, features=True)
    told, stem = np.asarray(maps[0], np.float64), np.asarray(maps[1], np.float64)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    x = z[:, 0, 0] @ p["stem"]["weight"]["kernel"] + p["stem"]["bias"]
    x = x.reshape(2, 4, 4, -1) / np.sqrt(1 + 1e-5) * p["stem_norm"]["scale"]
    x = x + p["stem_norm"]["bias"]
    gain, bias = np.split(told @ p["stem_norm"]["text"]["kernel"], 2, axis=1)
    want = np.maximum(x * (1 + gain[:, None, None]) + bias[:, None, None], 0)
    np.testing.assert_allclose(stem, want, rtol=1e-4, atol=1e-6)
    counted = describe.describe(TextGAN(generator=settings).networks())["generator"]
    rows = {row["layer"]: row["parameters"] for row in counted["layers"]}
    assert list(rows)[1:4] == ["stem", "stem_norm", "stem_norm/text"]
    assert rows["stem"] == 3 * 32 + 32
    assert (rows["stem_norm"], rows["stem_norm/text"]) == (2 * 2, (4 + 1) * 2 * 2)
