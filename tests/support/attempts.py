"""The attempt ledger of this process, called without Ray."""

from __future__ import annotations

from microg.pipelines.core.attempts import AttemptLedger, Attempts


class LocalAttempts(Attempts):
    """Attempts whose ledger is a plain object."""

    def start(self, key: str) -> int:
        """Count an attempt."""
        return self.ledger.start(f"{self.scope}/{key}")

    def mark_finished(self, key: str) -> None:
        """Forget it."""
        self.ledger.finish(f"{self.scope}/{key}")


def local_attempts() -> LocalAttempts:
    """Return attempts that start at zero."""
    return LocalAttempts(AttemptLedger())
