"""Calls of the package's pure functions are held against the shapes in their annotations.

Imported before the package, because the checks are put in as its modules are loaded.
"""

import contextlib

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

MODULES = ("losses", "rng", "metrics", "networks.ops", "methods.augment")
# PEP 484: where a float is asked for, an int is as good.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


@contextlib.contextmanager
def _raises(*expected, raises=pytest.raises, **match):
    """`pytest.raises`; what is given within is refused by the function, not by its annotations."""
    with raises(*expected, **match) as caught:
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            yield caught
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)


pytest.raises = _raises
jaxtyping.install_import_hook([f"anigan_jax.{name}" for name in MODULES], "shapes.checked")
