"""What a compiled program does: its text (HLO) read and counted.

Instructions count as often as they run, loops and branches followed; what is fused into one
kernel is one. Pure functions of the text, which XLA prints alike for CPUs, GPUs and TPUs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

# They take no time of their own: names, views, and the ends of what was begun before.
FREE = {
    *(
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "add-dependency",
    ),
    *("partition-id", "replica-id", "opt-barrier", "domain", "while", "conditional", "call"),
    *("async-start", "async-update", "async-done"),
}
# Custom calls that only tell the compiler something, or reserve memory.
MARKERS = {"AllocateBuffer", "AssumeGatherIndicesInBound", "Sharding"}
COLLECTIVES = {
    *("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute"),
    *("collective-broadcast", "ragged-all-to-all"),
}
MOVES = {"copy", "transpose"}
# What a fusion that only moves data holds beside its move.
AROUND = {"parameter", "bitcast", "reshape", "tuple", "get-tuple-element"}
SIZES = {"pred": 1, "token": 0, "opaque": 0, "c64": 8, "c128": 16}

_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*))?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Instruction(NamedTuple):
    """A line of a computation.

    Attributes:
      shape: as it is printed, with layouts; of several results in parentheses.
      operands: names, without '%'.
      rest: what follows the operands.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    rest: str


class Module(NamedTuple):
    """Computations by name; `entry` is the one that runs."""

    computations: dict[str, list[Instruction]]
    entry: str


def parse(text: str) -> Module:
    """The computations of a module's text.

    Raises:
      ValueError: it has no entry.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            lines = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif found := _LINE.match(line):
            lines.append(_instruction(found[1], found[2]))
    if not entry:
        raise ValueError("the text has no ENTRY computation")
    return Module(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    end = _closing(rest, len(opcode))
    operands = tuple(re.findall(r"%([\w.-]+)", rest[len(opcode) : end]))
    return Instruction(name, opcode, shape, operands, rest[end:])


def _closing(text: str, start: int) -> int:
    """The place behind the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return start + found.end()
    raise ValueError(f"a parenthesis is never closed: {text[start : start + 80]}")


def size(shape: str) -> int:
    """Bytes of a printed shape; of several the sum."""
    total = 0
    for kind, dims, _ in _SHAPE.findall(shape):
        bits = re.search(r"\d+", kind)
        each = SIZES.get(kind, int(bits[0]) / 8 if bits else 0)
        total += math.ceil(each * math.prod(int(n) for n in dims.split(",") if n))
    return total


def elements(shape: str) -> int:
    """Numbers of a printed shape; of several the sum."""
    sides = ([int(n) for n in dims.split(",") if n] for _, dims, _ in _SHAPE.findall(shape))
    return sum(map(math.prod, sides))


def layout(shape: str) -> tuple[str, ...]:
    """Order of dimensions in memory, minor first, of each array of a printed shape."""
    return tuple(order for _, _, order in _SHAPE.findall(shape))


def called(instruction: Instruction, *keys: str) -> list[str]:
    """Names of the computations that an instruction calls, by the keys 'calls', 'body', ..."""
    found = []
    for key in keys:
        for one, many in re.findall(rf"\b{key}=(?:%?([\w.-]+)|\{{([^}}]*)\}})", instruction.rest):
            found += [one] if one else re.findall(r"%?([\w.-]+)", many)
    return found


def trips(loop: Instruction) -> int | None:
    """How often a loop's body runs; None where the compiler does not know."""
    found = _TRIPS.search(loop.rest)
    return int(found[1]) if found else None


def executed(module: Module, start: str, times: int = 1) -> Iterator[tuple[Instruction, str, int]]:
    """(instruction, its computation, how often it runs) of all that runs from a computation on.

    A loop of unknown length runs once, and of several branches the longest.
    """
    for instruction in module.computations[start]:
        yield instruction, start, times
        if instruction.opcode == "while":
            for name in called(instruction, "body"):
                yield from executed(module, name, times * (trips(instruction) or 1))
        elif instruction.opcode == "conditional":
            names = ("branch_computations", "true_computation", "false_computation")
            branches = [list(executed(module, n, times)) for n in called(instruction, *names)]
            yield from max(branches, key=len)
        elif instruction.opcode in ("call", "async-start"):
            for name in called(instruction, "to_apply", "calls"):
                yield from executed(module, name, times)


def fused(module: Module, instruction: Instruction) -> list[Instruction]:
    """All instructions within a fusion, those of fusions within it too."""
    found = []
    for name in called(instruction, "calls"):
        for inner in module.computations.get(name, []):
            found += [inner, *(fused(module, inner) if inner.opcode == "fusion" else ())]
    return found


def main_loop(module: Module) -> Instruction | None:
    """The loop of the entry in which most is done; None where there is no loop."""
    loops = [i for i, _, _ in executed(module, module.entry) if i.opcode == "while"]

    def work(loop: Instruction) -> int:
        (body,) = called(loop, "body")
        return sum(1 for _ in executed(module, body))

    return max(loops, key=work, default=None)


def counts(text: str, steps: int) -> dict[str, Any]:
    """What a program of `steps` steps does in each of them.

    Args:
      steps: of a dispatch; several are one loop, whose body is a step.

    Returns:
      'fusions', of them 'reductions'; 'library_calls'; 'copies', fused ones too, of them
      'layout_changes'; 'others'; and 'kernels', the sum of all. 'prefetches': copies between a
      TPU's memories while it computes. 'scalars': operations on one
      number outside any kernel, as a TPU's scalar core does them. 'convolutions' and 'products'
      wherever they are computed. 'collectives': opcode -> {'count', 'bytes' that a device gives
      in}. 'unknown_loops': inner loops, counted as run once, of a length that only a run knows.
      'outside': kernels of a dispatch around the loop.
    """
    module = parse(text)
    loop = main_loop(module) if steps > 1 else None
    if loop is None:
        return {**_counted(module, module.entry, 1), "outside": 0}
    (body,) = called(loop, "body")
    # The compiler may put several steps into one round.
    rounds = trips(loop) or steps
    step = _counted(module, body, steps // rounds if rounds and steps % rounds == 0 else 1)
    whole = _counted(module, module.entry, 1)["kernels"]
    within = _counted(module, body, 1)["kernels"] * (trips(loop) or 1)
    return {**step, "outside": whole - within}


def _counted(module: Module, start: str, share: int) -> dict[str, Any]:
    """Counts of all that runs from a computation on, divided by `share`."""
    found: Counter = Counter()
    collectives: dict[str, Counter] = {}
    shapes: dict[str, dict[str, str]] = {}
    for instruction, where, times in executed(module, start):
        if where not in shapes:
            shapes[where] = {i.name: i.shape for i in module.computations[where]}
        given = [shapes[where].get(name, "") for name in instruction.operands]
        for kind in kinds(module, instruction, given):
            found[kind] += times
        opcode = instruction.opcode.removesuffix("-start")
        if opcode in COLLECTIVES:
            held = collectives.setdefault(opcode, Counter())
            held["count"] += times
            held["bytes"] += times * sum(map(size, given))
        found["unknown_loops"] += opcode == "while" and trips(instruction) is None
    names = ("fusions", "reductions", "library_calls", "copies", "layout_changes", "others")
    kernels = found["fusions"] + found["library_calls"] + found["copies"] + found["others"]
    found["kernels"] = kernels
    more = ("kernels", "prefetches", "scalars", "convolutions", "products", "unknown_loops")
    return {
        **{name: found[name] // share for name in (*names, *more)},
        "collectives": {
            name: {key: value // share for key, value in held.items()}
            for name, held in collectives.items()
        },
    }


def kinds(module: Module, instruction: Instruction, given: list[str]) -> list[str]:
    """What an instruction counts as; [] where it takes no time of its own.

    Args:
      given: shapes of its operands.
    """
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in FREE or opcode in COLLECTIVES or opcode.endswith(("-done", "-update")):
        return []
    if instruction.opcode == "copy-start":
        return ["prefetches"]
    if opcode in MOVES:
        return ["copies", *_of_layout(instruction, given)]
    if opcode == "fusion":
        return _of_fusion(module, instruction)
    if opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
        name = target[1].lower() if target else ""
        if target and target[1] in MARKERS:
            return []
        # cuDNN's convolutions and cuBLAS's products have shapes of a kernel's own.
        if "conv" in name:
            return ["library_calls", "convolutions"]
        product = any(word in name for word in ("gemm", "matmul", "dot"))
        return ["library_calls", "products"] if product else ["library_calls"]
    if computed := _products([instruction]):
        return ["library_calls", *computed]
    return ["scalars"] if elements(instruction.shape) == 1 else ["others"]


def _of_layout(move: Instruction, given: list[str]) -> list[str]:
    """['layout_changes'] where a copy or transposition changes the order in memory."""
    # A transposition that only renames dimensions was made a bitcast before.
    other = move.opcode == "transpose" or any(layout(s) != layout(move.shape) for s in given)
    return ["layout_changes"] if other else []


def _of_fusion(module: Module, instruction: Instruction) -> list[str]:
    inner = fused(module, instruction)
    shapes = {i.name: i.shape for i in inner}
    moves = [i for i in inner if i.opcode in MOVES]
    if moves and all(i.opcode in MOVES | AROUND for i in inner):
        changed = any(_of_layout(i, [shapes.get(n, "") for n in i.operands]) for i in moves)
        return ["copies", "layout_changes"] if changed else ["copies"]
    reduces = any(i.opcode in ("reduce", "reduce-window") for i in inner)
    return ["fusions", *(["reductions"] if reduces else []), *_products(inner)]


def _products(instructions: list[Instruction]) -> list[str]:
    """'convolutions' and 'products' among instructions, one for each."""
    found = []
    for instruction in instructions:
        if instruction.opcode == "convolution":
            # TPUs compute a matrix product as a convolution over no dimension.
            labels = re.search(r"dim_labels=(\S+?)_", instruction.rest)
            over = labels is None or any(c.isdigit() for c in labels[1])
            found.append("convolutions" if over else "products")
        elif instruction.opcode in ("dot", "ragged-dot"):
            found.append("products")
    return found
