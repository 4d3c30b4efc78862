"""What a config's docstring says of its data, held against its settings."""

import ast
import re

import pytest
from tiny import NAMES

from anigan_jax import config_file
from anigan_jax.runtime import environment


@pytest.mark.parametrize("name", [n for n in NAMES if config_file.load(n).data.test])
def test_a_config_says_on_what_share_it_trains(name):
    """And, of as many images as its source had, how many steps an epoch then has."""
    config = config_file.load(name)
    path = environment.config_folder() / f"{name}.py"
    told = " ".join(ast.get_docstring(ast.parse(path.read_text())).split())
    share = round(100 * (1 - config.data.test))
    assert re.search(rf"\b[Tt]rains on {share} % of|{share} % of the images train", told)
    steps = re.search(
        r"([\d,]+)(?: photos)?, (\d+) steps an epoch \((\d+) with --data\.test 0\)", told
    )
    if steps:
        images, held, every = (int(number.replace(",", "")) for number in steps.groups())
        b = config.batch_size
        assert (held, every) == (images * share // 100 // b, images // b)
