"""Readers of captions and answers: files of any shape as `TextRow`s, our `generations` table, a dataset folder.

JSON: clip id -> caption (or list of captions, or entry, or list of pairs); a list of entries {video_id, caption,
qa_pairs: [{Q, A}]}; a list of flat rows {video_id, question, answer}; {"captions": [...], "qa": [...]}; COCO's
{"annotations": [{image_id, caption}]}. JSONL, CSV and Parquet hold entries or flat rows under the same names.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv

from microg import storage
from microg.arrow import pc
from microg.csv_tables import delimiter_of, refuse_spreadsheet
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.ids import check_id, clip_name
from microg.errors import DatasetError, FormatError, IdError
from microg.reading import gunzip, parse_json, reads
from microg.texts.items import TASKS, ItemKey, Task, TextPredictions, TextReferences, TextRow

Side = Literal["prediction", "reference"]

_CLIP = ("clip_id", "video_id", "video", "video_name", "image_id", "id")
_QUESTION = ("question", "Q")
_INDEX = ("qa_index", "question_index")
# In the order in which they are looked for: a file may hold predictions beside references.
_TEXTS: dict[Side, str] = {
    "prediction": "prediction pred predicted_answer response output generated text answer A caption",
    "reference": "references reference ground_truth gt target captions answer A caption text",
}
_NOT_CAPTIONS = {"answer", "A", "predicted_answer"}
_SECTIONS: dict[str, Task | None] = {"captions": "caption", "qa": "vqa", "vqa": "vqa", "annotations": None}

Record = tuple[str, Mapping[str, Any], Task | None]  # where it stands, its values, its task where the file says it


def read_rows(path: str, side: Side) -> list[TextRow]:
    """Read every text of a file.

    Raises `FormatError` naming the entry, line or row: no clip id or a bad one, no text, a text that is null, NaN or a
    number, more than one prediction for an item.
    """
    places: Counter[str] = Counter()
    rows: list[TextRow] = []
    for where, values, task in _records(path):
        for row in _rows(where, values, task, side):
            if row.task == "vqa" and row.qa_index is None:
                row = TextRow(**{**vars(row), "place": places[row.clip_id]})
            places[row.clip_id] += row.task == "vqa"
            rows.append(row)
    if not rows:
        raise FormatError(f"{path} holds no {side}s")
    return rows


def _records(path: str) -> Iterator[Record]:
    name = path.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _numbered(storage.read_parquet(path).to_pylist(), path, "row")
    elif name.endswith((".csv", ".tsv")):
        yield from _numbered(_csv(path, "\t" if name.endswith(".tsv") else None), path, "line", first=2)
    elif name.endswith((".json", ".jsonl", ".ndjson")):
        yield from _json(path, lines=not name.endswith(".json"))
    else:
        raise FormatError(f"{path}: the form of this file is not known", "give .json, .jsonl, .csv or .parquet")


def _csv(path: str, delimiter: str | None) -> list[dict[str, Any]]:
    data = _bytes(path).removeprefix(b"\xef\xbb\xbf")
    refuse_spreadsheet(data, path)
    delimiter = delimiter or delimiter_of(data)
    if not data.strip():
        raise FormatError(f"{path} is empty", "its first line names the columns, e.g. clip_id,caption")
    header = data.split(b"\n", 1)[0].decode("utf-8", "replace")
    names = [name.strip().strip('"') for name in header.strip("\r").split(delimiter)]
    try:
        table = pa_csv.read_csv(
            io.BytesIO(data),
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
            # NaN is what pandas calls a missing text; "None." may be an answer
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=["", "NaN", "nan"],
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise FormatError(f"cannot read {path}: {error}", "its first line names the columns") from error
    return table.to_pylist()


def _json(path: str, *, lines: bool) -> Iterator[Record]:
    text = _text(path)
    if not lines:
        try:
            yield from _document(_loads(text, path), path)
            return
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):
                raise FormatError(f"{path} is not valid JSON: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found = _loads(line, path)
            except json.JSONDecodeError as error:
                raise FormatError(f"{path}, line {number} is not valid JSON: {error}") from error
            if not isinstance(found, dict):
                raise FormatError(f"{path}, line {number} is no object", "each line is one {...}")
            yield f"{path}, line {number}", found, None


def _document(found: Any, path: str) -> Iterator[Record]:
    if isinstance(found, list):
        yield from _numbered(found, path, "entry")
        return
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds neither a list nor an object", "see 'microg vlm score --help' for shapes")
    sections = [name for name in _SECTIONS if isinstance(found.get(name), list)]
    if sections and all(isinstance(entry, dict) for name in sections for entry in found[name]):
        for name in sections:
            yield from _numbered(found[name], f"{path}, {name}", "entry", task=_SECTIONS[name])
        return
    for clip, value in found.items():
        where = f"{path}, clip {clip!r}"
        pairs = isinstance(value, list) and value and all(isinstance(pair, dict) and _is_pair(pair) for pair in value)
        if isinstance(value, dict):
            yield where, {**value, "clip_id": clip}, None
        elif pairs:
            yield where, {"clip_id": clip, "qa_pairs": value}, None
        else:
            yield where, {"clip_id": clip, "caption": value}, "caption"


def _numbered(found: list, path: str, noun: str, *, first: int = 1, task: Task | None = None) -> Iterator[Record]:
    for number, values in enumerate(found, first):
        if not isinstance(values, dict):
            raise FormatError(f"{path}, {noun} {number} is {values!r}, not an object with a clip id and a text")
        yield f"{path}, {noun} {number}", values, task


def _rows(where: str, values: Mapping[str, Any], task: Task | None, side: Side) -> Iterator[TextRow]:
    clip_id, aliases = _clip_id(values, where), _TEXTS[side].split()
    stated = values.get("task")
    if stated is not None and stated not in ("caption", "vqa"):
        raise FormatError(f"{where}: task {stated!r} is unknown", "it is caption or vqa")
    task = stated or task
    if values.get("qa_pairs") is not None:
        for place, pair in enumerate(_pairs(values["qa_pairs"], where)):
            at = f"{where}, qa_pairs[{place}]"
            index = _index(pair, at)
            texts = _texts(pair, aliases, side, f"{at}: the answer for clip {clip_id}")
            yield TextRow("vqa", clip_id, texts, at, index, _question(pair, at))
        names = [name for name in aliases if name not in _NOT_CAPTIONS and values.get(name) is not None]
        if names:
            yield TextRow("caption", clip_id, _texts(values, names, side, f"{where}: the caption of {clip_id}"), where)
        return
    index, question = _index(values, where), _question(values, where)
    if task == "vqa" or (task is None and (index is not None or question is not None)):
        texts = _texts(values, aliases, side, f"{where}: the answer for clip {clip_id}")
        yield TextRow("vqa", clip_id, texts, where, index, question)
        return
    yield TextRow("caption", clip_id, _texts(values, aliases, side, f"{where}: the caption of {clip_id}"), where)


def _clip_id(values: Mapping[str, Any], where: str) -> str:
    name = next((values[alias] for alias in _CLIP if values.get(alias) is not None), None)
    if name is None:
        raise FormatError(f"{where} names no clip", f"it needs one of {', '.join(_CLIP)}")
    try:
        return check_id(clip_name(name), "clip id")
    except IdError as error:
        raise FormatError(f"{where}: {error.what}", error.fix) from error


def _texts(values: Mapping[str, Any], names: list[str], side: Side, what: str) -> tuple[str, ...]:
    name = next((name for name in names if name in values), None)
    if name is None:
        raise FormatError(f"{what} is not there", f"it needs one of {', '.join(names)}")
    found = values[name]
    many = found if isinstance(found, list | tuple) else [found]
    texts: list[str] = []
    for value in many:
        text = value["caption"] if isinstance(value, dict) and "caption" in value else value
        if not isinstance(text, str):
            kind = "missing (null)" if text is None or text != text else f"{text!r}, not text"
            raise FormatError(f"{what} is {kind}", 'write "" for an empty text, and leave out what a model did not say')
        texts.append(text)
    if not texts:
        raise FormatError(f"{what} is an empty list")
    if side == "prediction" and len(texts) > 1:
        raise FormatError(f"{what} is a list of {len(texts)} texts", "give one prediction an item")
    return tuple(texts)


def _is_pair(values: Mapping[str, Any]) -> bool:
    return any(name in values for name in (*_QUESTION, *_INDEX, "answer", "A"))


def _pairs(found: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(found, str):  # as some Parquet files hold them
        found = parse_json(found, f"{where}, qa_pairs")
    if not isinstance(found, list) or not all(isinstance(pair, dict) for pair in found):
        raise FormatError(f"{where}: qa_pairs is no list of {{Q, A}}")
    return found


def _question(values: Mapping[str, Any], where: str) -> str | None:
    found = next((values[name] for name in _QUESTION if values.get(name) is not None), None)
    if found is not None and not isinstance(found, str):
        raise FormatError(f"{where}: the question is {found!r}, not text")
    return found


def _index(values: Mapping[str, Any], where: str) -> int | None:
    found = next((values[name] for name in _INDEX if values.get(name) is not None), None)
    if found is None:
        return None
    try:
        index = int(float(found))
        whole = float(found) == index
    except (TypeError, ValueError, OverflowError):
        whole, index = False, -1
    if not whole or index < 0 or isinstance(found, bool):
        raise FormatError(f"{where}: qa_index {found!r} is no number", "questions of a clip count from 0")
    return index


def _loads(text: str, path: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            twice = [name for name, number in Counter(name for name, _ in items).items() if number > 1]
            raise FormatError(f"{path}: key {twice[0]!r} is there twice", "readers would silently take the last one")
        return result

    return json.loads(text, object_pairs_hook=pairs)


def _text(path: str) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}", "write the file again as UTF-8") from error


def _bytes(path: str) -> bytes:
    data = storage.read_bytes(path)
    return gunzip(data, path) if path.lower().endswith(".gz") else data


_TABLE = "generations"


@reads()
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


@reads()
def read_generations(path: str) -> pa.Table:
    """Return the newest row of table `generations` for each (clip, task, question) of a run, whatever asked it.

    Raises `FormatError` where the run has none.
    """
    table = newest(_run_table(path)).sort_by([("written", "ascending")])
    last = {(row["clip_id"], row["task"], row["qa_index"]): place for place, row in enumerate(table.to_pylist())}
    return table.take(pa.array(sorted(last.values()), pa.int64()))


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
    screened = pc.sum(pc.equal(table["task"], "screening")).as_py() or 0
    table = table.filter(pc.not_equal(table["task"], "screening"))
    if screened and not table.num_rows:
        raise FormatError(f"{path} holds screenings only, no texts to score", "'microg data accept' takes them")
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


@reads()
def read_text_references(path: str, *, split: str | None = None, scheme: str = "published") -> TextReferences:
    """Read references from any form; `split` and `scheme` choose clips of a dataset folder (None: all).

    Raises `FormatError` naming the place of what cannot be used, or of an item that is there twice.
    """
    if not storage.exists(path):
        raise FormatError(f"references {path} are not there")
    if storage.exists(storage.join(path, "dataset.json")):
        return _from_dataset(path, split, scheme)
    fs, plain = storage.filesystem(path)
    if fs.isdir(plain):
        raise FormatError(f"{path} is neither a dataset nor a file of references", "give a file or a dataset folder")
    if split is not None:
        raise FormatError(f"{path} is no dataset: it has no splits", "leave out --split")
    return references_of(read_rows(path, "reference"))


def references_of(rows: list[TextRow]) -> TextReferences:
    """Return rows by key; answers without index take their place. Raises `FormatError` for a repeated key."""
    texts: dict[ItemKey, tuple[str, ...]] = {}
    questions: dict[ItemKey, str] = {}
    for row in rows:
        key = ItemKey(row.task, row.clip_id, row.place if row.qa_index is None else row.qa_index)
        if key in texts:
            raise FormatError(f"{row.where}: {key.task} {key.id} is there twice", "give each reference once")
        texts[key] = row.texts
        if row.question is not None:
            questions[key] = row.question
    return TextReferences(texts, questions)


def _from_dataset(path: str, split: str | None, scheme: str) -> TextReferences:
    dataset = Dataset.open(path)
    clips, notes = dataset.table("clips"), []
    captions, qa = dataset.table("captions"), dataset.table("qa")
    usable = pc.fill_null(pc.equal(clips["status"], "ok"), True)
    left_out = clips.filter(pc.invert(usable))["clip_id"]
    if len(left_out):
        notes.append(f"{len(left_out)} clips with status rejected or error were left out")
        captions, qa = (t.filter(pc.invert(pc.is_in(t["clip_id"], left_out.combine_chunks()))) for t in (captions, qa))
    if split is not None:
        chosen = dataset.split_clips(split, scheme)
        captions, qa = (table.filter(pc.is_in(table["clip_id"], chosen)) for table in (captions, qa))
    rows = [
        TextRow("caption", row["clip_id"], (_stated(row["caption"], f"caption of {row['clip_id']}", path),), path)
        for row in captions.to_pylist()
    ]
    for row in qa.to_pylist():
        name = f"answer {row['qa_index']} of {row['clip_id']}"
        answer = _stated(row["answer"], name, path)
        rows.append(TextRow("vqa", row["clip_id"], (answer,), f"{path}, {name}", row["qa_index"], row["question"]))
    if not rows:
        raise DatasetError(f"dataset {path} has neither captions nor answers", "import them with 'microg data import'")
    found = references_of(rows)
    origins = {row["clip_id"]: row["origin"] for row in clips.to_pylist() if row["origin"]}
    return TextReferences(found.texts, found.questions, origins, tuple(notes))


def _stated(value: str | None, name: str, path: str) -> str:
    if value is None:
        raise FormatError(f"{path}: the {name} is null", "run 'microg data validate'")
    return value
