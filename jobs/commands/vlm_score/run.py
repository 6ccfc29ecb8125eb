"""What `microg vlm score` does: measure with the metrics that can be had, ask the judge, write and compare run folders.

A metric that fails to load is skipped by name, never in silence.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from microg import storage
from microg.config import Resources
from microg.console import ProgressDisplay
from microg.data.qa_kinds import Labels
from microg.errors import ConfigError, MetricError, MicrogError, WeightsError
from microg.jobs.commands.scoring import comparable_document
from microg.jobs.commands.vlm_score.settings import JudgeConfig, VlmScoreConfig, VlmScoreRun
from microg.metrics.judge import Judgement, JudgePrompt, judge_prompt, summary
from microg.metrics.published import text_row
from microg.metrics.text import registry, tables
from microg.metrics.text.intervals import compare_texts
from microg.metrics.text.report import TextReport, types_of
from microg.metrics.text.report import report as score_texts
from microg.metrics.text.scoring import measure
from microg.metrics.text.state import ItemState
from microg.pipelines.core.telemetry import Telemetry
from microg.pipelines.vlm.judge import judgements_table
from microg.pipelines.vlm.score_text import NGRAMS, TextScoring
from microg.runs import Run
from microg.texts.items import Task, TextReferences
from microg.texts.pairs import Pairs, pairs_table

if TYPE_CHECKING:
    from microg.models.vlm.base import Engine

COMMAND = "vlm score"
_PROBE = "an astronaut floats"


class Measurer:
    """Measures texts; what a metric makes of the same texts is measured once for both protocols where it may be.

    settings: of metrics that take any, by metric. skipped: why a metric or a protocol cannot be had, by its name.
    resources, workers: where to measure, which `scoring` does and whose `close` ends what was started.
    """

    def __init__(
        self, settings: Mapping[str, Mapping[str, Any]], resources: Resources | None = None, workers: int | None = None
    ) -> None:
        for name in settings:
            registry.metric(name)
        self._settings = settings
        self.scoring = TextScoring(resources, workers)
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
        states = self.scoring.measure(protocol, ids, said, true, new, self._settings) if new else {}
        for name, state in states.items():
            if registry.metric(name).encodes:
                self._known[name, digest] = state
        return {name: self._known[name, digest] if name in again else states[name] for name in names}

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
    kinds: Labels | None = None,
) -> tuple[list[TextReport], dict[str, Any]]:
    """Score every task under every protocol with its `chosen` metrics; return the reports and the closing block.

    `kinds` are of questions.
    """
    reports: list[TextReport] = []
    stages = (NGRAMS, *registry.names("encoder"), "resample")
    items = sum(len(part.items) for part in pairs) * len(chosen)
    with Telemetry("scoring", items, unit="items", stages=stages) as telemetry, measurer.scoring as scoring:
        scoring.tell = lambda note: telemetry.display.advance(0, note=note)
        for part in pairs:
            for protocol, names in chosen.items():
                of_baselines = {"cheap": None, "all": names, "none": ()}[settings.baselines]
                before, started = dict(scoring.seconds), monotonic()
                options = {**settings.model_dump(include={"resamples", "seed"}), "baseline_metrics": of_baselines}
                reports.append(
                    score_texts(part, protocol, names, measurer.measure, origins=truth.origins, kinds=kinds, **options)
                )
                spent = {name: value - before.get(name, 0.0) for name, value in scoring.seconds.items()}
                spent["resample"] = monotonic() - started - sum(spent.values())
                telemetry.row(spent, len(part.items), note="")
    return reports, telemetry.throughput()


def _reason(error: MicrogError, what: str) -> str:
    fix = error.fix
    if what not in registry.PROTOCOLS and registry.metric(what).encodes:
        fix = f"give its folder with --set 'settings.{what}={{model: FOLDER}}', or let this machine reach the model hub"
    return f"{error.what} ({fix})" if fix else error.what


@dataclass(frozen=True, kw_only=True)
class VlmScoreResult:
    """What scoring found, and what the run folder says of it.

    Attributes:
        judged: Verdicts of a judge by task, and the `prompts` that it saw.
        others: Documents of runs to compare with, by folder (see `comparable`).
        facts: What the document holds beside scores: model, skipped, notes, throughput.
        kinds: Kinds of questions that a model gave.
    """

    config: VlmScoreRun
    reports: Sequence[TextReport]
    judged: Mapping[Task, Sequence[Judgement]]
    prompts: Mapping[Task, JudgePrompt]
    others: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    kinds: Labels | None = None


def result_document(result: VlmScoreResult) -> dict[str, Any]:
    """Return everything that was found, as plain values; undefined scores are None."""
    reports, config = result.reports, result.config
    tasks: dict[str, dict[str, Any]] = {}
    for report in reports:
        tasks.setdefault(report.pairs.task, {})[report.protocol] = tables.document(report)
    document: dict[str, Any] = {
        "predictions": config.predictions,
        "references": config.references,
        "coverage": {report.pairs.task: report.pairs.coverage() for report in reports},
        "extra": {report.pairs.task: list(report.pairs.extra) for report in reports if report.pairs.extra},
        "tasks": tasks,
        "examples": {report.pairs.task: tables.examples(report) for report in reversed(reports)},
        **result.facts,
    }
    if result.judged:
        document["judge"] = {
            task: {
                "model": str(config.score.judge.model),
                "prompt_id": result.prompts[task].id,
                "prompt_hash": result.prompts[task].digest,
                **summary(verdicts),
            }
            for task, verdicts in result.judged.items()
        }
    if result.others:
        document["comparisons"] = compare_runs(reports, config, result.others)
    published = text_row(config.score.row) if config.score.row else None
    paper = [report for report in reports if report.protocol == "paper"]
    if published is not None and paper:
        document["published"] = {
            "row": published.name,
            "title": published.title,
            "frames": published.frames,
            "tasks": {report.pairs.task: tables.beside_published(report, published) for report in paper},
        }
    return document


def start_run(folder: str, run_config: VlmScoreRun) -> Run:
    """Open the run folder. Raises `RunConflictError` when it is another run's."""
    return Run.start(
        folder, COMMAND, run_config, dataset=run_config.references_digest, protocol=run_config.score.protocol
    )


def write_run(
    run: Run,
    result: VlmScoreResult,
    *,
    plots: bool,
    on_scores: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Write tables and `metrics.json`, then plots, and return the document, which `on_scores` gets before the plots."""
    reports, document = result.reports, result_document(result)
    one_each = {report.pairs.task: report.pairs for report in reports}
    by_name = {
        "text_pairs": pairs_table(one_each.values(), partial(types_of, kinds=result.kinds)),
        "text_scores": tables.scores_table(reports),
        "text_items": tables.items_table(reports),
        "text_bootstrap": tables.bootstrap_table(reports),
    }
    if result.judged:
        model = str(result.config.score.judge.model)
        parts = [judgements_table(list(items), model, result.prompts[task]) for task, items in result.judged.items()]
        by_name["text_judgements"] = pa.concat_tables(parts)
    written = [run.write_table(name, table) for name, table in by_name.items()]
    run.finish(document)
    on_scores({"run": run.root, **document})
    if plots:
        from microg.reports.plots.vlm import vlm_plots

        scores, pairs = by_name["text_scores"].to_pandas(), by_name["text_pairs"].to_pandas()
        for plot in vlm_plots(scores, pairs, {name: registry.title(name) for name in scores["metric"].unique()}):
            written += plot.save(run.path("plots"))
    return {"run": run.root, **document, "files": [*written, run.path("metrics.json")]}


def compare_runs(
    reports: Sequence[TextReport], run_config: VlmScoreRun, others: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Compare with other runs (from `comparable`): a row a (run, task, protocol, metric), with the paired bootstrap.

    Scores of different encoders are not compared.
    """
    rows: list[dict[str, Any]] = []
    for other, theirs in others.items():
        stored = storage.read_parquet(storage.join(other, "tables", "text_bootstrap.parquet"))
        drawn = tables.read_distributions(stored, run_config.score.seed)
        for report in reports:
            task, protocol = report.pairs.task, report.protocol
            there = theirs["tasks"].get(task, {}).get(protocol)
            if there is None:
                continue
            signatures = tables.signatures(report)
            for metric, here in report.scores.items():
                value = there["scores"].get(metric)
                if value is None or here != here or there["signatures"].get(metric, "") != signatures.get(metric, ""):
                    continue
                row = {"run": other, "task": task, "protocol": protocol, "metric": metric, "here": here, "there": value}
                second = drawn.get((task, protocol))
                row["difference"] = here - value
                if report.distribution is not None and second is not None and metric in report.intervals:
                    row |= compare_texts(report.distribution, second, (here, value), metric)
                rows.append(row)
    return rows


def comparable(others: Sequence[str], run_config: VlmScoreRun) -> dict[str, dict[str, Any]]:
    """Return the documents of other runs.

    Raises `MetricError` when a run is none of this command, or was scored on other references or with other settings.
    """
    same = {"digest": "references_digest", "truth": "references", "settings": ("seed", "resamples")}
    return {other: comparable_document(other, COMMAND, run_config, **same) for other in others}


def judge_prompts(asked: JudgeConfig, pairs: Sequence[Pairs]) -> dict[Task, JudgePrompt]:
    """Return the prompts of the tasks to judge; none without a model. Raises `ConfigError` for one that cannot work."""
    if asked.model is None:
        return {}
    names = {"vqa": asked.prompt, "caption": asked.caption_prompt}
    result: dict[Task, JudgePrompt] = {}
    for part in pairs:
        if names[part.task]:
            found = judge_prompt(names[part.task])
            if found.task != part.task:
                raise ConfigError(f"judge prompt {found.id} is for task {found.task}, not {part.task}")
            result[part.task] = found
    if not result:
        raise ConfigError(
            "there is nothing to judge: captions are judged on demand only",
            "--set judge.caption_prompt=judge_caption_v1",
        )
    return result


def judge_engine(asked: JudgeConfig) -> Engine:
    """Return the judge's engine. Raises `ConfigError` without a key, and for a cap without a known price."""
    from microg.models.vlm.api.budget import Budget
    from microg.models.vlm.api.gate import Limits, LocalGate
    from microg.models.vlm.api.response import RetryPolicy
    from microg.models.vlm.engines.registry import open_engine, require_server

    require_server(asked.engine, "a judge is asked")
    named = {} if asked.key_variable is None else {"key_variable": asked.key_variable}
    engine = open_engine(
        asked.engine,
        str(asked.model),
        max_cost=asked.max_cost,
        base_url=asked.base_url,
        concurrency=asked.concurrency,
        retry=RetryPolicy(deadline_s=asked.deadline_s),
        gate=LocalGate(Limits(concurrency=asked.concurrency), Budget(asked.max_cost)),
        **named,
    )
    engine.check_ready()  # a missing key is told before hours of scoring, not after
    return engine


def judge_pairs(pairs: Pairs, asked: JudgeConfig, engine: Engine, prompt: JudgePrompt) -> list[Judgement]:
    """Judge the items of one task, with progress."""
    from microg.models.vlm.api.cache import ResponseCache
    from microg.pipelines.vlm.judge import judge

    with (
        ResponseCache(asked.cache) as cache,
        ProgressDisplay(f"judging {pairs.task}", len(pairs.items), unit="items") as progress,
    ):
        return judge(pairs.items, engine, prompt, cache, structured=asked.structured, progress=progress.advance)
