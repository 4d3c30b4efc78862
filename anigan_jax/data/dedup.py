"""Which images are the same, mirrored or nearly the same; splits that keep them together."""

from __future__ import annotations

import hashlib
import mmap
from typing import NamedTuple

import numpy as np
from PIL import Image

from anigan_jax.data import alpha

SIDE = 16
COARSE = 4
# RMS of two 16x16 thumbnails, in levels of 255. On 7,800 real 64-px faces the nearest
# different pair is 17 apart (mirrored), while JPEG at quality 20, half size and 5 %
# brightness move a face by at most 10. A shift by one pixel (14-20) is not found.
THRESHOLD = 10.0
# Drawings of one layout are near each other in chains whose ends are unlike. A group of over
# this share of the images, and of this number, is looked at.
LARGEST = 0.1
FEWEST = 16
CHUNK = 256
# Of the frequencies of block means: more are slower to look through, and of a million images
# each column is 8 MB.
LOWEST = np.add.outer(np.arange(COARSE), np.arange(COARSE)) < 3


class Pair(NamedTuple):
    """Image `index` repeats image `of` (a smaller index) as 'duplicate', 'mirror' or 'near'."""

    index: int
    of: int
    code: str


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (16, 16, 3) uint8 block means: a perceptual hash kept as numbers.

    Of RGBA on gray, on which neither white nor black pictures vanish.
    """
    image = Image.fromarray(alpha.over(pixels, alpha.GRAY))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def find(
    thumbs: np.ndarray,
    digests: list[str],
    threshold: float = THRESHOLD,
    rows: np.ndarray | None = None,
):
    """Groups images that are equal, mirrored or near, by single linkage.

    Finds all pairs within the threshold, none beyond: a k-d tree on the low frequencies
    (whose distance is at most that of the thumbnails) proposes, the thumbnails decide.

    Args:
      thumbs: (M, 16, 16, 3) uint8, which is read piece by piece.
      digests: N names of the pixels' content.
      rows: (N,) where the thumbnail of each lies; None: as they stand, N = M.

    Returns:
      (N,) int group of each image, named by its smallest index, and one Pair for every
      image that is not the first of its group.
    """
    n = len(digests)
    rows = np.arange(n) if rows is None else rows
    first: dict[str, int] = {}
    same = [first.setdefault(digest, i) for i, digest in enumerate(digests)]
    pairs = [Pair(i, j, "duplicate") for i, j in enumerate(same) if i != j]
    unique = np.array(sorted(first.values()), np.int64)
    # Large, and no longer needed where most memory is.
    del first
    label = np.arange(len(unique))  # smallest index of the group so far, among the unique
    for code, i, js in _proposed(thumbs, rows[unique], label, threshold):
        # One pair for each group that i joins.
        roots, where = np.unique(label[js], return_index=True)
        pairs += [Pair(int(unique[max(i, j)]), int(unique[min(i, j)]), code) for j in js[where]]
        joined = np.append(roots, label[i])
        label[np.isin(label, joined)] = joined.min()
    groups = np.empty(n, np.int64)
    groups[unique] = unique[label]
    return groups[np.array(same, np.int64)], sorted(pairs)


def without_chains(thumbs: np.ndarray, digests: list[str], threshold: float, order: np.ndarray):
    """Groups as `find` has them, but for chains, whose images are grouped by nearer pairs.

    A chain is a group of over `LARGEST` of the images of which most are beyond the threshold of
    the first by digest: copies of one picture never are. Its images are grouped again at half
    the threshold, until no group is a chain; at last by equal pictures alone.

    Args:
      order: as the rows of `find`.

    Returns:
      Groups and pairs as of `find`, and (images, threshold used) of each chain.
    """
    groups, pairs = find(thumbs, digests, threshold, order)
    most, chains = max(FEWEST, LARGEST * len(order)), []
    names, counts = np.unique(groups, return_counts=True)
    for rows in (np.flatnonzero(groups == name) for name in names[counts > most]):
        finer, own, where = threshold, [digests[i] for i in rows], order[rows]
        found, near = np.zeros(len(rows), np.int64), []
        while _has_chain(thumbs, where, own, found, finer, most):
            finer = finer / 2 if finer > 1 else 0.0
            found, near = find(thumbs, own, finer, where)
        if finer < threshold:
            inside = set(rows.tolist())
            groups[rows] = rows[found]
            pairs = [pair for pair in pairs if pair.index not in inside]
            pairs += [Pair(int(rows[p.index]), int(rows[p.of]), p.code) for p in near]
            chains.append((len(rows), finer))
    return groups, sorted(pairs), chains


def _has_chain(thumbs, order, digests, groups, threshold: float, most: float) -> bool:
    if not threshold:
        return False
    for name, count in zip(*np.unique(groups, return_counts=True), strict=True):
        rows = np.flatnonzero(groups == name)
        if count > most:
            first = thumbs[order[min(rows, key=lambda i: digests[i])]].astype(np.float32)
            far = 0
            for start in range(0, len(rows), 16 * CHUNK):
                some = thumbs[order[rows[start : start + 16 * CHUNK]]]
                gaps = [((some - one) ** 2).mean((1, 2, 3)) for one in (first, first[:, ::-1])]
                far += int((np.minimum(*gaps) > threshold**2).sum())
                _forget(thumbs)
            if 2 * far > count:
                return True
    return False


def _proposed(thumbs: np.ndarray, rows: np.ndarray, label: np.ndarray, threshold: float):
    """Yields (code, i, js): the js within the threshold of i that `label` keeps apart yet."""
    n = len(rows)
    if n < 2:
        return
    # Imported here: the command line need not wait for SciPy.
    from scipy.spatial import cKDTree

    low, sign = np.empty((n, 3 * int(LOWEST.sum()))), np.empty(0)
    for start in range(0, n, 16 * CHUNK):
        some = slice(start, start + 16 * CHUNK)
        low[some], sign = _frequencies(thumbs[rows[some]])
        _forget(thumbs)
    # RMS of the whole thumbnail -> Euclidean distance of the coarse block means; rounding may
    # part equal ones.
    radius = threshold * np.sqrt(3 * COARSE**2) * (1 + 1e-9) + 1e-6
    tree = cKDTree(low)
    for code, signs, step in (("near", 1.0, 1), ("mirror", sign, -1)):
        for start in range(0, n, CHUNK):
            found = tree.query_ball_point(low[start : start + CHUNK] * signs, radius, workers=-1)
            for i, close in enumerate(found, start=start):
                js = np.array(close, np.int64)
                js = js[label[js] != label[i]]
                if len(js):
                    other = thumbs[rows[i]][:, ::step].astype(np.float32)
                    gap = thumbs[rows[js]].astype(np.float32) - other
                    gap = gap.reshape(len(js), -1)
                    js = np.sort(js[np.sqrt((gap**2).mean(1)) <= threshold])
                    if len(js):
                        yield code, i, js
            _forget(thumbs)


def _forget(thumbs: np.ndarray) -> None:
    """Gives back the memory of what was read of a map: thumbnails of a million are 768 MB."""
    if isinstance(thumbs, np.memmap) and isinstance(thumbs.base, mmap.mmap):
        thumbs.base.madvise(mmap.MADV_DONTNEED)


def _frequencies(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 18) lowest of the orthonormal DCT of the 4x4 block means, and the signs that a mirror
    gives them.

    The rotation changes no distance, and what is left out makes none longer; it makes the first
    axes the widest, which is what a k-d tree needs.
    """
    n, block = len(thumbs), SIDE // COARSE
    means = thumbs.reshape(n, COARSE, block, COARSE, block, 3).mean((2, 4))
    space, color = _dct(COARSE), _dct(3)
    spectrum = np.einsum("ui,vj,wc,nijc->nuvw", space, space, color, means, optimize=True)
    odd = np.arange(COARSE) % 2 == 1
    sign = np.where(np.broadcast_to(odd[None, :, None], spectrum.shape[1:]), -1.0, 1.0)
    return spectrum[:, LOWEST].reshape(n, -1), sign[LOWEST].reshape(-1)


def _dct(n: int) -> np.ndarray:
    """(n, n) orthonormal DCT-II."""
    k, i = np.arange(n)[:, None], np.arange(n)
    matrix = np.sqrt(2 / n) * np.cos(np.pi * (i + 0.5) * k / n)
    matrix[0] /= np.sqrt(2)
    return matrix


def held_out(groups: np.ndarray, digests: list[str], share: float) -> np.ndarray:
    """(N,) bool: which images are held out, whole groups at a time.

    A pure function of the pixels: neither names, order nor the other groups matter, so
    an image keeps its side when others are added.
    """
    smallest: dict[int, str] = {}
    for group, digest in zip(groups.tolist(), digests, strict=True):
        smallest[group] = min(digest, smallest.get(group, digest))
    limit = share * 2.0**64
    held = {
        group: int(hashlib.sha256(f"split {digest}".encode()).hexdigest()[:16], 16) < limit
        for group, digest in smallest.items()
    }
    return np.array([held[group] for group in groups.tolist()], bool)
