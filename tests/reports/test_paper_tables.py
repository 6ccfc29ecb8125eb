"""The paper's ten tables: every published cell as printed, our numbers beside them, and contradictions from numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from microg.data.dataset import Dataset
from microg.metrics.published.paper import contradictions
from microg.reports.pages.report import paper_tables
from microg.reports.run_folders import RunFolder
from microg.reports.tables.result_table import Cell, ResultTable, as_csv, latex, markdown
from tests.support import scored_runs
from tests.support.helpers import make_dataset

_SECTIONS = {"Open-Source", "Closed-Source"}
# How the transcription of a table begins: lines of heads.
_HEADS = {1: 2, 2: 2, 9: 2}


def _table(number: int | None, runs: Sequence[RunFolder] = (), datasets: Sequence[Dataset] = ()) -> ResultTable:
    return next(table for table in paper_tables(runs, datasets) if table.number == number)


def _printed(facts: Path, number: int) -> list[list[str]]:
    """Return the cells of a table as transcribed from the paper; `4,986 (37.60%)` is two cells."""
    text = (facts / "paper_tables.md").read_text("utf-8").split(f"## Table {number}\n")[1].split("\n## ")[0]
    lines = [line.split("\t") for line in text.strip().splitlines()][_HEADS.get(number, 1) :]
    return [
        [part for cell in line for part in _parts(cell)] for line in lines if line[0] not in _SECTIONS and len(line) > 1
    ]


def _parts(cell: str) -> list[str]:
    found = re.fullmatch(r"([\d,]+) \(([\d.]+)%\)", cell)
    return [_plain(part) for part in (found.groups() if found else (cell,))]


def _plain(text: str) -> str:
    """Return a cell without what is typography: frames x rate, thousands apart."""
    text = re.sub(r"(\d)[x×](\d)", r"\1x\2", text)
    return text.replace(",", "") if re.fullmatch(r"[\d,.]+", text) else text


def _published(table: ResultTable) -> list[list[str]]:
    rows = [row for row in table.rows if row.origin == "published"]
    return [[_plain(cell.number) for cell in row.cells] for row in rows]


@pytest.mark.parametrize("number", range(1, 11))
def test_every_published_cell_is_as_the_paper_prints_it(facts: Path, number: int) -> None:
    printed, ours = _printed(facts, number), _published(_table(number))
    if number in (4, 5):  # scores that the paper does not have
        ours = [row[: len(printed[0])] for row in ours]
    assert sorted(ours) == sorted(printed)
    assert len(printed) == {1: 12, 2: 2, 3: 4, 4: 9, 5: 6, 6: 4, 7: 3, 8: 3, 9: 50, 10: 8}[number]


def test_tables_come_by_the_papers_numbers_after_the_overview() -> None:
    tables = paper_tables([])
    assert [table.number for table in tables] == [None, *range(1, 11)]
    assert not any(table.ours for table in tables)
    assert len({table.name for table in tables}) == len(tables)
    titles = [head.name for head in tables[1].heads]
    assert titles == [
        *("Arch", "TC", "Backbone", "#Params (M)"),
        *(f"Validation {name} (%)" for name in ("mAP@0.5", "F1", "Recall", "AUROC")),
        *(f"Test {name} (%)" for name in ("mAP@0.5", "F1", "Recall", "AUROC")),
    ]
    assert [head.title for head in tables[2].heads][3:5] == ["Pretrain", "Fine-tune"]


def test_where_the_paper_contradicts_itself_the_page_says_so_from_the_numbers() -> None:
    texts = "\n".join(item.text for item in contradictions())
    for numbers in (
        "13,251 in all, the rows of Table 7 add up to 13,261",
        "4,986 labels in Table 7, 4,976 elsewhere in the paper; the gap is that of the totals",
        "1,416 in movies and 3,788 in real videos are 5,204, not 4,986; Table 9 has 1,198 and 3,788",
        "1,198 in movies and 2,950 in real videos are 4,148, not 4,288",
        "1,037 in movies and 2,872 in real videos are 3,909, not 3,987",
        "printed as 42.10; the published run has 42.09",
        "2 rows are named SlowFast 4×16, of 31.74 M and 33.76 M: that of 31.74 M is Slow",
    ):
        assert numbers in texts
    for item in contradictions():
        for number in item.tables:
            assert any(item.text in note for note in _table(number).notes)
    named = [row for row in _table(1).rows if row.cells[0].text == "SlowFast" and row.cells[1].text == "4×16"]
    assert [bool(row.cells[0].doubt) for row in named] == [True, False]


def test_a_dataset_stands_below_the_published_one_in_its_tables(tmp_path: Path) -> None:
    dataset = scored_runs.scored_dataset(tmp_path / "data")
    name = dataset.info["name"]
    labels, clips = dataset.table("actions").num_rows, dataset.kept_clips().num_rows
    for number in (None, 6, 7, 8, 9, 10):
        table = _table(number, datasets=[dataset])
        mine = [row for row in table.rows if row.origin == "ours"]
        assert mine, number
        assert {row.run for row in mine} == {name}
        assert all(cell.difference is None for row in mine for cell in row.cells)  # other data than the published
    splits = [row for row in _table(6, datasets=[dataset]).rows if row.origin == "ours"]
    total = next(row for row in splits if row.protocol == "published split" and row.cells[0].text == "Total")
    assert [cell.number for cell in total.cells[1:]] == [str(labels), "100.00", str(clips), "100.00"]
    types = [row for row in _table(7, datasets=[dataset]).rows if row.origin == "ours"]
    assert sum(row.cells[1].value or 0 for row in types) == labels
    actions = [row for row in _table(9, datasets=[dataset]).rows if row.origin == "ours"]
    assert (len(actions), sum(row.cells[2].value or 0 for row in actions)) == (50, labels)


def test_a_dataset_of_the_published_size_is_compared_number_by_number(tmp_path: Path) -> None:
    def many(rows: dict[str, list[dict[str, Any]]]) -> None:
        clip = rows["clips"][0]
        rows["clips"] = [{**clip, "clip_id": f"walkA_{number:03d}", "origin": "real"} for number in range(4759)]
        for name in rows:
            if name not in ("clips", "sources", "splits"):
                rows[name] = []
        rows["splits"] = []
        rows["actions"] = [
            {"clip_id": f"walkA_{number:03d}", "person_id": 1, "action_id": 12} for number in range(4759)
        ]

    dataset = make_dataset(tmp_path / "data", many)
    people = [row for row in _table(8, datasets=[dataset]).rows if row.origin == "ours"]
    assert [row.cells[1].change for row in people] == ["+776", "−623", "−153"]


def _score_run(name: str, split: str, digest: str, folder: Path) -> RunFolder:
    """Return a scoring run on a split, of predictions by weights of this digest."""
    made = folder / f"{name}-predict"
    made.mkdir(parents=True)
    (made / "run.json").write_text('{"command": "har predict"}')
    (made / "metrics.json").write_text(f'{{"model": "TINY", "weights_digest": "{digest}"}}')
    averages = {metric: {"macro": 0.5} for metric in ("map", "f1", "recall", "auroc")}
    return RunFolder(
        str(folder / name),
        name,
        {"full_config": {"predictions": str(made), "score": {"split": split}}, "command": "har score"},
        {"protocols": {"paper": averages}, "label_space": "microg50", "counts": {}},
    )


def test_validation_and_test_of_the_same_weights_share_a_row_of_table_1(tmp_path: Path) -> None:
    runs = [
        _score_run("a-val", "val", "w1", tmp_path),
        _score_run("a-test", "test", "w1", tmp_path),
        _score_run("b-val", "val", "w2", tmp_path),
    ]
    mine = [row for row in _table(1, runs).rows if row.origin == "ours"]
    assert [row.run for row in mine] == ["a-val + a-test", "b-val"]
    assert [cell.number for cell in mine[0].cells[4:]] == ["50.00"] * 8
    assert [cell.number for cell in mine[1].cells[4:]] == ["50.00"] * 4 + [""] * 4


def _transfer_run(row: str | None, clips: int = 268) -> RunFolder:
    def scores(value: float) -> dict[str, Any]:
        cell = {"value": value, "low": value - 0.1, "high": value + 0.1}
        bare = {"value": value, "low": None, "high": None}
        protocols = {"paper": {"map": bare, "auroc": bare}, "corrected": {"map": cell, "auroc": cell}}
        return {"classes": 9, "with_truth": 9, "protocols": protocols}

    drop = scores(0.25)["protocols"]
    sets = {
        "jhmdb": {"counts": {"clips": clips}, "scores": {"mapped": scores(0.5), "matched": scores(0.45)}},
        "microg": {
            "counts": {"clips": 953},
            "scores": {"published": scores(0.25), "mapped": scores(0.22), "matched": scores(0.2)},
        },
    }
    unmatched = [{"action_id": 58, "name": "throw", "why": "no label"}]
    metrics = {"model": "MINE", "row": row, "sets": sets, "drop": {"matched": drop}, "unmatched": unmatched}
    return RunFolder("/x/t", "t", {"command": "har transfer"}, metrics)


def test_table_3_has_both_test_sets_and_the_drop_of_a_run() -> None:
    zero_shot = "ZEROSHOT_SLOW_8x8_R50_K400"
    table = _table(3, [_transfer_run(zero_shot)])
    mine = [row for row in table.rows if row.origin == "ours"]
    assert [row.cells[3].text for row in mine if row.protocol == "corrected"] == [
        "JHMDB, every class of the map (9)",
        "JHMDB, the classes that both test sets have (9)",
        "MicroG-4M, ids as they stand (9)",
        "MicroG-4M, every class of the map (9)",
        "MicroG-4M, the classes that both test sets have (9)",
        "drop from JHMDB to MicroG-4M, the classes that both test sets have",
    ]
    paper = {row.cells[3].text: row.cells[4] for row in mine if row.protocol == "paper"}
    assert paper["JHMDB, every class of the map (9)"].change == "+15.76"  # 50 beside 34.24
    assert paper["MicroG-4M, ids as they stand (9)"].change == "+8.76"
    assert paper["JHMDB, the classes that both test sets have (9)"].change == ""
    assert any("throw" in note for note in table.notes)
    assert [row.origin for row in table.rows][:2] == ["published", "published"]  # SlowFast's, then Slow's and ours
    rows = _table(3, [_transfer_run(zero_shot, 20)]).rows
    part = {row.cells[3].text: row.cells[4].change for row in rows if row.run == "t" and row.protocol == "paper"}
    assert (part["JHMDB, every class of the map (9)"], part["MicroG-4M, ids as they stand (9)"]) == ("", "+8.76")
    other = [row for row in _table(3, [_transfer_run(None)]).rows if row.origin == "ours"]
    assert {row.cells[0].text for row in other} == {"MINE"}
    assert not any(cell.change for row in other for cell in row.cells)


def test_grouped_heads_are_one_name_where_a_format_has_no_groups() -> None:
    table = _table(1)
    assert "Validation mAP@0.5 (%)" in markdown(table).splitlines()[2]
    assert r"\multicolumn{4}{c}{Validation}" in latex(table)
    assert r"\cmidrule(lr){7-10} \cmidrule(lr){11-14}" in latex(table)
    assert "Test AUROC (%) significant" in as_csv(table).splitlines()[0]
    assert "SlowFast?" in markdown(table)
    assert Cell(text="x", doubt="why").number == "x"
