"""What a training may use of a cluster."""

from __future__ import annotations

from pydantic import Field

from microg.config import Config, Device


class TrainResources(Config):
    """What training may use; none of it changes the result."""

    volatile = frozenset(
        {
            "workers",
            "device",
            "worker_cpus",
            "worker_gpus",
            "decode_cpus",
            "threads",
            "prefetch",
            "max_failures",
            "wait_s",
            "address",
        }
    )
    workers: int = Field(default=1, ge=1, description="Training processes, with one GPU each where there are GPUs.")
    device: Device = Field(
        default="auto",
        description="Where training computes: auto is a GPU a process where Ray has GPUs or its autoscaler can start "
        "some, else the CPU.",
    )
    worker_cpus: float = Field(default=1.0, gt=0, description="CPUs that a training process declares.")
    worker_gpus: float | None = Field(
        default=None, ge=0, description="GPUs that a training process declares; without it as `device` says."
    )
    decode_cpus: float = Field(default=1.0, gt=0, description="CPUs that a decoding task declares.")
    threads: int = Field(
        default=0, ge=0, description="Torch threads of a process without GPU; 0 shares the cores among the processes."
    )
    prefetch: int = Field(default=2, ge=1, description="Micro-batches that are made ready ahead.")
    max_failures: int = Field(
        default=3, ge=-1, description="How often training goes on after a process was lost; -1 always."
    )
    wait_s: float = Field(
        default=1200.0, ge=0, description="Seconds to wait for nodes that a cluster's autoscaler has to start first."
    )
    address: str | None = Field(
        default=None,
        description="Address of a Ray cluster (auto, ray://host:10001, host:6379); without it a local Ray starts.",
    )
