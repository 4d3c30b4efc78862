"""A run's record as TensorBoard's event files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from anigan_jax.errors import UserError
from anigan_jax.report.record import Sink

EVENTS = "events.out.tfevents.*"


def open_sink(folder: Path, identity: str) -> Sink:
    """Event files of a run in a folder, which goes on from those that are there.

    Args:
      identity: of the run; the names of its files end with it.

    Raises:
      UserError: the folder has event files of another run, or cannot be written.
    """
    from tensorboardX import SummaryWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    has: dict[str, int] = {}
    there = sorted(folder.glob(EVENTS))
    for path in there:
        if not path.name.endswith(f".{identity}"):
            raise UserError(f"{folder} holds event files of something else; use another --out")
        for data in _records(path):
            event = Event.FromString(data)
            has |= {one.tag: max(event.step, has.get(one.tag, -1)) for one in event.summary.value}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Two of one second have one name but for this number, and the later replaces the first.
        suffix = f".{len(there):04d}.{identity}"
        writer = SummaryWriter(logdir=str(folder), filename_suffix=suffix)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from None

    def write(step: int, scalars: dict[str, float], pictures: dict[str, Path]) -> None:
        values = [Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()]
        if values:
            # An event a line is several times quicker than one a value, and is there or not.
            writer.file_writer.add_summary(Summary(value=values), step)
        for name, path in pictures.items():
            with Image.open(path) as image:
                writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    shown = f"{folder}: tensorboard --logdir {folder}"
    return Sink(shown, has, write, writer.flush, writer.close)


def _records(path: Path) -> Iterator[bytes]:
    """The whole records of an event file; a kill may have cut off the last one."""
    data, at = path.read_bytes(), 0
    while at + 12 <= len(data):
        # Length, its checksum, the record, its checksum.
        (length,) = struct.unpack_from("<Q", data, at)
        end = at + 12 + length + 4
        if end > len(data):
            return
        yield data[at + 12 : end - 4]
        at = end
