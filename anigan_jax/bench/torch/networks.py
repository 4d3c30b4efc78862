"""Our networks in PyTorch: the plans of `networks` executed eagerly, for the benchmark.

Maps are (b, C, H, W), latents (b, Z, 1, 1), texts (b, T). Parameters have PyTorch's layout;
`load` brings ours into it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anigan_jax.bench.random_vgg import random_vgg
from anigan_jax.networks import cartoon, dcgan, resnet
from anigan_jax.networks import text as networks_text
from anigan_jax.networks.blocks import Block, InstanceNorm, Norm
from anigan_jax.perceptual.vgg import MEAN, STD, needed

Shape = tuple[int, int, int]
"""(C, H, W)."""


def same_pads(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side by TensorFlow's rule: the odd pixel goes to the far one."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def outside(block: Block, inside: Shape) -> Shape:
    """The shape of a layer's output."""
    b = block

    def scaled(side: int) -> int:
        if b.op == "dense":
            return b.side or 1
        if b.op == "upsample_conv":
            return 2 * side
        if b.op == "conv_transpose":
            return (side - 1) * b.stride - 2 * b.padding + b.kernel + b.output_padding
        if b.padding == "same":
            return -(-side // b.stride)
        return (side + 2 * (b.padding + b.reflect) - b.kernel) // b.stride + 1

    return b.features, scaled(inside[1]) + b.pad_after, scaled(inside[2]) + b.pad_after


class ConditionalNorm(nn.Module):
    """Batch norm whose gain and bias also follow a text (b, E)."""

    def __init__(self, norm: nn.BatchNorm2d, told: int):
        super().__init__()
        self.norm = norm
        self.text = nn.Linear(told, 2 * norm.num_features)
        nn.init.normal_(self.text.weight, std=0.1)
        nn.init.zeros_(self.text.bias)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        gain, bias = self.text(text)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(bias, self.norm(x), 1 + gain)


def batch_norm(settings: Norm, features: int, told: int) -> nn.Module:
    """The norm of the settings; `told`: length of the text that it follows, or 0."""
    norm = nn.BatchNorm2d(features, settings.epsilon, 1 - settings.momentum)
    if settings.scale_stddev:
        nn.init.normal_(norm.weight, 1.0, settings.scale_stddev)
    return ConditionalNorm(norm, told) if told else norm


class Layer(nn.Module):
    """One `Block` but its skip: operation, padding, norm, and after the sum the activation."""

    def __init__(
        self,
        block: Block,
        inside: Shape,
        norm: Norm | InstanceNorm,
        leak: float,
        stddev: float,
        told: int = 0,
    ):
        super().__init__()
        self.block, self.inside, self.negative_slope = block, inside, leak
        units = block.features * max(block.side, 1) ** 2
        window = () if block.op == "dense" else (block.kernel, block.kernel)
        incoming = inside[0] if window else int(np.prod(inside))
        ends = (incoming, units) if block.op == "conv_transpose" else (units, incoming)
        self.weight = nn.Parameter(torch.empty(*ends, *window))
        stddev = stddev if block.stddev is None else block.stddev
        if stddev > 0:
            nn.init.normal_(self.weight, std=stddev)
        else:
            nn.init.xavier_uniform_(self.weight)
        self.bias = nn.Parameter(torch.zeros(units)) if block.bias else None
        batched = block.norm and isinstance(norm, Norm)
        self.norm = batch_norm(norm, block.features, told) if batched else None
        self.epsilon = norm.epsilon
        self.told = told if batched else 0
        if block.spectral:
            matrix = self.matrix().detach()
            u = F.normalize(torch.randn(units), dim=0)
            self.register_buffer("u", u)
            self.register_buffer("v", F.normalize(matrix.T @ u, dim=0))

    def forward(self, x: Tensor, iterate: bool, text: Tensor | None, kept: Tensor | None) -> Tensor:
        """`kept`: what is added before the activation, or None."""
        block = self.block
        if block.reflect:
            x = F.pad(x, (block.reflect,) * 4, mode="reflect")
        x = self.operate(x, self.kernel(iterate))
        if block.pad_after:
            x = F.pad(x, (0, block.pad_after, 0, block.pad_after))
        if block.activation_first:
            x = activate(x, block.activation, self.negative_slope)
        if self.norm is not None:
            x = self.norm(x, text) if self.told else self.norm(x)
        elif block.norm:
            x = F.instance_norm(x, eps=self.epsilon)
        if kept is not None:
            x = x + kept
        if not block.activation_first:
            x = activate(x, block.activation, self.negative_slope)
        return F.dropout(x, block.dropout, self.training) if block.dropout else x

    def kernel(self, iterate: bool) -> Tensor:
        """The weight over its largest singular value, by one power iteration at most.

        Unlike torch.nn.utils.parametrizations.spectral_norm, which iterates in every pass.
        """
        if not self.block.spectral:
            return self.weight
        with torch.autocast(self.weight.device.type, enabled=False):
            matrix = self.matrix()
            if iterate:
                with torch.no_grad():
                    self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
                    self.u.copy_(F.normalize(matrix @ self.v, dim=0))
            return self.weight / torch.dot(self.u, matrix @ self.v)

    def matrix(self) -> Tensor:
        """The weight as (outputs, inputs of each)."""
        turned = self.block.op == "conv_transpose"
        return (self.weight.transpose(0, 1) if turned else self.weight).flatten(1)

    def operate(self, x: Tensor, weight: Tensor) -> Tensor:
        """The operation on maps (b, C, H, W), or on vectors where it is dense."""
        block, bias = self.block, self.bias
        if block.op == "dense":
            x = F.linear(x.flatten(1), weight, bias)
            return x.unflatten(1, (-1, block.side, block.side)) if block.side else x
        if block.op == "upsample_conv":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            return F.conv2d(x, weight, bias, padding=block.kernel // 2)
        if block.op == "conv_transpose":
            steps = block.stride, block.padding, block.output_padding
            return F.conv_transpose2d(x, weight, bias, *steps)
        padding = block.padding
        if padding == "same":
            _, height, width = self.inside
            (top, bottom), (left, right) = (
                same_pads(side, block.kernel, block.stride) for side in (height, width)
            )
            padding = (top, left)
            if (top, left) != (bottom, right):
                x, padding = F.pad(x, (left, right, top, bottom)), 0
        return F.conv2d(x, weight, bias, block.stride, padding)


def activate(x: Tensor, name: str, leak: float) -> Tensor:
    """Applies the activation of a `Block`, in place where the gradient allows it."""
    if name == "relu":
        return F.relu(x, inplace=True)
    if name == "leaky_relu":
        return F.leaky_relu(x, leak, inplace=True)
    return {"none": lambda y: y, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[name](x)


class Network(nn.Module):
    """Executes a plan, as `networks.dcgan.Stack` does.

    Call with (b, C, H, W) of the shape `inside` and get the last block's output, a map or
    (b, F). `iterate` advances spectral norm; `text` (b, E) is what batch norms follow.
    """

    def __init__(self, plan: tuple[Block, ...], inside: Shape, settings, norm=None, told: int = 0):
        super().__init__()
        norm = settings.norm if norm is None else norm
        rest = norm, getattr(settings, "negative_slope", 0.0), settings.stddev, told
        self.layers = nn.ModuleDict()
        for block in plan:
            self.layers[block.name] = Layer(block, inside, *rest)
            inside = outside(block, inside)
        self.outside = inside

    def forward(self, x: Tensor, iterate: bool = False, text: Tensor | None = None) -> Tensor:
        kept = None
        for layer in self.layers.values():
            skip = layer.block.skip
            if skip == "start":
                kept = x
            x = layer(x, iterate, text, kept if skip == "end" else None)
        return x


class TextNetwork(nn.Module):
    """Layers of an image or latent, a text joined to their output, further layers.

    Call with (b, C, H, W) and a tuple of texts (b, T); the layers before the join run once.
    Returns an output for each text, as `networks.text.TextStack` does.
    """

    def __init__(self, plans, inside: Shape, length: int, settings, join: str):
        """`plans`: of the text, before and after the join; `length`: T."""
        super().__init__()
        told, before, after = plans
        self.join = join
        self.text = Network(told, (length, 1, 1), settings)
        self.before = Network(before, inside, settings)
        width = self.text.outside[0]
        channels, height, side = self.before.outside
        inside = {
            "concat": (channels + width, height, side),
            "norm": (channels, height, side),
            "product": (channels, 1, 1),
            "inner": (channels, height, side),
        }[self.join]
        follows = width if self.join == "norm" else 0
        self.after = Network(after, inside, settings, told=follows)

    def forward(
        self, x: Tensor, texts: tuple[Tensor, ...], iterate: bool = False
    ) -> tuple[Tensor, ...]:
        x, outputs = self.before(x, iterate), []
        pooled = x.sum((2, 3)) if self.join == "product" else None
        for number, text in enumerate(texts):
            # One power iteration for all texts: they see the same kernels.
            first = iterate and number == 0
            told = self.text(text, first)
            if self.join == "concat":
                repeated = told[:, :, None, None].expand(-1, -1, *x.shape[2:])
                outputs.append(self.after(torch.cat([x, repeated], dim=1), first))
            elif self.join == "norm":
                outputs.append(self.after(x, first, told))
            elif self.join == "inner":
                outputs.append((told * self.after(x, first).flatten(1)).sum(1, keepdim=True))
            else:
                product = (told * pooled).sum(1, keepdim=True)
                outputs.append(self.after(pooled, first) + product)
        return tuple(outputs)


class SelfModulated(TextNetwork):
    """A generator whose norms follow z (b, Z, 1, 1), as `networks.stack.Stack` with `told`."""

    def forward(self, x: Tensor, iterate: bool = False) -> Tensor:  # type: ignore[override]
        (images,) = super().forward(x, (x.flatten(1),), iterate)
        return images


def translation_norm(kind: resnet.NormKind) -> Norm | InstanceNorm:
    """The constants of a norm that is named, as `resnet.stack` chooses them."""
    return Norm() if kind == "batch" else InstanceNorm()


def generator(settings, text: int = 0) -> Network | TextNetwork:
    """The generator of the settings: from z (b, Z, 1, 1), and texts (b, T), or from images.

    `text`: T where the settings are a `TextGenerator`.
    """
    if isinstance(settings, resnet.ResnetGenerator):
        inside, norm = (3, settings.size, settings.size), translation_norm(settings.norm)
        return Network(resnet.generator_plan(settings), inside, settings, norm)
    plan, latent = dcgan.generator_plan(settings), (settings.z_dim, 1, 1)
    if isinstance(settings, networks_text.TextGenerator):
        told = networks_text.text_plan(settings, settings.text_dim, "leaky_relu")
        return TextNetwork((told, (), plan), latent, text, settings, settings.join)
    if settings.self_modulation:
        plans = dcgan.modulation_plan(settings), (), plan
        return SelfModulated(plans, latent, settings.z_dim, settings, "norm")
    return Network(plan, latent, settings)


def discriminator(settings, text: int = 0) -> Network | TextNetwork:
    """The discriminator of the settings: images (b, 3, S, S), and texts (b, T), -> logits."""
    inside = (3, settings.size, settings.size)
    for module in (resnet.PatchDiscriminator, resnet), (cartoon.CartoonDiscriminator, cartoon):
        if isinstance(settings, module[0]):
            plan, norm = module[1].discriminator_plan(settings), translation_norm(settings.norm)
            return Network(plan, inside, settings, norm)
    if not isinstance(settings, networks_text.TextDiscriminator):
        return Network(dcgan.discriminator_plan(settings), inside, settings)
    plans = networks_text.joint_plan(settings)
    return TextNetwork(plans, inside, text, settings, settings.join)


class VGG(nn.Module):
    """One map of VGG16 or VGG19 of images (b, 3, H, W) in [-1, 1]; not trained.

    `arrays`: 'conv1_1/kernel' (3, 3, Cin, Cout) and 'conv1_1/bias' (Cout,), ... as
    `convert.load` reads them; random ones of full width where there are none.
    """

    def __init__(self, depth: int, tap: str, convention: str = "imagenet", arrays=None):
        super().__init__()
        self.tap, self.convention, self.names = tap, convention, needed(depth, (tap,))
        arrays = arrays or random_vgg(depth)
        for name in self.names:
            kernel = torch.tensor(arrays[f"{name}/kernel"]).permute(3, 2, 0, 1).contiguous()
            self.register_buffer(f"{name}_kernel", kernel)
            self.register_buffer(f"{name}_bias", torch.tensor(arrays[f"{name}/bias"]))
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        if self.convention != "signed":
            x = (x + 1) / 2
        if self.convention == "imagenet":
            x = (x - self.mean) / self.std
        for name in self.names:
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            weight = self.get_buffer(f"{name}_kernel"), self.get_buffer(f"{name}_bias")
            x = F.conv2d(x, *weight, padding=1)
            if name == self.tap:
                return x
            x = F.relu(x, inplace=True)
        return x


def _layers(network: nn.Module) -> Iterator[Layer]:
    return (module for module in network.modules() if isinstance(module, Layer))


@torch.no_grad()
def load(network: Network | TextNetwork, params: dict, stats: dict) -> nn.Module:
    """Copies parameters and collections of our Flax network into its peer; returns it."""
    for layer in _layers(network):
        name, own = layer.block.name, params[layer.block.name]
        pairs = [(layer.weight, _kernel(layer, own["weight"]["kernel"]))]
        if layer.bias is not None:
            pairs.append((layer.bias, _units(layer, own["bias"])))
        if layer.block.spectral:
            held = stats["spectral"][name]["weight"]
            pairs += [(layer.u, _units(layer, held["u"])), (layer.v, _places(layer, held["v"]))]
        if layer.norm is not None:
            held, running = params[f"{name}_norm"], stats["batch_stats"][f"{name}_norm"]
            norm = layer.norm.norm if layer.told else layer.norm
            pairs += [(norm.weight, held["scale"]), (norm.bias, held["bias"])]
            pairs += [(norm.running_mean, running["mean"]), (norm.running_var, running["var"])]
            if layer.told:
                linear, text = layer.norm.text, held["text"]
                pairs += [
                    (linear.weight, np.asarray(text["kernel"]).T),
                    (linear.bias, text["bias"]),
                ]
        for target, value in pairs:
            target.copy_(torch.tensor(np.array(value)))
    return network


def _kernel(layer: Layer, kernel) -> np.ndarray:
    kernel, block = np.asarray(kernel), layer.block
    if block.op == "conv_transpose":
        return kernel.transpose(2, 3, 0, 1)
    if block.op != "dense":
        return kernel.transpose(3, 2, 0, 1)
    # Ours flattens (H, W, C) and unflattens (side, side, features).
    rows = np.stack([_places(layer, column) for column in kernel.T])
    return np.stack([_units(layer, column) for column in rows.T], axis=1)


def _units(layer: Layer, values) -> np.ndarray:
    """Numbers of a layer's outputs, in the order of the peer's."""
    values, block = np.asarray(values), layer.block
    if block.op != "dense":
        return values
    side = max(block.side, 1)
    return values.reshape(side, side, block.features).transpose(2, 0, 1).ravel()


def _places(layer: Layer, values) -> np.ndarray:
    """Numbers of a kernel's inputs, flattened, in the order of the peer's."""
    channels, height, width = layer.inside
    if layer.block.op != "dense":
        height = width = layer.block.kernel
    return np.asarray(values).reshape(height, width, channels).transpose(2, 0, 1).ravel()
