"""Twins and near copies against brute force, and splits that never part them."""

import hashlib
import io

import files
import numpy as np
import pytest
from PIL import Image

from anigan_jax.data import dedup


def digests_of(images) -> list[str]:
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def find(images):
    thumbs = np.stack([dedup.thumbnail(image) for image in images])
    return dedup.find(thumbs, digests_of(images))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    data = files.encode(Image.fromarray(image), "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(data)))


def smaller(image: np.ndarray) -> np.ndarray:
    half = Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS)
    return np.asarray(half.resize((64, 64), Image.Resampling.LANCZOS))


FACES = [np.asarray(files.noise(seed)) for seed in range(6)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda x: x.copy(), "duplicate"),
        (lambda x: x[:, ::-1], "mirror"),
        (lambda x: jpeg(x, 50), "near"),
        (smaller, "near"),
        (lambda x: jpeg(np.ascontiguousarray(x[:, ::-1]), 50), "mirror"),
        (lambda x: np.clip(x * 1.03, 0, 255).astype(np.uint8), "near"),
    ],
)
def test_each_kind_is_found_and_only_it(change, code):
    groups, pairs = find([*FACES, np.ascontiguousarray(change(FACES[2]))])
    assert pairs == [(6, 2, code)]
    assert groups.tolist() == [0, 1, 2, 3, 4, 5, 2]


def test_other_changes_are_not_taken_for_copies():
    for change in (lambda x: x[::-1], lambda x: 255 - x, lambda x: x[..., ::-1]):
        assert find([*FACES, np.ascontiguousarray(change(FACES[2]))])[1] == []


def test_groups_are_those_of_brute_force():
    """Random thumbnails around few centers, so that chains and mirrors occur."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 256, (40, 16, 16, 3))
    which = rng.integers(0, 40, 300)
    spread = rng.uniform(0, 14, (300, 1, 1, 1))
    thumbs = centers[which] + rng.normal(size=(300, 16, 16, 3)) * spread
    flip = rng.random(300) < 0.3
    thumbs[flip] = thumbs[flip][:, :, ::-1]
    thumbs = np.clip(np.rint(thumbs), 0, 255).astype(np.uint8)
    groups, pairs = dedup.find(thumbs, [str(i) for i in range(300)])
    flat = thumbs.reshape(300, -1).astype(float)
    mirrored = thumbs[:, :, ::-1].reshape(300, -1).astype(float)
    near = np.zeros((300, 300), bool)
    for other in (flat, mirrored):
        for i in range(300):
            near[i] |= np.sqrt(((other - flat[i]) ** 2).mean(1)) <= dedup.THRESHOLD
    near |= near.T
    want = np.arange(300)
    while True:
        lower = np.array([want[near[i] | (np.arange(300) == i)].min() for i in range(300)])
        if (lower == want).all():
            break
        want = lower
    assert groups.tolist() == want.tolist()
    assert 50 < len(pairs) == 300 - len(set(want.tolist()))
    assert {code for *_, code in pairs} == {"near", "mirror"}


def test_splits_keep_groups_and_do_not_depend_on_order_or_company():
    names = [str(i) for i in range(2000)]
    groups = np.arange(2000) // 2 * 2
    held = dedup.held_out(groups, names, 0.1)
    assert (held[::2] == held[1::2]).all()
    # 1,000 groups: four standard deviations around a tenth.
    assert abs(held.mean() - 0.1) < 0.04
    order = np.random.default_rng(0).permutation(2000)
    first = {int(g): int(np.flatnonzero(groups[order] == g)[0]) for g in set(groups.tolist())}
    regrouped = np.array([first[int(g)] for g in groups[order]])
    shuffled = dedup.held_out(regrouped, [names[i] for i in order], 0.1)
    assert (shuffled == held[order]).all()
    assert (dedup.held_out(groups[:500], names[:500], 0.1) == held[:500]).all()
    assert not dedup.held_out(groups, names, 0.0).any()
    # A larger share only adds.
    assert (held <= dedup.held_out(groups, names, 0.2)).all()


def test_nothing_and_one():
    empty = np.zeros((0, 16, 16, 3), np.uint8)
    assert dedup.find(empty, [])[1] == []
    groups, pairs = find(FACES[:1])
    assert groups.tolist() == [0]
    assert pairs == []
