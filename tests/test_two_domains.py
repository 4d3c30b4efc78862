"""Two unpaired domains: drawn and mirrored apart, and refused where there is but one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.cyclegan import EXAMPLES
from tiny import CYCLE, packed

from anigan_jax import rng
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.errors import UserError
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.storage import images
from anigan_jax.training import input, online_eval


def numbered(count):
    """Images whose first pixel is their number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, 1, 3))


def numbers(data, draws, batch=8, seed=0):
    """Domain -> (draws, batch) numbers of the images drawn."""
    held = {domain: {"image": jnp.asarray(rows)} for domain, rows in data.items()}
    gather = jax.jit(lambda draw: input.gather(held, draw, batch, EXAMPLES, seed))
    drawn = [gather(jnp.int32(draw)) for draw in range(draws)]
    return {name: np.stack([d[name]["image"][:, 0, 0, 0] for d in drawn]) for name in data}


def test_every_image_of_each_domain_is_seen_once_an_epoch():
    """40 images are 5 batches of 8, and 24 are 3: each domain has epochs of its own."""
    drawn = numbers({"a": numbered(40), "b": numbered(24)}, 15)
    for name, count in (("a", 40), ("b", 24)):
        epochs = drawn[name].reshape(-1, count)
        assert len(epochs) == 15 * 8 // count
        for epoch in epochs:
            assert sorted(epoch.tolist()) == list(range(count))
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == len(epochs)


@pytest.mark.parametrize("seed", [0, 7])
def test_equal_counts_do_not_pair_the_rows(seed):
    """A pair of rows meets as often as chance lets it, in an epoch and in the next."""
    drawn = numbers({"a": numbered(40), "b": numbered(40)}, 50, seed=seed)
    a, b = (drawn[name].ravel().astype(int) for name in "ab")
    # 400 meetings of 1600 pairs of rows: of equal rows 10 are expected.
    assert 1 <= (a == b).sum() <= 24
    counts = np.bincount(a * 40 + b, minlength=1600)
    assert counts.max() <= 5
    # Poisson: exp(-1/4), or 78 %, of the pairs never meet.
    assert 0.74 < (counts == 0).mean() < 0.82


def test_what_belongs_to_an_image_is_drawn_with_it():
    """Its label, or its smoothed copy; the other domain is drawn apart, at any seed."""
    values = jnp.asarray(numbered(40))
    held = {"a": {"image": values, "label": values}, "b": {"image": values, "edges": values}}
    drawn = input.gather(held, jnp.int32(3), 8, EXAMPLES, 5)
    a, b = (np.asarray(drawn[domain]["image"]) for domain in "ab")
    np.testing.assert_array_equal(drawn["a"]["label"], a)
    np.testing.assert_array_equal(drawn["b"]["edges"], b)
    assert (a != b).any()


def test_the_domains_are_mirrored_apart():
    left = np.zeros((8, 2, 2, 3), np.uint8)
    left[:, :, 0] = 255
    rows = {domain: {"image": jnp.array(left)} for domain in "ab"}
    to_batch = jax.jit(lambda draw, key: input.to_batch(rows, key, draw, EXAMPLES, True))
    key = rng.root_key(0)
    batches = [to_batch(jnp.int32(draw), key) for draw in range(100)]
    a, b = (
        np.concatenate([batch[domain]["image"][:, 0, 0, 0] < 0 for batch in batches])
        for domain in "ab"
    )
    # 800 coins each; 5 deviations of a share of 1/2 are 0.088.
    for coins in (a, b, a == b):
        assert abs(coins.mean() - 0.5) < 0.09


def test_a_pack_of_one_domain_is_refused_with_what_to_do(tmp_path):
    faces = packed(dataclasses.replace(CYCLE, data=PaintedFaces(count=8, size=16)), tmp_path)
    with pytest.raises(
        UserError, match=r"translation needs two: give --data\.path A --data\.path-b B"
    ):
        input.rows(CYCLE, faces)


def test_a_small_second_domain_is_refused(tmp_path):
    small = packed(
        dataclasses.replace(CYCLE, data=dataclasses.replace(CYCLE.data, count=7)), tmp_path
    )
    with pytest.raises(
        UserError, match="a batch of 8 needs at least as many images; the data has 7"
    ):
        input.rows(CYCLE, small)


def test_a_domain_without_held_out_images_is_no_reason_to_refuse(tmp_path):
    """testA without testB: nothing is judged, and what is shown was trained on."""
    whole = packed(CYCLE, tmp_path)
    method = CYCLE.method.make()
    assert input.held_out(whole)
    assert online_eval.of_family(CYCLE, method, whole) is not None
    parts = {name: span for name, span in whole.manifest["parts"].items() if name != "testB"}
    half = whole._replace(manifest={**whole.manifest, "parts": parts})
    assert half.has("test") and not input.held_out(half)
    assert online_eval.of_family(CYCLE, method, half) is None
    input.rows(CYCLE, half)
    faces = PaintedFaces(count=8, size=16, test=0.5)
    assert input.held_out(packed(dataclasses.replace(CYCLE, data=faces), tmp_path))


@pytest.mark.parametrize(("count", "columns"), [(1, 3), (8, 6), (12, 6), (3, 3)])
def test_groups_of_pictures_never_break_over_a_row(count, columns):
    """Each photo stands beside what it becomes, however few there are."""
    tiles = np.zeros((count, 3, 4, 4, 3), np.uint8)
    tiles[:, 0] = 200
    sheet = np.asarray(images.grid(tiles, pad=0))
    assert sheet.shape[1] == 4 * columns
    firsts = [sheet[4 * (3 * i // columns), 4 * (3 * i % columns), 0] for i in range(count)]
    assert firsts == [200] * count


def test_networks_of_two_sizes_are_refused():
    method = CycleGAN(discriminator=dataclasses.replace(CYCLE.method.discriminator, size=32))
    with pytest.raises(UserError, match="64 differs from method"):
        method.make()
