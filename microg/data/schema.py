"""Arrow schemas of all tables.

Coordinates: pixel boxes are (x1, y1, x2, y2), origin top left, x to the right, y down. Frames count from 1, as in
the published `bounding_boxes.csv`. Normalised boxes are divided by the frame's width and height.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from microg.arrow import parse_schema, pc
from microg.errors import DatasetError

ORIGINS = ("movie", "real")
SPLITS = ("train", "val", "test")

TABLES: dict[str, pa.Schema] = {
    # One row a clip. `uri` is relative to the dataset's root, or absolute. status: ok | rejected | error.
    "clips": parse_schema(
        "clip_id source_id: string, sequence: int32, uri origin: string, fps: float64, num_frames width height: int32, "
        "duration_s: float64, sha256 status error: string"
    ),
    # One row a raw file given to `microg curate`.
    "sources": parse_schema(
        "source_id uri origin: string, size_bytes: int64, fps: float64, width height: int32, duration_s: float64, "
        "clips: int32, tail_s: float64, decode_errors: int32, status error notes: string"
    ),
    # One row a clip and stage: a rejected clip is a row, never a deletion.
    "decisions": parse_schema("clip_id stage: string, keep: bool, reason: string, score threshold: float64"),
    "boxes": parse_schema("clip_id: string, frame person_id: int32, x1 y1 x2 y2: float64, confidence: float32"),
    "actions": parse_schema("clip_id: string, person_id action_id: int32"),
    "captions": parse_schema("clip_id caption: string"),
    "qa": parse_schema("clip_id: string, qa_index: int32, question answer: string"),
    # AVA-style: one row a (key frame, person, action); boxes normalised. action_id is null while unlabelled.
    "samples": parse_schema("clip_id: string, frame person_id: int32, x1 y1 x2 y2: float64, action_id: int32"),
    # One row a judgement, of people or models; none is ever changed: a later one names it in `supersedes`. kind: one of
    # `microg.annotations.KINDS`; person_id is null for what is said of a clip; item: the qa_index of a question; value:
    # JSON as its kind has it; round counts from 1; adjudicated: it settles what others said.
    "annotations": parse_schema(
        "annotation_id clip_id: string, person_id: int32, kind: string, item: int32, value annotator: string, round: "
        "int32, adjudicated: bool, source supersedes: string"
    ).append(pa.field("time", pa.timestamp("us", tz="UTC"))),
    # scheme: published (by clip) | source (grouped by source video, no leakage).
    "splits": parse_schema("clip_id split scheme: string"),
}

# Tables of run folders.
RUN_TABLES: dict[str, pa.Schema] = {
    # One row a (key frame, box): what a model answers, one score a class of `label_space` in the order of its ids.
    # The box is normalised; score_kind: logit | probability; status: ok | error (then without scores).
    "har_predictions": parse_schema(
        "sample_id clip_id: string, frame person_id: int32, x1 y1 x2 y2: float64, scores: [float32], score_kind "
        "label_space model status error: string"
    ),
    # One row a (protocol, slice, metric, average); the whole test set is slice `all`. Intervals are 95%, over clips and
    # over source videos.
    "har_scores": parse_schema(
        "protocol slice_kind slice metric average: string, value clip_low clip_high source_low source_high: float64, "
        "classes: int32, labels boxes: int64"
    ),
    # One row a (protocol, class); ap by the protocol's tie rule, ap_worst and ap_best bracket it.
    "har_classes": parse_schema(
        "protocol: string, action_id: int32, action group: string, support: int64, ap ap_worst ap_best ap_published "
        "precision recall f1 auroc: float64, hits wrong missed: int64"
    ),
    # One row a (protocol, class): the threshold with the highest F1 on these very scores, to be applied to others, with
    # F1 there and at the protocol's threshold. chosen: the threshold that was chosen elsewhere, with F1 there.
    "har_thresholds": parse_schema(
        "protocol: string, action_id: int32, action: string, support: int64, best f1_best f1 chosen f1_chosen: float64"
    ),
    # F1 at each distinct score of a true cell as the threshold, by falling score: maxima lie there.
    "har_f1_curves": parse_schema("protocol: string, action_id: int32, threshold f1: float64"),
    # One row a (test set, selection of classes, protocol, class) of an AVA model's transfer. data: jhmdb | microg;
    # selection: published | mapped | matched.
    "har_transfer": parse_schema(
        "data selection protocol: string, action_id: int32, action: string, support: int64, ap auroc: float64"
    ),
    # Precision and recall at each distinct score of a true positive, by falling score.
    "har_curves": parse_schema("protocol: string, action_id: int32, threshold recall precision: float64"),
    # One row a finished epoch of training, from 1; `lr` is that of its last step, times are seconds, wait_s is how long
    # workers waited for clips. Scores of the val split are null in epochs without validation.
    "har_train": parse_schema(
        "epoch: int32, steps: int64, lr loss: float64, clips boxes failed: int64, train_s wait_s step_s val_s "
        "clips_per_s val_loss val_map_paper val_map_corrected val_f1_paper val_f1_corrected val_auroc: float64, "
        "val_boxes: int64, best: bool"
    ),
    # One row a finished epoch of fine-tuning a vision-language model; loss: nats a token of the answers; val_answers:
    # answers that were generated and scored.
    "vlm_train": parse_schema(
        "epoch: int32, steps: int64, lr loss: float64, clips tokens failed: int64, train_s wait_s clips_per_s "
        "val_loss: float64, val_clips val_answers: int64, val_s: float64, best: bool"
    ),
    # One row a trial of a sweep, best first. settings: JSON of the values drawn; status: done | stopped (early) |
    # error | unfinished; best: the metric's highest value on val; run: the trial's folder inside the sweep's.
    "har_sweep": parse_schema(
        "trial_id recipe settings status: string, epochs epochs_done: int32, metric: string, best: float64, "
        "best_epoch: int32, train_s: float64, run error: string"
    ),
    # Resampled values under the corrected protocol; drawn_from is equal where resamples are paired.
    "har_bootstrap": parse_schema("unit drawn_from metric: string, resample: int32, value: float64"),
    # One row an answer of a vision-language model; a run appends them, and the newest row (`written`) of a (clip_id,
    # task, qa_index, prompt_id) wins. task: caption | vqa; qa_index is null for captions. frame_indices count from 0,
    # in the order shown; frame_hash is of their pixels at width x height; fingerprint is a hash of what decides an
    # engine's answers (the run's engine.json); cost in US dollars. status: ok | error.
    "generations": parse_schema(
        "clip_id task: string, qa_index: int32, question prompt_id prompt_hash text: string, frame_indices: [int32], "
        "frame_hash: string, width height: int32, model engine fingerprint: string, prompt_tokens completion_tokens: "
        "int64, finish_reason: string, latency_s: float64, attempts: int32, cached: bool, cost: float64, status error: "
        "string"
    ).append(pa.field("written", pa.timestamp("us", tz="UTC"))),
    # One row a proposed question with its answer. chosen: its place among those kept, null where dropped for `reason`;
    # the four criteria from 1 to 5; review says why people should look at it; status: ok | error.
    "qa_candidates": parse_schema(
        "clip_id: string, number: int32, form question answer: string, consistency fluency relevance information: "
        "int32, reason: string, chosen: int32, review status error: string"
    ),
    # One row a number of how far annotators agree. kind: of what was judged; slice_kind: all | group | action | text |
    # decided (with what an adjudicator said); annotator and other: whose it is, null for all; low and high: 95% over
    # clips; reason says why a value is null.
    "agreement": parse_schema(
        "kind slice_kind slice metric annotator other: string, value low high: float64, units raters: int64, reason: "
        "string"
    ),
    # One row a judgement of what annotators judged differently; value: as in the table `annotations`.
    "disagreements": parse_schema("kind clip_id: string, person_id item: int32, annotator value: string"),
    # One row a question of a dataset. kind: by a model, null where status is error; by_rules: by the versioned rules.
    "qa_kinds": parse_schema("clip_id: string, qa_index: int32, question answer kind by_rules status error: string"),
    # One row a scored item: what was said and what is true. status: ok | empty | missing | failed (then text is null).
    "text_pairs": parse_schema(
        "task clip_id: string, qa_index: int32, question: string, references: [string], text status answer_type "
        "question_type qa_kind: string"
    ),
    # One row a (protocol, task, system, coverage, slice, metric). system: model | constant | blind | shuffled;
    # coverage: all (missing answers score 0) | valid. Values as the metric defines them (CIDEr 0 to 10). signature says
    # which encoder and tokenizer; corpus (a hash) and corpus_items, which references CIDEr takes its frequencies from.
    "text_scores": parse_schema(
        "protocol task system coverage slice_kind slice metric: string, value low high: float64, items clips: int64, "
        "corpus: string, corpus_items: int64, signature: string"
    ),
    # One row a (protocol, item, metric) of the model's own answers.
    "text_items": parse_schema("protocol task clip_id: string, qa_index: int32, metric: string, value: float64"),
    # Resampled values, over clips; drawn_from is equal where resamples are paired.
    "text_bootstrap": parse_schema("protocol task metric drawn_from: string, resample: int32, value: float64"),
    # One row an answer shown to a judge. verdict: correct | incorrect, null where status is error (never "incorrect").
    "text_judgements": parse_schema(
        "task clip_id: string, qa_index: int32, verdict: string, score: float64, reason model prompt_id prompt_hash: "
        "string, cached: bool, status error: string"
    ),
}
# Values of columns that are closed sets, in every table; null is allowed.
_VALUES: dict[str, tuple[str, ...]] = {"origin": ORIGINS, "split": SPLITS}
_STATUSES: dict[str, tuple[str, ...]] = {
    "clips": ("ok", "rejected", "error"),
    "sources": ("ok", "rejected", "error"),
    "har_sweep": ("done", "stopped", "error", "unfinished"),
    "text_pairs": ("ok", "empty", "missing", "failed"),
}
_STATUS = ("ok", "error")
# Columns whose values become names of files.
_IDS = frozenset({"clip_id", "source_id"})
_ID = "^[A-Za-z0-9_-]{1,200}$"  # as `microg.data.ids.check_id`

# Tables that have a column (float64) for each metric: those of metrics that are registered later come after these.
METRIC_TABLES = frozenset({"har_classes", "har_train", "vlm_train"})


def schema_of(name: str) -> pa.Schema:
    """Return the schema of a dataset's or a run folder's table."""
    return TABLES[name] if name in TABLES else RUN_TABLES[name]


def _schema_with(name: str, columns: Iterable[str]) -> pa.Schema:
    """Return the schema of a table, for one of `METRIC_TABLES` with those of `columns` that it does not name."""
    schema = schema_of(name)
    more = [column for column in columns if column not in schema.names] if name in METRIC_TABLES else []
    return pa.schema([*schema, *((column, pa.float64()) for column in more)])


def empty(name: str) -> pa.Table:
    """Return table `name` without rows."""
    return schema_of(name).empty_table()


def cast(name: str, table: pa.Table) -> pa.Table:
    """Cast `table` to the schema of table `name`: columns in order, exact types, missing nullable columns null.

    Raises `DatasetError` naming the columns that are unknown or the value that has another type.
    """
    schema = _schema_with(name, table.column_names)
    unknown = [column for column in table.column_names if column not in schema.names]
    if unknown:
        raise DatasetError(f"table {name!r} has unknown columns {unknown}", f"its columns are {schema.names}")
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(table[field.name].cast(field.type))
        except (pa.ArrowException, KeyError) as error:
            raise DatasetError(f"table {name!r}, column {field.name!r}: {error}") from error
    return pa.table(columns, schema=schema)


def conform(name: str, table: pa.Table) -> pa.Table:
    """Return `table` as `cast` does, with ids that may become paths and values of closed sets (origin, split, status).

    What reads a table goes through here, so that nothing behind it meets another value. Raises `DatasetError`.
    """
    result = cast(name, table)
    sets = closed_sets(name)
    for column in result.column_names:
        values = sets.get(column)
        if values is None and column not in _IDS:
            continue
        distinct = pc.unique(result[column]).drop_null()
        if values is None:
            distinct = distinct.filter(pc.invert(pc.match_substring_regex(distinct, _ID)))
        wrong = next((value for value in distinct.to_pylist() if values is None or value not in values), None)
        if wrong is not None:
            fix = f"values are {', '.join(values)}" if values else "use letters, digits, '_' and '-' only"
            raise DatasetError(f"table {name!r}, column {column!r}: {wrong!r} is not allowed", fix)
    return result


def closed_sets(name: str) -> dict[str, tuple[str, ...]]:
    """Return the columns of table `name` whose values are a closed set, with those; null is allowed beside them."""
    columns = schema_of(name).names
    sets = {column: values for column, values in _VALUES.items() if column in columns}
    return sets | ({"status": _STATUSES.get(name, _STATUS)} if "status" in columns else {})


def from_rows(name: str, rows: list[dict]) -> pa.Table:
    """Build table `name` from row dictionaries; a missing key is null."""
    try:
        return pa.Table.from_pylist(rows, schema=_schema_with(name, rows[0] if rows else ()))
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise DatasetError(f"table {name!r}: {error}") from error
