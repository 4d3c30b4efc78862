"""What makes a step fast and must not change it: types, rematerialization, donation, no waiting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    CYCLE,
    FULL,
    PLAIN,
    TEXT,
    arrays,
    constants_of,
    draw,
    packed,
    run_steps,
    start,
    with_features,
)

from anigan_jax.config import Run
from anigan_jax.core import Keys
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator
from anigan_jax.runtime import devices
from anigan_jax.state import init_state
from anigan_jax.training import step as train_step
from anigan_jax.training.program import Program

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def half(config):
    return dataclasses.replace(config, method=dataclasses.replace(config.method, dtype="bfloat16"))


@pytest.mark.parametrize("config", [FULL, TEXT, CYCLE], ids=lambda c: type(c.method).__name__)
def test_bfloat16_keeps_everything_but_products_in_float32(config, folder):
    """One step from the same state: losses agree to bfloat16's digits, and not further."""
    pack = packed(config, folder)
    _, state = start(config, pack)
    data, constants = arrays(config, pack), constants_of(config, pack)
    full, want = run_steps(config, data, state, 1, constants=constants)
    made, got = run_steps(half(config), data, state, 1, constants=constants)
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(full), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.isfinite(np.asarray(a, np.float64)).all()
    losses = [name for name in want if name.startswith("loss/")]
    assert len(losses) >= 2
    for name in losses:
        np.testing.assert_allclose(got[name], want[name], rtol=0.05, atol=0.05)
    assert any(got[name] != want[name] for name in losses)


def test_bfloat16_products_and_float32_logits():
    """Every convolution of D but the logit's multiplies bfloat16."""
    method = half(PLAIN).method.make()
    _, state = start(PLAIN)
    x = draw(0, 2, 16, 16, 3)

    def score(params, x):
        return method.features(params, state.stats["d"], x)

    text = str(jax.make_jaxpr(score)(state.params["d"], x))
    convolutions = [line for line in text.splitlines() if "conv_general_dilated" in line]
    assert convolutions and all("bf16" in line for line in convolutions)
    assert score(state.params["d"], x).dtype == jnp.float32
    images = method.generate(state.params["g"], state.stats["g"], draw(1, 2, 4))
    assert images.dtype == jnp.float32


def test_bfloat16_resumes_and_repeats(folder):
    config, images = half(FULL), packed(FULL, folder).images
    _, state = start(config)
    once = run_steps(config, images, state, 4, length=2)[1]["fingerprint"]
    again = run_steps(config, images, state, 4, length=1)[1]["fingerprint"]
    assert once.tolist() == again.tolist()


def cyclegan(size: int, base: int, blocks: int, remat: bool):
    return CycleGAN(
        generator=ResnetGenerator(size=size, base_channels=base, blocks=blocks),
        discriminator=PatchDiscriminator(
            size=size, base_channels=2, num_downsamples=2, num_flat_convs=0
        ),
        pool=0,
        remat=remat,
    )


def test_rematerialization_gives_the_same_step(folder):
    pack = packed(CYCLE, folder)
    _, state = start(CYCLE, pack)
    ends = []
    for remat in (False, True):
        method = dataclasses.replace(CYCLE.method, remat=remat)
        config = dataclasses.replace(CYCLE, method=method)
        ends.append(run_steps(config, arrays(config, pack), state, 2))
    for name, values in ends[0][1].items():
        if name != "fingerprint":
            np.testing.assert_allclose(ends[1][1][name], values, rtol=1e-4, atol=1e-6)


def test_rematerialization_keeps_less():
    """What G's backward pass holds of the forward one, at 64 px with 6 residual blocks.

    XLA's CPU backend merges both passes again; GPUs and TPUs do not.
    """
    sizes = []
    for remat in (False, True):
        settings = cyclegan(64, 8, 6, remat)
        config = dataclasses.replace(CYCLE, method=settings, batch_size=4)
        game = settings.make()
        state = jax.eval_shape(lambda c=config, g=game: init_state(c, g, {}))
        images = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)
        loss = game.phases[0].updates[1].losses[0]
        keys = Keys(*[jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))] * 3)
        batch = {"a": {"image": images}, "b": {"image": images}}

        def held(params, state, batch, keys, loss=loss):
            return jax.vjp(lambda p: loss(p, state, batch, keys)[0], params)[1]

        residuals = jax.tree.leaves(jax.eval_shape(held, state.params["g"], state, batch, keys))
        sizes.append(sum(leaf.size * leaf.dtype.itemsize for leaf in residuals))
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize("place", ["device", "host"])
@pytest.mark.parametrize("mapper", ["pmap", "shard_map"])
def test_a_dispatch_moves_nothing_between_host_and_device(place, mapper, folder):
    """Under a guard that refuses every transfer that is not spelled out.

    The state is donated: a step holds one, not two.
    """
    pack = packed(FULL, folder)
    run = Run(steps=8, steps_per_dispatch=2, mapper=mapper, input=place, devices=2)
    program = Program(dataclasses.replace(FULL, run=run), pack, {})
    state = devices.replicate(program.initial(), program.devices)
    chunks = program.chunks(0)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            old = state
            state, metrics, _ = program.run(old, next(chunks))
            jax.block_until_ready(state)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
            assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
        fetched = jax.device_get(metrics)
        with pytest.raises(Exception, match=r"[Dd]isallowed"):
            chunk = next(chunks)
            local = {**chunk.local, "device": np.arange(2, dtype=np.int32)}
            program.run(state, chunk._replace(local=local))
    assert fetched["fingerprint"].shape == (2,)


def test_both_updates_share_one_forward_pass_of_g():
    """XLA makes the images once where both see the same latents; the numbers do not change."""
    method = GAN(
        generator=Generator(z_dim=4, size=16, base_channels=8),
        discriminator=Discriminator(size=16, base_channels=2),
    )
    counts = {}
    for shared in (True, False):
        settings = dataclasses.replace(method, shared_noise=shared)
        config = dataclasses.replace(PLAIN, method=settings)
        made = settings.make()
        step = train_step.make_train_step(config, made, made.phases[0], None)
        state = jax.jit(lambda c=config, m=made: init_state(c, m, {}))()

        def whole(state, images, step=step):
            examples = jnp.arange(8, dtype=jnp.int32)
            return step(state, lambda *_: {"a": {"image": images}}, examples)

        images = draw(0, 8, 16, 16, 3)
        compiled = jax.jit(whole).lower(state, images).compile()
        counts[shared] = compiled.cost_analysis()["flops"]
        if shared:
            got, _ = compiled(state, images)
            want = apart(config, made, state, images)
    forward = jax.jit(lambda s, z: made.generate(s.params["g"], s.stats["g"], z))
    once = forward.lower(state, draw(1, 8, 4)).compile().cost_analysis()["flops"]
    assert abs((counts[False] - counts[True]) / once - 1) < 0.2
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


def apart(config, method, state, images):
    """The same step with each update compiled alone, so that nothing can be shared."""
    examples = jnp.arange(8, dtype=jnp.int32)
    before = state
    for update in range(2):
        phase = method.phases[0]._replace(updates=(method.phases[0].updates[update],))
        step = train_step.make_train_step(config, method, phase, None)

        def whole(state, images, step=step):
            return step(state, lambda *_: {"a": {"image": images}}, examples)

        new, _ = jax.jit(whole)(state, images)
        state = new.replace(step=before.step)
    return new


def test_previews_and_features_of_a_cartoon_run_in_bfloat16(folder):
    from tiny import CARTOON

    config = with_features(half(CARTOON), folder)
    pack = packed(config, folder)
    _, state = start(config, pack)
    constants = constants_of(config, pack)
    _, metrics = run_steps(config, arrays(config, pack), state, 2, constants=constants)
    assert np.isfinite(metrics["loss/content"]).all()
