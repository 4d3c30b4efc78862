"""torch-fidelity as the tests' oracle for metrics: its functions of arrays, nothing else."""

import importlib
import sys
from types import ModuleType

import pytest


def torch_fidelity(name):
    """Its module of that name; skips the test where it or PyTorch is not installed.

    The package imports torchvision for data sets and networks that arrays do not need.
    Where torchvision is missing, empty modules stand in for the time of the import.
    """
    pytest.importorskip("torch")
    stand_ins = {}
    try:
        importlib.import_module("torchvision")
    except ImportError:
        path = "torchvision"
        for part in ("", ".datasets", ".transforms", ".transforms.functional"):
            stand_ins[path + part] = ModuleType(path + part)
        stand_ins[path].transforms = stand_ins[path + ".transforms"]
        stand_ins[path].transforms.functional = stand_ins[path + ".transforms.functional"]
        for data in ("CIFAR10", "CIFAR100", "STL10"):
            setattr(stand_ins[path + ".datasets"], data, type(data, (), {}))
    sys.modules.update(stand_ins)
    try:
        return pytest.importorskip(f"torch_fidelity.{name}", exc_type=ImportError)
    finally:
        for module in stand_ins:
            del sys.modules[module]
