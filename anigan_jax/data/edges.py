"""Transforms of whole images on the host, done once when a set is packed."""

from __future__ import annotations

import numpy as np

# CartoonGAN's smoothing is stated for 256 px: 5x5 windows, Canny at 100 and 200.
REFERENCE_SIDE = 256
WINDOW = 5
LOW, HIGH = 100 / 255, 200 / 255


def edge_window(side: int) -> int:
    """Odd window for an image side: 5 at 256 px, at least 3.

    Departs: the paper's 5x5 at any size would blur 2-4 times as much of a 64-128-px face.
    """
    return max(3, 2 * round((WINDOW * side / REFERENCE_SIDE - 1) / 2) + 1)


def edges(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) bool Canny edges of its luminance, dilated by the window.

    Source: Chen et al. 2018 (CartoonGAN), section 3.2.1; Rec. 601 luminance.
    """
    # Imported here: workers and the command line need not wait for it.
    from scipy import ndimage
    from skimage.feature import canny

    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114) / 255
    # skimage's Sobel is unscaled like OpenCV's, so the thresholds mean the same.
    found = canny(grey, sigma=0.0, low_threshold=LOW, high_threshold=HIGH)
    window = edge_window(min(image.shape[:2]))
    return ndimage.binary_dilation(found, np.ones((window, window), bool))


def smooth_edges(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> the same, Gaussian-smoothed at its dilated edges and only there.

    The Gaussian's sigma is that of OpenCV for the window: 0.3 ((k - 1)/2 - 1) + 0.8.

    Source: Chen et al. 2018 (CartoonGAN), section 3.2.1.
    """
    from scipy import ndimage

    window = edge_window(min(image.shape[:2]))
    radius = (window - 1) // 2
    sigma = 0.3 * (radius - 1) + 0.8
    blurred = ndimage.gaussian_filter(
        image.astype(np.float64), (sigma, sigma, 0), mode="mirror", radius=(radius, radius, 0)
    )
    smooth = np.clip(np.rint(blurred), 0, 255).astype(np.uint8)
    return np.where(edges(image)[..., None], smooth, image)
