"""Edge smoothing: what it changes, where, and how much at each size."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from real import DATA, needs_data

from anigan_jax.data import dataset
from anigan_jax.data import edges as transforms
from anigan_jax.data.images import Images
from anigan_jax.data.synthetic import painted
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.errors import UserError


@pytest.mark.parametrize(
    ("side", "window"), [(256, 5), (512, 9), (384, 7), (128, 3), (64, 3), (16, 3)]
)
def test_the_window_follows_the_size(side, window):
    assert transforms.edge_window(side) == window


def step(size: int) -> np.ndarray:
    image = np.full((size, size, 3), 30, np.uint8)
    image[:, size // 2 :] = 220
    return image


@pytest.mark.parametrize("size", [64, 256])
def test_only_a_band_around_the_edge_is_smoothed(size):
    image = step(size)
    smooth = transforms.smooth_edges(image)
    changed = (smooth != image).any(-1)
    columns = np.flatnonzero(changed.any(0))
    window = transforms.edge_window(size)
    assert 2 <= len(columns) <= 2 * window
    assert abs(columns.mean() - (size / 2 - 0.5)) <= 1.5
    # Rows far from the border are all alike, and the step has become a ramp.
    middle = smooth[size // 2, :, 0].astype(int)
    assert (np.diff(middle) >= 0).all()
    assert np.abs(np.diff(middle)).max() < 190


def test_flat_pictures_and_flat_regions_stay():
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert (transforms.smooth_edges(flat) == flat).all()
    assert not transforms.edges(flat).any()


def test_the_smoothing_equals_a_textbook_gaussian():
    """Pillow's kernel filter with the same 3x3 weights, away from the border."""
    image = painted.paint(0, 3, 64)
    sigma = 0.8
    weights = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    kernel = np.outer(weights, weights)
    kernel /= kernel.sum()
    filtered = Image.fromarray(image).filter(ImageFilter.Kernel((3, 3), kernel.ravel().tolist(), 1))
    mask = transforms.edges(image)
    inner = np.zeros_like(mask)
    inner[2:-2, 2:-2] = True
    got = transforms.smooth_edges(image).astype(int)
    assert (mask & inner).sum() > 300
    assert np.abs(got - np.asarray(filtered).astype(int))[mask & inner].max() <= 1
    assert (got[~mask] == image[~mask]).all()


def bars(*heights: int, width: int = 12) -> np.ndarray:
    """A grey picture: bands of rows one below the other, whose left and right halves differ."""
    image = np.full((width * len(heights), 32, 3), 60, np.uint8)
    for i, height in enumerate(heights):
        image[i * width : (i + 1) * width, 16:] += height
    return image


@pytest.mark.parametrize(("height", "found"), [(49, False), (51, True), (90, True)])
def test_an_edge_starts_at_a_step_of_50(height, found):
    """OpenCV's Canny at 200 of a Sobel filter that gives a step four times its height."""
    assert transforms.edges(bars(height)).any() == found


@pytest.mark.parametrize(("height", "follows"), [(24, False), (26, True)])
def test_an_edge_goes_on_at_a_step_of_25(height, follows):
    """Canny's lower threshold is 100: a weak edge counts where it leaves a strong one."""
    found = transforms.edges(bars(80, height))
    assert found[3:9].any(1).all()
    assert found[15:21].any() == follows


def test_edges_are_found_in_the_picture_itself():
    """A blur before Canny would lose a line that is faint, thin and close to another."""
    image = np.full((32, 32, 3), 60, np.uint8)
    image[:, 14], image[:, 18] = 130, 130
    found = transforms.edges(image)[8:24]
    assert (found == ((np.arange(32) >= 12) & (np.arange(32) <= 20))).all()
    # One painted face, counted once: another blur or threshold gives another number.
    assert transforms.edges(painted.paint(0, 3, 64)).sum() == 1487


def test_edges_of_a_pack(tmp_path):
    class WithEdges(PaintedFaces):
        edges = True

    made = dataset.build(WithEdges(count=5, size=32), tmp_path)
    edges = made.part("train", "edges")
    for i in range(5):
        assert (edges[i] == transforms.smooth_edges(made.images[i])).all()
    plain = dataset.build(PaintedFaces(count=5, size=32), tmp_path / "plain")
    with pytest.raises(UserError, match="--edges"):
        plain.part("train", "edges")


@needs_data
def test_real_faces_lose_edges_and_keep_the_rest(tmp_path):
    images = dataset.build(Images(str(DATA / "konachan_faces_96")), tmp_path).images[:60]
    masks = np.stack([transforms.edges(x) for x in images])
    smooth = np.stack([transforms.smooth_edges(x) for x in images])
    assert 0.1 < masks.mean() < 0.7

    def strength(x):
        return np.abs(np.diff(x.astype(float), axis=2)).mean((1, 2, 3))

    assert (strength(smooth) < strength(images)).all()
    assert (smooth[~masks] == images[~masks]).all()
