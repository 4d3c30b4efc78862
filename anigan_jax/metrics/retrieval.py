"""How well images find their texts and texts their images; NumPy on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer


def retrieval(
    images: Float[np.ndarray, "n t"],
    texts: Float[np.ndarray, "p t"],
    own: Integer[np.ndarray, " n"],
    classes: Integer[np.ndarray, "p a"],
    names: tuple[str, ...],
) -> dict[str, float]:
    """How well images (n, T) find their text, and texts (P, T) an image.

    Args:
      own: (n,) true text of each image.
      classes: (P, A) class indices of the texts; names: of the A attributes.

    Returns:
      Shares in [0, 1]: 'image_to_text', the best text is the image's own; 'top5'; each
      attribute ('hair', 'eyes'), the best text has its class; 'text_to_image', the best image
      of a text that has one is its own.
    """
    scores = images.astype(np.float64) @ texts.T.astype(np.float64)
    ranked = np.argsort(-scores, axis=1, kind="stable")
    best, asked = ranked[:, 0], np.unique(own)
    right = (classes[best] == classes[own]).mean(0)
    return {
        "image_to_text": float((best == own).mean()),
        "top5": float((ranked[:, :5] == own[:, None]).any(1).mean()),
        **dict(zip(names, map(float, right), strict=True)),
        "text_to_image": float((own[scores[:, asked].argmax(0)] == asked).mean()),
    }
