"""Sources of images: folders and archives that tests write, read and pack."""

import os
import signal
import time

import files

from anigan_jax.data import dataset, ingest
from anigan_jax.data.images import Images


def write(folder, contents: dict) -> str:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(folder)


def faces(count: int, start: int = 0, kind="PNG") -> dict:
    suffix = {"PNG": "png", "JPEG": "jpg"}[kind]
    return {f"{i}.{suffix}": files.noise_file(i, kind) for i in range(start, start + count)}


def built(tmp_path, path: str, **settings) -> dataset.Pack:
    settings = {"size": 32, "test": 0, **settings}
    return dataset.build(Images(path, **settings), tmp_path / "cache", workers=1)


def scanned(tmp_path, path: str, **settings) -> ingest.Scan:
    folder = tmp_path / "scan"
    folder.mkdir(exist_ok=True)
    return ingest.scan(Images(path, **{"size": 32, **settings}), folder, workers=1)


class Deadly(Images):
    """A source whose decoder dies or hangs on some files."""

    def make(self, item, payload):
        if "dies" in item.name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hangs" in item.name:
            time.sleep(600)
        return super().make(item, payload)
