"""The largest batch that fits: by an estimate from one that was compiled, or by compiling a few."""

from __future__ import annotations

from collections.abc import Callable

TRIES = 4


def multiple_of(batch: int, devices: int) -> int:
    """What batches of about this size are multiples of: 8 images a device, or one where few fit."""
    return devices * (8 if batch >= 8 * devices else 1)


def estimate(held: dict[str, int], batch: int, usable: int, devices: int) -> int:
    """The batch that would fit if temporaries grew as it does; 0: none.

    What does not grow, gradients of the weights, makes it too small rather than too large; a
    batch that fits is the least.
    """
    free = usable - (held["peak"] - held["temporaries"])
    most = max(0, int(batch * free / max(held["temporaries"], 1)))
    fits = batch if held["peak"] <= usable else 0
    return max(fits, most - most % multiple_of(most, devices))


def largest(
    peak: Callable[[int], int | None],
    first: int,
    usable: int,
    multiple: int,
    known: tuple[int, int | None] = (0, None),
) -> int:
    """The largest batch found to fit by compiling a few; 0: none was.

    Args:
      peak: batch -> bytes on a device; None where it does not compile.
      first: where the search begins.
      multiple: of which batches are.
      known: a batch that was compiled before, and its bytes; None where it did not compile.
    """
    fits, fails = 0, 0
    seen: list[tuple[int, int]] = []
    if known[1] is not None:
        seen.append((known[0], known[1]))
        fits, fails = (known[0], 0) if known[1] <= usable else (0, known[0])
    batch = max(first // multiple, 1) * multiple
    for _ in range(TRIES):
        found = peak(batch)
        if found is not None:
            seen.append((batch, found))
        if found is not None and found <= usable:
            fits = max(fits, batch)
        else:
            fails = min(fails or batch, batch)
        batch = _next(seen, fits, fails, usable) // multiple * multiple
        # What a further compilation could add must be worth one.
        if batch < multiple or batch - fits < max(multiple, fits // 50):
            break
    return fits


def _next(seen: list[tuple[int, int]], fits: int, fails: int, usable: int) -> int:
    """The next batch to try: on the line through what was seen, or else halfway."""
    halfway = (fits + fails) // 2 if fails else 2 * fits
    if len(seen) < 2:
        return halfway
    (a, low), (b, high) = sorted(seen)[:: len(seen) - 1]
    if high <= low:
        return halfway
    guess = int(a + (usable - low) * (b - a) / (high - low))
    return guess if fits < guess and (not fails or guess < fails) else halfway
