"""What `microg data import` and `microg data export` do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from microg import formats, storage
from microg.annotations.accept import Acceptance, Rule
from microg.annotations.apply import recorded
from microg.console import say
from microg.data.dataset import Dataset
from microg.data.label_space import MICROG_50, label_space
from microg.data.schema import TABLES
from microg.data.vocabulary import Vocabulary
from microg.data.vocabulary_files import load_vocabulary
from microg.errors import ConfigError, DatasetError
from microg.formats.merging import merge as merge_tables
from microg.jobs.commands.judged_imports import is_judged, merged_into, new_dataset, spoken_kinds, unsigned_into
from microg.locks import exclusive, hidden

if TYPE_CHECKING:
    import pyarrow as pa


def import_tables(
    format_name: str,
    source: str,
    dataset: str,
    *,
    name: str | None,
    merge: bool,
    dry_run: bool,
    chosen: Sequence[str] = (),
    vocabulary: str | None = None,
    rule: Rule | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Read `source` into a dataset, new or (with `merge`) there already, and return the report.

    Args:
        format_name: Format of `source`.
        source: Folder or file.
        dataset: Folder of the dataset.
        name: Name of a new dataset; None takes the folder's.
        merge: Whether it goes into a dataset that is there: what annotators said is added, other annotations replace
            those of the same clips.
        dry_run: Whether nothing is written.
        chosen: The tables to take, beside `clips`; none given: all.
        vocabulary: File with the actions of a new dataset, or the name of a published set; None for the format's.
        rule: How several annotators' judgements become tables; None takes the dataset's, or majority.
        options: Options of the format.

    Raises:
        DatasetError: There is a dataset already, or none to merge into.
        ConfigError: A chosen table is not in the import.
        FormatError: The annotations cannot be read, do not fit their clips, or would wipe out rows of clips.
    """
    with nullcontext() if dry_run else exclusive(dataset):
        exists = storage.exists(storage.join(dataset, "dataset.json"))
        if exists and not merge:
            raise DatasetError(f"{dataset} is a dataset already", "give another folder, or --merge to import into it")
        if merge and not exists:
            raise DatasetError(f"{dataset} is not a dataset: there is nothing to merge into", "leave --merge out")
        opened = Dataset.open(dataset) if merge else None
        own = _vocabulary(opened, vocabulary)
        known = {table: opened.table(table) for table in TABLES if opened.has(table)} if opened else {}
        result = formats.read(
            format_name,
            source,
            dataset_root=None if dry_run else dataset,
            existing=known.get("clips"),
            held={table: known[table] for table in ("boxes", "qa", "annotations") if table in known},
            vocabulary=own,
            **options,
        )
        if own is None:
            _check_labels(opened, result.label_space)
        if rule is not None and not result.annotations:
            raise ConfigError(f"--rule {rule} does nothing: {format_name} tells of no annotators here", "leave it out")
        tables, notes = _chosen(result.tables, chosen, format_name), list(result.notes)
        labels = _labels_info(own, result.label_space)
        judged = None
        if opened is not None and result.annotations:
            how = replace(recorded(opened), **({} if rule is None else {"rule": rule}))
            judged = merged_into(opened, known, tables, result.annotations, chosen, how, dry_run=dry_run)
        elif opened is not None and is_judged(known, tables):
            judged = unsigned_into(opened, known, tables, chosen, dry_run=dry_run)
        elif opened is not None:
            tables, more = merge_tables(known, tables, chosen)
            notes += more
        elif result.annotations:
            how = Acceptance(rule=rule or "majority")
            kinds = spoken_kinds(result.annotations, tables, chosen)
            judged = new_dataset(tables, result.annotations, Dataset(dataset, labels).vocabulary, how, kinds, dataset)
        if judged is not None:
            tables, notes = judged.tables, notes + judged.notes
        if not dry_run and (opened is None or judged is None):
            # The tables come first: an import that is interrupted leaves no dataset.json, and can just be run again.
            for table, rows in tables.items():
                Dataset(dataset, {}).write(table, rows)
            label = name or dataset.rstrip("/").rsplit("/", 1)[-1]
            more_info = {"acceptance": judged.acceptance} if judged is not None else {}
            Dataset.create(dataset, label, imported_from=format_name, **labels, **more_info)
    return {
        "dataset": dataset,
        "format": format_name,
        "written": not dry_run,
        "rows": {table: rows.num_rows for table, rows in tables.items()},
        "failed": result.tables["clips"]["status"].to_pylist().count("error"),
        "notes": notes,
        **({"judgements": judged.report} if judged is not None and judged.report else {}),
    }


def _vocabulary(into: Dataset | None, source: str | None) -> Vocabulary | None:
    """Return the actions that labels may be: those of the dataset that is merged into, or of a new one; None for those
    of the format.

    Raises `DatasetError` when both are told and are not the same.
    """
    told = None if source is None else load_vocabulary(source)
    if into is None:
        return told
    own = into.vocabulary
    if told is not None and told.space != own.space:
        raise DatasetError(
            f"{into.root} has the actions of {own.space.name}, --vocabulary {source} those of {told.space.name}",
            "leave --vocabulary out: a merge uses the dataset's own; 'microg data vocabulary' changes them",
        )
    return own if own.name != MICROG_50.name else None


def _labels_info(own: Vocabulary | None, numbered_by: str | None) -> dict[str, Any]:
    """Return what a new `dataset.json` says of its actions: nothing for MicroG-4M's."""
    if own is not None and own.document is not None:
        return {"vocabulary": own.document}
    name = numbered_by if own is None else own.name
    return {} if name in (None, MICROG_50.name) else {"label_space": name}


def _check_labels(into: Dataset | None, imported: str | None) -> None:
    own = imported or MICROG_50.name
    if into is not None and into.label_space != label_space(own):
        raise DatasetError(
            f"{into.root} numbers its actions by {into.label_space.name}, what is imported by {own}",
            "import it into a dataset of its own",
        )


def _chosen(tables: dict[str, pa.Table], chosen: Sequence[str], format_name: str) -> dict[str, pa.Table]:
    unknown = [name for name in chosen if name not in tables]
    if unknown:
        raise ConfigError(f"{format_name} holds no table {unknown[0]!r}", f"it holds {', '.join(tables)}")
    return {name: table for name, table in tables.items() if not chosen or name in ("clips", *chosen)}


def export_tables(format_name: str, dataset: str, target: str, *, overwrite: bool, **options: Any) -> dict[str, Any]:
    """Write a dataset to `target` with the options of the format, and return the report.

    Raises `DatasetError` when `target` is not empty, unless `overwrite`.
    """
    opened = Dataset.open(dataset)
    with exclusive(target):
        if not overwrite and hidden(storage.names(target)):
            raise DatasetError(f"{target} is not empty", "give another folder, or --overwrite")
        notes = formats.write(format_name, opened, target, **options)
    return {"dataset": dataset, "format": format_name, "target": target, "notes": notes}


def show(report: dict[str, Any]) -> None:
    """Print what was read or written, and what to know of it."""
    for table, rows in report.get("rows", {}).items():
        say(f"{table:>10}  {rows:>9,} rows")
    show_judgements(report)
    for note in report["notes"]:
        say(f"note: {note}")
    if "target" in report:
        say(f"wrote {report['format']} to {report['target']}")
    else:
        say(f"wrote {report['dataset']}" if report["written"] else "nothing was written (--dry-run)")
    if report.get("failed"):
        say(f"{report['failed']} clips failed: status 'error' in table 'clips' says why")


def show_judgements(report: dict[str, Any]) -> None:
    """Print whose judgements came in, and what became of them."""
    if judged := report.get("judgements"):
        people = ", ".join(f"{name} ({count:,})" for name, count in judged["annotators"].items())
        say(f"judgements of {people or 'nobody'}; {judged['added']:,} are new, {judged['there_before']:,} were there")
        more = {"replace others": "replaced", "take back": "withdrawn", "remove": "removed", "are too old": "older"}
        counted = [f"{judged[name]:,} {what}" for what, name in more.items() if judged[name]]
        if counted:
            say(", ".join(counted))
        say(f"accepted by the rule {judged['rule']}")
