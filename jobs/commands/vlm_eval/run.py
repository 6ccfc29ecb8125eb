"""What `microg vlm generate` does: checks, the Ray part, the run folder, and what it prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from microg import storage
from microg.console import say, say_aside
from microg.locks import exclusive
from microg.runs import Run
from microg.texts.items import TASKS

if TYPE_CHECKING:
    import pyarrow as pa

    from microg.models.vlm.base import Engine
    from microg.models.vlm.cards import ModelCard
    from microg.pipelines.vlm.questions import ClipQuestions, FrameSize
    from microg.pipelines.vlm.settings import GenerateSettings

COMMAND = "vlm generate"
_SHOWN_ERRORS, _KEPT_ERRORS = 5, 50


@dataclass(frozen=True, kw_only=True)
class _Preparation:
    """Everything that is known before anything is written or asked.

    Attributes:
        settings: With everything filled in that the card decides.
        card: The model's card, with the run's engine settings.
        engine: The engine as this process uses it: to check and to estimate, not to ask.
        questions: All clips of the run with their questions.
        folder: The run folder.
        left: Rows of `questions.clips` with what has no answer yet.
        rows: Number of all questions.
    """

    settings: GenerateSettings
    card: ModelCard
    engine: Engine
    questions: ClipQuestions
    folder: str
    left: pa.Table
    rows: int

    @property
    def left_rows(self) -> int:
        return sum(map(len, self.left["task"].to_pylist()))


def plan(settings: GenerateSettings, folder: str | None) -> dict[str, Any]:
    """Return what would be done: answers, tokens, GPU memory, and what it costs at most."""
    from microg.pipelines.vlm import batch_api
    from microg.pipelines.vlm.generate import sized_pipeline, with_device
    from microg.pipelines.vlm.questions import estimate_run, sizes_of

    prepared = _prepare(settings, folder)
    settings, card, here = prepared.settings, prepared.card, prepared.engine.runs_here
    if not here:  # what its actors take does not depend on Ray
        settings, _ = with_device(settings, card)
    pipeline = batch_api.PIPELINE if settings.batch else sized_pipeline(settings, card)
    sizes = sizes_of(prepared.left, settings.policy())
    takes = estimate_run(prepared.left, sizes, settings, prepared.engine)
    cost = "unknown: the price table has no such model" if takes.cost is None else takes.cost
    return {
        **_about(prepared),
        "clips_to_do": prepared.left.num_rows,
        "rows_to_do": takes.rows,
        "first_clip": f"{sizes[0].frames} frames of {sizes[0].width} x {sizes[0].height}" if sizes else "none",
        "tokens_about": takes.tokens,
        "tokens_counted": takes.counted,
        **_memory(prepared, takes.longest, sizes),
        "cost_at_most": "none: it runs here" if here else cost,
        "max_cost": settings.max_cost,
        "stages": pipeline.plan(),
        "tensor_parallel": settings.tensor_parallel,
        "pipeline_parallel": settings.pipeline_parallel,
        "resources": settings.resources.model_dump(),
    }


def _memory(prepared: _Preparation, longest: int, sizes: Sequence[FrameSize]) -> dict[str, Any]:
    """Return what one copy of the model needs of each of its GPUs, and how that comes about."""
    from microg.pipelines.vlm.settings import placement

    if not prepared.engine.runs_here:
        return {"gpu_memory_gb": "none: it runs at the provider"}
    largest = max(sizes, key=lambda size: size.num_bytes, default=None)
    frames = (0, 0, 0) if largest is None else (largest.frames, largest.width, largest.height)
    memory = prepared.engine.gpu_memory(longest, frames, placement(prepared.settings, "cuda"))
    if memory is None:
        said = "as the model's card says; its files are not on this machine"
        return {"gpu_memory_gb": prepared.card.gpu_memory_gb, "gpu_memory": said}
    parts = {name: round(amount, 2) for name, amount in asdict(memory).items()}
    return {"gpu_memory_gb": round(memory.total, 1), "gpu_memory": parts}


def generate(settings: GenerateSettings, folder: str | None) -> dict[str, Any]:
    """Ask what is missing in the run folder and return the report.

    Raises `MicrogError` for whatever the user can put right before anything is written.
    """
    from microg.pipelines.vlm import answer_store
    from microg.pipelines.vlm.questions import items_of

    prepared = _prepare(settings, folder)
    settings, engine = prepared.settings, prepared.engine
    if not engine.runs_here:  # else a worker checks, which may have what this machine lacks
        engine.check_ready()
    with exclusive(prepared.folder):
        # again: another command may have ended meanwhile
        prepared = replace(prepared, left=_left(prepared.questions, prepared.folder))
        report = _about(prepared)
        fingerprint = prepared.questions.fingerprint
        run = Run.start(prepared.folder, COMMAND, settings, dataset=fingerprint, protocol="generated text")
        if not engine.runs_here:
            answer_store.claim(prepared.folder, engine.fingerprint())
        if prepared.left.num_rows:
            report |= _ask(run, prepared)
        answer_store.files(prepared.folder).compact()
        wanted = [item.qualified_id for item in items_of(prepared.questions.clips)]
        table, mine = answer_store.finish(prepared.folder, wanted)
        report |= _outcome(table, mine) | {"generations": run.path("tables", "generations.parquet")}
        report["notes"] += _notes_on_texts(mine)
        run.finish(report)
    return report


def _prepare(settings: GenerateSettings, folder: str | None) -> _Preparation:
    from microg.models.vlm.cards import open_card
    from microg.pipelines.vlm.questions import read_questions
    from microg.pipelines.vlm.settings import engine_settings, resolve

    settings, card = resolve(settings)
    questions = read_questions(settings)
    engine = open_card(card, max_cost=settings.max_cost, **engine_settings(settings, card))
    if code := engine.check_consent():
        settings = settings.replaced(repository_code=code)
    name = f"{card.name}-{settings.digest()[:4]}{questions.fingerprint[:4]}"
    folder = storage.absolute(folder or f"runs/vlm/{name}")
    return _Preparation(
        settings=settings.replaced(dataset=storage.absolute(settings.dataset)),
        card=card,
        engine=engine,
        questions=questions,
        folder=folder,
        left=_left(questions, folder),
        rows=sum(map(len, questions.clips["task"].to_pylist())),
    )


def _left(questions: ClipQuestions, folder: str) -> pa.Table:
    """Return the clips of which something has no answer in a run folder yet."""
    from microg.pipelines.vlm import answer_store
    from microg.pipelines.vlm.questions import without

    return without(questions.clips, answer_store.finished_keys(folder))


def _about(prepared: _Preparation) -> dict[str, Any]:
    settings = prepared.settings
    notes = [*prepared.questions.notes]
    if prepared.card.why:
        notes.append(f"{prepared.card.title}: {prepared.card.why}")
    if code := settings.repository_code:
        notes.append(f"{prepared.card.title} runs its repository's own code, as you allowed: {code}")
    if settings.resources.address is not None:
        notes += prepared.engine.worker_notes()
    return {
        "run": prepared.folder,
        "dataset": settings.dataset,
        "model": prepared.card.name,
        "model_id": settings.model_id,
        "engine": settings.engine,
        "frames": settings.policy().label(),
        "prompts": {task: settings.prompt_of(task).id for task in settings.tasks},
        "clips": prepared.questions.clips.num_rows,
        "rows": prepared.rows,
        "done_before": prepared.rows - prepared.left_rows,
        "notes": notes,
    }


def _ask(run: Run, prepared: _Preparation) -> dict[str, Any]:
    """Run the Ray part, and return what it adds to the report."""
    from microg.models.video.decoders.registry import require_decoder
    from microg.pipelines.core import session
    from microg.pipelines.core.live_scores import defined
    from microg.pipelines.vlm.generate import run_generation, with_device
    from microg.pipelines.vlm.live_scores import LiveTextScores
    from microg.pipelines.vlm.score_text import TextScoring

    decoder = require_decoder(prepared.settings.decoder)
    session.connect(prepared.settings.resources)
    settings, place = with_device(prepared.settings, prepared.card)
    run.record_device(place.device, decoder=decoder)
    what = f"{prepared.left_rows:,} answers about {prepared.left.num_rows:,} clips"
    where = ", over several nodes" if place.over_nodes else ""
    say_aside(f"{what}: {prepared.card.title} on {place.device}{where}")
    sums: Counter[str] = Counter()
    if settings.batch:
        return _ask_in_batches(prepared, settings)
    live = LiveTextScores.open(prepared.folder, settings) if settings.live_scores else None
    with nullcontext() if live is None else closing(live):

        def on_clip(report: dict[str, Any]) -> str:
            sums.update({name: value for name, value in report.items() if isinstance(value, int | float)})
            notes = [f"${sums['cost']:.4f}"] if prepared.engine.price else []
            notes += [] if live is None else [live.line()]
            return ", ".join(note for note in notes if note)

        throughput, status = run_generation(
            prepared.left,
            prepared.folder,
            settings,
            prepared.card,
            place=place,
            on_clip=on_clip,
            price=prepared.engine.price,
            live=None if live is None else live.sender,
        )
        scores: dict[str, Any] = {}
        if live is not None:
            with TextScoring(settings.resources.replaced(gpus=0)) as scoring:
                found, skipped = live.final_with(settings.end_scores, scoring)
            scores = {"scores": defined(found), "scores_skipped": skipped}
    additions: dict[str, Any] = {
        "throughput": throughput,
        **scores,
        "asked_now": {name: sums[name] for name in ("rows", "failed", "cached", "prompt_tokens", "completion_tokens")},
    }
    return additions if status is None else additions | {"account": asdict(status)}


def _ask_in_batches(prepared: _Preparation, settings: GenerateSettings) -> dict[str, Any]:
    from microg.pipelines.core.telemetry import Telemetry
    from microg.pipelines.vlm.batch_api import run_batches

    sums: Counter[str] = Counter()
    with Telemetry("generate", prepared.left_rows, unit="rows", stages=()) as telemetry:

        def on_rows(rows: list[dict[str, Any]]) -> None:
            failed = sum(row["status"] != "ok" for row in rows)
            sums.update({"rows": len(rows), "failed": failed})
            for name in ("cached", "prompt_tokens", "completion_tokens"):
                sums[name] += sum(row.get(name) or 0 for row in rows)
            telemetry.row({}, len(rows), failed)

        spent = run_batches(
            prepared.left,
            prepared.folder,
            settings,
            prepared.card,
            on_rows=on_rows,
            on_wait=lambda note: telemetry.display.advance(0, note=note),
        )
    return {
        "throughput": telemetry.throughput(),
        "asked_now": dict(sums),
        "account": {"sent": sums["rows"], "refused": 0, "spent": spent},
    }


def _outcome(table: pa.Table, mine: pa.Table) -> dict[str, Any]:
    """Return what the report says of the table of a run, and of the rows that were asked for in it."""
    from microg.arrow import pc

    failed = mine.filter(pc.not_equal(mine["status"], "ok")).select(["key", "error"]).to_pylist()
    return {
        "rows_in_table": table.num_rows,
        "failed": len(failed),
        "errors": [{"row": row["key"], "error": row["error"]} for row in failed[:_KEPT_ERRORS]],
        "error_kinds": dict(Counter(row["error"] for row in failed).most_common(_KEPT_ERRORS)),
    }


def _notes_on_texts(mine: pa.Table) -> list[str]:
    from microg.arrow import pc

    replaced = pc.sum(pc.match_substring(mine["text"], "\ufffd")).as_py()
    return [f"{replaced:,} answers hold U+FFFD: half characters, which no file can hold"] if replaced else []


def _score_line(scores: dict[str, float | None]) -> str:
    from microg.metrics.text import registry

    printed = {name: value for name, value in scores.items() if registry.column(name, "caption") and value is not None}
    return ", ".join(f"{registry.title(name)} {100 * value:.2f}" for name, value in printed.items())


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    prompts = ", ".join(f"{task} by {name}" for task, name in report["prompts"].items())
    say(f"{report['model']} ({report['model_id']}, {report['engine']}), frames {report['frames']}; {prompts}")
    for note in report["notes"]:
        say(f"note: {note}")
    say(f"{report['rows']:,} answers about {report['clips']:,} clips; {report['done_before']:,} done before")
    speed = report.get("throughput")
    if speed:
        from microg.pipelines.core.telemetry import throughput_line

        now = report["asked_now"]
        say(throughput_line(speed))
        say(
            f"{now['prompt_tokens']:,} tokens in, {now['completion_tokens']:,} out; "
            f"{now['cached']:,} replies from the cache"
        )
    account = report.get("account")
    if account:
        say(f"{account['sent']:,} requests, {account['refused']:,} refused; this run has cost ${account['spent']:.4f}")
    for task, scores in report.get("scores", {}).items():
        say(f"scores, {task}: {_score_line(scores)}")
    for name, why in report.get("scores_skipped", {}).items():
        say(f"note: no {name}: {why}")
    for row in report["errors"][:_SHOWN_ERRORS]:
        say(f"failed: {row['row']}: {row['error']}")
    if report["failed"]:
        say(f"{report['failed']:,} of {report['rows']:,} answers failed; run the same command to try them again")
    say(f"wrote {report['generations']}")
    if set(report["prompts"]) & set(TASKS):
        say(f"next: microg vlm score --run {report['run']}")
    if "screening" in report["prompts"]:
        say(f"next: microg data accept {report['run']} {report['dataset']}")
