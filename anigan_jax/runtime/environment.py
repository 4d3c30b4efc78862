"""What exact bits depend on: flags, threads, versions; and memory. No JAX at import."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib.metadata
import math
import os
import platform as host
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from anigan_jax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
# What keeps freed memory with a process: variables of glibc, and their numbers for mallopt.
RETAINING = {
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_THRESHOLD_": (-3, 2**31 - 1),
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),
}
# JAX's own switches that the bits of a run rest on: with the first off, a seed draws other latents;
# with the second on, arrays are float64 where runs keep float32.
SWITCHES = {"jax_threefry_partitionable": True, "jax_enable_x64": False}
PLATFORMS = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}
# Extra -> packages of which one is there where it was installed.
PLUGINS = {"cuda": ("jax-cuda13-plugin", "jax-cuda12-plugin"), "tpu": ("libtpu",)}
# Variables that say which GPUs a process or container may use, and that a TPU's machine has.
GPU_LISTS = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
TPU_VM = ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID")
# Of a container: microseconds of CPU in so many, or 'max'.
QUOTA = Path("/sys/fs/cgroup/cpu.max")
HOME = Path(__file__).resolve().parent.parent


def cache_home() -> Path:
    """Where caches are kept: $XDG_CACHE_HOME/anigan_jax or ~/.cache/anigan_jax."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "anigan_jax"
    try:
        return Path.home() / ".cache" / "anigan_jax"
    except RuntimeError:
        raise UserError(
            "there is no home directory; set XDG_CACHE_HOME to a folder for caches"
        ) from None


def cores() -> int:
    """CPU cores that this process may use: of its affinity, within its container's quota."""
    found = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    )
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(found, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        # Another system, or 'max': no quota.
        return found


def expanded(path: str | Path) -> Path:
    """The path with the home directory for '~', where there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def config_folder() -> Path:
    """The project's own configs: in the package where it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


# Flags that the last call of `prepare` has set for GPUs.
_KERNELS: set[str] = set()


def prepare(
    platform: str = "auto",
    devices: int = 0,
    threads: str | None = None,
    algorithms: Path | None = None,
) -> None:
    """Sets the environment; must run before JAX starts its backend.

    Args:
      platform: 'auto', 'cpu', 'gpu' or 'tpu'.
      devices: devices wanted; on 'cpu' more than one are simulated.
      threads: NPROC of the run that is resumed, so that another machine's core count
        does not change the bits.
      algorithms: a file for the library's algorithms that XLA chose on a GPU, and takes again from
        there; then they may add in an order of their own. None: deterministic ones.
    """
    flags = [f"--xla_gpu_deterministic_ops={str(algorithms is None).lower()}"]
    if algorithms is not None:
        kept = algorithms.resolve()
        flags.append(f"--xla_gpu_dump_autotune_results_to={kept}")
        flags += [f"--xla_gpu_load_autotune_results_from={kept}"] if kept.exists() else []
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        # jaxlib 0.10.2 silently miscompiles fused matrix-vector products on CPU
        # (jax issue 39103); an empty fusion type switches the faulty pass off.
        flags.append("--xla_cpu_experimental_ynn_fusion_type=")
    if platform == "cpu" and devices > 1:
        flags.append(f"--xla_force_host_platform_device_count={devices}")
    # What another call has set for its run alone is not this one's; what both want stays in place.
    own = {flag for flag in flags if flag.startswith("--xla_gpu_")}
    stale = _KERNELS - own
    present = " ".join(f for f in os.environ.get("XLA_FLAGS", "").split() if f not in stale)
    new = [flag for flag in flags if flag.split("=")[0] not in present]
    os.environ["XLA_FLAGS"] = " ".join([present, *new]).strip()
    _KERNELS.intersection_update(own)
    _KERNELS.update(own.intersection(new))
    # XLA's CPU client deadlocks when simulated devices outnumber its threads.
    least = max(16, devices) if devices > 1 else 1
    chosen = int(threads) if threads else (cores() if devices <= 1 else least)
    given = os.environ.get("NPROC", "")
    if not given.isdecimal():
        os.environ["NPROC"] = str(max(chosen, least))
    elif platform == "cpu":
        os.environ["NPROC"] = str(max(int(given), least))
    if platform != "auto":
        os.environ["JAX_PLATFORMS"] = PLATFORMS[platform]
    jax = sys.modules.get("jax")
    unsaid = os.environ.get("JAX_ENABLE_X64", "").lower() in ("", "0", "false", "off")
    if jax and jax.config.jax_enable_x64 and unsaid:
        raise UserError(
            "64-bit numbers are switched on in this process (jax_enable_x64), but runs need 32-bit "
            "ones: call jax.config.update('jax_enable_x64', False) first, or use another process"
        )
    folder = cache_home() / f"xla-{host.machine()}-{host.node()}"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ |= {name.upper(): str(int(on)) for name, on in SWITCHES.items()}
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    if jax:
        # It read the environment when this package, or a config, imported it.
        for name, on in SWITCHES.items():
            jax.config.update(name, on)
        for name in ("jax_platforms", "jax_compilation_cache_dir"):
            if value := os.environ.get(name.upper()):
                jax.config.update(name, value)
        least = os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]
        jax.config.update("jax_persistent_cache_min_compile_time_secs", float(least))


def retain_host_memory() -> None:
    """Has glibc keep freed memory in one heap for the next dispatch; elsewhere does nothing.

    XLA's CPU client allocates its buffers anew in each dispatch, and glibc would return them to
    the system each time. Three strided convolutions with gradients, batch 64, 2 cores: 45,000
    page faults a step become 400, and 0.48 s of CPU time 0.39 (with large pages: 0.44).
    A choice of the user's own stays.
    """
    chosen = any(name in os.environ for name in RETAINING)
    chosen |= "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or host.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in RETAINING.values():
        # Before 2.35 glibc refuses so large a threshold. What comes after it would then turn off
        # the threshold that grows by itself, which is worse than nothing.
        if not mallopt(parameter, value):
            return


def release_host_memory() -> None:
    """Gives back to the system what compiling took: hundreds of MB that a run never needs."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def compile_anew() -> None:
    """Neither reads nor writes compiled programs on disk, for what this process compiles next.

    Of a program for several processes on CPUs that is read from there, collectives that do not
    depend on one another start in any order (seen with jaxlib 0.10.2); Gloo, which tells them
    apart by their order alone, then gives one the other's data: wrong sums, or no end.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_enable_compilation_cache", False)
    # JAX decided at its first compilation.
    compilation_cache.reset_cache()


def start(platform: str = "auto") -> None:
    """Starts the backend and tests it.

    Args:
      platform: that is wanted, where one is.

    Raises:
      UserError: the platform is not available, or computes wrong numbers; or this process has
        started JAX on another one.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        # JAX asserts, without a word, where the platform's plugin is not installed.
        wanted = os.environ.get("JAX_PLATFORMS", "auto")
        reason = str(error) or "its plugin is not installed (pip install jax[cuda13])"
        raise UserError(f"platform {wanted!r} is not available here: {reason}") from None
    if platform not in ("auto", found := jax.default_backend()):
        raise UserError(
            f"run.platform is {platform!r}, and JAX has started on {found!r} in this process, "
            "which cannot change; train in another process"
        )
    self_test()


def unused_accelerator(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """What to do where this machine has an accelerator that JAX does not use; '' elsewhere."""
    import jax

    # Whoever names a platform means it.
    if jax.default_backend() != "cpu" or environ.get("JAX_PLATFORMS"):
        return ""
    for name, extra in accelerators(root, environ).items():
        if any(map(_installed, PLUGINS[extra])):
            reason = f"although its plugin is installed; JAX_PLATFORMS={PLATFORMS[name]} says why"
        else:
            reason = f"as only JAX for CPUs is installed: pip install 'anigan_jax[{extra}]'"
        return (
            f"this machine has a {name.upper()} that JAX does not use, {reason} "
            "(--run.platform cpu silences this)"
        )
    return ""


def accelerators(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Accelerators that a machine shows to this process: 'gpu' or 'tpu' -> the extra for it.

    Args:
      root: of the file system that is asked.
      environ: the environment; an empty list of visible GPUs hides them all.
    """
    found = {}
    hidden = any(environ.get(name) in ("", "-1", "none", "void") for name in GPU_LISTS)
    gpus = (*root.glob("dev/nvidia[0-9]*"), *root.glob("proc/driver/nvidia/gpus/*"))
    if gpus and not hidden:
        found["gpu"] = "cuda"
    # A network card of Google's cloud has its vendor's number too, but is not handed to programs.
    vendors = root.glob("sys/bus/pci/devices/*/vendor")
    handed = any(root.glob("dev/vfio/[0-9]*")) and any(map(_is_google, vendors))
    if handed or any(root.glob("dev/accel[0-9]*")) or any(environ.get(n) for n in TPU_VM):
        found["tpu"] = "tpu"
    return found


def _is_google(vendor: Path) -> bool:
    with contextlib.suppress(OSError):
        return vendor.read_text().strip() == "0x1ae0"
    return False


def _installed(package: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(package))
    return False


def self_test() -> None:
    """Compares compiled sums of squares of odd length with NumPy (jax issue 39103)."""
    import jax
    import numpy as np

    rows = np.linspace(0.5, 1.5, 3 * 1025, dtype=np.float32).reshape(3, 1025)
    matrix = np.ones((5, 1025), np.float32)
    computed = jax.jit(jax.vmap(lambda row: ((matrix @ row) ** 2).sum()))(rows)
    expected = ((rows.astype(np.float64) @ matrix.T.astype(np.float64)) ** 2).sum(1)
    if not np.allclose(computed, expected, rtol=1e-3):
        raise UserError(
            f"this jaxlib computes wrong numbers here ({computed}, expected {expected}); "
            "install another version"
        )


@functools.cache
def sources() -> str:
    """SHA-256 of this package's own code, as it was when it was first asked for."""
    total = hashlib.sha256()
    for path in sorted(HOME.rglob("*.py")):
        total.update(path.relative_to(HOME).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


@functools.cache
def revision() -> str:
    """The commit of the checkout that holds this package, with '+' where files differ from it.

    '' where it was installed from a wheel.
    """
    root = HOME.parent
    if not (root / ".git").exists():
        return ""
    # Variables of a commit hook would point at another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    words = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [*words, "--exclude=*"], env=env, capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip()
    return ""


def flags() -> dict[str, tuple[str, str]]:
    """XLA flags that the environment names -> (value there, value in force).

    XLA reads the environment once, when JAX starts; what it does not say is '' here.
    """
    # No public name of JAX tells what XLA has read.
    from jax._src import compiler

    found: dict[str, list[str]] = {}
    options = compiler.get_compile_options(1, 1)
    # It owns the memory of what is read below.
    build = options.executable_build_options
    for line in repr(build.debug_options).splitlines():
        name, _, value = line.replace(" {", ": {}").partition(":")
        found.setdefault(name, []).append(value.strip().strip('"'))
    words = os.environ.get("XLA_FLAGS", "").split()
    named = [word.removeprefix("--").partition("=") for word in words]
    return {
        name: (value if equals else "true", ",".join(found.get(name, [])))
        for name, equals, value in named
    }


def late_flags() -> list[str]:
    """'--name=value' of XLA flags that were set after JAX had started, and are not in force."""

    def plain(value: str) -> str | float:
        value = {"": "0", "false": "0", "true": "1"}.get(value.lower(), value)
        try:
            return float(value)
        except ValueError:
            return value

    return [
        f"--{name}={wanted}"
        for name, (wanted, now) in flags().items()
        # Lists of names, and tables, are written otherwise than they are read.
        if plain(wanted) != plain(now) and not (wanted and (now.isupper() or "{" in now))
    ]


def facts() -> dict:
    """Versions, devices, threads, flags in force and source of this process; JAX has started."""
    import jax

    devices = jax.devices()
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "NPROC": os.environ.get("NPROC", ""),
        # Where a run lies changes no bit.
        "XLA_FLAGS": " ".join(
            f"--{name}={now}"
            for name, (_, now) in flags().items()
            if "autotune_results" not in name
        ),
        "source_sha256": sources(),
        "git": revision(),
    }
