"""Captions and answers from every shape of file, and predictions beside their references."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microg import storage
from microg.data import schema
from microg.errors import DatasetError, FormatError, MetricError
from microg.texts.files import read_text_predictions, read_text_references
from microg.texts.items import ItemKey, TextPredictions, TextReferences, TextRow, rows_digest
from microg.texts.pairs import pair, pairs_table
from tests.support.helpers import make_dataset

CAPTIONS = {"a_000": "A man floats.", "b-1_001": 'Zwei Männer, "quer".\nAnd more'}
ANSWERS = {("a_000", 0): "Two.", ("a_000", 1): "", ("b-1_001", 0): "None."}
QUESTIONS = {("a_000", 0): "How many?", ("a_000", 1): "Who is it?", ("b-1_001", 0): "What is lost?"}


def _entries(q: str = "Q", a: str = "A") -> list[dict[str, Any]]:
    """Return the published shape: a list of {video_id, caption, qa_pairs}."""
    return [
        {
            "video_id": f"{clip}.mp4",
            "caption": caption,
            "qa_pairs": [{q: QUESTIONS[key], a: text} for key, text in ANSWERS.items() if key[0] == clip],
        }
        for clip, caption in CAPTIONS.items()
    ]


def _flat(text: str = "prediction") -> list[dict[str, Any]]:
    captions = [{"clip_id": clip, "task": "caption", text: caption} for clip, caption in CAPTIONS.items()]
    answers = [
        {"clip_id": clip, "task": "vqa", "qa_index": index, "question": QUESTIONS[clip, index], text: answer}
        for (clip, index), answer in ANSWERS.items()
    ]
    return captions + answers


def _write(path: Path, value: Any) -> str:
    if path.name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in value), "utf-8")
    elif path.suffix == ".parquet":
        names = dict.fromkeys(name for row in value for name in row)  # Arrow takes the first row's
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in value]), path)
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, ["clip_id", "task", "qa_index", "question", "prediction"], quoting=1)  # noqa: TID251 (a file to read)
            writer.writeheader()
            for row in value:
                writer.writerow({**row, "qa_index": row.get("qa_index", "")})
        # quoted, an empty field is a text; an index that is not there must be empty
        path.write_text(path.read_text("utf-8-sig").replace('"caption","",""', "caption,,"), "utf-8-sig")
    else:
        path.write_text(json.dumps(value, ensure_ascii=False), "utf-8")
    return str(path)


SHAPES = {
    "entries.json": _entries(),
    "long_names.json": _entries("question", "answer"),
    "entries.jsonl": _entries(),
    "entries.parquet": _entries(),
    "flat.json": _flat(),
    "flat.jsonl": _flat("text"),
    "flat.parquet": _flat("response"),
    "flat.csv": _flat(),
    "no_array.json": None,
    "by_clip.json": {entry["video_id"]: {k: v for k, v in entry.items() if k != "video_id"} for entry in _entries()},
    "sections.json": {"note": "x", "captions": _flat()[:2], "qa": _flat()[2:]},
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_holds_the_same_predictions(tmp_path: Path, name: str):
    path = tmp_path / name
    if SHAPES[name] is None:  # JSON lines under the name of JSON
        path.write_text(Path(_write(tmp_path / "x.jsonl", _flat())).read_text("utf-8"), "utf-8")
    else:
        _write(path, SHAPES[name])
    found = read_text_predictions(str(path))
    rows = [
        (row.task, row.clip_id, row.place if row.qa_index is None else row.qa_index, row.texts) for row in found.rows
    ]
    captions = [("caption", clip, None, (text,)) for clip, text in CAPTIONS.items()]
    answers = [("vqa", *key, (text,)) for key, text in ANSWERS.items()]
    assert sorted(rows, key=str) == sorted(captions + answers, key=str)
    assert {row.question for row in found.rows if row.task == "vqa"} == set(QUESTIONS.values())


def test_captions_by_clip_id_as_the_reference_wrote_them(tmp_path: Path):
    coco = {"annotations": [{"image_id": clip, "caption": text} for clip, text in CAPTIONS.items()]}
    for value in (CAPTIONS, {clip: [text] for clip, text in CAPTIONS.items()}, coco):
        found = read_text_predictions(_write(tmp_path / "c.json", value))
        assert {row.clip_id: row.texts for row in found.rows} == {clip: (text,) for clip, text in CAPTIONS.items()}
        assert found.tasks() == ("caption",)


def test_answers_by_clip_id(tmp_path: Path):
    value = {"a_000": [{"Q": "How many?", "A": "Two."}], "b_001": [{"Q": "Who?", "A": "She."}]}
    found = read_text_predictions(_write(tmp_path / "a.json", value))
    assert [(row.clip_id, row.place, row.texts) for row in found.rows] == [
        ("a_000", 0, ("Two.",)),
        ("b_001", 0, ("She.",)),
    ]


def test_packed_files_are_read(tmp_path: Path):
    path = tmp_path / "c.json.gz"
    path.write_bytes(gzip.compress(json.dumps(CAPTIONS).encode()))
    assert len(read_text_predictions(str(path)).rows) == 2
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match="cannot unpack"):
        read_text_predictions(str(path))


def test_a_file_with_predictions_and_references_gives_each_side_its_own(tmp_path: Path):
    rows = [{"video_id": "a_0", "question": "Q?", "reference": "true", "prediction": "said"}]
    path = _write(tmp_path / "both.json", {"qa": rows})
    assert read_text_predictions(path).rows[0].texts == ("said",)
    assert read_text_references(path).texts == {ItemKey("vqa", "a_0", 0): ("true",)}


def test_several_references_and_one_prediction(tmp_path: Path):
    path = _write(tmp_path / "c.json", {"a_000": ["one", "two"], "b_000": [{"caption": "three"}]})
    assert read_text_references(path).texts == {
        ItemKey("caption", "a_000"): ("one", "two"),
        ItemKey("caption", "b_000"): ("three",),
    }
    with pytest.raises(FormatError, match="list of 2 texts"):
        read_text_predictions(path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a_000": None}, "clip 'a_000': the caption of a_000 is missing (null)"),
        ({"a_000": float("nan")}, "is missing (null)"),
        ({"a_000": 3}, "is 3, not text"),
        ({"a_000": []}, "is an empty list"),
        ([{"video_id": "a_000", "qa_pairs": [{"Q": "Who?", "A": None}]}], "entry 1, qa_pairs[0]: the answer for"),
        ([{"video_id": "a_000", "qa_pairs": [{"Q": "Who?"}]}], "is not there"),
        ([{"video_id": "a_000", "qa_pairs": "no"}], "not valid JSON"),
        ([{"video_id": "a_000", "qa_pairs": [3]}], "no list"),
        ([{"caption": "x"}], "entry 1 names no clip"),
        ([{"video_id": "a..b", "caption": "x"}], "'a..b' is not allowed"),
        ([{"video_id": "a_0", "task": "poem", "caption": "x"}], "task 'poem' is unknown"),
        ([{"video_id": "a_0", "qa_index": 1.5, "answer": "x"}], "qa_index 1.5"),
        ([{"video_id": "a_0", "qa_index": -1, "answer": "x"}], "qa_index -1"),
        ([{"video_id": "a_0", "question": 7, "answer": "x"}], "question is 7"),
        (["text"], "entry 1 is 'text'"),
        (7, "neither a list nor an object"),
        ([], "holds no predictions"),
    ],
)
def test_what_cannot_be_scored_is_named_with_its_place(tmp_path: Path, value: Any, said: str):
    path = _write(tmp_path / "bad.json", value)
    with pytest.raises(FormatError) as raised:
        read_text_predictions(path)
    assert said in str(raised.value)
    assert path in str(raised.value)


def test_broken_files_are_refused_with_line_and_reason(tmp_path: Path):
    cases = {
        "half.json": ('{"a_000": "x', "not valid JSON"),
        "lines.jsonl": ('{"clip_id": "a_0", "text": "x"}\n{"clip', "line 2"),
        "list.jsonl": ("[1]\n", "no object"),
        "twice.json": ('{"a_000": "x", "a_000": "y"}', "'a_000' is there twice"),
        "empty.csv": ("", "is empty"),
        "what.docx": ("x", "not known"),
        "null.csv": ("clip_id,caption\na_0,\n", "line 2: the caption of a_0 is missing"),
        "nan.csv": ("clip_id,caption\na_0,x\nb_0,NaN\n", "line 3: the caption of b_0 is missing"),
    }
    for name, (text, said) in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(FormatError) as raised:
            read_text_predictions(str(tmp_path / name))
        assert said in str(raised.value)
    (tmp_path / "latin.json").write_bytes('{"a_0": "é"}'.encode("latin-1"))
    with pytest.raises(FormatError, match="not UTF-8"):
        read_text_predictions(str(tmp_path / "latin.json"))
    with pytest.raises(FormatError, match="not there"):
        read_text_predictions(str(tmp_path / "gone.json"))
    with pytest.raises(FormatError, match="no table generations"):
        read_text_predictions(str(tmp_path))


def _generation(clip: str, index: int | None, text: str | None, second: int, **more: Any) -> dict[str, Any]:
    written = datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.UTC)
    task = "caption" if index is None else "vqa"
    return {
        "clip_id": clip,
        "task": task,
        "qa_index": index,
        "prompt_id": f"{task}_v1",
        "model": "m",
        "text": text,
        "status": "ok" if text is not None else "error",
        "error": None if text is not None else "TimeoutError: slow",
        "written": written,
        **more,
    }


def _run(root: Path, *parts: list[dict[str, Any]]) -> str:
    for number, rows in enumerate(parts):
        path = root / "tables" / "generations" / f"{number}.parquet"
        storage.write_parquet(path, schema.from_rows("generations", rows))
    return str(root)


def test_the_newest_row_of_a_run_wins_and_failures_are_counted(tmp_path: Path):
    run = _run(
        tmp_path / "run",
        [_generation("a_0", None, "new", 9), _generation("a_0", 0, None, 1), _generation("b_0", 1, None, 5)],
        [_generation("a_0", None, "old", 3), _generation("a_0", 0, "retried", 2), _generation("b_0", 1, "before", 4)],
    )
    found = read_text_predictions(run)
    assert {(row.task, row.clip_id, row.qa_index): (row.texts, row.error) for row in found.rows} == {
        ("caption", "a_0", None): (("new",), None),
        ("vqa", "a_0", 0): (("retried",), None),
        ("vqa", "b_0", 1): ((), "TimeoutError: slow"),
    }
    assert (found.model, found.notes) == ("m", ("1 generations failed: they have no text",))


def test_several_prompts_or_models_are_not_mixed(tmp_path: Path):
    two = _run(tmp_path / "p", [_generation("a_0", 0, "x", 1), _generation("a_0", 0, "y", 1, prompt_id="vqa_v2")])
    with pytest.raises(FormatError, match="several vqa prompts: vqa_v1, vqa_v2"):
        read_text_predictions(two)
    assert read_text_predictions(two, prompt="vqa_v2").rows[0].texts == ("y",)
    models = _run(tmp_path / "m", [_generation("a_0", 0, "x", 1), _generation("a_0", 1, "y", 1, model="n")])
    with pytest.raises(FormatError, match="mixes models m, n"):
        read_text_predictions(models)


def test_references_come_from_a_dataset_and_its_splits(tmp_path: Path):
    def reject(rows: dict[str, list[dict[str, Any]]]) -> None:
        rows["clips"][1]["status"] = "rejected"

    root = make_dataset(tmp_path / "d", reject, videos=False).root
    everything = read_text_references(root)
    assert len([key for key in everything.texts if key.task == "caption"]) == 3
    assert everything.questions[ItemKey("vqa", "filmA_000", 2)] == "How many people are there?"
    assert everything.origins["tourB_000"] == "real"
    assert everything.notes == ("1 clips with status rejected or error were left out",)
    test = read_text_references(root, split="test", scheme="source")
    assert {key.clip_id for key in test.texts} == {"walkC_000"}
    with pytest.raises(DatasetError, match="no test split"):
        read_text_references(root, split="test")
    assert test.digest() != everything.digest()


def test_references_that_are_there_twice_are_refused(tmp_path: Path):
    path = _write(tmp_path / "r.json", [{"video_id": "a_0", "caption": "x"}, {"video_id": "a_0", "caption": "y"}])
    with pytest.raises(FormatError, match="entry 2: caption a_0 is there twice"):
        read_text_references(path)


REFERENCES = TextReferences(
    {ItemKey("caption", clip): (text,) for clip, text in CAPTIONS.items()}
    | {ItemKey("vqa", *key): (text,) for key, text in ANSWERS.items()},
    {ItemKey("vqa", *key): text for key, text in QUESTIONS.items()},
)


def _said(*rows: TextRow) -> TextPredictions:
    return TextPredictions(rows)


def _answer(clip: str, text: str, index: int | None = None, question: str | None = None, place: int = 0) -> TextRow:
    return TextRow("vqa", clip, (text,), f"row of {text}", index, question, place)


def test_answers_are_matched_by_index_else_by_question_else_by_place():
    said = _said(
        _answer("a_000", "by question", question=" Who  is it?", place=0),
        _answer("a_000", "by index", 0, place=1),
        _answer("b-1_001", "by place", place=0),
    )
    pairs = pair(said, REFERENCES, "vqa")
    assert [item.text for item in pairs.items] == ["by index", "by question", "by place"]
    assert [item.key.id for item in pairs.items] == ["a_000:0", "a_000:1", "b-1_001:0"]


def test_a_question_asked_twice_has_two_answers_in_order():
    twice = TextReferences(
        {ItemKey("vqa", "a_0", 0): ("x",), ItemKey("vqa", "a_0", 1): ("y",)},
        {ItemKey("vqa", "a_0", 0): "Why?", ItemKey("vqa", "a_0", 1): "Why?"},
    )
    said = [_answer("a_0", text, question="Why?") for text in ("1", "2", "3")]
    assert [item.text for item in pair(_said(*said[:2]), twice, "vqa").items] == ["1", "2"]
    with pytest.raises(MetricError, match=r"row of 3: vqa a_0:1 is there twice"):
        pair(_said(*said), twice, "vqa")


def test_missing_predictions_are_an_error_that_names_them_or_score_zero_on_demand():
    said = _said(_answer("a_000", "two", 0), TextRow("vqa", "b-1_001", (), "r", 0, error="TimeoutError: slow"))
    with pytest.raises(MetricError, match=r"2 of 3 vqa predictions are missing: a_000:1, b-1_001:0"):
        pair(said, REFERENCES, "vqa")
    pairs = pair(said, REFERENCES, "vqa", missing="zero")
    assert [item.state for item in pairs.items] == ["ok", "missing", "failed"]
    assert [item.scored for item in pairs.items] == ["two", "", ""]
    assert pairs.coverage() == {
        "items": 3,
        "clips": 2,
        "answered": 1,
        "empty": 0,
        "missing": 1,
        "failed": 1,
        "extra": 0,
    }


def test_extra_predictions_are_an_error_unless_allowed_and_then_listed():
    rows = [_answer(clip, "x", index) for clip, index in ANSWERS]
    said = _said(*rows, _answer("a_000", "x", 9), _answer("c_000", "x", question="Where?"))
    with pytest.raises(MetricError, match=r"2 vqa predictions have no reference: a_000:9, c_000: 'Where\?'"):
        pair(said, REFERENCES, "vqa")
    assert pair(said, REFERENCES, "vqa", allow_extra=True).extra == ("a_000:9", "c_000: 'Where?'")


def test_duplicates_and_answers_to_another_question_are_errors():
    with pytest.raises(MetricError, match="row of b: vqa a_000:0 is there twice"):
        pair(_said(_answer("a_000", "a", 0), _answer("a_000", "b", 0)), REFERENCES, "vqa", missing="zero")
    with pytest.raises(MetricError, match=r"answer a_000:1 is to 'How many\?', but the reference asks 'Who is it\?'"):
        pair(_said(_answer("a_000", "a", 1, "How many?")), REFERENCES, "vqa", missing="zero")
    row = TextRow("caption", "a_000", ("x",), "r")
    with pytest.raises(MetricError, match="caption a_000 is there twice"):
        pair(_said(row, row), REFERENCES, "caption", missing="zero")


def test_nothing_in_common_is_an_error_even_when_missing_scores_zero():
    with pytest.raises(MetricError, match="are the clip ids the same ones"):
        pair(_said(_answer("z_000", "x", 0)), REFERENCES, "vqa", missing="zero", allow_extra=True)


def test_empty_answers_are_counted_and_pairs_become_a_table():
    said = _said(*[_answer(clip, " \n" if index else "x", index) for clip, index in ANSWERS])
    pairs = pair(said, REFERENCES, "vqa")
    assert pairs.count("empty") == 1
    table = pairs_table([pairs], lambda item: {"answer_type": "other", "question_type": item.question})
    assert table.schema == schema.RUN_TABLES["text_pairs"]
    assert table["status"].to_pylist() == ["ok", "empty", "ok"]
    assert table["references"].to_pylist() == [["Two."], [""], ["None."]]


def test_the_digest_is_of_contents_and_not_of_order_or_file():
    rows = [_answer("a_000", "x", 0), _answer("b_000", "y", 0)]
    moved = [TextRow(**{**vars(row), "where": "elsewhere"}) for row in rows]
    assert rows_digest(rows) == rows_digest(moved[::-1])
    assert rows_digest(rows) != rows_digest(rows[:1])
    assert REFERENCES.digest() == TextReferences(dict([*REFERENCES.texts.items()][::-1]), REFERENCES.questions).digest()
