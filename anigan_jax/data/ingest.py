"""One pass over a source: decode everything in processes, keep every reason."""

from __future__ import annotations

import hashlib
import importlib.machinery
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anigan_jax.data import attributes as known
from anigan_jax.data import dedup, isolated
from anigan_jax.data.archives import in_bytes
from anigan_jax.data.attributes import Attributes, Label
from anigan_jax.data.decode import Finding, Refusal
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.data.sources import Source
from anigan_jax.runtime import environment

# Never 1: a decoder that dies or hangs must not take this process with it.
WORKERS = min(32, max(2, environment.cores()))
CHUNK = 128
CHUNK_BYTES = 16 * 2**20
# Together under a minute, the starts of two processes included.
CHUNK_SECONDS = 30.0
FILE_SECONDS = 15.0


class Scan(NamedTuple):
    """Everything known of a source; `pixels` (N, size, size, channels) uint8 as they arrived.

    `order` lists the rows of `pixels` of the images that are used, by part and then by
    the bytes of the name; `parts` gives the part of each ('train', 'testB', ...).
    """

    pixels: np.ndarray
    items: list[Item]
    groups: np.ndarray
    pairs: list[dedup.Pair]
    parts: list[str]
    order: list[int]
    findings: list[Finding]
    catalogue: Catalogue

    @property
    def faults(self) -> list[Finding]:
        """Files that cannot be used; a held-out twin is left out, but no fault."""
        return [f for f in self.findings if f.refused and f.code != "leak"]

    def take(self, rows) -> np.ndarray:
        """A copy of rows, by a map of its own: a large set never lies in memory."""
        if not isinstance(self.pixels, np.memmap):
            return self.pixels[rows]
        fresh = np.memmap(self.pixels.filename, np.uint8, "r", shape=self.pixels.shape)
        return np.array(fresh[rows])


def scan(
    source: Source,
    folder: Path,
    *,
    workers: int = WORKERS,
    report: Callable | None = None,
) -> Scan:
    """Decodes a source into `folder`/scan.bin and judges every file.

    Args:
      workers: processes; fewer than 2 decodes here. The result is the same.
      report: called with (images done, images in all).
    """
    catalogue = source.catalogue()
    findings, rows, digests = list(catalogue.findings), [], []
    done, path, small = 0, folder / "scan.bin", folder / "thumbs.bin"
    with path.open("wb") as file, small.open("wb") as thumbs:
        for results in _decoded(source, catalogue, workers):
            for index, result in results:
                item = catalogue.items[index]
                if isinstance(result, Finding):
                    findings.append(result)
                    continue
                findings += [Finding(item.name, *note) for note in result.notes]
                rows.append(item)
                digests.append(result.digest)
                thumbs.write(result.thumb.tobytes())
                file.write(result.pixels)
            done += len(results)
            if report:
                report(done, len(catalogue.items))
    shape = (len(rows), source.size, source.size, source.channels)
    pixels = np.memmap(path, np.uint8, "r", shape=shape) if rows else np.zeros(shape, np.uint8)
    by_name = sorted(range(len(rows)), key=lambda i: in_bytes(rows[i].name))
    # On the disk like the pixels: a million of them are 768 MB.
    shape = (len(rows), dedup.SIDE, dedup.SIDE, 3)
    thumbs = np.memmap(small, np.uint8, "r", shape=shape) if rows else np.zeros(shape, np.uint8)
    groups, pairs, chains = _groups(by_name, digests, thumbs, source.twins)
    findings += [Finding("", "chain", f"{n} images; RMS {rms:g}") for n, rms in chains]
    findings += [Finding(rows[p.index].name, p.code, f"of {rows[p.of].name}") for p in pairs]
    parts, order = _parts(source, rows, by_name, groups, digests, findings)
    findings += _untrained(catalogue.attributes, [(rows[i].label, parts[i]) for i in order])
    findings.sort(key=lambda f: (not f.refused, f.code, in_bytes(f.file)))
    return Scan(pixels, rows, groups, pairs, parts, order, findings, catalogue)


def _groups(by_name, digests, thumbs, twins: bool):
    """Groups, pairs and chains by row, found in the order of the names, not of arrival."""
    n = len(by_name)
    threshold = dedup.THRESHOLD if twins else 0.0
    row = np.array(by_name, np.int64)
    names = [digests[i] for i in by_name]
    groups, pairs, chains = dedup.without_chains(thumbs, names, threshold, row)
    found = np.empty(n, np.int64)
    found[row] = row[groups] if n else row
    return found, [dedup.Pair(by_name[p.index], by_name[p.of], p.code) for p in pairs], chains


def _parts(source: Source, rows, by_name, groups, digests, findings):
    """The part of each row and the order of those used; a held-out twin is left out."""
    drawn = dedup.held_out(groups, digests, source.test)
    held = [bool(d) if r.held is None else r.held for r, d in zip(rows, drawn, strict=True)]
    trained = {int(g) for g, h in zip(groups, held, strict=True) if not h}
    used = []
    for i in by_name:
        if held[i] and int(groups[i]) in trained:
            findings.append(Finding(rows[i].name, "leak"))
        else:
            used.append(i)
    drawing = sum(row.held is None for row in rows)
    fewest, got = (
        source.test * drawing / 2,
        sum(h for h, r in zip(held, rows, strict=True) if r.held is None),
    )
    if fewest >= FEWEST_HELD and got < fewest:
        detail = f"{got} of {drawing} images; {source.test:.0%} were asked for"
        findings.append(Finding("", "held out", detail))
    parts = [("test" if h else "train") + r.domain for r, h in zip(rows, held, strict=True)]
    return parts, sorted(used, key=lambda i: PARTS.index(parts[i]))


def _untrained(attributes: Attributes, shown: list[tuple[Label, str]]) -> list[Finding]:
    """A note of each class of which images are held out and none is trained on.

    Args:
      shown: label and part of each image that is used.
    """
    labels = known.rows(attributes, (label for label, _ in shown))
    trained = np.array([part.startswith("train") for _, part in shown], bool)
    found = []
    for (name, classes), column in zip(attributes, labels.T, strict=False):
        held = Counter(column[~trained].tolist())
        for index in sorted(held.keys() - {*column[trained].tolist(), -1}):
            said = known.phrase(attributes, name, classes[index])
            found.append(Finding("", "untrained", f"{said}: {held[index]} held out"))
    return found


# Under so many, chance alone explains that few images are held out.
FEWEST_HELD = 5
PARTS = ("train", "trainA", "trainB", "test", "testA", "testB")


class _Result(NamedTuple):
    pixels: bytes
    digest: str
    thumb: np.ndarray
    notes: list


def _make(source: Source, jobs: list) -> list:
    """Decodes (index, item, payload) jobs: (index, _Result or Finding)."""
    results = []
    for index, item, payload in jobs:
        if isinstance(payload, Finding):
            results.append((index, payload._replace(file=item.name)))
            continue
        try:
            pixels, notes = source.make(item, payload)
        except Refusal as error:
            results.append((index, Finding(item.name, error.code, error.detail)))
            continue
        data = np.ascontiguousarray(pixels).tobytes()
        digest = hashlib.sha256(data).hexdigest()
        results.append((index, _Result(data, digest, dedup.thumbnail(pixels), notes)))
    return results


def _jobs(source: Source, catalogue: Catalogue) -> Iterator[list]:
    """Chunks of (index, item, payload), bounded in number and in bytes."""
    chunk, size = [], 0
    for index, payload in source.payloads(catalogue):
        chunk.append((index, catalogue.items[index], payload))
        size += len(payload) if isinstance(payload, bytes) else 0
        if len(chunk) >= CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _decoded(source: Source, catalogue: Catalogue, workers: int) -> Iterator[list]:
    """Results of the chunks, in order."""
    jobs = _jobs(source, catalogue)
    few = len(catalogue.items) < 4 * CHUNK
    # A worker has no config file and no main script: a source defined there is unknown to it.
    home = type(source).__module__.partition(".")[0]
    known = importlib.machinery.PathFinder.find_spec(home) is not None
    if workers < 2 or not known or not catalogue.items or (few and source.drawn):
        yield from (_make(source, chunk) for chunk in jobs)
        return
    pool, waiting = isolated.pool(workers), deque()
    try:
        isolated.probe(pool, _make, source, [])
        while True:
            # A few chunks ahead: the source may be larger than memory.
            while len(waiting) < 2 * workers and (chunk := next(jobs, None)):
                waiting.append((chunk, pool.submit(_make, source, chunk)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            try:
                yield future.result(CHUNK_SECONDS)
            except (BrokenProcessPool, TimeoutError):
                isolated.kill(pool)
                yield list(_alone(source, chunk))
                pool = isolated.pool(workers)
                waiting = deque((c, pool.submit(_make, source, c)) for c, _ in waiting)
    finally:
        isolated.kill(pool)


def _alone(source: Source, chunk: list) -> Iterator[tuple]:
    """Results of files one by one, in a process that is replaced when one kills or stops it."""
    worker = isolated.Worker(_make, source, [])
    try:
        for job in chunk:
            try:
                yield from worker.result(worker.submit(_make, source, [job]), FILE_SECONDS)
            except isolated.Died as error:
                yield job[0], Finding(job[1].name, "crashed", str(error))
    finally:
        worker.end()
