"""Readers of captions and answers to be scored: our `generations` table or its run folder, and files of any shape."""

from __future__ import annotations

import pyarrow as pa

from microg import storage
from microg.arrow import pc
from microg.data import schema
from microg.errors import FormatError
from microg.texts.files import read_rows
from microg.texts.items import TASKS, TextPredictions, TextRow

_TABLE = "generations"


def read_text_predictions(path: str, *, prompt: str | None = None) -> TextPredictions:
    """Read predictions from any form; `prompt` chooses among the prompt ids of a `generations` table.

    Raises `FormatError` with the place of the first row that cannot be scored.
    """
    if not storage.exists(path):
        raise FormatError(f"predictions {path} are not there")
    fs, plain = storage.filesystem(path)
    if fs.isdir(plain):
        return _from_generations(_run_table(path), path, prompt)
    if path.endswith(".parquet"):
        table = storage.read_parquet(path)
        if {"prompt_id", "status", "text"} <= set(table.column_names):
            return _from_generations(table, path, prompt)
    return TextPredictions(tuple(read_rows(path, "prediction")))


def _run_table(path: str) -> pa.Table:
    for candidate in (storage.join(path, "tables", f"{_TABLE}.parquet"), storage.join(path, f"{_TABLE}.parquet")):
        if storage.exists(candidate):
            return storage.read_parquet(candidate)
    for folder in (storage.join(path, "tables", _TABLE), storage.join(path, _TABLE)):
        if storage.exists(folder):
            return storage.read_parquet_folder(folder, schema.RUN_TABLES[_TABLE])
    raise FormatError(f"{path} holds no table {_TABLE}", "give a file, or the run folder of 'microg vlm generate'")


def newest(table: pa.Table) -> pa.Table:
    """Return the newest row of each (clip, task, question, prompt) of table `generations`, in a fixed order."""
    table = schema.conform(_TABLE, table)
    order = ["clip_id", "task", "qa_index", "prompt_id"]
    table = table.sort_by([*((name, "ascending") for name in order), ("written", "ascending")])
    rows = table.select(order).to_pylist()
    last = [place for place, row in enumerate(rows) if place + 1 == len(rows) or rows[place + 1] != row]
    return table.take(pa.array(last, pa.int64()))


def _from_generations(table: pa.Table, path: str, prompt: str | None) -> TextPredictions:
    table = newest(table)
    if prompt is not None:
        table = table.filter(pc.equal(table["prompt_id"], prompt))
    for task in TASKS:
        known = pc.unique(table.filter(pc.equal(table["task"], task))["prompt_id"]).to_pylist()
        if len(known) > 1:
            names = ", ".join(map(str, known))
            raise FormatError(f"{path} holds answers to several {task} prompts: {names}", "choose one with --prompt")
    models = [name for name in pc.unique(table["model"]).to_pylist() if name is not None]
    if len(models) > 1:
        raise FormatError(f"{path} mixes models {', '.join(models)}", "score one model at a time")
    rows = tuple(_row(values, f"{path}, row of {values['clip_id']}") for values in table.to_pylist())
    if not rows:
        raise FormatError(f"{path} holds no answers" + (f" to prompt {prompt!r}" if prompt else ""))
    failed = sum(row.error is not None for row in rows)
    notes = (f"{failed} generations failed: they have no text",) if failed else ()
    return TextPredictions(rows, models[0] if models else None, notes)


def _row(values: dict, where: str) -> TextRow:
    task, index = values["task"], values["qa_index"]
    if task not in TASKS or (index is None) != (task == "caption"):
        raise FormatError(f"{where}: task {task!r} with qa_index {index}", "vqa has a qa_index, caption has none")
    error = None if values["status"] == "ok" else values["error"] or f"status {values['status']}"
    if error is None and values["text"] is None:
        raise FormatError(f"{where}: status is ok, but there is no text")
    texts = () if error is not None else (values["text"],)
    return TextRow(task, values["clip_id"], texts, where, index, values["question"], error=error)
