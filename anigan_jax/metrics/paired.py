"""How near translated faces come to their true partners; NumPy on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Integer, Num, UInt8

from anigan_jax.metrics.attributes import Share, share

Images = UInt8[np.ndarray, "n h w c"]
PEAK = 255
# Top, bottom, left and right in units of the side: every painted anime face has hair in
# most of this box, whatever its style, fringe, tilt and place.
HAIR_BOX = (0.25, 0.38, 0.4, 0.6)
# The blurring baseline's sigma in units of the side: 1.6 px at 64.
BLUR = 0.025
BLOCK = 1024


def psnr(a: Images, b: Images) -> Float64[np.ndarray, " n"]:
    """Peak signal-to-noise ratio of each image: 10 log10(255^2 / mean squared error).

    Args:
      a, b: (N, H, W, C) uint8; the mean is over pixels and channels.

    Returns:
      (N,) float64 dB; inf where the images are equal.

    Raises:
      ValueError: the shapes differ or the images are not uint8.
    """
    _uint8(a, b)
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    # In blocks: a whole set in float64 would take eight times its bytes.
    starts = range(0, len(a), BLOCK)
    errors = [_squares(a[i : i + BLOCK], b[i : i + BLOCK]) for i in starts]
    error = np.concatenate(errors) if errors else np.zeros(0)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / error)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    gap = a.astype(np.float64) - b.astype(np.float64)
    return (gap * gap).mean((1, 2, 3))


def match_colors(images: Images, targets: UInt8[np.ndarray, "m _ _ c"]) -> Images:
    """The images with the colors of another set: the baseline that knows no shapes.

    Each RGB channel of the whole set is scaled and moved to the mean and standard
    deviation of the targets': x -> (x - mean) * std_t / std + mean_t, rounded and clipped
    to [0, 255]. A channel without any spread is only moved.

    Args:
      images: (N, H, W, C) uint8; targets: (M, h, w, C) uint8, other images.

    Returns:
      (N, H, W, C) uint8.

    Raises:
      ValueError: the images are not uint8, or there are none.

    Source: after Reinhard et al. 2001 (Color Transfer between Images), section 3.
    Departs: in RGB and by the moments of whole sets, as unpaired images have no partner.
    """
    _uint8(images, targets)
    mean, spread = _moments(images)
    wanted_mean, wanted_spread = _moments(targets)
    gain = np.where(spread > 0, wanted_spread / np.where(spread > 0, spread, 1), 1)
    # Of 256 values each channel has but 256 results.
    table = (np.arange(PEAK + 1)[:, None] - mean) * gain + wanted_mean
    table = np.clip(np.rint(table), 0, PEAK).astype(np.uint8)
    return np.stack([table[:, c][images[..., c]] for c in range(images.shape[-1])], -1)


def _moments(images: Images) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, " c"]]:
    """(C,) mean and (C,) standard deviation, exact from the counts of the values."""
    if not images.size:
        raise ValueError(f"images of shape {images.shape} have no colors")
    values = np.arange(PEAK + 1)
    counts = np.stack(
        [np.bincount(images[..., c].ravel(), minlength=PEAK + 1) for c in range(images.shape[-1])]
    )
    total = counts.sum(1)
    mean = counts @ values / total
    square = (counts * (values - mean[:, None]) ** 2).sum(1) / total
    return mean, np.sqrt(square)


def blur(images: Images, sigma: float) -> Images:
    """(N, H, W, C) uint8 -> the same, Gaussian-blurred; sigma in pixels, edges mirrored.

    The baseline that only takes detail away. Raises ValueError unless uint8.
    """
    # Imported here: most callers need no SciPy.
    from scipy import ndimage

    _uint8(images)
    out = np.empty(images.shape, np.uint8)
    for image, row in zip(images, out, strict=True):
        # 'reflect' repeats the edge pixel, which conserves the mean.
        soft = ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="reflect")
        row[...] = np.clip(np.rint(soft), 0, PEAK)
    return out


def hair(
    images: UInt8[np.ndarray, "n h w 3"], palette: Num[np.ndarray, "k 3"]
) -> Integer[np.ndarray, " n"]:
    """Which hair color anime faces have, judged by pixels alone.

    The median color of `HAIR_BOX` and its nearest palette color (Euclidean, in RGB). On
    painted anime faces of 16 to 128 px the median is the very palette color.

    Args:
      images: (N, H, W, 3) uint8; palette: (K, 3) levels in [0, 255], by class.

    Returns:
      (N,) int indices into the palette; of equally near colors the first.

    Raises:
      ValueError: the images are not uint8, or too small to have a pixel in the box.
    """
    _uint8(images)
    rows, columns = images.shape[1:3]
    top, bottom = (round(rows * part) for part in HAIR_BOX[:2])
    left, right = (round(columns * part) for part in HAIR_BOX[2:])
    if top >= bottom or left >= right:
        raise ValueError(f"images of {rows} x {columns} pixels show no hair; 8 x 8 do")
    box = images[:, top:bottom, left:right].reshape(len(images), -1, 3)
    gap = np.median(box, axis=1)[:, None] - np.asarray(palette, np.float64)
    return (gap * gap).sum(-1).argmin(1)


def agreement(found: Integer[np.ndarray, " n"], wanted: Integer[np.ndarray, " n"]) -> Share:
    """The share of equal class indices, with its interval.

    Args:
      found, wanted: (N,) class indices.

    Raises:
      ValueError: the shapes differ or there is nothing to judge.
    """
    if found.shape != wanted.shape or found.ndim != 1 or not len(found):
        raise ValueError(f"shapes {found.shape} and {wanted.shape} must both be (n,), n > 0")
    return share(found == wanted)


def baselines(
    photos: UInt8[np.ndarray, "n h w 3"], anime: UInt8[np.ndarray, "m h w 3"]
) -> dict[str, UInt8[np.ndarray, "n h w 3"]]:
    """What a translation must beat: pictures made without any learning.

    Args:
      photos: (N, H, W, 3) uint8, to be translated; anime: (M, H, W, 3) uint8 training
        images of the other domain, never the photos' partners.

    Returns:
      'identity', 'color matching', 'blur' and 'mean', the mean anime image whatever the
      photo, which minimises the squared error of that; each (N, H, W, 3) uint8.
    """
    mean = np.rint(anime.mean(0, dtype=np.float64)).astype(np.uint8)
    return {
        "identity": photos,
        "color matching": match_colors(photos, anime),
        "blur": blur(photos, BLUR * photos.shape[1]),
        "mean": np.repeat(mean[None], len(photos), 0),
    }


def _uint8(*sets: np.ndarray) -> None:
    for images in sets:
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"{images.dtype} {images.shape} must be uint8 (N, H, W, C)")
