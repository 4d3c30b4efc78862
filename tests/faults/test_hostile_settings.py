"""Rows 19 to 21: weights that are programs or lies, settings that cannot be meant."""

import json
import os
import pickle  # noqa: TID251
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from foreign import Payload
from sources import faces, write
from tiny import FULL, process_env, write_config

from anigan_jax import config_file
from anigan_jax.data import dataset
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.storage import safetensors as weights


@pytest.mark.fault(19)
@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x"])
def test_a_pickle_where_safetensors_are_read(tmp_path, name):
    mark, path = tmp_path / "mark", tmp_path / name
    for protocol in range(6):
        path.write_bytes(pickle.dumps(Payload(os.system, f"touch {mark}"), protocol=protocol))
        for read in (weights.read, weights.metadata):
            with pytest.raises(UserError, match="no readable weights"):
                read(path)
    pickle.loads(path.read_bytes())  # noqa: S301
    assert mark.exists(), "the payload is a real one"


@pytest.mark.fault(19)
def test_a_pickle_within_an_array_of_a_pack(tmp_path):
    """A .npy of objects is a pickle."""
    mark = tmp_path / "mark"
    source = Images(write(tmp_path / "x", faces(3)), size=16, test=0)
    made, _ = dataset.import_to(
        source,
        tmp_path / "pack",
        workers=1,
        landmarks=lambda rows: np.zeros((len(rows), 68, 2)),
    )
    assert made.part("train", "landmarks").shape == (3, 68, 2)
    objects = np.array([Payload(os.system, f"touch {mark}")], dtype=object)
    np.save(made.path / "landmarks.npy", objects, allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        made.part("train", "landmarks")
    assert not mark.exists()


def safetensors(header, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(start: int, stop: int, shape=None, dtype: str = "F32") -> dict:
    shape = [(stop - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


HEADERS = {
    "nothing": b"",
    "half a length": b"\x10\0\0",
    "length of 2^63": safetensors({}, length=2**63),
    "length of all ones": safetensors({}, length=2**64 - 1),
    "length of a gigabyte": safetensors({}, length=2**30),
    "length beyond the file": safetensors({}, length=1000),
    "no JSON": safetensors(b"{" * 100),
    "no object": safetensors([1, 2]),
    "no UTF-8": safetensors(b'{"\xff": 1}'),
    "deep JSON": safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "2 * 10^5 keys": safetensors({f"key{i}": tensor(0, 0) for i in range(200_000)}),
    "overlap": safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)),
    "gap": safetensors({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)),
    "beyond the data": safetensors({"a": tensor(0, 400)}, bytes(4)),
    "backwards": safetensors({"a": tensor(8, 0, [2])}, bytes(8)),
    "negative": safetensors({"a": tensor(-8, 0)}, bytes(8)),
    "left over": safetensors({"a": tensor(0, 4)}, bytes(400)),
    "shape of another size": safetensors({"a": tensor(0, 8, [3])}, bytes(8)),
    "shape beyond 2^64": safetensors({"a": tensor(0, 8, [2**40, 2**40])}, bytes(8)),
    "negative shape": safetensors({"a": tensor(0, 8, [-2])}, bytes(8)),
    "no such type": safetensors({"a": tensor(0, 8, dtype="NaN")}, bytes(8)),
    "objects": safetensors({"a": tensor(0, 8, [1], "O")}, bytes(8)),
    "no offsets": safetensors({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "NaN offsets": safetensors(
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [NaN, 8]}}', bytes(8)
    ),
    "strange notes": safetensors({"__metadata__": {"anigan": 7}}),
}


@pytest.mark.fault(20)
@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers_are_refused_at_once(tmp_path, name):
    path = tmp_path / "x.safetensors"
    path.write_bytes(HEADERS[name])
    start = time.process_time()
    with pytest.raises(UserError, match="no readable weights"):
        weights.read(path)
    try:
        assert isinstance(weights.metadata(path), dict)
    except UserError as error:
        assert "no readable weights" in str(error)
    assert time.process_time() - start < 2


@pytest.mark.fault(20)
def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    """Sparse files of a terabyte: with a hostile header, and with a good one."""
    path = tmp_path / "x.safetensors"
    for head in (b"\xff" * 8, safetensors({"a": tensor(0, 2**40 - 200)})):
        with path.open("wb") as file:
            file.write(head)
            file.truncate(2**40)
        start = time.process_time()
        with pytest.raises(UserError, match="no readable weights"):
            weights.read(path)
        assert time.process_time() - start < 2


@pytest.mark.fault(20)
def test_good_weights_are_read(tmp_path):
    arrays = {"a": np.float32([1, 2]), "b": np.float32(3)}
    weights.write(arrays, tmp_path / "x", {"note": 1})
    assert weights.read(tmp_path / "x").keys() == arrays.keys()
    assert weights.metadata(tmp_path / "x") == {"note": 1}


TRAIN = ("train", "quickstart", "--workdir", "x")
REFUSED = {
    "preset": (("train", "quikstart", "--workdir", "x"), "Did you mean 'quickstart'"),
    "field": ((*TRAIN, "--run.stepz", "3"), "--run.steps"),
    "deep field": ((*TRAIN, "--method.generator.bas", "3"), "--method.generator.base-channels"),
    "type": ((*TRAIN, "--run.steps", "many"), "many"),
    "choice": ((*TRAIN, "--optimizers.g.name", "adm"), "adam"),
    "range": ((*TRAIN, "--batch-size", "0"), "batch_size is 0; it must be at least 1"),
    "decay": (
        (*TRAIN, "--optimizers.g.b1", "1"),
        "optimizers.g.b1 is 1.0; it must be at least 0 and below 1",
    ),
    "epsilon": (
        (*TRAIN, "--optimizers.d.epsilon", "0"),
        "optimizers.d.epsilon is 0.0; it must be above 0",
    ),
    "NaN": (
        (*TRAIN, "--optimizers.g.learning-rate", "nan"),
        "optimizers.g.learning_rate is nan; it must be a finite number",
    ),
    "infinite": (
        (*TRAIN, "--optimizers.d.learning-rate", "inf"),
        "optimizers.d.learning_rate is inf; it must be a finite number",
    ),
    "late": (
        (*TRAIN, "--optimizers.g.decay-start", "5000000000"),
        "optimizers.g.decay_start is 5000000000; it must be below 2**31",
    ),
    "half-life": ((*TRAIN, "--ema-half-life", "5000000000"), "must be below 2**31"),
    "NaN within": ((*TRAIN, "--data.test", "nan"), "data.test is nan"),
    "twice": ((*TRAIN, "--batch-size", "8", "--batch_size=16"), "--batch_size is given twice"),
    "yes and no": ((*TRAIN, "--flip", "--no-flip"), "--no-flip is given twice"),
    "workdir twice": ((*TRAIN, "--workdir", "y"), "--workdir is given twice"),
    "of import": (("check", "x", "--size", "8", "--size", "16"), "--size is given twice"),
}
IN_TIME = """
import contextlib, io, json, sys, time
from anigan_jax.cli import main as cli
found, start = {}, 0.0
for name, arguments in json.loads(sys.argv[1]).items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main(arguments)
        except SystemExit as stop:
            code = stop.code
    from jax._src import xla_bridge
    assert not xla_bridge._backends, f"JAX was started: {name}"
    found[name] = code, said.getvalue(), time.process_time() - start
    start = time.process_time()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """(name -> exit code, what was said, seconds of CPU time; the folder they ran in)."""
    folder = tmp_path_factory.mktemp("refused")
    words = json.dumps({name: arguments for name, (arguments, _) in REFUSED.items()})
    done = subprocess.run(
        [sys.executable, "-c", IN_TIME, words],
        capture_output=True,
        text=True,
        env={**process_env(), "COLUMNS": "200"},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


@pytest.mark.fault(21)
@pytest.mark.parametrize("name", REFUSED)
def test_settings_are_refused_before_jax_starts(refused, name):
    code, said, seconds = refused[0][name]
    assert code == 2, said
    assert REFUSED[name][1] in said
    assert "Traceback" not in said
    # Of CPU time, the first one's imports included: the tests share a machine.
    assert seconds < 6
    assert list(refused[1].iterdir()) == []


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("CONFIG = Config(\n", "line 2: SyntaxError"),
        ("CONFIG = Optimizer(gama=1)\n", "line 2: .*'gama'. Did you mean 'gamma'?"),
        ("a = 1\nCONFIG = nothing\n", "line 3: NameError"),
        ("import no_such_module\n", "line 2: .*no_such_module"),
        ("def make():\n    return 1 / 0\n\n\nCONFIG = make()\n", "line 3: ZeroDivisionError"),
        ("\x00", "null bytes"),
        ("CONFIG = 3\n", "no CONFIG"),
    ],
)
def test_a_faulty_config_file_is_told_by_its_line(tmp_path, text, told):
    path = tmp_path / "mine.py"
    path.write_text("from anigan_jax.config import Config, Optimizer\n" + text)
    with pytest.raises(UserError, match=told) as error:
        config_file.load(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.fault(21)
def test_a_config_file_with_a_byte_order_mark_is_the_same_config(tmp_path):
    path = write_config(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert config_file.load(str(path)) == FULL


@pytest.mark.fault(21)
def test_a_flag_given_once_is_no_repeat():
    config_file.refuse_repeats(
        [
            "x",
            "--optimizers.g.learning-rate",
            "-1",
            "--optimizers.d.learning-rate=--optimizers.g.learning-rate",
            "--no-flip",
            "--data.flip",
        ]
    )
