"""Prepared TensorFlow Datasets as a source, read without TensorFlow."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from anigan_jax.data import attributes, tables, tfrecord
from anigan_jax.data.attributes import DEFAULT, PARTS, Attribute, Attributes, Label
from anigan_jax.data.decode import Finding
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.data.rows import Row, Rows
from anigan_jax.data.words import plain
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment

TFRECORD = "tfrecord"
FORMATS = ("array_record", TFRECORD)


class Store(NamedTuple):
    """A prepared data set: its folder and the name of its image feature."""

    folder: str
    image: str

    def read(self, names) -> Iterator[tuple[str, bytes]]:
        """Undecoded images of members 'SPLIT/INDEX'."""
        tfds, builder = _open(self.folder)
        splits: dict[str, list[str]] = {}
        for name in names:
            splits.setdefault(name.split("/")[0], []).append(name)
        for split, wanted in splits.items():
            source = _source(tfds, builder, split, self.image)
            for name in wanted:
                yield name, source[int(name.split("/")[1])][self.image]


def _import():
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError(
            "tfds:NAME needs tensorflow-datasets; install it: pip install 'anigan_jax[tfds]'"
        ) from None
    return tensorflow_datasets


def _open(name: str):
    """(the module, a read-only builder) of 'NAME', 'NAME/CONFIG:VERSION' or a folder."""
    tfds = _import()
    try:
        folder = environment.expanded(name)
        if (folder / "dataset_info.json").is_file():
            return tfds, tfds.builder_from_directory(str(folder))
        return tfds, tfds.builder(name, try_gcs=False)
    except Exception as error:
        # TFDS raises its own, ImportError, ValueError, ... for a name it cannot build.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"tfds:{name} cannot be opened: {first}. Give the name of a data set that is "
            "prepared under TFDS_DATA_DIR, or the folder that holds its dataset_info.json"
        ) from None


def _ready(name: str):
    tfds, builder = _open(name)
    if not builder.info.splits:
        raise UserError(
            f"tfds:{name} is not prepared in {builder.data_dir}; prepare it first: "
            f"tfds.builder({name!r}, file_format='array_record').download_and_prepare()"
        )
    if (kind := _format(builder)) not in FORMATS:
        raise UserError(
            f"tfds:{name} is stored as {kind}, not {' or '.join(FORMATS)}: prepare it again "
            "with file_format='array_record'"
        )
    images = [k for k, f in builder.info.features.items() if isinstance(f, tfds.features.Image)]
    if not images:
        raise UserError(
            f"tfds:{name} has no image among its features {list(builder.info.features)}"
        )
    return tfds, builder, images[0]


def _format(builder) -> str:
    kind = builder.info.file_format
    return kind.value if kind else "unknown"


def _source(tfds, builder, split: str, image: str):
    """The examples of a split by index, their images undecoded."""
    skip = {image: tfds.decode.SkipDecoding()}
    if _format(builder) == TFRECORD:
        # TFDS reads these by TensorFlow alone; what is in a record needs none.
        parse = functools.partial(builder.info.features.deserialize_example_np, decoders=skip)
        return tfrecord.Records(builder.info.splits[split].filepaths, parse)
    return builder.as_data_source(split, decoders=skip)


def survey(name: str, domain: str, options: tables.Options) -> Catalogue:
    """The images of every split; splits other than 'train...' are held out.

    Labels come from features 'hair' and 'eyes' (class labels of colors), or from a text
    feature 'tags' ("aqua hair blue eyes, glasses"). Splits trainA, trainB, testA and testB are
    domains.

    Args:
      options: its attributes are class labels, and features that are true or false, by the name
        of their feature, instead of these; or what there is in 'tags'.

    Raises:
      UserError: it names a file of labels or boxes, which such a data set has not.
    """
    if options.boxes or options.tags not in ("", "none"):
        raise UserError(
            f"tfds:{name} is read with its own labels and without boxes: leave --tags FILE and "
            "--boxes out (--tags none reads no labels)"
        )
    wanted, none = options.attributes, options.tags == "none"
    if none and wanted:
        raise UserError(f"--tags none reads no labels, so there is no attribute {wanted[0]!r}")
    tfds, builder, image = _ready(name)
    items, findings, features = [], [], builder.info.features
    columns = _columns(tfds, features)
    own = "tags" in features and not set(wanted) & set(columns)
    texts = Rows() if own and not none else None
    known = () if own or none else _attributes(columns, wanted, name)
    splits = list(builder.info.splits)
    # One alone, or those of a set that names none for training, are no split.
    drawn = splits == ["train"] or not any(split.startswith("train") for split in splits)
    for split in splits:
        source = _source(tfds, builder, split, image)
        sides = {"trainA": "A", "testA": "A", "trainB": "B", "testB": "B"}
        side = domain or sides.get(split, "")
        held = None if drawn else not split.startswith("train")
        for index in range(len(source)):
            member = f"{split}/{index:08d}"
            where = f"{domain}/{member}" if domain else member
            label: Label = _of_classes(columns, known, source[index]) if known else {}
            if len(label) < len(known):
                findings.append(Finding(where, "unlabeled", attributes.say(known, label)))
            if texts is not None:
                texts.append((member, _of_text(source[index])))
            items.append(Item(where, member, 0, side, held, label))
    if texts is not None:
        told = tables.Told("the feature 'tags'", texts, set(), [], certain=True)
        items, known = tables.attach(items, told, options, findings)
    return Catalogue(items, findings, [Store(str(builder.data_dir), image)], known)


class Column(NamedTuple):
    """A feature that says a class: where it is in a record, and itself."""

    path: tuple[str, ...]
    feature: Any
    flag: bool


def _columns(tfds, features) -> dict[str, Column]:
    """Name -> class labels, and what is true or false, of the record and one level below."""
    found = {}
    for key, feature in features.items():
        inner = feature.items() if isinstance(feature, tfds.features.FeaturesDict) else ()
        for path, one in [((key,), feature), *(((key, name), below) for name, below in inner)]:
            flag = getattr(one, "np_dtype", None) == np.bool_ and one.shape == ()
            if flag or isinstance(one, tfds.features.ClassLabel):
                found.setdefault(plain(path[-1]), Column(path, one, flag))
    return found


def _attributes(columns: dict[str, Column], wanted: tuple[str, ...], name: str) -> Attributes:
    """The classes that are wanted; () asks for hair and eyes where they are."""
    if unknown := [one for one in wanted if one not in columns]:
        listed = ", ".join(sorted(columns)) or "none"
        raise UserError(f"tfds:{name} has no class label {unknown[0]!r}; it has {listed}")
    if not wanted and not set(PARTS) <= set(columns):
        return ()

    def attribute(name: str) -> Attribute:
        column = columns[name]
        if column.flag:
            return attributes.tag(name)
        return Attribute(name, tuple(c for c in column.feature.names if c != "unknown"))

    found = tuple(map(attribute, wanted or PARTS))
    usual = dict(DEFAULT)
    if all(set(a.classes) <= set(usual.get(a.name, ())) for a in found):
        return tuple(Attribute(a.name, usual[a.name]) for a in found)
    return found


def _of_text(record: dict) -> Row:
    text = record["tags"]
    return Row(text.decode(errors="replace") if isinstance(text, bytes) else str(text))


def _of_classes(columns: dict[str, Column], known: Attributes, record: dict) -> Label:
    said: dict[str, str] = {}
    for one in known:
        path, feature, flag = columns[one.name]
        value = int(functools.reduce(lambda at, key: at[key], path, record))
        if flag:
            said[one.name] = one.classes[value]
        elif value >= 0 and (word := feature.int2str(value)) in one.classes:
            said[one.name] = word
    return said


def digest(name: str) -> str:
    """SHA-256 over the undecoded images of a data set: file bytes differ between preparations."""
    tfds, builder, image = _ready(name)
    found = hashlib.sha256()
    for split in sorted(builder.info.splits):
        source = _source(tfds, builder, split, image)
        for index in range(len(source)):
            record = source[index]
            found.update(f"{split}/{index}\0".encode())
            found.update(hashlib.sha256(record[image]).digest())
            found.update(repr([(k, record[k]) for k in sorted(record) if k != image]).encode())
    return found.hexdigest()
