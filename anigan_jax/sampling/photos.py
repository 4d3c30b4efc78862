"""A user's photos in the other domain: how they are gathered, translated and laid out."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from PIL import Image

from anigan_jax.core import generator_of
from anigan_jax.data import archives, boxes, dataset, decode, discover
from anigan_jax.data.decode import REFUSED, Finding, Refusal
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError, printable
from anigan_jax.methods.augment import signed
from anigan_jax.runtime.batching import in_batches
from anigan_jax.sampling.grids import Model, suffix_of
from anigan_jax.storage import fonts
from anigan_jax.storage import images as record

# A sheet has at most so many rows in a group of columns, and so many photos.
ROWS, PHOTOS = 12, 96
# Pixels of the photos of a sheet, so that large ones do not fill the memory.
SHEET_PIXELS = 2**23
# Photos, and pixels, that are translated at once.
BATCH, BATCH_PIXELS = 16, 2**16
# Bytes of a file's name without its ending; file systems allow 255 in all.
STEM_BYTES = 200
NAMED = 5
ASIDE = "photos in the folder of the results"
# Of a cropping, what a run's data settings say where nobody else does.
OPEN = ("crop", "box_scale", "background", "upscale")

Box = tuple[float, float, float, float]


class Cropping(NamedTuple):
    """How photos become squares; as the settings of `Images`, None: as it has them."""

    crop: Literal["auto", "center", "top", "pad", "box"] | None = None
    box: Box | None = None
    """Face box x, y, width, height of the one photo that is given."""
    boxes: str = ""
    """File of face boxes; '': boxes.csv in the folder or archive, or beside the photo."""
    box_scale: float | None = None
    background: str | None = None
    transparency: Literal["lay over", "keep"] = "lay over"
    upscale: decode.Upscale | None = None

    def of_run(self, data: Any) -> Cropping:
        """With what is left open as a run's data have it; a box is used where one is given.

        Where the run's data were a pack that is gone, as `Images` has it.
        """
        asked = self._replace(crop="auto") if self.crop is None and self.with_box else self
        own = {name: getattr(data, name, getattr(Images, name)) for name in OPEN} | _imported(data)
        return asked._replace(**{n: own[n] for n in OPEN if getattr(asked, n) is None})

    @property
    def with_box(self) -> bool:
        """Whether boxes are given."""
        return bool(self.box or self.boxes)


class Gathered(NamedTuple):
    """`n` usable photos in the order they were given, in a folder by the bytes of the name.

    Attributes:
      names: names within their folder or archive, with '/'.
      images: size -> (n, size, size, 3) uint8; RGBA where transparency is kept.
      left_out: why each other photo cannot be used.
      centered: photos without a face box, where boxes were expected.
      places: of each among all that were given, usable at these sizes or not.
      aside: photos that lie in the folder in which nothing is read.
    """

    names: list[str]
    images: dict[int, np.ndarray]
    left_out: list[Finding]
    centered: int
    places: list[int]
    aside: int = 0

    def at(self, places: list[int]) -> Gathered:
        """Those of the photos that stand at these places alone."""
        kept = [self.places.index(place) for place in places]
        images = {size: pixels[kept] for size, pixels in self.images.items()}
        names = [self.names[i] for i in kept]
        return self._replace(names=names, images=images, places=places)


def check(given: list[Path], cropping: Cropping) -> None:
    """Refuses photos that are not there and flags that contradict each other."""
    for path in given:
        if not path.exists():
            raise UserError(f"{str(path)!r} does not exist; give photos, folders, zips or tars")
        if not path.is_dir() and not path.is_file():
            raise UserError(f"{str(path)!r} is neither a file nor a folder")
    if cropping.box_scale is not None and not 1 <= cropping.box_scale <= 10:
        raise UserError(f"--box-scale is {cropping.box_scale:g}; it must be 1 to 10")
    if cropping.with_box and cropping.crop in ("center", "top", "pad"):
        raise UserError(f"--crop {cropping.crop} uses no box; leave out --crop, or the boxes")
    if cropping.box and cropping.boxes:
        raise UserError("--box and --boxes are both given; give only one")
    if cropping.box and (len(given) > 1 or not _is_photo(given[0])):
        raise UserError("--box is for one photo; a file has the boxes of several: --boxes FILE")


def gather(
    given: list[Path], cropping: Cropping, *sizes: int, without: Path | None = None
) -> Gathered:
    """Reads photos, folders and archives, and crops them as a data set is cropped.

    Args:
      given: files, folders, zips and tars; a photo that is named twice is read once.
      sizes: sides in pixels; each usable photo is there at every one.
      without: a folder, such as one for results, in which nothing is read.

    Raises:
      UserError: a path or flag is wrong, or no photo can be used; the reasons are listed.
    """
    check(given, cropping)
    cropping = cropping.of_run(None)
    found, shown = _catalogue(given, cropping, without)
    shared = cropping._asdict()
    del shared["box"], shared["boxes"]
    settings = {size: Images(size=size, **shared) for size in sizes}
    left_out, made = list(found.findings), {}
    # In this process: a data set needs workers for its number, a few photos do not.
    for index, payload in settings[sizes[0]].payloads(found):
        item = found.items[index]
        if isinstance(payload, Finding):
            left_out.append(payload._replace(file=shown[index]))
            continue
        try:
            made[index] = {s: images.make(item, payload).pixels for s, images in settings.items()}
        except Refusal as error:
            left_out.append(Finding(shown[index], error.code, error.detail))
    aside = found.ignored[ASIDE]
    if aside and not found.items:
        raise UserError(f"all {aside} photos lie in {without}, which is for results")
    if not made:
        count = len(left_out)
        reasons = [f"  {reason(finding)}" for finding in left_out[:NAMED]]
        more = [f"  and {count - NAMED} more"] if count > NAMED else []
        raise UserError("\n".join([f"none of the {count} photos can be used:", *reasons, *more]))
    order = sorted(made)
    images = {s: np.stack([made[i][s] for i in order]) for s in settings}
    items = [found.items[i] for i in order]
    left_out.sort(key=lambda finding: archives.in_bytes(finding.file))
    names, centered = [i.name for i in items], _centered(items, cropping.crop)
    return Gathered(names, images, left_out, centered, order, aside)


def _imported(data: Any) -> dict[str, Any]:
    """The same of the pack that a run's data are, where it still is; else {}."""
    # A place that cannot be looked at has no pack, and the run's photos need none.
    with contextlib.suppress(UserError, OSError, RuntimeError):
        path = Path(getattr(data, "path", "") or "nowhere").expanduser()
        made = dataset.open_pack(path).manifest["key"] if dataset.is_pack(path) else {}
        return {name: made[name] for name in OPEN if name in made}
    return {}


def side_of(given: list[Path]) -> int | None:
    """The shorter side in pixels of the first picture; None where the first cannot be read."""
    found, _ = _catalogue(given, Cropping("center"))
    payload = next((payload for _, payload in Images().payloads(found)), b"")
    try:
        with Image.open(io.BytesIO(payload)) as image:
            return min(image.size)
    except (OSError, TypeError, ValueError, Image.DecompressionBombError):
        return None


def _centered(items: list[Item], crop: str) -> int:
    without = sum(item.box is None for item in items)
    expected = crop == "box" or (crop == "auto" and without < len(items))
    return without if expected else 0


def suffix(given: list[Path]) -> str:
    """What tells pictures of other photos apart in their names."""
    return suffix_of(given[0].stem, [str(path.resolve()) for path in given])


def _is_photo(path: Path) -> bool:
    return path.is_file() and not archives.is_archive(path)


def _catalogue(
    given: list[Path], cropping: Cropping, without: Path | None = None
) -> tuple[Catalogue, list[str]]:
    """All photos, each once, and what a person calls each; findings are of those left out."""
    items, shown, findings, stores, seen, aside = [], [], [], [], set(), 0
    for path in given:
        part, inside = _listed(path, cropping), without and without.is_relative_to(path.resolve())
        findings += [f._replace(file=f"{path}/{f.file}") for f in part.findings if f.refused]
        for item in part.items:
            key = (part.stores[0].resolve(), item.member)
            if inside and (key[0] / item.member).is_relative_to(without):
                aside += 1
                continue
            if key in seen:
                continue
            seen.add(key)
            # Not the item's own name, which begins with the domain.
            items.append(item._replace(name=item.member, store=len(stores)))
            shown.append(str(path) if _is_photo(path) else f"{path}/{item.member}")
        stores += part.stores
    return Catalogue(items, findings, stores, ignored={ASIDE: aside}), shown


def _listed(path: Path, cropping: Cropping) -> Catalogue:
    # What labels say of the photos is not asked.
    options = discover.Options(tags="none", boxes=cropping.boxes)
    if not _is_photo(path):
        # Put into one domain, so that a folder of another name beside trainA is no matter.
        return discover.survey(path, options, "A")
    item = Item(path.name, path.name, box=cropping.box)
    if not cropping.box and cropping.crop in ("auto", "box"):
        table = boxes.read(path, [], path.parent, options.boxes)
        (item,) = boxes.attach([item], table, [])
    return Catalogue([item], [], [path.parent])


def reason(finding: Finding) -> str:
    """A line about a photo that is left out: its name, the rule and the detail."""
    detail = f" ({finding.detail})" if finding.detail else ""
    why = REFUSED[finding.code].replace("`import --upscale` enlarges it", "enlarge it first")
    return printable(f"{finding.file}: {finding.code}: {why}{detail}")


def files(names: list[str]) -> list[str]:
    """Names of PNG files, one for each photo, in the folders that the names have.

    a.jpg becomes a.png; where a.png is there too, they are a.jpg.png and a.png.png, and
    what is still the same is numbered. Letter case tells no files apart.
    """
    paths = [PurePosixPath(name) for name in names]
    stems = Counter(str(path.with_suffix("")).casefold() for path in paths)
    taken = {str(folder).casefold() for path in paths for folder in path.parents}
    found = []
    for path in paths:
        alone = stems[str(path.with_suffix("")).casefold()] == 1
        stem, number = path.stem if alone else path.name, 1
        while len(archives.in_bytes(stem)) > STEM_BYTES:
            stem = stem[:-1]
        name = str(path.with_name(f"{stem}.png"))
        while name.casefold() in taken:
            number += 1
            name = str(path.with_name(f"{stem}_{number}.png"))
        taken.add(name.casefold())
        found.append(name)
    return found


def need_direction(method: Any, direction: str) -> None:
    """Refuses a run that translates nothing, or not in this direction."""
    if not method.translate:
        does = "trains no generator"
        if method.generate is not None:
            does = "makes images from noise; use `anigan sample RUN`"
        raise UserError(f"this run cannot translate: it {does}")
    if direction not in method.translate:
        have = ", ".join(method.translate)
        raise UserError(f"this run has no direction {direction!r}; it has {have} (--direction)")


def translated(model: Model, direction: str, images: np.ndarray) -> np.ndarray:
    """Images in the other domain, both (n, S, S, 3) uint8; S need not be that of the training.

    With the averaged weights where the run has them.

    Raises:
      UserError: the run translates nothing, or not in this direction.
    """
    need_direction(model.method, direction)
    params, stats = generator_of(model.state)
    # Of the method's own function: the next call finds it compiled.
    change = jax.jit(model.method.translate[direction])

    def run(params, stats, part: np.ndarray):
        return change(params, stats, signed(part))

    side = images.shape[1]
    # Of the size alone: a photo becomes the same whatever is translated beside it.
    batch = max(1, min(BATCH, BATCH_PIXELS // side**2))
    return in_batches(lambda part: record.to_uint8(run(params, stats, part)), images, batch)


def shown(count: int, side: int) -> int:
    """How many of `count` photos a sheet shows."""
    return min(count, max(ROWS, min(PHOTOS, SHEET_PIXELS // side**2)))


def rows(columns: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Photos and what they become: a label and (n, S, S, 3) uint8 for each column.

    More than `ROWS` photos stand in several groups of columns side by side.
    """
    count, side = columns[0][1].shape[:2]
    height = math.ceil(count / math.ceil(count / ROWS))
    labels = [_breakable(label, side) for label, _ in columns]
    groups = []
    for at in range(0, count, height):
        group = np.stack([images[at : at + height] for _, images in columns], axis=1)
        groups.append(record.table(group, [""] * len(group), labels))
    page = Image.new("RGB", (sum(g.width for g in groups), groups[0].height), "white")
    left = 0
    for sheet in groups:
        page.paste(sheet, (left, 0))
        left += sheet.width
    return page


def _breakable(label: str, width: int) -> str:
    """The label with spaces where `record.table` may break it: after marks, else anywhere."""
    font = fonts.font(max(9, min(14, width // 4)), [label])
    lines = [""]
    for piece in re.findall(r"[^\s_./-]*[\s_./-]?", label):
        if lines[-1] and font.getlength(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        for letter in piece:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return " ".join(line.strip() for line in lines)


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """(n, S, S, 3) uint8 at a larger side; whole multiples repeat pixels."""
    now = images.shape[1]
    if side % now == 0:
        return images.repeat(side // now, 1).repeat(side // now, 2)
    resized = [Image.fromarray(i).resize((side, side), Image.Resampling.BICUBIC) for i in images]
    return np.stack([np.asarray(image) for image in resized])
