"""R3GAN in PyTorch, from the description of the paper alone: networks, game, schedules, Adam.

Weights are a flat dict of tensors under our names ('stage1_block1_in/weight/kernel'), kernels in
their layout (HWIO), so that nothing but the arithmetic is compared.
"""

import math

import torch
import torch.nn.functional as F

SLOPE, BLOCKS = 0.2, 2


def flat(tree, prefix=""):
    """Nested dicts of arrays -> name -> tensor that learns."""
    found = {}
    for name, value in tree.items():
        if hasattr(value, "items"):
            found |= flat(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = torch.tensor(value, requires_grad=True)
    return found


def convolved(x, p, name, groups=1, pad=0):
    kernel = p[f"{name}/weight/kernel"]
    if kernel.ndim == 2:
        kernel = kernel[None, None]
    return F.conv2d(x, kernel.permute(3, 2, 0, 1), p.get(f"{name}/bias"), 1, pad, 1, groups)


def block(x, p, name, group):
    """1x1, grouped 3x3, 1x1; a leaky ReLU after the first two; the input is added."""
    y = F.leaky_relu(convolved(x, p, f"{name}_in"), SLOPE)
    y = F.leaky_relu(convolved(y, p, f"{name}_conv", y.shape[1] // group, 1), SLOPE)
    return x + convolved(y, p, f"{name}_out")


def filtered(x, gain):
    """The depthwise kernel of (1, 3, 3, 1) in both directions, whose sum is `gain` an axis."""
    one = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) * gain / 8
    return torch.outer(one, one)[None, None].repeat(x.shape[1], 1, 1, 1)


def up(x):
    return F.conv_transpose2d(x, filtered(x, 2), stride=2, padding=1, groups=x.shape[1])


def down(x):
    return F.conv2d(x, filtered(x, 1), stride=2, padding=1, groups=x.shape[1])


def stage(x, p, number, group):
    for i in range(1, BLOCKS + 1):
        x = block(x, p, f"stage{number}_block{i}", group)
    return x


def generator(p, z, label, stages, group):
    """Images (b, 3, S, S) of z (b, Z) and, where there is one, the label's vector (b, T)."""
    if label is not None:
        z = torch.cat([z, label @ p["label/weight/kernel"]], 1)
    x = (z @ p["stem/weight/kernel"])[:, :, None, None]
    x = stage(x * p["constant/constant"].permute(2, 0, 1)[None], p, 1, group)
    for number in range(2, stages + 1):
        if f"width{number}/weight/kernel" in p:
            x = convolved(x, p, f"width{number}")
        x = stage(up(x), p, number, group)
    return convolved(x, p, "rgb")


def discriminator(p, images, label, stages, group):
    """Logits (b,) of images (b, 3, S, S)."""
    x = convolved(images, p, "rgb")
    for number in range(1, stages + 1):
        x = stage(x, p, number, group)
        if number < stages:
            x = down(x)
            if f"width{number}/weight/kernel" in p:
                x = convolved(x, p, f"width{number}")
    x = convolved(x, p, "pool", x.shape[1])[:, :, 0, 0]
    if label is None:
        return (x @ p["logit/weight/kernel"])[:, 0]
    return (x @ p["head/weight/kernel"] * (label @ p["label/weight/kernel"])).sum(1)


def cosine(start, end, images, seen):
    """v0 + (1 - (1 + cos(pi n / N)) / 2) (v1 - v0); constant after N."""
    done = (1 + math.cos(math.pi * min(seen / images, 1))) / 2
    return start + (1 - done) * (end - start)


def norms(logits, images):
    """The squared norm of the gradient of the summed logits at each image."""
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.square().sum((1, 2, 3))


class Game:
    """Both players, trained a step at a time.

    Attributes:
      moves: name -> (start, end, images) of 'rate', 'b2' and 'gamma'.
      half_life: (images of the average's half-life at its end, images until then).
    """

    def __init__(self, params, stages, group, batch, moves, half_life, epsilon):
        self.p = {player: flat(tree) for player, tree in params.items()}
        self.ema = {name: x.detach().clone() for name, x in self.p["g"].items()}
        self.rest, self.batch = (stages, group), batch
        self.moves, self.half_life, self.seen = moves, half_life, 0
        self.adam = {
            player: torch.optim.Adam(tree.values(), 1.0, (0.0, 0.9), epsilon)
            for player, tree in self.p.items()
        }

    def now(self, name):
        return cosine(*self.moves[name], self.seen)

    def descend(self, player, loss):
        (group,) = self.adam[player].param_groups
        group["lr"], group["betas"] = self.now("rate"), (0.0, self.now("b2"))
        self.adam[player].zero_grad()
        loss.backward(inputs=list(self.p[player].values()))
        self.adam[player].step()

    def step(self, d, g):
        """One step of D, then of G; each of (images (b, 3, S, S), z, label or None)."""
        real, z, label = d
        fake = generator(self.p["g"], z, label, *self.rest).detach().requires_grad_()
        real = real.clone().requires_grad_()
        judged = [discriminator(self.p["d"], x, label, *self.rest) for x in (real, fake)]
        penalty = norms(judged[0], real).mean() + norms(judged[1], fake).mean()
        loss_d = F.softplus(-(judged[0] - judged[1])).mean() + self.now("gamma") / 2 * penalty
        self.descend("d", loss_d)
        real, z, label = g
        made = discriminator(
            self.p["d"], generator(self.p["g"], z, label, *self.rest), label, *self.rest
        )
        loss_g = F.softplus(-(made - discriminator(self.p["d"], real, label, *self.rest))).mean()
        self.descend("g", loss_g)
        half_life = cosine(0.0, self.half_life[0], self.half_life[1], self.seen)
        keep = 0.5 ** (self.batch / half_life) if half_life else 0.0
        for name, new in self.p["g"].items():
            self.ema[name] = keep * self.ema[name] + (1 - keep) * new.detach()
        self.seen += self.batch
        return loss_d.item(), loss_g.item()
