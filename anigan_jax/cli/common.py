"""What the verbs share: flags."""

from __future__ import annotations

import argparse


def arguments(verb: str, argv: list[str], **options) -> argparse.Namespace:
    """Parses a verb's flags, as `parser_of` takes them."""
    return parser_of(verb, **options).parse_args(argv)


def parser_of(verb: str, **options) -> argparse.ArgumentParser:
    """The parser of a verb's flags; `positional` ones lose their dashes."""
    parser = argparse.ArgumentParser(f"anigan {verb}", allow_abbrev=False)
    for name, given in options.items():
        rest = dict(given)
        flag = name if rest.pop("positional", False) else f"--{name.replace('_', '-')}"
        parser.add_argument(flag, **rest)
    return parser
