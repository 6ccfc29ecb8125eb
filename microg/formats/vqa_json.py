"""Captions and question-answer pairs as published: a JSON array, or the same in Parquet."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from microg import storage
from microg.data import schema
from microg.data.ids import clip_id_of
from microg.errors import FormatError
from microg.reading import is_mac_leftover, parse_json

_NAME = "vqa_and_captioning"
_PAIR = pa.struct([("Q", pa.string()), ("A", pa.string())])
_SCHEMA = pa.schema([("video_id", pa.string()), ("caption", pa.string()), ("qa_pairs", pa.list_(_PAIR))])


def find_and_read(root: str) -> tuple[pa.Table, pa.Table, str | None]:
    """Return tables `captions` and `qa` of a published folder, and the file they came from (None: there is none).

    Takes the one JSON file of the right shape in `annotation_files/`, `vqa_and_captioning/` or the root, else the
    Parquet file. Raises `FormatError` when there are several.
    """
    fs, _ = storage.filesystem(root)
    candidates: list[tuple[str, list[dict]]] = []
    for folder in (storage.join(root, "annotation_files"), storage.join(root, _NAME), root):
        if not storage.exists(folder):
            continue
        for name in sorted(fs.ls(storage.filesystem(folder)[1], detail=False)):
            if name.endswith(".json") and not is_mac_leftover(name):
                file = storage.join(folder, name.rsplit("/", 1)[-1])
                parsed = _shape(storage.read_json(file))
                if parsed is not None:
                    candidates.append((file, parsed))
    if len(candidates) > 1:
        names = ", ".join(file for file, _ in candidates)
        raise FormatError(f"several files hold captions: {names}", "keep one of them in the folder")
    if candidates:
        file, entries = candidates[0]
        return *tables(entries, file), file
    for file in (storage.join(root, "parquet_format", f"{_NAME}.parquet"), storage.join(root, f"{_NAME}.parquet")):
        if storage.exists(file):
            return *tables(_from_parquet(storage.read_parquet(file), file), file), file
    return schema.empty("captions"), schema.empty("qa"), None


def tables(entries: list[dict], where: str) -> tuple[pa.Table, pa.Table]:
    """Return tables `captions` and `qa` for entries {video_id, caption, qa_pairs: [{Q, A}]}.

    `qa_index` counts from 0. Raises `FormatError` naming the entry that is not of this shape or repeats a clip.
    """
    captions, questions, seen = [], [], set()
    for number, entry in enumerate(entries, 1):
        clip_id = clip_id_of(entry.get("video_id", ""), f"{where}, entry {number}")
        if clip_id in seen:
            raise FormatError(f"{where}, entry {number}: {clip_id} is there twice")
        seen.add(clip_id)
        caption, pairs = entry.get("caption"), entry.get("qa_pairs") or []
        if caption is not None and not isinstance(caption, str):
            raise FormatError(f"{where}, entry {number}: the caption of {clip_id} is not a text")
        if caption is not None:
            captions.append({"clip_id": clip_id, "caption": caption})
        for index, pair in enumerate(pairs):
            if not isinstance(pair, dict) or not isinstance(pair.get("Q"), str) or not isinstance(pair.get("A"), str):
                raise FormatError(f"{where}, entry {number}: qa_pairs[{index}] of {clip_id} is not {{Q, A}}")
            questions.append({"clip_id": clip_id, "qa_index": index, "question": pair["Q"], "answer": pair["A"]})
    return schema.from_rows("captions", captions), schema.from_rows("qa", questions)


def items(captions: pa.Table, qa: pa.Table) -> tuple[list[dict], list[str]]:
    """Return the entries to write, in the order of `captions` and then of `qa`, and notes."""
    entries: dict[str, dict[str, Any]] = {}
    notes = []
    repeated = 0
    for row in captions.to_pylist():
        repeated += row["clip_id"] in entries
        entries.setdefault(row["clip_id"], {"video_id": row["clip_id"], "caption": row["caption"], "qa_pairs": []})
    if repeated:
        notes.append(f"{repeated} captions were not written: a clip has one caption, the first was kept")
    renumbered = set()
    pairs: dict[str, list[dict]] = {}
    for row in qa.to_pylist():
        pairs.setdefault(row["clip_id"], []).append(row)
    for clip_id, rows in pairs.items():
        rows = sorted(rows, key=lambda row: row["qa_index"])
        if [row["qa_index"] for row in rows] != list(range(len(rows))):
            renumbered.add(clip_id)
        entry = entries.setdefault(clip_id, {"video_id": clip_id, "caption": None, "qa_pairs": []})
        entry["qa_pairs"] = [{"Q": row["question"], "A": row["answer"]} for row in rows]
    if renumbered:
        notes.append(f"the questions of {len(renumbered)} clips are not numbered 0, 1, 2 ...: only their order is kept")
    return list(entries.values()), notes


def write(root: str, entries: list[dict]) -> None:
    """Write the JSON file (as published: indent 2, no line end after the last bracket) and the Parquet file."""
    text = json.dumps(entries, indent=2, ensure_ascii=False)
    storage.write_bytes(storage.join(root, "annotation_files", f"{_NAME}.json"), text.encode())
    table = pa.Table.from_pylist(entries, schema=_SCHEMA)
    storage.write_parquet(storage.join(root, "parquet_format", f"{_NAME}.parquet"), table)


def _shape(document: Any) -> list[dict] | None:
    """Return entries when the document is of a known shape: the published array, or clip id -> caption (or entry)."""
    if isinstance(document, list) and document and all(isinstance(e, dict) and "video_id" in e for e in document):
        return document
    if isinstance(document, dict) and document:
        if all(isinstance(value, str) for value in document.values()):
            return [{"video_id": key, "caption": value} for key, value in document.items()]
        if all(isinstance(value, dict) and {"caption", "qa_pairs"} & set(value) for value in document.values()):
            return [{**value, "video_id": key} for key, value in document.items()]
    return [] if document == [] else None


def _from_parquet(table: pa.Table, file: str) -> list[dict]:
    missing = [name for name in ("video_id", "caption") if name not in table.column_names]
    if missing:
        raise FormatError(f"{file} lacks the columns {missing}", f"it has {table.column_names}")
    entries = table.to_pylist()
    for entry in entries:
        if isinstance(entry.get("qa_pairs"), str):
            entry["qa_pairs"] = parse_json(entry["qa_pairs"], f"{file}, qa_pairs of {entry['video_id']}")
    return entries
