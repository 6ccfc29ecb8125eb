"""Readers of true captions and answers: a dataset folder (all of it or one split), and files of any shape."""

from __future__ import annotations

from microg import storage
from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.errors import DatasetError, FormatError
from microg.texts.files import read_rows
from microg.texts.items import ItemKey, TextReferences, TextRow


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
        TextRow("caption", row["clip_id"], (_text(row["caption"], f"caption of {row['clip_id']}", path),), path)
        for row in captions.to_pylist()
    ]
    for row in qa.to_pylist():
        name = f"answer {row['qa_index']} of {row['clip_id']}"
        answer = _text(row["answer"], name, path)
        rows.append(TextRow("vqa", row["clip_id"], (answer,), f"{path}, {name}", row["qa_index"], row["question"]))
    if not rows:
        raise DatasetError(f"dataset {path} has neither captions nor answers", "import them with 'microg data import'")
    found = references_of(rows)
    origins = {row["clip_id"]: row["origin"] for row in clips.to_pylist() if row["origin"]}
    return TextReferences(found.texts, found.questions, origins, tuple(notes))


def _text(value: str | None, name: str, path: str) -> str:
    if value is None:
        raise FormatError(f"{path}: the {name} is null", "run 'microg data validate'")
    return value
