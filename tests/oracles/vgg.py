"""A thin VGG with random weights, and PyTorch's layers of it."""

import numpy as np
import pytest

from anigan_jax.perceptual import lpips, vgg

THIN = (4, 5, 6, 7, 8)


def thin(depth: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A VGG of a few channels, with heads of LPIPS; flat."""
    rng, flat, channels = np.random.default_rng(seed), {}, 3
    for name in vgg.convolutions(depth):
        width = THIN[int(name[4]) - 1]
        kernel = rng.normal(0, (2 / 9 / channels) ** 0.5, (3, 3, channels, width))
        flat[f"{name}/kernel"] = kernel.astype(np.float32)
        flat[f"{name}/bias"] = rng.normal(0, 0.1, width).astype(np.float32)
        channels = width
    for head, width in zip(lpips.HEADS, THIN, strict=True):
        flat[head] = rng.uniform(0, 1, width).astype(np.float32)
    return flat


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (*shape, 3)).astype(np.float32)


def by_torch(flat: dict, depth: int, x, taps: tuple[str, ...]) -> list:
    """PyTorch's layers, torchvision's order; `x` is a tensor (B, 3, H, W), already prepared."""
    torch = pytest.importorskip("torch")
    found = {}
    for name in vgg.convolutions(depth):
        if name.endswith("_1") and name != "conv1_1":
            x = torch.nn.MaxPool2d(2, 2)(x)
        kernel = torch.tensor(flat[f"{name}/kernel"].transpose(3, 2, 0, 1)).to(x.dtype)
        layer = torch.nn.Conv2d(*kernel.shape[1::-1], 3, padding=1).to(x.dtype)
        layer.weight.data, layer.bias.data = kernel, torch.tensor(flat[f"{name}/bias"]).to(x.dtype)
        found[name] = x = layer.requires_grad_(False)(x)
        found[name.replace("conv", "relu")] = x = torch.nn.ReLU()(x)
    return [found[tap] for tap in taps]
