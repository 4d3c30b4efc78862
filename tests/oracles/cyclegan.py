"""CycleGAN's losses by hand, and its state as a PyTorch trainer has it."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import CYCLE

from anigan_jax import rng
from anigan_jax.methods import image_pool
from anigan_jax.networks import resnet
from anigan_jax.training import input

EXAMPLES = jnp.arange(CYCLE.batch_size, dtype=jnp.int32)
WAYS = {"a": "ba", "b": "ab"}
"""Which generator makes images of a domain."""
OTHER = {"a": "b", "b": "a"}


def batch_at(config, data, step, state):
    """The batch that a step sees."""
    held, draw = jax.tree.map(jnp.asarray, dict(data)), jnp.int32(step)
    rows = input.gather(held, draw, config.batch_size, EXAMPLES, config.seed)
    return input.to_batch(rows, jnp.asarray(state.key), draw, EXAMPLES, config.flip)


def keys_at(step, state, position):
    """Keys of an update (D's is the first, G's the second)."""
    key, none = jnp.asarray(state.key), jnp.zeros((len(EXAMPLES), 0))
    return rng.update_keys(key, jnp.int32(step), 8 * position, 0, EXAMPLES, none)


def draws_at(step, state, name):
    """What chance decides for the pool of a domain in a step."""
    key = jax.random.fold_in(keys_at(step, state, 0).shared, "ab".index(name))
    drawn = image_pool.draws(key, len(EXAMPLES), CYCLE.method.pool)
    return np.asarray(drawn.swap), np.asarray(drawn.place)


def compiled_networks():
    def run(net):
        return jax.jit(lambda params, x: net.apply({"params": params}, x, train=True))

    g, d = (
        CYCLE.method.generator.build(),
        CYCLE.method.discriminator.build(),
    )
    return run(g), run(d)


NETWORKS = compiled_networks()


def forward(run, params, x):
    return np.asarray(run(params, jnp.asarray(x)), np.float64)


def squares(logits, real):
    return np.mean((logits - real) ** 2)


def cross_entropy(logits, real):
    return np.mean(np.logaddexp(0, -logits if real else logits))


def d_by_hand(params, real, shown, gan=squares, scale=0.5):
    """Metrics of D's update; `shown` fakes by domain."""
    found, real_logits, fake_logits = {}, [], []
    for name in "ab":
        judged = [forward(NETWORKS[1], params[name], x) for x in (real[name], shown[name])]
        found[f"loss/d_{name}"] = scale * (gan(judged[0], 1) + gan(judged[1], 0))
        real_logits.append(judged[0].ravel())
        fake_logits.append(judged[1].ravel())
    found["loss/d"] = found["loss/d_a"] + found["loss/d_b"]
    real_logits, fake_logits = np.concatenate(real_logits), np.concatenate(fake_logits)
    line = 0.5 if gan is squares else 0
    score = (lambda x: x) if gan is squares else (lambda x: 1 / (1 + np.exp(-x)))
    found["score/real"], found["score/fake"] = score(real_logits).mean(), score(fake_logits).mean()
    right = (real_logits > line).mean() + (fake_logits < line).mean()
    return {**found, "accuracy/d": right / 2}


def g_by_hand(g, d, real, gan=squares, weights=(5, 1, 10)):
    """Metrics of G's update under discriminators d; weights of identity, GAN and cycle."""
    fakes = {n: forward(NETWORKS[0], g[WAYS[n]], real[OTHER[n]]) for n in "ab"}
    found, identity, adversarial, cycle = {}, 0.0, 0.0, 0.0
    for name in "ab":
        other = OTHER[name]
        logits = forward(NETWORKS[1], d[other], fakes[other])
        back = forward(NETWORKS[0], g[WAYS[name]], fakes[other])
        same = forward(NETWORKS[0], g[WAYS[name]], real[name])
        found[f"loss/gan_{name}{other}"] = gan(logits, 1)
        found[f"loss/cycle_{name}"] = np.abs(back - real[name]).mean()
        found[f"loss/identity_{name}"] = np.abs(same - real[name]).mean()
        adversarial += found[f"loss/gan_{name}{other}"]
        cycle += found[f"loss/cycle_{name}"]
        identity += found[f"loss/identity_{name}"]
    w = weights
    found["loss/g"] = w[0] * identity + w[1] * adversarial + w[2] * cycle
    return found


def reals(batch):
    return {"a": np.asarray(batch["a"]["image"]), "b": np.asarray(batch["b"]["image"])}


def same_metrics(got, want, rtol=2e-5):
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=rtol, atol=1e-6, err_msg=name)


class Identity:
    """A network that gives back what it gets."""

    def __call__(self, params, stats, images, *_keys, train=True, **_turns):
        return images, stats


def swap_domains(state):
    """The state of the same game seen from the other side."""

    def g(tree):
        return {"ab": tree["ba"], "ba": tree["ab"]} if tree else tree

    def d(tree):
        return {"a": tree["b"], "b": tree["a"]}

    return state.replace(
        params={"g": g(state.params["g"]), "d": d(state.params["d"])},
        stats={"g": g(state.stats["g"]), "d": d(state.stats["d"])},
        ema=g(state.ema),
        ema_stats=g(state.ema_stats),
        extra_state={**d(state.extra_state), "held": state.extra_state["held"]},
    )


def other_name(name):
    """'loss/gan_ab' -> 'loss/gan_ba', 'cycle/a' -> 'cycle/b'."""
    for ending, swapped in (("_ab", "_ba"), ("_ba", "_ab"), ("_a", "_b"), ("_b", "_a")):
        if name.endswith(ending):
            return name.removesuffix(ending) + swapped
    for ending, swapped in (("/a", "/b"), ("/b", "/a")):
        if name.endswith(ending):
            return name.removesuffix(ending) + swapped
    return name


def hidden_biases():
    """(player, layer) whose bias an instance norm takes out again: nothing defines its gradient."""
    plans = {
        "g": resnet.generator_plan(CYCLE.method.generator),
        "d": resnet.discriminator_plan(CYCLE.method.discriminator),
    }
    return {(player, b.name) for player, plan in plans.items() for b in plan if b.norm}


def defined(params):
    """Name -> weights that the data defines."""
    left_out = hidden_biases()
    return {
        f"{player}/{name}/{layer}/{leaf}": np.asarray(value)
        for player, nets in params.items()
        for name, net in nets.items()
        for layer, held in net.items()
        for leaf, value in (("kernel", held["weight"]["kernel"]), ("bias", held.get("bias")))
        if value is not None and not (leaf == "bias" and (player, layer) in left_out)
    }


def weights_of(peer, plan, like):
    """A torch network's weights as a tree of ours."""
    import torch

    kinds = torch.nn.Conv2d, torch.nn.ConvTranspose2d
    found = [module for module in peer.modules() if isinstance(module, kinds)]
    tree = {}
    for module, block in zip(found, plan, strict=True):
        order = (2, 3, 0, 1) if isinstance(module, kinds[1]) else (2, 3, 1, 0)
        kernel = module.weight.detach().numpy().transpose(order)
        tree[block.name] = {"weight": {"kernel": kernel}}
        if "bias" in like[block.name]:
            tree[block.name]["bias"] = module.bias.detach().numpy()
    return tree
