"""Which text metrics can be had here, and measuring them: what fails to load is skipped by name, never in silence."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Any

from microg.config import Resources
from microg.errors import MetricError, MicrogError, WeightsError
from microg.metrics.text import registry
from microg.metrics.text.scoring import measure
from microg.metrics.text.state import ItemState
from microg.pipelines.vlm.score_text import NGRAMS, TextScoring

if TYPE_CHECKING:
    from microg.jobs.commands.vlm_score.settings import VlmScoreConfig
    from microg.metrics.text.report import TextReport
    from microg.texts.pairs import Pairs
    from microg.texts.references import TextReferences

_PROBE = "an astronaut floats"


class Measurer:
    """Measures texts; what a metric makes of the same texts is measured once for both protocols where it may be.

    settings: of metrics that take any, by metric. skipped: why a metric or a protocol cannot be had, by its name.
    resources, workers: where to measure (see `TextScoring`); `close` ends what was started.
    """

    def __init__(
        self, settings: Mapping[str, Mapping[str, Any]], resources: Resources | None = None, workers: int | None = None
    ) -> None:
        for name in settings:
            registry.metric(name)
        self._settings = settings
        self._scoring = TextScoring(resources, workers)
        self._known: dict[tuple[str, str], ItemState] = {}
        self.skipped: dict[str, str] = {}

    def choose(self, asked: Sequence[str], protocols: Sequence[str], *, all_protocols: bool) -> dict[str, list[str]]:
        """Return the metrics to measure by protocol: those asked for, or else all that can be had.

        Raises the metric's own error when one that was asked for cannot be had, or a protocol when it is the only one
        (`all_protocols` False), and `ConfigError` for an unknown name.
        """
        names = list(dict.fromkeys(asked)) or list(registry.METRICS)
        needing = [name for name in names if registry.metric(name).needs != "nothing"]
        result: dict[str, list[str]] = {}
        for protocol in protocols:
            # a metric that needs nothing fails only where the protocol's tokenizer does
            if self._is_available(protocol, registry.names("nothing")[:1], protocol, raises=not all_protocols):
                lacking = {
                    name for name in needing if not self._is_available(name, [name], protocol, raises=bool(asked))
                }
                result[protocol] = [name for name in names if name not in lacking]
        return result

    def measure(
        self,
        protocol: str,
        ids: Sequence[str],
        said: Sequence[str],
        true: Sequence[Sequence[str]],
        names: Sequence[str],
    ) -> dict[str, ItemState]:
        """Return the states of metrics by name (see `microg.metrics.text.scoring.measure`)."""
        digest = hashlib.sha256(repr((ids, said, true)).encode("utf-8", "surrogatepass")).hexdigest()
        again = [name for name in names if registry.metric(name).encodes and (name, digest) in self._known]
        new = [name for name in names if name not in again]
        states = self._scoring.measure(protocol, ids, said, true, new, self._settings) if new else {}
        for name, state in states.items():
            if registry.metric(name).encodes:
                self._known[name, digest] = state
        return {name: self._known[name, digest] if name in again else states[name] for name in names}

    def tell(self, progress: Callable[[str], object]) -> None:
        """Call `progress` with how far long work is."""
        self._scoring.tell = progress

    @property
    def seconds(self) -> dict[str, float]:
        """How long measuring took so far, by what was measured."""
        return dict(self._scoring.seconds)

    def close(self) -> None:
        """End the workers."""
        self._scoring.close()

    def _is_available(self, what: str, names: Sequence[str], protocol: str, *, raises: bool) -> bool:
        """Try metrics on one text; record why `what` (a metric or a protocol) is unavailable, or raise that."""
        if what in self.skipped:
            return False
        hub = logging.getLogger("huggingface_hub")
        level = hub.level
        hub.setLevel(logging.ERROR)  # each failed attempt to reach the hub would be a line
        try:
            measure(protocol, ["probe"], [_PROBE], [_PROBE], names, self._settings)
        except (WeightsError, MetricError) as error:  # the text is a good one: what fails is what it needs
            if raises:
                raise
            self.skipped[what] = _reason(error, what)
            return False
        finally:
            hub.setLevel(level)
        return True


def score_pairs(
    pairs: Sequence[Pairs],
    chosen: Mapping[str, Sequence[str]],
    measurer: Measurer,
    settings: VlmScoreConfig,
    truth: TextReferences,
) -> tuple[list[TextReport], dict[str, Any]]:
    """Score every task under every protocol with its `chosen` metrics; return the reports and the closing block."""
    from microg.metrics.text.report import report
    from microg.pipelines.core.telemetry import Telemetry

    reports: list[TextReport] = []
    stages = (NGRAMS, *registry.names("encoder"), "resample")
    items = sum(len(part.items) for part in pairs) * len(chosen)
    with Telemetry("scoring", items, unit="items", stages=stages) as telemetry, closing(measurer):
        measurer.tell(lambda note: telemetry.display.advance(0, note=note))
        for part in pairs:
            for protocol, names in chosen.items():
                of_baselines = {"cheap": None, "all": names, "none": ()}[settings.baselines]
                before, started = measurer.seconds, monotonic()
                found = report(
                    part,
                    protocol,
                    names,
                    measurer.measure,
                    origins=truth.origins,
                    baseline_metrics=of_baselines,
                    resamples=settings.resamples,
                    seed=settings.seed,
                )
                reports.append(found)
                spent = {name: value - before.get(name, 0.0) for name, value in measurer.seconds.items()}
                telemetry.row(
                    {**spent, "resample": monotonic() - started - sum(spent.values())}, len(part.items), note=""
                )
    return reports, telemetry.throughput()


def _reason(error: MicrogError, what: str) -> str:
    fix = error.fix
    if what not in registry.PROTOCOLS and registry.metric(what).encodes:
        fix = f"give its folder with --set 'settings.{what}={{model: FOLDER}}', or let this machine reach the model hub"
    return f"{error.what} ({fix})" if fix else error.what
