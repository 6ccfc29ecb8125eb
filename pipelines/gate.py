"""The gate of a provider as a Ray actor: one pace, one number of requests under way, one account for all actors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.vlm.budget import Budget
from models.vlm.gate import GateStatus, Limits, LocalGate, Outcome, Permit, Wait


class GateActor:
    """A `LocalGate` with its account; its methods wait without blocking each other."""

    def __init__(self, limits: Limits, cap: float | None, spent: float, journal: str | None) -> None:
        self._gate = LocalGate(limits, Budget(cap, spent, journal))

    async def start(self, tokens: float, cost: float, lease_s: float, timeout_s: float | None) -> Permit | Wait:
        """Wait for leave to send."""
        return await self._gate.start(tokens, cost, lease_s, timeout_s)

    async def finish(self, permit: Permit, outcome: Outcome) -> float:
        """Report the end of a request."""
        return await self._gate.finish(permit, outcome)

    async def status(self) -> GateStatus:
        """Return what happened so far."""
        return self._gate.status()


@dataclass(frozen=True)
class SharedGate:
    """The gate as engine actors use it (`models.vlm.gate.Gate`); may be sent to them."""

    actor: Any

    async def start(self, tokens: float, cost: float, lease_s: float, timeout_s: float | None = None) -> Permit | Wait:
        """Wait for leave to send; an actor that is lost meanwhile loses its permit after `lease_s`."""
        return await self.actor.start.remote(tokens, cost, lease_s, timeout_s)

    async def finish(self, permit: Permit, outcome: Outcome) -> float:
        """Report the end of a request."""
        return await self.actor.finish.remote(permit, outcome)

    def status(self) -> GateStatus:
        """Return what happened so far, from a program that is no coroutine."""
        import ray

        return ray.get(self.actor.status.remote())


def shared_gate(
    provider: str, limits: Limits, *, cap: float | None = None, spent: float = 0.0, journal: str | None = None
) -> SharedGate:
    """Return the gate of `provider` in the connected Ray, started by whoever asks first.

    `cap` is the most dollars to spend, with `spent` those of earlier runs. With `journal`, a file on this machine, the
    account survives the actor's death and earlier runs are in it: `spent` is then for what the file does not know.
    Without one an actor with a cap is not restarted, for it would have forgotten what it spent.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=journal is None)
    remembers = cap is None or journal is not None
    actor = ray.remote(num_cpus=0, max_restarts=-1 if remembers else 0, scheduling_strategy=here)(GateActor)
    options = actor.options(name=f"microg-gate-{provider}", get_if_exists=True)  # pyright: ignore[reportAttributeAccessIssue]
    return SharedGate(options.remote(limits, cap, spent, journal))
