"""Accuracy and retrieval against closed forms and independent computations."""

import numpy as np
import pytest

from anigan_jax.evaluation import prompt_accuracy
from anigan_jax.metrics import attributes
from anigan_jax.metrics.retrieval import retrieval


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (3, 10), (811, 1056)])
def test_wilson_interval_in_closed_form(right, n):
    got = attributes.share(np.arange(n) < right)
    z, p = 1.959963984540054, right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (got.value, got.right, got.n) == (p, right, n)
    np.testing.assert_allclose((got.low, got.high), (middle - half, middle + half), atol=1e-9)


def test_shares_count_parts_and_both():
    asked = np.array([[1, 1], [1, 2], [3, 4], [5, 6]])
    found = np.array([[1, 1], [1, 0], [0, 4], [0, 0]])
    got = attributes.shares(found, asked)
    assert {part: share.right for part, share in got.items()} == {"hair": 2, "eyes": 2, "both": 1}
    with pytest.raises(ValueError, match="shapes"):
        attributes.shares(found[:2], asked)
    with pytest.raises(ValueError, match="shapes"):
        attributes.shares(found[:0], asked[:0])


def test_shares_of_any_number_of_attributes():
    asked, found = np.array([[1, 0, 1], [1, 1, 0]]), np.array([[1, 0, 1], [0, 1, 0]])
    got = attributes.shares(found, asked, ("hair", "glasses", "hat"))
    rights = {name: share.right for name, share in got.items()}
    assert rights == {"hair": 1, "glasses": 2, "hat": 2, "all": 1}
    assert set(attributes.shares(found[:, :1], asked[:, :1], ("class",))) == {"class"}


def test_shuffled_prompts_fall_to_chance_for_an_obedient_generator():
    asked = np.array([(h, e) for h in range(12) for e in range(11) for _ in range(20)])
    assert attributes.shares(asked, asked)["both"].value == 1
    control = attributes.shuffled(asked, asked, 0)
    assert abs(control["hair"].value - 1 / 12) < 0.02
    assert abs(control["eyes"].value - 1 / 11) < 0.02
    assert abs(control["both"].value - 1 / 132) < 0.01


def test_a_class_that_the_classifier_lacks_is_never_right_by_chance():
    """12 colors asked equally often, two of which it does not know: 10 of 144."""
    asked = np.repeat(np.arange(12), 20)[:, None]
    asked[asked >= 10] = -1
    both = np.hstack([asked, np.zeros_like(asked)])
    chance = prompt_accuracy._chance(both, ("hair", "eyes"))
    assert chance["hair"] == pytest.approx(10 / 144)
    assert chance["both"] == pytest.approx(10 / 144)
    assert chance["eyes"] == 1


def test_by_class():
    asked = np.array([[0, 3], [0, 3], [2, 1]])
    found = np.array([[0, 1], [1, 3], [2, 1]])
    hair = attributes.by_class(found, asked, 0)
    assert {c: (s.right, s.n) for c, s in hair.items()} == {0: (1, 2), 2: (1, 1)}
    assert {c: s.right for c, s in attributes.by_class(found, asked, 1).items()} == {1: 1, 3: 1}


def test_retrieval_of_perfect_and_of_mixed_up_vectors():
    texts = np.eye(6, dtype="f")  # pairs: hair = i // 3, eyes = i % 3
    pairs = np.array([0, 4, 4, 5])
    told = np.indices((2, 3)).reshape(2, -1).T, ("hair", "eyes")
    got = retrieval(texts[pairs], texts, pairs, *told)
    assert set(got.values()) == {1.0}
    # Every image looks like pair 3: right hair for pairs 3 to 5, right eyes for 0 and 3.
    got = retrieval(np.tile(texts[3], (4, 1)), texts, pairs, *told)
    assert got["image_to_text"] == 0
    assert got["hair"] == 0.75
    assert got["eyes"] == 0.25
    assert got["text_to_image"] == pytest.approx(1 / 3)  # ties: the first image, of pair 0
    assert got["top5"] == 0.75  # 3, then ties by index: 0, 1, 2, 4
