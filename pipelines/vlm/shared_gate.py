"""The gate of a provider as a Ray actor: one pace, one number of requests under way, one account for all actors."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.gate import GateStatus, Limits, LocalGate, Outcome, Permit, Wait

# A worker, and one of its lives: a worker that was killed and restarted keeps the first and changes the second.
Owner = tuple[str, str]


class GateActor:
    """A `LocalGate` with its account; its methods wait without blocking each other."""

    def __init__(self, limits: Limits, cap: float | None, spent: float, journal: str | None) -> None:
        self._gate = LocalGate(limits, Budget(cap, spent, journal))
        self._lives: dict[str, str] = {}
        self._held: dict[int, tuple[Owner, Permit]] = {}

    async def start(
        self, tokens: float, cost: float, lease_s: float, timeout_s: float | None, owner: Owner | None = None
    ) -> Permit | Wait:
        """Wait for leave to send."""
        leave = await self._gate.start(tokens, cost, lease_s, timeout_s)
        if owner is not None and isinstance(leave, Permit):
            self._held[leave.number] = owner, leave
            if self._dead(owner):  # it was killed while it waited: nobody will send this
                await self.finish(leave, Outcome("failed", cost=0.0))
                return Wait(0.0)
        return leave

    async def finish(self, permit: Permit, outcome: Outcome) -> float:
        """Report the end of a request."""
        self._held.pop(permit.number, None)
        return await self._gate.finish(permit, outcome)

    async def begin(self, owner: Owner) -> None:
        """Begin a worker's life: what it held in earlier ones, which were killed, is lost and counts as paid."""
        self._lives[owner[0]] = owner[1]
        for holder, permit in list(self._held.values()):
            if self._dead(holder):
                await self.finish(permit, Outcome("failed"))

    def _dead(self, owner: Owner) -> bool:
        return self._lives.get(owner[0], owner[1]) != owner[1]

    async def status(self) -> GateStatus:
        """Return what happened so far."""
        return self._gate.status()


@dataclass(frozen=True)
class SharedGate:
    """The gate as engine actors use it (`microg.models.vlm.api.gate.Gate`); may be sent to them."""

    actor: Any
    owner: Owner | None = None

    def owned(self) -> SharedGate:
        """Return the gate as this Ray actor uses it: should it be killed and restarted, its permits come back at once.

        Without this they come back when their lease ends.
        """
        import ray

        owner = ray.get_runtime_context().get_actor_id() or "driver", uuid.uuid4().hex
        ray.get(self.actor.begin.remote(owner))
        return replace(self, owner=owner)

    async def start(self, tokens: float, cost: float, lease_s: float, timeout_s: float | None = None) -> Permit | Wait:
        """Wait for leave to send; an actor that is lost meanwhile loses its permit after `lease_s`."""
        return await self.actor.start.remote(tokens, cost, lease_s, timeout_s, self.owner)

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
    account survives the actor's death and earlier runs are in it: then the larger of both counts.
    Without one an actor with a cap is not restarted, for it would have forgotten what it spent.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=journal is None)
    remembers = cap is None or journal is not None
    actor = ray.remote(num_cpus=0, max_restarts=-1 if remembers else 0, scheduling_strategy=here)(GateActor)
    options = actor.options(name=f"microg-gate-{provider}", get_if_exists=True)  # pyright: ignore[reportAttributeAccessIssue]
    return SharedGate(options.remote(limits, cap, spent, journal))
