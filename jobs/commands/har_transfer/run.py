"""What `microg har transfer` does: two predictions, resumed where they are there, and the scores of both."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from microg import storage
from microg.actions.predictions import read_predictions
from microg.actions.truth import read_truth
from microg.console import say
from microg.data import schema
from microg.data.crosswalk import Crosswalk, jhmdb_crosswalk
from microg.data.dataset import Dataset
from microg.data.label_space import AVA_80_SPACE, JHMDB_21_SPACE, MICROG_50
from microg.errors import ConfigError
from microg.jobs.commands.har_predict import run as har_predict
from microg.jobs.commands.har_transfer.settings import HarTransferConfig, HarTransferRun
from microg.jobs.commands.scoring import new_table, percent, span
from microg.locks import exclusive
from microg.metrics.har.contrast import Contrast, TestSet, contrast
from microg.metrics.har.registry import METRICS
from microg.metrics.har.scoring import rows_digest
from microg.metrics.published import har_rows
from microg.runs import Run
from microg.screen import wide_screen

COMMAND = "har transfer"
JHMDB, MICROG = "jhmdb", "microg"
_ADVICE = {
    JHMDB: "make it with 'microg data import jhmdb FOLDER DATASET'",
    MICROG: "give a dataset of MicroG-4M's actions to --microg",
}
_SELECTIONS = {
    "published": "ids as they stand",
    "mapped": "every class of the map",
    "matched": "labelled in both sets",
}


def transfer(
    datasets: dict[str, str], settings: HarTransferConfig, folder: str | None, *, dry_run: bool
) -> dict[str, Any]:
    """Predict what is missing on both datasets, score both, and return the report.

    Raises `MicrogError` for whatever the user can put right before anything is written.
    """
    crosswalk = jhmdb_crosswalk()
    labels = {JHMDB: _jhmdb_labels(datasets[JHMDB], crosswalk), MICROG: _ava_labels(datasets[MICROG])}
    spaces = {name: Dataset.open(path).label_space for name, path in datasets.items()}
    # label_space refuses a model of other classes before anything is written
    predict = settings.predict.replaced(label_space=AVA_80_SPACE.name, live_scores=False)
    truths = {
        name: read_truth(path, spaces[name], split=predict.split, scheme=predict.scheme)
        for name, path in datasets.items()
    }
    model = predict.model or PurePosixPath(predict.weights or "model").stem
    folder = storage.absolute(folder or f"runs/har_transfer/{model}-{settings.digest()[:8]}")
    with nullcontext() if dry_run else exclusive(folder):
        made = {
            name: har_predict.predict(path, predict, storage.join(folder, name), dry_run=dry_run)
            for name, path in datasets.items()
        }
        if dry_run:
            plans = {name: {key: part[key] for key in ("key_frames", "samples", "plan")} for name, part in made.items()}
            return {"run": folder, **plans, "crosswalk": crosswalk.to_dict()}
        config = HarTransferRun(
            **datasets,
            crosswalk=f"{crosswalk.name}-v{crosswalk.version}",
            truth_digests={name: rows_digest(truth.rows, ordered=False) for name, truth in truths.items()},
            transfer=settings.replaced(predict=_described(predict, made[JHMDB])),
        )
        fingerprints = [storage.read_json(storage.join(folder, name, "run.json"))["dataset"] for name in datasets]
        run = Run.start(folder, COMMAND, config, dataset="-".join(fingerprints), protocol="paper and corrected")
        sets = {
            name: TestSet(
                said=read_predictions(storage.join(folder, name)),
                truth=truth,
                space=spaces[name],
                labels=labels[name],
            )
            for name, truth in truths.items()
        }
        found = contrast(sets, resamples=settings.resamples, seed=settings.seed)
        run.write_table("har_transfer", classes_table(found))
        errors = [{"set": name, **row} for name, part in made.items() for row in part["errors"]]
        report: dict[str, Any] = {
            **{key: made[JHMDB][key] for key in ("model", "weights", "weights_digest", "label_space")},
            **contrast_document(found, crosswalk),
            "failed": len(errors),
            "errors": errors,
            "notes": _notes(predict.limit, sets),
        }
        for name, part in report["sets"].items():
            about = {"dataset": datasets[name], "split": predict.split, "scheme": predict.scheme}
            digest = config.truth_digests[name]
            part |= {**about, "predictions": storage.join(folder, name), "truth_digest": digest}
        report["row"] = report["model"] if report["model"] in har_rows() else None
        run.finish(report)
    return {"run": folder, **report}


def contrast_document(found: Contrast, crosswalk: Crosswalk) -> dict[str, Any]:
    """Return the scores as plain values: `crosswalk`, `matched`, `unmatched`, `sets`, `drop`.

    A score is {value, low, high}, as fractions; only the corrected protocol has an interval, of 95% over clips.
    """
    names = AVA_80_SPACE.names
    sets = {}
    for name, scores in found.sets.items():
        matched = scores["matched"]
        arrays = matched.report.arrays
        sets[name] = {
            "counts": {
                "clips": len(set(arrays.key_clip[arrays.truth.key].tolist())),
                "key_frames": len(set(arrays.truth.key.tolist())),
                "true_boxes": len(arrays.truth.key),
                "labels": len(arrays.truth.label) + matched.left_out,
            },
            "scores": {selection: scored.to_dict() for selection, scored in scores.items()},
        }
    return {
        "crosswalk": crosswalk.to_dict(),
        "matched": [{"action_id": number, "name": names[number]} for number in found.matched],
        "unmatched": [
            {"action_id": number, "name": names[number], "why": f"no label in {' and '.join(missing)}"}
            for number, missing in found.unmatched.items()
        ],
        "sets": sets,
        "drop": {selection: found.drop(JHMDB, MICROG, selection) for selection in ("mapped", "matched")},
    }


def classes_table(found: Contrast) -> pa.Table:
    """Return the table `har_transfer`, of the classes that are scored."""
    rows = []
    for name, scores in found.sets.items():
        for selection, scored in scores.items():
            for protocol, result in scored.report.results.items():
                classes, space = result.classes, result.evaluation.arrays.space
                for place, action_id in enumerate(space.ids):
                    values = {"ap": classes.values["map"][place], "auroc": classes.values["auroc"][place]}
                    rows.append(
                        {
                            "data": name,
                            "selection": selection,
                            "protocol": protocol,
                            "action_id": action_id,
                            "action": space.names[action_id],
                            "support": int(classes.support[place]),
                            **{key: None if value != value else float(value) for key, value in values.items()},
                        }
                    )
    return schema.from_rows("har_transfer", rows)


def _jhmdb_labels(path: str, crosswalk: Crosswalk) -> Mapping[int, int]:
    """Return AVA's id of each of JHMDB's actions that has one. Raises `ConfigError` for a dataset of other actions."""
    space = Dataset.open(path).label_space
    if space != JHMDB_21_SPACE:
        raise ConfigError(
            f"the actions of --jhmdb {path} are of {space.name}, not {JHMDB_21_SPACE.name}", _ADVICE[JHMDB]
        )
    return crosswalk.labels


def _ava_labels(path: str) -> Mapping[int, int]:
    """Return AVA's id of each action of a dataset that has a counterpart there.

    Raises `ConfigError` for JHMDB, which has a map of its own, and for actions of which none has one.
    """
    vocabulary = Dataset.open(path).vocabulary
    name = AVA_80_SPACE.name
    found = {each.id: each.counterparts[name] for each in vocabulary.actions if name in each.counterparts}
    if vocabulary.published and vocabulary.space != MICROG_50:
        raise ConfigError(
            f"the actions of --microg {path} are of {vocabulary.space.name}, not {MICROG_50.name}", _ADVICE[MICROG]
        )
    if not found:
        raise ConfigError(
            f"no action of --microg {path}, of {vocabulary.space.name}, has a counterpart in {name}",
            f"say which: microg data vocabulary map {path} ID {name} ID",
        )
    return found


def _described(predict: Any, made: dict[str, Any]) -> Any:
    """Return the settings with what only the weights could say."""
    return predict.replaced(**{key: made[key] for key in ("model", "roi_scale", "weights_digest")})


def _notes(limit: int | None, sets: dict[str, TestSet]) -> list[str]:
    notes = [f"{name}: {note}" for name, part in sets.items() for note in (*part.said.notes, *part.truth.notes)]
    return notes if limit is None else [*notes, "predict.limit left key frames out, which count as misses"]


def show(report: dict[str, Any]) -> None:
    """Print the contrast, or the plan, for people."""
    if "sets" not in report:
        for name in (JHMDB, MICROG):
            say(
                f"{name}: {report[name]['key_frames']:,} key frames, {report[name]['plan']['key_frames_to_do']:,} to do"
            )
        walk = report["crosswalk"]
        say(f"{walk['name']} version {walk['version']}: {len(walk['pairs'])} pairs, {len(walk['left_out'])} left out")
        say("nothing was predicted (--dry-run)")
        return
    heads = [METRICS[metric].title for metric in ("map", "auroc")]
    right = [head for title in heads for head in (title, "95% over clips")]
    table = new_table(f"{report['model']} on AVA's classes, macro, in %", "set", "classes", "protocol", right=right)
    for name, part in report["sets"].items():
        for selection, scored in part["scores"].items():
            for protocol, values in scored["protocols"].items():
                about = f"{_SELECTIONS[selection]} ({scored['with_truth']} of {scored['classes']})"
                table.add_row(name, about, protocol, *_cells(values))
    for selection, drop in report["drop"].items():
        for protocol, values in drop.items():
            table.add_row(f"{JHMDB} - {MICROG}", _SELECTIONS[selection], protocol, *_cells(values))
    screen = wide_screen(150)
    screen.print(table)
    walk = report["crosswalk"]
    say(f"not in AVA: {', '.join(item['jhmdb'] for item in walk['left_out'])} ({walk['name']} v{walk['version']})")
    if report["unmatched"]:
        say(f"not matched: {'; '.join(item['name'] + ' (' + item['why'] + ')' for item in report['unmatched'])}")
    for note in report["notes"]:
        say(f"note: {note}")
    for row in report["errors"][:5]:
        say(f"failed: {row['set']} {row['sample_id']}: {row['error']}")
    say(f"wrote {report['run']}")


def _cells(values: dict[str, dict[str, float | None]]) -> list[str]:
    cells = []
    for cell in values.values():
        cells += [percent(cell["value"]), span(cell["low"], cell["high"]) if cell["low"] is not None else ""]
    return cells
