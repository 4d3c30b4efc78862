"""`anigan compile`: what a compiled step does, counted from its text, for devices not at hand."""

import functools
import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec
from tiny import JUDGE, anigan, write_config

from anigan_jax import config_file
from anigan_jax.bench import batches, compiled, hlo
from anigan_jax.errors import UserError

# A loop of three steps, as a GPU's compiler prints it: a convolution, a product, a fused and a
# plain copy, a reduction, an all-reduce; around it one fusion and a change of the layout.
GPU = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused_reduce (p: f32[8,4]) -> f32[8] {
  %p = f32[8,4]{1,0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %r = f32[8]{0} reduce(%p, %zero), dimensions={1}, to_apply=%add
}

%fused_move (p: f32[8,4]) -> f32[4,8] {
  %p = f32[8,4]{1,0} parameter(0)
  ROOT %t = f32[4,8]{1,0} transpose(%p), dimensions={1,0}
}

%body (s: (s32[], f32[8,4], bf16[2,8,8,4])) -> (s32[], f32[8,4], bf16[2,8,8,4]) {
  %s = (s32[], f32[8,4]{1,0}, /*index=2*/bf16[2,8,8,4]{3,2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %w = f32[8,4]{1,0} get-tuple-element(%s), index=1
  %x = bf16[2,8,8,4]{3,2,1,0} get-tuple-element(%s), index=2
  %conv = (bf16[2,4,4,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), window={size=4x4 stride=2x2}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %gemm = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%w, %w), \
custom_call_target="__cublas$lt$matmul"
  %plain = f32[8,4]{1,0} copy(%w)
  %moved = f32[4,8]{1,0} fusion(%w), kind=kLoop, calls=%fused_move
  %reduced = f32[8]{0} fusion(%w), kind=kInput, calls=%fused_reduce
  %summed = (f32[8]{0}, bf16[2,8,8,4]{3,2,1,0}) all-reduce-start(%reduced, %x), to_apply=%add
  %done = (f32[8]{0}, bf16[2,8,8,4]{3,2,1,0}) all-reduce-done(%summed)
  ROOT %out = (s32[], f32[8,4]{1,0}, bf16[2,8,8,4]{3,2,1,0}) tuple(%i, %w, %x)
}

%cond (s: (s32[], f32[8,4], bf16[2,8,8,4])) -> pred[] {
  %s = (s32[], f32[8,4]{1,0}, bf16[2,8,8,4]{3,2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(3)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (w: f32[8,4], x: bf16[2,8,8,4]) -> f32[8,4] {
  %w = f32[8,4]{1,0} parameter(0)
  %x = bf16[2,8,8,4]{3,2,1,0} parameter(1)
  %zero = s32[] constant(0)
  %other = f32[8,4]{0,1} copy(%w)
  %first = f32[8]{0} fusion(%w), kind=kInput, calls=%fused_reduce
  %begin = (s32[], f32[8,4]{1,0}, bf16[2,8,8,4]{3,2,1,0}) tuple(%zero, %w, %x)
  %loop = (s32[], f32[8,4]{1,0}, bf16[2,8,8,4]{3,2,1,0}) while(%begin), condition=%cond, \
body=%body, backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"0"}}
  ROOT %last = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_a_gpu_step_is_counted_kernel_by_kernel():
    found = hlo.counts(GPU, 3)
    want = {"fusions": 1, "reductions": 1, "library_calls": 2, "copies": 2, "layout_changes": 1}
    want |= {"convolutions": 1, "products": 1, "kernels": 5, "others": 0, "unknown_loops": 0}
    assert {name: found[name] for name in want} == want
    # Of f32[8] and bf16[2,8,8,4], which go in; a '-done' is no second one.
    assert found["collectives"] == {"all-reduce": {"count": 1, "bytes": 32 + 1024}}
    assert found["outside"] == 2


def test_two_steps_in_one_round_of_the_loop_are_halved():
    twice = GPU.replace('"n":"3"', '"n":"1"').replace(
        "  %plain = f32[8,4]{1,0} copy(%w)\n",
        "  %plain = f32[8,4]{1,0} copy(%w)\n  %more = f32[8,4]{1,0} copy(%w)\n",
    )
    assert hlo.counts(twice, 1)["copies"] == 4  # one dispatch, one step: all there is
    assert hlo.counts(twice, 3)["copies"] == 1  # three copies in a round of three steps


def test_what_a_tpu_prints():
    """Tiled layouts, products as convolutions over nothing, a scalar core, prefetches."""
    text = """HloModule m

%fused (a: bf16[16,64], b: bf16[64,32]) -> bf16[16,32] {
  %a = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[64,32]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %c = bf16[16,32]{1,0:T(8,128)(2,1)} convolution(%a, %b), dim_labels=bf_io->bf
}

ENTRY %main (a: bf16[16,64], b: bf16[64,32], n: u32[1]) -> bf16[16,32] {
  %a = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[64,32]{1,0:T(8,128)(2,1)} parameter(1)
  %n = u32[1]{0:T(128)} parameter(2)
  %m = u32[1]{0:T(128)S(6)} add(%n, %n)
  %space = bf16[8]{0} custom-call(), custom_call_target="AllocateBuffer"
  %go = (bf16[64,32]{1,0:T(8,128)(2,1)S(1)}, bf16[64,32]{1,0}, u32[]{:S(2)}) copy-start(%b)
  %got = bf16[64,32]{1,0:T(8,128)(2,1)S(1)} copy-done(%go)
  %x = bf16[16,8,8,4]{3,2,1,0:T(8,128)(2,1)} convolution(%a, %b), window={size=3x3}, \
dim_labels=b01f_01io->b01f
  ROOT %f = bf16[16,32]{1,0:T(8,128)(2,1)} fusion(%a, %got), kind=kOutput, calls=%fused
}
"""
    found = hlo.counts(text, 1)
    assert (found["convolutions"], found["products"], found["scalars"]) == (1, 1, 1)
    assert (found["fusions"], found["library_calls"], found["prefetches"]) == (1, 1, 1)
    assert found["kernels"] == 2 and not found["copies"]


def test_branches_calls_and_loops_within():
    text = """HloModule m

%long (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %y = f32[4]{0} copy(%x)
  ROOT %z = f32[4]{0} copy(%y)
}

%short (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %y = f32[4]{0} add(%x, %x)
}

ENTRY %main (i: s32[], x: f32[4]) -> f32[4] {
  %i = s32[] parameter(0)
  %x = f32[4]{0} parameter(1)
  %c = f32[4]{0} conditional(%i, %x, %x), branch_computations={%short, %long}
  %d = f32[4]{0} call(%c), to_apply=%short
  %w = f32[4]{0} while(%d), condition=%short, body=%long, \
backend_config={"known_trip_count":{"n":"5"}}
  ROOT %v = f32[4]{0} while(%w), condition=%short, body=%long
}
"""
    found = hlo.counts(text, 1)
    assert (found["copies"], found["others"], found["unknown_loops"]) == (2 + 10 + 2, 1, 1)


@pytest.mark.parametrize(
    ("shape", "bytes_of_it"),
    [
        ("f32[8,4]{1,0}", 128),
        ("(bf16[2,3]{1,0:T(8,128)(2,1)}, pred[5]{0}, /*index=2*/u32[])", 21),
        ("s4[3]{0}", 2),
        ("token[]", 0),
        ("f8e4m3fn[7]{0}", 7),
    ],
)
def test_bytes_of_shapes(shape, bytes_of_it):
    assert hlo.size(shape) == bytes_of_it


def test_a_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("HloModule empty\n")


def program(devices: int, steps: int):
    """A loop of one convolution, one product and, over devices, one sum of 4 x 4 float32."""
    mesh = jax.make_mesh((devices,), ("i",), devices=jax.devices()[:devices])

    def step(carry, _):
        x, w = carry
        y = jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        dense = jnp.einsum("bhwc,bhwd->cd", y, x)
        if devices > 1:
            dense = jax.lax.psum(dense, "i")
        return (y, w + dense), None

    def run(x, w):
        return jax.lax.scan(step, (x, w), length=steps)[0]

    mapped = jax.shard_map(
        run, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )
    shapes = jax.ShapeDtypeStruct((2, 8, 8, 4), "float32"), jax.ShapeDtypeStruct((3, 3, 4, 4), "f4")
    return jax.jit(mapped).lower(*shapes).compile().as_text()


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_real_program_has_what_was_written(devices, steps):
    found = hlo.counts(program(devices, steps), steps)
    assert (found["convolutions"], found["products"], found["unknown_loops"]) == (1, 1, 0)
    sums = {"all-reduce": {"count": 1, "bytes": 64}} if devices > 1 else {}
    assert found["collectives"] == sums


FORM = ("convolutions", "products", "fusions")


@functools.cache
def judged(name: str, platform: str = "cpu") -> dict:
    """The report of a tiny classifier; its convolutions in the form of a platform."""
    target = compiled.target(name)._replace(platform=platform)
    (phase,) = compiled.report(JUDGE, target)["phases"]
    return phase


@pytest.fixture
def as_cuda(monkeypatch):
    """What a step for GPUs is, compiled for the CPU that is here."""
    here = compiled.described
    monkeypatch.setattr(compiled, "described", lambda t: here(t._replace(platform="cpu")))
    monkeypatch.setattr(compiled, "OPTIONS", {})


@pytest.mark.long
def test_convolutions_take_the_form_of_the_target(as_cuda):
    """Two convolutions, forward, gradients of weights and of inputs; the images need none.

    Products are those of the dense layer, two of the augmentation, and sums over the batch, which
    XLA's CPU backend computes so.
    """
    found, here = judged("cpu", "cuda"), judged("cpu")
    assert found["convolutions"] == 2 + 2 + 1
    assert found["products"] >= 3 + 2
    assert [here[name] for name in FORM] != [found[name] for name in FORM]


@pytest.mark.long
def test_devices_sum_what_they_must():
    alone, two = judged("cpu"), judged("cpu:2")
    assert not alone["collectives"]
    held = two["collectives"]["all-reduce"]
    parameters = 3_699
    # Gradients, and statistics of a norm with their gradients: 8 channels.
    assert 4 * parameters <= held["bytes"] <= 4 * (parameters + 200)
    assert two["convolutions"] == alone["convolutions"]
    # Half of the batch each, and all of the state.
    assert two["memory"]["temporaries"] < alone["memory"]["temporaries"]
    state = 4 * 3 * parameters
    images = JUDGE.data.count * 16 * 16 * 3
    assert state + 0.5 * images < alone["memory"]["arguments"] < state + images + 10_000


@pytest.mark.long
def test_the_verb(verb, tmp_path):
    config = write_config(tmp_path, "JUDGE")
    file = tmp_path / "deep" / "step.txt"
    code, out, err = verb("compile", config, "--for", "cpu", "--json", "--hlo", file)
    assert code == 0, err
    found = json.loads(out)
    asked = {"target": "cpu", "devices": 1, "batch": 8, "images": 60, "confirmed": False}
    assert asked.items() <= found.items()
    (phase,) = found["phases"]
    assert phase["flops"] > 0 and phase["kernels"] > 20 and "text" not in phase
    again = hlo.counts(file.read_text(), found["steps_per_dispatch"])
    assert again["kernels"] == phase["kernels"]
    code, out, err = verb("compile", config, "--for", "cpu", "--batch", "8")
    assert code == 0 and "compiling phase 1 of 1" in err
    for told in ("batch 8", "convolutions", "of the layers", "about", "share of this machine's"):
        assert told in out


def test_a_compiler_that_refuses_is_quoted(verb, tmp_path, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.\n  Used 20.1G of 15.75G."
        )

    monkeypatch.setattr(compiled, "compile_step", full)
    config = write_config(tmp_path, "JUDGE")
    code, out, _ = verb("compile", config, "--for", "cpu")
    assert code == 1
    assert "resource exhausted: Ran out of memory in memory space hbm. Used 20.1G" in out
    assert "--largest" in out
    code, out, _ = verb("compile", config, "--for", "cpu", "--largest")
    assert code == 1 and "Largest batch that fits: 0" in out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--for", "v9:2x2"), "v5e:2x2"),
        (("--for", "v5e:2"), "not a target"),
        (("--for", "cpu:0"), "not a target"),
        (("--for", "cpu:3"), "not a multiple of 3"),
        (("--for", "cpu", "--batch", "0"), "--batch"),
        (("--for", "cpu", "--dtype", "bfloat16"), "float32 only"),
        ((), "--for"),
    ],
)
def test_mistakes_are_told(verb, tmp_path, args, told):
    code, out, err = verb("compile", write_config(tmp_path, "JUDGE"), *args)
    assert code == 2 and told in out + err


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x2", "tpu"), ("h200", "cuda")])
def test_an_absent_compiler_is_one_sentence(monkeypatch, name, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=re.escape(f"pip install 'anigan_jax[{extra}]'")):
        compiled.target(name)


def linear(fixed: int, each: int, limit: int):
    """Bytes by batch, as a compiler that refuses above a limit tells; and what was tried."""
    tried = []

    def peak(batch: int) -> int | None:
        tried.append(batch)
        need = fixed + each * batch
        return need if need <= limit else None

    return peak, tried


@pytest.mark.parametrize("first", [8, 640, 100_000])
@pytest.mark.parametrize("limit", [10**9, 10**5], ids=["tells", "refuses"])
def test_the_largest_batch_is_one_that_was_compiled(first, limit):
    usable = 100_000
    peak, tried = linear(20_000, 100, limit)
    found = batches.largest(peak, first, usable, 8)
    assert len(tried) <= batches.TRIES
    assert found == 0 or found in tried
    assert found <= 800
    if limit == 10**9 or first == 640:
        assert found >= 0.95 * 800


def test_the_largest_batch_is_no_smaller_than_one_that_has_compiled():
    """The compiler refuses what lies between: the batch that was asked for stays."""
    refusing, tried = linear(20_000, 100, 10**4)
    assert batches.largest(refusing, 4_000, 100_000, 8, (512, 71_200)) == 512
    assert tried
    # One that did not fit tells no more than that.
    peak, _ = linear(20_000, 100, 10**9)
    assert batches.largest(peak, 4_000, 100_000, 8, (2_000, 220_000)) >= 0.95 * 800


def test_nothing_fits():
    peak, _ = linear(10**6, 1, 10**9)
    assert batches.largest(peak, 64, 10**5, 8) == 0


def test_the_estimate_leaves_what_does_not_grow():
    held = {"arguments": 300, "temporaries": 400, "peak": 700}
    assert batches.estimate(held, 64, 1100, 8) == 128
    assert batches.estimate(held, 64, 200, 8) == 0


def test_where_few_images_fit_each_device_has_at_least_one():
    """`ref_cyclegan`, 4 images on four chips of 16 GB, half of which they fill."""
    held = {"arguments": 4_350_901_248, "temporaries": 3_487_843_328, "peak": 8_014_555_136}
    assert batches.estimate(held, 4, 16_911_433_728, 4) == 12
    # A batch that all but fills the device is the largest; one that is too large is none.
    full = {"arguments": 500, "temporaries": 400, "peak": 950}
    assert batches.estimate(full, 4, 951, 4) == 4
    assert batches.estimate(full, 4, 949, 4) == 0
    peak, _ = linear(600, 100, 10**9)
    assert batches.largest(peak, 12, 1_900, batches.multiple_of(12, 4)) == 12
    assert batches.multiple_of(32, 4) == 32


def installed(*modules: str) -> bool:
    try:
        return any(importlib.util.find_spec(module) for module in modules)
    except ModuleNotFoundError:
        return False


TPU = pytest.mark.skipif(not installed("libtpu"), reason="pip install 'anigan_jax[tpu]'")
CUDA = pytest.mark.skipif(
    not installed("jax_plugins.xla_cuda13"), reason="pip install 'anigan_jax[cuda]'"
)
TARGETS = [pytest.param("v5e:2x2", marks=TPU), pytest.param("h200", marks=CUDA)]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_a_tiny_step_for_devices_that_are_not_here(tmp_path, target):
    """In a process of its own: a compiler is loaded once and never let go."""
    done = anigan("compile", write_config(tmp_path, "JUDGE"), "--for", target, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (phase,) = found["phases"]
    assert phase["convolutions"] == 5 and phase["products"] >= 5
    assert ("all-reduce" in phase["collectives"]) == (found["devices"] == 4)
    assert np.isfinite(phase["memory"]["peak"])


# Their papers' batches of 256 want more than four chips of 16 GB have.
FITS = {"ref_r3gan_ffhq64": 64, "ref_r3gan_ffhq256": 4}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("target", [*TARGETS, pytest.param("v5p:2x2x1", marks=TPU)])
@pytest.mark.parametrize("name", tiny.NAMES)
def test_every_config_compiles(tmp_path, name, target):
    """At full width: minutes each; with an image for each device where the config has fewer."""
    batch = FITS.get(name, max(config_file.load(name).batch_size, 4))
    words = ("--for", target, "--batch", batch, "--json")
    out = anigan("compile", name, *words, timeout=3_000)
    assert out.returncode == 0, out.stdout + out.stderr
