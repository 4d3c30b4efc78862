"""How the rows of `test_published_settings` are written, and numbers of parameters by hand."""

import itertools


def adam(
    learning_rate=2e-4, b1=0.5, b2=0.999, epsilon=1e-8, unit="step", boundaries=(), **more
) -> dict:
    """Kingma and Ba's Adam with Radford et al.'s numbers; falls by 0.1 at the boundaries."""
    return {
        "kind": "adam",
        "learning_rate": learning_rate,
        "b1": b1,
        "b2": b2,
        "epsilon": epsilon,
        "unit": unit,
        "boundaries": boundaries,
        "gamma": 0.1,
        "decay_start": 0,
        "decay_steps": 0,
        **more,
    }


def both(settings: dict) -> dict:
    """One optimizer for both players."""
    return {"g": settings, "d": settings}


def kernels(side: int, *widths: int) -> int:
    """Numbers of a chain of square kernels through these widths."""
    return side**2 * sum(a * b for a, b in itertools.pairwise(widths))


def norms(*widths: int) -> int:
    """A gain and a bias for each channel."""
    return 2 * sum(widths)


def trained(steps=0, epochs=25) -> dict:
    """Length; `steps` decides where it is not 0."""
    return {"run.steps": steps} if steps else {"run.steps": 0, "run.epochs": epochs}


def noise(z: int, size: int = 64, **rest) -> dict:
    """A plain GAN from z to images of that size, but for `rest`."""
    plain = {
        "loss": "non_saturating",
        "real_label": 1.0,
        "fake_label": 0.0,
        "d_scale": 1.0,
        "split_d": False,
        "shared_noise": True,
        "r1": 0.0,
        "r2": 0.0,
        "gradient_penalty": 0.0,
        "augment": (),
        "schedule.kind": "fixed",
        "schedule.d": 1,
        "schedule.g": 1,
        "generator.z_dim": z,
        "generator.size": size,
        **rest,
    }
    return {f"method.{name}": value for name, value in plain.items()}


def r3gan(start, end, size=64, images=20_000_000, batch=256, average=500_000, **more) -> dict:
    """R3GAN's schedules, each by half a cosine over so many images; gamma from start to end."""
    adams = both(adam(b1=0.0, b2=0.9, unit="image", decay_steps=images))
    moves = {"shape": "cosine", "final_share": 0.25, "final_b2": 0.99}
    return {
        "batch_size": batch,
        "flip": True,
        "ema_half_life": average,
        "ema_cosine": images,
        **adams,
        **{f"optimizers.{player}.{name}": x for player in "gd" for name, x in moves.items()},
        **trained(steps=images // batch),
        **noise(64, size, loss="relativistic", shared_noise=False, r1=1.0, r2=1.0),
        "method.gamma.start": start,
        "method.gamma.end": end,
        "method.gamma.images": images,
        "method.pipe_p.start": 0.0,
        "method.pipe_p.end": 0.3,
        "method.pipe_p.images": images,
        "method.penalty_every": 1,
        "method.generator.group_channels": 16,
        **more,
    }


# Radford et al.'s networks with k4: 512-256-128-64-3 up, 64-128-256-512-1 down.
G64 = kernels(4, 100, 512, 256, 128, 64, 3) + norms(512, 256, 128, 64)
D64 = kernels(4, 3, 64, 128, 256, 512, 1) + norms(128, 256, 512)


def counts(**numbers: int) -> dict:
    """Trained numbers of networks."""
    return {f"parameters.{name}": number for name, number in numbers.items()}


def convolutions(*layers: tuple[int, int, int]) -> int:
    """(side, in, out) of convolutions with biases."""
    return sum(kernels(k, a, b) + b for k, a, b in layers)
