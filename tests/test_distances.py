"""What all distances of feature sets have in common, on features of painted faces."""

import io

import numpy as np
import pytest
from PIL import Image

from anigan_jax.data.synthetic import painted
from anigan_jax.metrics import distances, frechet, kid, mind, paired, prdc
from anigan_jax.runtime.batching import in_batches

DISTANCES = {
    "fd": frechet.distance,
    "fd_few": frechet.distance_of_few,
    "mmd": kid.polynomial_mmd,
    "kid": lambda fake, real: kid.kid(fake, real, 3, subsets=40, size=150).mean,
    "cmmd": kid.cmmd,
    "mind": lambda fake, real: mind.mind(fake, real, 3, directions=200),
}
EVERY = {
    **DISTANCES,
    "prdc": prdc.prdc,
    "nearest": prdc.nearest,
    "copies": lambda fake, real: prdc.memorization(fake, real, fake, closest=1),
}
SIZE = 16
WEIGHTS = np.random.default_rng(9).standard_normal((SIZE * SIZE * 3, 48)) / 28


def features(images, batch=64):
    """(N, 16, 16, 3) uint8 -> (N, 48): rectified random sums of pixels."""

    def run(rows):
        return np.maximum((rows.reshape(len(rows), -1) / 127.5 - 1) @ WEIGHTS, 0)

    return in_batches(run, images, batch)


@pytest.fixture(scope="module")
def faces():
    """Of 1,200 painted faces: (N, 16, 16, 3) uint8 and the index of the hair color."""
    parameters = [painted.face(5, i) for i in range(1200)]
    images = np.stack([painted.draw(face, SIZE)[0] for face in parameters])
    return images, np.array([painted.HAIR_COLORS.index(face.hair) for face in parameters])


def noise(images, sigma):
    moved = images + sigma * np.random.default_rng(1).standard_normal(images.shape)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def jpeg(images, quality):
    out = np.empty_like(images)
    for image, row in zip(images, out, strict=True):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality)
        row[...] = np.asarray(Image.open(stream))
    return out


CORRUPTIONS = {
    "blur": (paired.blur, (0.5, 0.8, 1.2, 2.0, 3.0)),
    "noise": (noise, (10, 20, 40, 80, 120)),
    "jpeg": (jpeg, (80, 40, 20, 10, 3)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_distances_grow_with_corruption(faces, name):
    images = faces[0]
    real, fake = features(images[:600]), images[600:]
    corrupt, levels = CORRUPTIONS[name]
    sets = [features(fake)] + [features(corrupt(fake, level)) for level in levels]
    for measure in DISTANCES.values():
        found = [measure(one, real) for one in sets]
        assert np.diff(found).min() > 0
        # The network earns its place: the worst is far beyond what chance leaves.
        assert found[-1] > 10 * found[0]
    shares = [prdc.prdc(one, real) for one in sets]
    # A slight blur moves faces to the middle, which coverage does not mind; and the balls of
    # noisy fakes are so wide that recall is 1: no share alone tells everything.
    start = 1 if name == "blur" else 0
    assert np.diff([s.coverage for s in shares[start:-1]]).max() < 0
    assert np.diff([s.precision for s in shares[start:]]).max() < 0.005
    assert shares[0].coverage > 0.9
    assert shares[-1].coverage <= shares[-2].coverage < 0.4
    assert shares[-1].coverage < 0.1


def test_distances_grow_with_every_class_dropped(faces):
    images, hair = faces
    # The dark colors go first: without an order, a second loss can balance the first.
    light = np.argsort([sum(painted.HAIR[name]) for name in painted.HAIR_COLORS])[:10]
    rank = np.full(12, -1)
    rank[light] = np.arange(10)
    rank = rank[hair]
    found = features(images)
    first = np.arange(1200) < 600
    real = found[first & (rank >= 0)]
    sets = [found[~first & (rank >= drop)] for drop in range(9)]
    for name, measure in DISTANCES.items():
        if name not in ("fd", "kid"):  # fewer rows are left than these two take
            assert np.diff([measure(one, real) for one in sets]).min() > 0, name
    enough = [one for one in sets if len(one) >= 150]
    assert len(enough) > 5
    for name in ("fd", "kid"):
        assert np.diff([DISTANCES[name](one, real) for one in enough]).min() > 0, name
    shares = [prdc.prdc(one, real) for one in sets]
    assert np.diff([s.coverage for s in shares]).max() < -0.04
    assert np.diff([s.recall for s in shares]).max() < -0.04
    # What is left is as good as before: these two never see a lost class.
    assert min(s.precision for s in shares) > 0.85
    assert all(0.8 < s.density < 1.2 for s in shares)


def test_size_of_the_batches_is_no_matter(faces):
    sets = [[features(part, batch) for part in np.split(faces[0], 2)] for batch in (7, 64, 600)]
    for name, measure in DISTANCES.items():
        want = measure(*sets[0])
        for pair in sets[1:]:
            assert measure(*pair) == pytest.approx(want, rel=1e-8), name
    assert len({prdc.prdc(*pair) for pair in sets}) == 1


def test_the_same_bits_again_and_nothing_is_changed(faces):
    fake, real = (features(part) for part in np.split(faces[0], 2))
    before = fake.copy(), real.copy()
    np.random.seed(0)
    found = [measure(fake, real) for measure in DISTANCES.values()]
    np.random.seed(1)
    assert [measure(fake, real) for measure in DISTANCES.values()] == found
    assert prdc.prdc(fake, real) == prdc.prdc(fake, real)
    for measure in EVERY.values():
        measure(fake, real)
    assert (fake == before[0]).all()
    assert (real == before[1]).all()
    fake.flags.writeable = real.flags.writeable = False
    for measure in EVERY.values():
        measure(fake, real)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_no_feature_set_is_refused(name):
    measure, good = EVERY[name], np.random.default_rng(1).standard_normal((200, 4))
    hole, endless = good.copy(), good.copy()
    hole[17, 2], endless[17, 2] = np.nan, -np.inf
    for bad, word in (
        (hole, "1 rows .* NaN or inf; the first is 17"),
        (endless, "NaN or inf"),
        (good[0], r"must be \(N, d\)"),
        (good[None], r"must be \(N, d\)"),
        (good[:, :0], r"must be \(N, d\)"),
        (good[:0], "too few"),
        (good * 1j, "must be real numbers"),
        (good.astype(str), "must be real numbers"),
        (good[:, :3], "do not match"),
    ):
        with pytest.raises(ValueError, match=word):
            measure(bad, good)
        with pytest.raises(ValueError, match=word):
            measure(good, bad)


def test_whole_numbers_and_lists_are_features():
    whole = np.random.default_rng(1).integers(0, 255, (200, 4)).astype(np.uint8)
    for measure in DISTANCES.values():
        assert measure(whole, whole[::-1]) == measure(
            whole.astype("f8"), whole[::-1].astype("f8").tolist()
        )


def test_squares_are_within_their_slack():
    rng = np.random.default_rng(1)
    for scale in (1, 1e6):
        a, b = rng.standard_normal((2, 50, 300)) + scale
        b[:25] = a[:25] + 1e-9
        exact = ((a[:, None].astype(np.longdouble) - b) ** 2).sum(2)
        error = np.abs(distances.squares(a, b) - exact)
        assert (error <= distances.slack(a, b)).all()
        assert (distances.squares(a, b) >= 0).all()
        # The bound is of use: about 1e-12 of the squared lengths.
        assert distances.slack(a, b).max() < 2e-12 * 2 * 300 * (scale + 1) ** 2


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (10, 3), (7, 10**9), (0, 5)])
def test_blocks_cover_all_rows_once(monkeypatch, n, columns):
    monkeypatch.setattr(distances, "CELLS", 12)
    parts = [range(n)[part] for part in distances.blocks(n, columns)]
    assert [i for part in parts for i in part] == list(range(n))
    assert all(len(part) == 1 or len(part) * columns <= 12 for part in parts)
