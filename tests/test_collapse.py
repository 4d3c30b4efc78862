"""Signs of a failed training: told once, when a whole window agrees."""

import pytest

from anigan_jax.training import health
from anigan_jax.training.health import WINDOW


def lines(count, **values):
    return [{"step": i, **values} for i in range(count)]


FINE = {"accuracy/d": 0.8, "gradient/g": 0.5}
WON = {"accuracy/d": 1.0, "gradient/g": 0.5}
STILL = {"accuracy/d": 0.8, "gradient/g": 1e-9}


@pytest.mark.fault(13)
@pytest.mark.parametrize(("bad", "told"), [(WON, "D has won"), (STILL, "G gets no gradient")])
def test_a_sign_is_told_once_when_its_window_is_full(bad, told):
    history, found = lines(30, **FINE), []
    for _ in range(3 * WINDOW):
        history.append(bad)
        found += [(len(history), message) for message in health.of_training(history)]
    ((when, message),) = found
    assert told in message
    # The mean of a window with one step of 0.8 is above 0.99; a norm must be small throughout.
    early = 5 if bad is WON else 0
    assert when == 30 + WINDOW - early
    # It is told again after the training has recovered.
    history += lines(WINDOW, **FINE)
    again = []
    for _ in range(WINDOW):
        history.append(bad)
        again += health.of_training(history)
    assert len(again) == 1


def test_both_signs_at_once():
    both = lines(WINDOW, **{**WON, "gradient/g": 0.0})
    assert len(health.of_training(both)) == 2


def test_the_last_window_and_one_more_line_decide():
    history = lines(50, **FINE) + lines(WINDOW + 20, **WON)
    for end in range(1, len(history) + 1):
        now = history[:end]
        assert health.of_training(now) == health.of_training(now[-WINDOW - 1 :])


def test_steps_in_which_a_player_did_not_learn_are_left_out():
    rest = [{**WON, "gradient/g": None}] * (WINDOW - 1)
    assert len(health.of_training([*rest, WON])) == 1
    # The newest line is as the step left it, the others as they were written.
    assert len(health.of_training([*rest[:-1], WON, {**WON, "gradient/g": float("nan")}])) == 1
    idle = {"step": 1, "accuracy/d": float("nan"), "gradient/g": 0.5}
    # A low step leaves the window in a step in which D rests.
    low = [{**WON, "accuracy/d": 0.4}] * 2
    assert len(health.of_training([*low, *lines(WINDOW - 2, **WON), idle])) == 1
    silent = [{"step": 1, "accuracy/d": None, "gradient/g": None}] * WINDOW
    assert health.of_training(silent) == []
    assert health.of_training(lines(WINDOW, **{"loss/d": 1.0})) == []
    assert health.of_training([]) == []


def judged(*values, name="coverage-vgg16"):
    return [{"step": i, name: value} for i, value in enumerate(values)]


@pytest.mark.fault(13)
def test_coverage_that_falls_below_half_of_its_best():
    assert health.of_scores([]) == []
    assert health.of_scores(judged(0.4)) == []
    assert health.of_scores(judged(0.4, 0.21)) == []
    (message,) = health.of_scores(judged(0.1, 0.4, 0.3, 0.19))
    assert "from 0.400 to 0.190" in message
    # Told when it falls, not while it stays low.
    assert health.of_scores(judged(0.4, 0.19, 0.1)) == []
    assert len(health.of_scores(judged(0.4, 0.19, 0.3, 0.1))) == 1
    # Of nothing there is nothing to lose.
    assert health.of_scores(judged(0.04, 0.0)) == []
    assert health.of_scores(judged(0.4, None)) == []
    assert len(health.of_scores(judged(0.4, 0.1, name="ab/coverage-vgg16"))) == 1
    assert health.of_scores(judged(0.4, 0.1, name="recall-vgg16")) == []
