"""Whether settings are of the types that their classes declare."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal


def type_faults(path: str, value: Any) -> Iterator[str]:
    """What of settings is not of its declared type, as the command line would refuse it."""
    hints = typing.get_type_hints(type(value))
    for f in dataclasses.fields(value):
        yield from _type_fault(
            f"{path}.{f.name}".removeprefix("."), getattr(value, f.name), hints[f.name]
        )


def _type_fault(path: str, value: Any, hint: Any) -> Iterator[str]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            yield f"{path} is {value!r}; it must be one of {', '.join(map(str, args))}"
    elif origin in (typing.Union, types.UnionType):
        if all(list(_type_fault(path, value, arg)) for arg in args):
            yield f"{path} is {value!r}; it must be {hint}"
    elif origin is tuple:
        items = (args[0],) * len(value) if isinstance(value, tuple) and Ellipsis in args else args
        if not isinstance(value, tuple) or len(value) != len(items):
            yield f"{path} is {value!r}; it must be a tuple"
        else:
            for i, (item, arg) in enumerate(zip(value, items, strict=True)):
                yield from _type_fault(f"{path}.{i}", item, arg)
    elif origin is list or hint is list:
        yield f"{path} is declared as a list; declare it as a tuple, which cannot change"
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{path} is {value!r}; it must be a dict"
        else:
            for name, item in value.items():
                yield from _type_fault(f"{path}.{name}", item, args[1])
    elif isinstance(hint, type) and hint not in (Any, type(None)):
        number = hint is float and isinstance(value, int) and not isinstance(value, bool)
        wrong_bool = isinstance(value, bool) and hint is not bool
        if isinstance(value, type) and not isinstance(value, hint):
            name = value.__name__
            yield f"{path} is the class {name}; it must be an object, such as {name}()"
        elif not (isinstance(value, hint) or number) or wrong_bool:
            hint_of = "; str(...) makes one" if isinstance(value, PurePath) else ""
            yield f"{path} is {value!r}; it must be {hint.__name__}{hint_of}"
        elif dataclasses.is_dataclass(value):
            yield from type_faults(path, value)
    elif hint is type(None) and value is not None:
        yield f"{path} is {value!r}; it must be None"
