"""One run on a Ray cluster: `anigan train` beside each worker of Ray Train's JaxTrainer.

    python launch/ray_train.py [--workers 2] [--gpus 8] [--restarts 20] CONFIG --workdir RUN [...]

Needs the extra `ray` and this package on every node, the data at the same path there, and a RUN
that outlives a node. Ray places the workers, each with so many GPUs (0: CPUs alone), and starts all
again where the same command resumes. The training has a process of its own, as a worker's function
is no main thread: there a signal is not heard, and a lost process would end the worker. Ray's own
`jax.distributed` stays off, for the processes find each other by JAX_* variables.

The exit code is that of the run. With --workers 2 --gpus 0 it is tried on one machine.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys

# A disk, memory or another process failed, a process was killed, or the run was asked to stop and
# saved: docs/operations.md.
AGAIN = (4, 134, 137, 139, 143)


def address() -> str:
    """This node's, with a free port, as host:port."""
    import ray

    host = ray.util.get_node_ip_address()
    if ":" in host:
        with socket.create_server((host, 0), family=socket.AF_INET6) as free:
            return f"[{host}]:{free.getsockname()[1]}"
    with socket.create_server((host, 0)) as free:
        return f"{host}:{free.getsockname()[1]}"


def with_parent() -> None:
    """Has a process saved and ended where its worker is lost."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def worker(settings: dict) -> int:
    """What each worker of the trainer does; returns the exit code.

    Raises:
      RuntimeError: all are to start again.
    """
    from ray import train
    from ray.train import collective

    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    place = {
        "JAX_COORDINATOR_ADDRESS": collective.broadcast_from_rank_zero(
            address() if rank == 0 else None
        ),
        "JAX_NUM_PROCESSES": str(world),
        "JAX_PROCESS_ID": str(rank),
    }
    if settings["gpus"]:
        # Those that Ray shows it, whatever JAX finds out about a cluster around it.
        place["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(settings["gpus"])))
    # Ray may have been started without its environment's programs in PATH.
    anigan = ["anigan"] if shutil.which("anigan") else [sys.executable, "-m", "anigan_jax"]
    process = subprocess.Popen(
        [*anigan, "train", *settings["words"]],
        env=os.environ | place,
        stdin=subprocess.DEVNULL,
        preexec_fn=with_parent,
    )
    code = process.wait()
    code = code if code >= 0 else 128 - code
    # An error in one worker ends the others, of which the first may still be saving.
    collective.barrier()
    if code in AGAIN:
        raise RuntimeError(f"process {rank} ended with exit code {code}; the same command resumes")
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=int, default=8, help="of each worker; 0: CPUs alone")
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="CONFIG --workdir RUN [...]")
    given = parser.parse_args()
    if not given.words:
        parser.error("a config is missing")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxConfig, JaxTrainer

    if not any(word.startswith("--run.platform") for word in given.words):
        given.words += ["--run.platform", "gpu" if given.gpus else "cpu"]
    if not any(word.startswith("--run.devices") for word in given.words):
        given.words += ["--run.devices", str(given.workers * (given.gpus or 1))]
    resources = {"GPU": given.gpus} if given.gpus else {"CPU": 1}
    trainer = JaxTrainer(
        worker,
        train_loop_config={"words": given.words, "gpus": given.gpus},
        jax_config=JaxConfig(),
        scaling_config=ScalingConfig(
            num_workers=given.workers, use_gpu=bool(given.gpus), resources_per_worker=resources
        ),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=given.restarts)),
    )
    return trainer.fit().return_value


if __name__ == "__main__":
    sys.exit(main())
