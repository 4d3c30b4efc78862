"""MP4 files by ffmpeg, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from PIL import Image

from anigan_jax.errors import UserError
from anigan_jax.storage import atomic
from anigan_jax.storage.images import FRAME

# H.264 as every player and browser takes it, which needs even sides; no version in the file.
_CODEC = (
    *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white"),
    *("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "16"),
    *("-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact"),
)


def need_ffmpeg() -> str:
    """Where ffmpeg is.

    Raises:
      UserError: nowhere.
    """
    found = shutil.which("ffmpeg")
    if found is None:
        raise UserError("an .mp4 needs ffmpeg, which is not installed; use a .gif, or install it")
    return found


def save_mp4(frames: list[Image.Image], path: Path, fps: int = 0) -> Path:
    """Writes frames of one size as a video of `fps` frames per second, or one every FRAME.

    Raises:
      UserError: there is no ffmpeg, or it fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = atomic.partial(path)
    width, height = frames[0].size
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}")
    rate = str(fps) if fps else f"1000/{FRAME}"
    command = [need_ffmpeg(), "-loglevel", "error", "-y", *raw, "-r", rate]
    command += ["-i", "-", *_CODEC, "-f", "mp4", str(temp.absolute())]
    pixels = b"".join(frame.convert("RGB").tobytes() for frame in frames)
    try:
        done = subprocess.run(command, input=pixels, capture_output=True)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
            raise UserError(f"ffmpeg cannot write {path}: {said[-1]}")
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)
    return path
