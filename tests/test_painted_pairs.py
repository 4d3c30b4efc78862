"""Photo-like painted faces, and packs of two styles whose held-out rows are pairs."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from anigan_jax.data import dataset
from anigan_jax.data import edges as transforms
from anigan_jax.data.synthetic import painted, photo
from anigan_jax.data.synthetic.sources import PaintedFaces, PaintedPairs
from anigan_jax.errors import UserError

SMALL = PaintedPairs(count=9, size=32, pairs=5, seed=4)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return dataset.build(replace(SMALL, edges=True), tmp_path_factory.mktemp("packs"))


def digest(size, count):
    pictures = [photo.paint(3, i, size).tobytes() for i in range(count)]
    return hashlib.sha256(b"".join(pictures)).hexdigest()[:16]


@pytest.mark.parametrize(
    ("size", "count", "want"), [(64, 20, "b80ef05725340f6b"), (17, 5, "b463153251219576")]
)
def test_photos_are_pinned(size, count, want):
    """Other pictures under the same painted_photo.VERSION would be taken from old packs."""
    assert digest(size, count) == want


def test_a_photo_is_a_function_of_seed_index_and_size():
    first = photo.paint(0, 5, 32)
    assert (first.shape, first.dtype) == ((32, 32, 3), np.uint8)
    for other in ((1, 5), (0, 6)):
        assert (photo.paint(*other, 32) != first).any()
    photo.paint(0, 5, 48)
    np.random.default_rng(0).random(5)
    assert (photo.paint(0, 5, 32) == first).all()
    for size in (8, 9, 16):
        assert photo.paint(0, 0, size).shape == (size, size, 3)


def test_the_same_face_in_another_light():
    """Noise changes light and grain, the face the picture; neither is without effect."""
    face = painted.face(0, 3)
    one, two = (photo.draw(face, 64, noise).astype(int) for noise in (1, 2))
    other = photo.draw(painted.face(0, 4), 64, 1).astype(int)
    gap = np.abs(one - two).mean()
    assert 3 < gap < 40
    assert np.abs(one - other).mean() > gap


def test_grain_is_white_and_no_neighbor_has_the_same():
    a, b = (photo._bytes(noise, 3, 4096)[:, 0].astype(float) for noise in (7, 8))
    assert 120 < a.mean() < 135
    assert 70 < a.std() < 78
    for shift in range(-3, 4):
        assert abs(np.corrcoef(a, np.roll(b, shift))[0, 1]) < 0.07
        assert shift == 0 or abs(np.corrcoef(a, np.roll(a, shift))[0, 1]) < 0.07


def crown(images):
    """(N, 3) median color of the top of the hair of 64-px faces."""
    return np.median(images[:, 9:20, 26:38].reshape(len(images), -1, 3), axis=1)


@pytest.mark.long
def test_photos_show_their_hair_color():
    """Nearest mean of the classes, learnt from other faces: at least 95 of 100 right."""
    faces = [painted.face(0, i) for i in range(480)]
    true = np.array([painted.HAIR_COLORS.index(f.hair) for f in faces])
    seen = crown(np.stack([photo.draw(f, 64, i) for i, f in enumerate(faces)]))
    means = np.stack([seen[:300][true[:300] == c].mean(0) for c in range(12)])
    got = ((seen[300:, None] - means) ** 2).sum(-1).argmin(1)
    assert (got == true[300:]).mean() >= 0.95


def test_photos_are_no_drawings():
    """Darker, with fewer flat regions, and far from the drawing of the same face."""
    photos = np.stack([photo.paint(0, i, 64) for i in range(20)]).astype(int)
    anime = np.stack([painted.paint(0, i, 64) for i in range(20)]).astype(int)

    def flat(images):
        return (np.abs(np.diff(images, axis=2)).max(-1) == 0).mean()

    assert flat(anime) > 0.6
    assert flat(photos) < 0.05
    assert 60 < photos.mean() < 120 < anime.mean()
    level = 10 * np.log10(255**2 / ((photos - anime) ** 2).mean((1, 2, 3)))
    assert 5 < level.mean() < 10


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("hair", painted.HAIR_COLORS),
        ("eyes", painted.EYE_COLORS),
        ("style", painted.STYLES),
        ("mouth", painted.MOUTHS),
        ("skin", range(3)),
        ("background", range(6)),
        ("fringe", range(3)),
        ("tilt", (-8.0, 8.0)),
        ("dx", (-0.025, 0.025)),
        ("dy", (-0.025, 0.025)),
        ("eye_open", (0.75, 1.05)),
        ("blush", (False, True)),
    ],
)
def test_every_parameter_of_a_face_shows(field, values):
    face = painted.face(0, 11)
    made = {photo.draw(replace(face, **{field: v}), 64, 5).tobytes() for v in values}
    assert len(made) == len(values)


def test_the_parts_and_their_faces(small):
    assert small.manifest["parts"] == {
        "trainA": [0, 9],
        "trainB": [9, 18],
        "testA": [18, 23],
        "testB": [23, 28],
    }
    indices = {"trainA": range(9), "trainB": range(9, 18), "testA": range(18, 23)}
    indices["testB"] = indices["testA"]
    for part, numbers in indices.items():
        painter = photo if part.endswith("A") else painted
        want = np.stack([painter.paint(4, i, 32) for i in numbers])
        assert (small.part(part) == want).all(), part
    assert not set(indices["trainA"]) & set(indices["trainB"])
    assert not set(indices["testA"]) & (set(indices["trainA"]) | set(indices["trainB"]))


def test_held_out_rows_are_pairs(small):
    assert small.paired
    names, labels = small.examples()["names"], small.labels("testA")
    assert [n[2:] for n in names[18:23]] == [n[2:] for n in names[23:28]]
    assert (labels == small.labels("testB")).all()
    for row, index in enumerate(range(18, 23)):
        face = painted.face(4, index)
        assert painted.HAIR_COLORS[labels[row, 0]] == face.hair
        assert (small.part("testB")[row] == painted.draw(face, 32)[0]).all()


def test_rows_stay_in_line_where_numbers_grow_longer(tmp_path):
    """Ordered by name: 98, 99, 100 would be 100, 98, 99 without leading zeros."""
    made = dataset.build(PaintedPairs(count=49, size=8, pairs=4), tmp_path)
    for row, index in enumerate(range(98, 102)):
        assert (made.part("testA")[row] == photo.paint(0, index, 8)).all()
        assert (made.part("testB")[row] == painted.paint(0, index, 8)).all()


def test_edges_belong_to_their_rows(small, tmp_path):
    edges = small.part("trainB", "edges")
    for image, smooth in zip(small.part("trainB"), edges, strict=True):
        assert (smooth == transforms.smooth_edges(image)).all()
    plain = dataset.build(SMALL, tmp_path)
    assert plain.path.name != small.path.name
    with pytest.raises(UserError, match="--edges"):
        plain.part("trainB", "edges")


def test_other_packs_are_not_paired(small, tmp_path):
    assert not dataset.build(PaintedFaces(count=4, size=16, test=0.5), tmp_path).paired
    # A pair that lost one side, as a twin of a training picture, leaves rows out of line.
    parts = {**small.manifest["parts"], "testB": [23, 27]}
    assert not small._replace(manifest={**small.manifest, "parts": parts}).paired


def test_an_imported_pack_is_paired_too(tmp_path):
    made, _ = dataset.import_to(SMALL, tmp_path / "pack")
    assert made.paired


@pytest.mark.parametrize(("field", "value"), [("count", 0), ("pairs", 0), ("size", 7)])
def test_settings_that_mean_nothing_are_refused(tmp_path, field, value):
    with pytest.raises(UserError, match=f"data.{field} is {value}"):
        dataset.build(replace(SMALL, **{field: value}), tmp_path)
