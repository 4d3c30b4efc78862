"""How well images find their texts and texts their images; NumPy on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer


def retrieval(
    images: Float[np.ndarray, "n t"],
    texts: Float[np.ndarray, "p t"],
    pairs: Integer[np.ndarray, " n"],
    eyes: int,
) -> dict[str, float]:
    """How well images (n, T) find the text of their pair, and texts (P, T) an image.

    Args:
      pairs: (n,) true pair of each image; eyes: number of eye colors, so that pair =
        hair * eyes + eye.

    Returns:
      Shares in [0, 1]: 'image_to_text', the best text is that of the pair; 'top5'; 'hair'
      and 'eyes' of the best text; 'text_to_image', the best image of a text that has one
      is of its pair.
    """
    scores = images.astype(np.float64) @ texts.T.astype(np.float64)
    ranked = np.argsort(-scores, axis=1, kind="stable")
    best, asked = ranked[:, 0], np.unique(pairs)
    return {
        "image_to_text": float((best == pairs).mean()),
        "top5": float((ranked[:, :5] == pairs[:, None]).any(1).mean()),
        "hair": float((best // eyes == pairs // eyes).mean()),
        "eyes": float((best % eyes == pairs % eyes).mean()),
        "text_to_image": float((pairs[scores[:, asked].argmax(0)] == asked).mean()),
    }
