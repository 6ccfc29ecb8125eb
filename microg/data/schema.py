"""Arrow schemas of all tables, and small dataclasses for one row where code handles rows singly.

Coordinates: pixel boxes are (x1, y1, x2, y2), origin top left, x to the right, y down. Frames count from 1, as in
the published `bounding_boxes.csv`. Normalised boxes are divided by the frame's width and height.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from microg.errors import DatasetError

ORIGINS = ("movie", "real")
SPLITS = ("train", "val", "test")

_PIXEL_BOX = [("x1", pa.float64()), ("y1", pa.float64()), ("x2", pa.float64()), ("y2", pa.float64())]

TABLES: dict[str, pa.Schema] = {
    # One row a clip. `uri` is relative to the dataset's root, or absolute. status: ok | rejected | error.
    "clips": pa.schema(
        [
            ("clip_id", pa.string()),
            ("source_id", pa.string()),
            ("sequence", pa.int32()),
            ("uri", pa.string()),
            ("origin", pa.string()),
            ("fps", pa.float64()),
            ("num_frames", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("duration_s", pa.float64()),
            ("sha256", pa.string()),
            ("status", pa.string()),
            ("error", pa.string()),
        ]
    ),
    # One row a raw file given to `microg curate`.
    "sources": pa.schema(
        [
            ("source_id", pa.string()),
            ("uri", pa.string()),
            ("origin", pa.string()),
            ("size_bytes", pa.int64()),
            ("fps", pa.float64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("duration_s", pa.float64()),
            ("clips", pa.int32()),
            ("tail_s", pa.float64()),
            ("decode_errors", pa.int32()),
            ("status", pa.string()),
            ("error", pa.string()),
        ]
    ),
    # One row a clip and stage: a rejected clip is a row, never a deletion.
    "decisions": pa.schema(
        [
            ("clip_id", pa.string()),
            ("stage", pa.string()),
            ("keep", pa.bool_()),
            ("reason", pa.string()),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
        ]
    ),
    "boxes": pa.schema(
        [
            ("clip_id", pa.string()),
            ("frame", pa.int32()),
            ("person_id", pa.int32()),
            *_PIXEL_BOX,
            ("confidence", pa.float32()),
        ]
    ),
    "actions": pa.schema([("clip_id", pa.string()), ("person_id", pa.int32()), ("action_id", pa.int32())]),
    "captions": pa.schema([("clip_id", pa.string()), ("caption", pa.string())]),
    "qa": pa.schema(
        [("clip_id", pa.string()), ("qa_index", pa.int32()), ("question", pa.string()), ("answer", pa.string())]
    ),
    # AVA-style: one row a (key frame, person, action); boxes normalised. action_id is null while unlabelled.
    "samples": pa.schema(
        [
            ("clip_id", pa.string()),
            ("frame", pa.int32()),
            ("person_id", pa.int32()),
            *_PIXEL_BOX,
            ("action_id", pa.int32()),
        ]
    ),
    # scheme: published (by clip) | source (grouped by source video, no leakage).
    "splits": pa.schema([("clip_id", pa.string()), ("split", pa.string()), ("scheme", pa.string())]),
}

# Tables of run folders.
RUN_TABLES: dict[str, pa.Schema] = {
    # One row a (key frame, box): what a model answers, one score a class of `label_space` in the order of its ids.
    # The box is normalised; score_kind: logit | probability; status: ok | error (then without scores).
    "har_predictions": pa.schema(
        [
            ("sample_id", pa.string()),
            ("clip_id", pa.string()),
            ("frame", pa.int32()),
            ("person_id", pa.int32()),
            *_PIXEL_BOX,
            ("scores", pa.list_(pa.float32())),
            ("score_kind", pa.string()),
            ("label_space", pa.string()),
            ("model", pa.string()),
            ("status", pa.string()),
            ("error", pa.string()),
        ]
    ),
    # One row a (protocol, slice, metric, average); the whole test set is slice `all`. Intervals are 95%, over clips and
    # over source videos.
    "har_scores": pa.schema(
        [
            ("protocol", pa.string()),
            ("slice_kind", pa.string()),
            ("slice", pa.string()),
            ("metric", pa.string()),
            ("average", pa.string()),
            ("value", pa.float64()),
            ("clip_low", pa.float64()),
            ("clip_high", pa.float64()),
            ("source_low", pa.float64()),
            ("source_high", pa.float64()),
            ("classes", pa.int32()),
            ("labels", pa.int64()),
            ("boxes", pa.int64()),
        ]
    ),
    # One row a (protocol, class); ap by the protocol's tie rule, ap_worst and ap_best bracket it.
    "har_classes": pa.schema(
        [
            ("protocol", pa.string()),
            ("action_id", pa.int32()),
            ("action", pa.string()),
            ("group", pa.string()),
            ("support", pa.int64()),
            ("ap", pa.float64()),
            ("ap_worst", pa.float64()),
            ("ap_best", pa.float64()),
            ("ap_published", pa.float64()),
            ("precision", pa.float64()),
            ("recall", pa.float64()),
            ("f1", pa.float64()),
            ("auroc", pa.float64()),
            ("hits", pa.int64()),
            ("wrong", pa.int64()),
            ("missed", pa.int64()),
        ]
    ),
    # Precision and recall at each distinct score of a true positive, by falling score.
    "har_curves": pa.schema(
        [
            ("protocol", pa.string()),
            ("action_id", pa.int32()),
            ("threshold", pa.float64()),
            ("recall", pa.float64()),
            ("precision", pa.float64()),
        ]
    ),
    # One row a finished epoch of training, from 1; `lr` is that of its last step, times are seconds, wait_s is how long
    # workers waited for clips. Scores of the val split are null in epochs without validation.
    "har_train": pa.schema(
        [
            ("epoch", pa.int32()),
            ("steps", pa.int64()),
            ("lr", pa.float64()),
            ("loss", pa.float64()),
            ("clips", pa.int64()),
            ("boxes", pa.int64()),
            ("failed", pa.int64()),
            ("train_s", pa.float64()),
            ("wait_s", pa.float64()),
            ("step_s", pa.float64()),
            ("val_s", pa.float64()),
            ("clips_per_s", pa.float64()),
            ("val_loss", pa.float64()),
            ("val_map_paper", pa.float64()),
            ("val_map_corrected", pa.float64()),
            ("val_f1_paper", pa.float64()),
            ("val_f1_corrected", pa.float64()),
            ("val_auroc", pa.float64()),
            ("val_boxes", pa.int64()),
            ("best", pa.bool_()),
        ]
    ),
    # One row a trial of a sweep, best first. settings: JSON of the values drawn; status: done | stopped (early) |
    # error | unfinished; best: the metric's highest value on val; run: the trial's folder inside the sweep's.
    "har_sweep": pa.schema(
        [
            ("trial_id", pa.string()),
            ("recipe", pa.string()),
            ("settings", pa.string()),
            ("status", pa.string()),
            ("epochs", pa.int32()),
            ("epochs_done", pa.int32()),
            ("metric", pa.string()),
            ("best", pa.float64()),
            ("best_epoch", pa.int32()),
            ("train_s", pa.float64()),
            ("run", pa.string()),
            ("error", pa.string()),
        ]
    ),
    # Resampled values under the corrected protocol; drawn_from is equal where resamples are paired.
    "har_bootstrap": pa.schema(
        [
            ("unit", pa.string()),
            ("drawn_from", pa.string()),
            ("metric", pa.string()),
            ("resample", pa.int32()),
            ("value", pa.float64()),
        ]
    ),
    # One row an answer of a vision-language model; a run appends them, and the newest row (`written`) of a (clip_id,
    # task, qa_index, prompt_id) wins. task: caption | vqa; qa_index is null for captions. frame_indices count from 0,
    # in the order shown; frame_hash is of their pixels at width x height; fingerprint is a hash of what decides an
    # engine's answers (the run's engine.json); cost in US dollars. status: ok | error.
    "generations": pa.schema(
        [
            ("clip_id", pa.string()),
            ("task", pa.string()),
            ("qa_index", pa.int32()),
            ("question", pa.string()),
            ("prompt_id", pa.string()),
            ("prompt_hash", pa.string()),
            ("text", pa.string()),
            ("frame_indices", pa.list_(pa.int32())),
            ("frame_hash", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("model", pa.string()),
            ("engine", pa.string()),
            ("fingerprint", pa.string()),
            ("prompt_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("finish_reason", pa.string()),
            ("latency_s", pa.float64()),
            ("attempts", pa.int32()),
            ("cached", pa.bool_()),
            ("cost", pa.float64()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("written", pa.timestamp("us", tz="UTC")),
        ]
    ),
    # One row a proposed question with its answer. chosen: its place among those kept, null where dropped for `reason`;
    # the four criteria from 1 to 5; review says why people should look at it; status: ok | error.
    "qa_candidates": pa.schema(
        [
            ("clip_id", pa.string()),
            ("number", pa.int32()),
            ("form", pa.string()),
            ("question", pa.string()),
            ("answer", pa.string()),
            ("consistency", pa.int32()),
            ("fluency", pa.int32()),
            ("relevance", pa.int32()),
            ("information", pa.int32()),
            ("reason", pa.string()),
            ("chosen", pa.int32()),
            ("review", pa.string()),
            ("status", pa.string()),
            ("error", pa.string()),
        ]
    ),
    # One row a scored item: what was said and what is true. status: ok | empty | missing | failed (then text is null).
    "text_pairs": pa.schema(
        [
            ("task", pa.string()),
            ("clip_id", pa.string()),
            ("qa_index", pa.int32()),
            ("question", pa.string()),
            ("references", pa.list_(pa.string())),
            ("text", pa.string()),
            ("status", pa.string()),
            ("answer_type", pa.string()),
            ("question_type", pa.string()),
        ]
    ),
    # One row a (protocol, task, system, coverage, slice, metric). system: model | constant | blind | shuffled;
    # coverage: all (missing answers score 0) | valid. Values as the metric defines them (CIDEr 0 to 10). signature says
    # which encoder and tokenizer; corpus (a hash) and corpus_items, which references CIDEr takes its frequencies from.
    "text_scores": pa.schema(
        [
            ("protocol", pa.string()),
            ("task", pa.string()),
            ("system", pa.string()),
            ("coverage", pa.string()),
            ("slice_kind", pa.string()),
            ("slice", pa.string()),
            ("metric", pa.string()),
            ("value", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("items", pa.int64()),
            ("clips", pa.int64()),
            ("corpus", pa.string()),
            ("corpus_items", pa.int64()),
            ("signature", pa.string()),
        ]
    ),
    # One row a (protocol, item, metric) of the model's own answers.
    "text_items": pa.schema(
        [
            ("protocol", pa.string()),
            ("task", pa.string()),
            ("clip_id", pa.string()),
            ("qa_index", pa.int32()),
            ("metric", pa.string()),
            ("value", pa.float64()),
        ]
    ),
    # Resampled values, over clips; drawn_from is equal where resamples are paired.
    "text_bootstrap": pa.schema(
        [
            ("protocol", pa.string()),
            ("task", pa.string()),
            ("metric", pa.string()),
            ("drawn_from", pa.string()),
            ("resample", pa.int32()),
            ("value", pa.float64()),
        ]
    ),
    # One row an answer shown to a judge. verdict: correct | incorrect, null where status is error (never "incorrect").
    "text_judgements": pa.schema(
        [
            ("task", pa.string()),
            ("clip_id", pa.string()),
            ("qa_index", pa.int32()),
            ("verdict", pa.string()),
            ("score", pa.float64()),
            ("reason", pa.string()),
            ("model", pa.string()),
            ("prompt_id", pa.string()),
            ("prompt_hash", pa.string()),
            ("cached", pa.bool_()),
            ("status", pa.string()),
            ("error", pa.string()),
        ]
    ),
}
# Tables that have a column (float64) for each metric: those of metrics that are registered later come after these.
METRIC_TABLES = frozenset({"har_classes", "har_train"})


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


def conform(name: str, table: pa.Table) -> pa.Table:
    """Cast `table` to the schema of table `name`: columns in order, exact types, missing nullable columns null.

    Raises `DatasetError` naming the columns that are unknown or the value that does not fit.
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
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DatasetError(f"table {name!r}, column {field.name!r}: {error}") from error
    return pa.table(columns, schema=schema)


def from_rows(name: str, rows: list[dict]) -> pa.Table:
    """Build table `name` from row dictionaries; a missing key is null."""
    try:
        return pa.Table.from_pylist(rows, schema=_schema_with(name, rows[0] if rows else ()))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DatasetError(f"table {name!r}: {error}") from error
