"""Image-to-image networks written out in PyTorch."""

import numpy as np


def nchw(x):
    import torch

    # Maps this small are faster on one thread.
    torch.set_num_threads(1)
    return torch.tensor(np.array(x).transpose(0, 3, 1, 2).copy())


def nhwc(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


def normed(torch, width, norm, *, relu):
    norms = {"instance": torch.nn.InstanceNorm2d, "batch": torch.nn.BatchNorm2d}
    return [
        *([norms[norm](width)] if norm in norms else []),
        *([torch.nn.ReLU()] if relu else []),
    ]


def torch_generator(base, blocks, norm="instance", *, flat=False, bias=True):
    """junyanz's ResnetGenerator; with `flat` znxlwm's CartoonGAN one, with reflected borders."""
    import torch

    n = torch.nn

    class Residual(n.Module):
        def __init__(self, width):
            super().__init__()
            self.inner = n.Sequential(
                n.ReflectionPad2d(1),
                n.Conv2d(width, width, 3, bias=bias),
                *normed(torch, width, norm, relu=True),
                n.ReflectionPad2d(1),
                n.Conv2d(width, width, 3, bias=bias),
                *normed(torch, width, norm, relu=False),
            )

        def forward(self, x):
            return x + self.inner(x)

    made = [n.ReflectionPad2d(3), n.Conv2d(3, base, 7, bias=bias)]
    made += normed(torch, base, norm, relu=True)
    width = base
    for _ in range(2):
        made.append(n.Conv2d(width, 2 * width, 3, 2, 1, bias=bias or flat))
        width *= 2
        made += [n.Conv2d(width, width, 3, 1, 1, bias=bias)] if flat else []
        made += normed(torch, width, norm, relu=True)
    made += [Residual(width) for _ in range(blocks)]
    for _ in range(2):
        made.append(n.ConvTranspose2d(width, width // 2, 3, 2, 1, 1, bias=bias or flat))
        width //= 2
        made += [n.Conv2d(width, width, 3, 1, 1, bias=bias)] if flat else []
        made += normed(torch, width, norm, relu=True)
    return n.Sequential(*made, n.ReflectionPad2d(3), n.Conv2d(width, 3, 7), n.Tanh())


def torch_patch(
    base,
    num_downsamples=3,
    num_flat_convs=1,
    norm="instance",
    *,
    head=4,
    bias=True,
    tsinghua=False,
):
    """junyanz's NLayerDiscriminator; `tsinghua`: its DCGAN's first norm and extra layer."""
    import torch

    n = torch.nn
    made, width = [n.Conv2d(3, base, 4, 2, 1, bias=bias or not tsinghua)], base
    first = normed(torch, base, norm if tsinghua else "none", relu=False)
    made += [*first, n.LeakyReLU(0.2)]
    for i in range(1, num_downsamples + num_flat_convs):
        wider = base * min(2**i, 8)
        made.append(n.Conv2d(width, wider, 4, 2 if i < num_downsamples else 1, 1, bias=bias))
        made += [*normed(torch, wider, norm, relu=False), n.LeakyReLU(0.2)]
        width = wider
    if tsinghua:
        made.append(n.Conv2d(width, width, 3, 1, 1, bias=bias))
        made += [*normed(torch, width, norm, relu=False), n.LeakyReLU(0.2)]
    return n.Sequential(*made, n.Conv2d(width, 1, head, 1, 1))


def torch_cartoon_discriminator(base, norm="instance"):
    """znxlwm/pytorch-CartoonGAN's discriminator without its sigmoid."""
    import torch

    n = torch.nn
    made, width = [], 3
    for factor, stride, follows in (
        (1, 1, 0),
        (2, 2, 0),
        (4, 1, 1),
        (4, 2, 0),
        (8, 1, 1),
        (8, 1, 1),
    ):
        made.append(n.Conv2d(width, factor * base, 3, stride, 1))
        width = factor * base
        made += normed(torch, width, norm if follows else "none", relu=False)
        made.append(n.LeakyReLU(0.2))
    return n.Sequential(*made, n.Conv2d(width, 1, 3, 1, 1))


def carry(peer, params, plan):
    """Weights of a plan's layers, in order, into the convolutions of a torch network."""
    import torch

    found = [m for m in peer.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    for module, block in zip(found, plan, strict=True):
        transposed = isinstance(module, torch.nn.ConvTranspose2d)
        assert transposed == (block.op == "conv_transpose")
        kernel = np.asarray(params[block.name]["weight"]["kernel"])
        order = (2, 3, 0, 1) if transposed else (3, 2, 0, 1)
        assert (module.bias is not None) == ("bias" in params[block.name])
        module.weight.data = torch.tensor(kernel.transpose(order).copy())
        if module.bias is not None:
            module.bias.data = torch.tensor(np.array(params[block.name]["bias"]))
    return peer
