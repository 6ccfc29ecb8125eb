"""Fills in what the documentation says of the code: a line `<!-- registry: NAME -->` becomes what `NAME` returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_MARKER = re.compile(r"^<!-- registry: ([a-z-]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page; a name that is unknown ends the build."""
    return _MARKER.sub(lambda match: REGISTRIES[match[1]](), markdown)


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    columns = list(header)
    lines = [columns, ["---"] * len(columns), *([str(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def backbones() -> str:
    """Return the action recognition models with their geometry."""
    from microg.models.har.backbones.registry import backbone, names

    rows = (
        (
            f"`{spec.name}`",
            spec.title,
            f"{spec.frames} x {spec.sampling_rate}",
            spec.test_short_side,
            spec.stride,
            f"{spec.params:,}",
            f"`{spec.label_space}`",
        )
        for spec in map(backbone, names())
    )
    return table(("name", "model", "frames x step", "short side", "stride", "parameters", "labels"), rows)


def recipes() -> str:
    """Return the recipes of action recognition with the published score that each is compared with."""
    from microg.metrics.published import har_row

    def rows() -> Iterator[tuple[object, ...]]:
        for path in sorted((ROOT / "recipes" / "har").glob("*.yaml")):
            content = yaml.safe_load(path.read_text())
            train, row = content.get("train", {}), content.get("row")
            published = har_row(row).scores["map"] if row else None
            variants = ", ".join(f"`{name}`" for name in train.get("variants", {}))
            yield (
                f"`{path.name}`",
                f"`{train['model']['name']}`" if train else "",
                train.get("epochs", ""),
                train.get("batch", ""),
                variants,
                "" if published is None else f"{published:.2%}",
            )

    return table(("recipe", "model", "epochs", "batch", "variants", "published test mAP@0.5"), rows())


def vlm_recipes() -> str:
    """Return the recipes of captions and answers, with the published row that each is compared with."""

    def rows() -> Iterator[tuple[object, ...]]:
        for path in sorted((ROOT / "recipes" / "vlm").glob("*.yaml")):
            content = yaml.safe_load(path.read_text())
            made = content["generate"]
            frames = _words(made.get("frames", {}))
            row = f"`{content['row']}`" if "row" in content else ""
            yield f"`{path.name}`", f"`{made['model']}`", frames, row

    return table(("recipe", "card", "frames", "published row"), rows())


def _words(frames: Mapping[str, object]) -> str:
    """Return how frames are chosen, key by key where a key has keys of its own."""
    told = (_words(value) if isinstance(value, dict) else str(value) for value in frames.values())
    return ", ".join(told if len(frames) > 1 else (f"{key} {value}" for key, value in frames.items()))


def cards() -> str:
    """Return the vision-language models: what runs them, and whether it does."""
    from microg.models.vlm.cards import card, names

    def rows() -> Iterator[tuple[object, ...]]:
        for found in map(card, names()):
            tables = ", ".join(str(number) for number in found.paper.tables) if found.paper else ""
            memory = "" if found.gpu_memory_gb is None else f"{found.gpu_memory_gb:g} GB"
            shown = _words(found.frames.model_dump(exclude_none=True, exclude_defaults=True))
            runs = f"{found.runs} (successor: `{found.successor}`)" if found.successor else found.runs
            yield f"`{found.name}`", found.title, found.engine, shown, memory, runs, tables

    return table(("card", "model", "engine", "frames", "GPU memory", "runs", "tables of the paper"), rows())


def prompts() -> str:
    """Return the versioned prompts."""
    from microg.models.vlm.prompts import names, prompt

    return table(
        ("prompt", "task", "about"), ((f"`{name}`", prompt(name).task, prompt(name).about) for name in names())
    )


def formats() -> str:
    """Return the annotation formats that can be read and written."""
    from microg.formats import FORMATS

    return table(("format", "what it is"), ((f"`{name}`", found.summary) for name, found in FORMATS.items()))


def text_metrics() -> str:
    """Return the text metrics, what they are fed and the scores they give."""
    from microg.metrics.text.registry import METRICS

    return table(
        ("metric", "scores", "is fed", "needs"),
        (
            (
                f"`{name}`",
                ", ".join(score.title for score in found.scores.values()),
                "raw text in both protocols" if found.encodes else "tokens of the protocol",
                found.needs,
            )
            for name, found in METRICS.items()
        ),
    )


def dataset_tables() -> str:
    """Return the tables of a dataset."""
    from microg.data.schema import TABLES

    return _schemas(TABLES)


def run_tables() -> str:
    """Return the tables of run folders."""
    from microg.data.schema import RUN_TABLES

    return _schemas(RUN_TABLES)


def _schemas(tables: dict[str, Any]) -> str:
    source = (ROOT / "microg" / "data" / "schema.py").read_text()
    parts = []
    for name, schema in tables.items():
        found = re.search(rf'((?:    # .*\n)*)    "{name}": parse_schema', source)
        about = " ".join(line.strip().removeprefix("# ") for line in found[1].splitlines()) if found else ""
        columns = ", ".join(f"`{field.name}` {field.type}" for field in schema)
        parts.append(f"### `{name}`\n\n{about}\n\n{columns}\n")
    return "\n".join(parts)


def commands() -> str:
    """Return every command with its arguments and options."""
    from typer.main import get_command

    from microg.jobs import cli

    return "\n".join(_command(path, command) for path, command in leaves(get_command(cli.app), ("microg",)))


def settings() -> str:
    """Return every key of `--set`, by command and section."""
    from itertools import groupby

    from typer.main import get_command

    from microg.jobs import cli
    from microg.jobs.common import COMMANDS, settings_in

    parts = []
    for path, command in leaves(get_command(cli.app), ("microg",)):
        if any("--set" in parameter.opts for parameter in command.params):
            parts.append(f"## {' '.join(path)}\n")
            known = settings_in(COMMANDS[command.function].settings)
            for section, found in groupby(known, key=lambda each: each.section):
                rows = (
                    (f"`{each.key}`", f"`{each.default}`" if each.default else "", _escape(each.meaning), each.allowed)
                    for each in found
                )
                parts.append(f"{_escape(section)}\n\n{table(('key', 'default', 'meaning', 'allowed'), rows)}\n")
    return "\n".join(parts)


def _escape(text: str) -> str:
    return text.replace("<", "&lt;")


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that is no group, with the words that call it."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, command


def _command(path: tuple[str, ...], command: Any) -> str:
    command.describe_options()
    rows = []
    for parameter in command.params:
        if parameter.param_type_name == "option":
            shown = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        else:
            shown = f"`{parameter.metavar or parameter.name.upper()}`"
        rows.append((shown, " ".join((parameter.help or "").split())))
    about = (command.help or "").split("\nExamples:")[0].strip()
    return f"## {' '.join(path)}\n\n{about}\n\n{table(('argument or option', 'meaning'), rows)}\n"


# What docs/cluster.md assumes: work as measured on our machine, prices as they were known to us.
CLIPS, ANSWERS = 4_759, 1_238 + 7_428  # clips to curate; captions and answers to generate
CPU_SECONDS_A_CLIP = 4.5  # benchmarks/RESULTS.md, profile exact
CPU_SECONDS_A_TEXT = 0.27  # METEOR, CIDEr, BLEU, ROUGE-L, S-BERT and BERTScore on CPUs, over ANSWERS texts
CPU_NODE = (16, 0.72)  # cores, dollars an hour: c7i.4xlarge
GPU_NODE_DOLLARS, HEAD_DOLLARS = 0.98, 0.20  # an hour: g6.2xlarge, m7i.xlarge
ANSWERS_A_SECOND_A_GPU = 1.0  # an assumption, not a measurement: an 8B model on one L4
GPU_HOURS_A_TRAINING = 4.0  # the reference: 40 epochs of 41 to 134 s on 3 or 4 GPUs are 1.4 to 6
START_MINUTES = 8  # of a node: boot, environment, model


def costs() -> str:
    """Return hours and dollars of typical jobs by number of nodes, from the assumptions above."""
    cores, cpu_dollars = CPU_NODE
    work = [  # job, node hours, kind of node, dollars an hour, node counts
        (f"curate {CLIPS:,} clips", CLIPS * CPU_SECONDS_A_CLIP / cores / 3600, "CPU", cpu_dollars, (1, 4, 10)),
        (f"score {ANSWERS:,} texts", ANSWERS * CPU_SECONDS_A_TEXT / cores / 3600, "CPU", cpu_dollars, (1, 4)),
        (
            f"{ANSWERS:,} answers, one 8B model",
            ANSWERS / ANSWERS_A_SECOND_A_GPU / 3600,
            "GPU",
            GPU_NODE_DOLLARS,
            (1, 8, 64),
        ),
        ("12 recipes x 5 seeds", 60 * GPU_HOURS_A_TRAINING, "GPU", GPU_NODE_DOLLARS, (4, 16, 60)),
    ]
    rows = []
    for job, hours, kind, dollars, counts in work:
        for count in counts:
            wall = START_MINUTES / 60 + hours / count
            rows.append(
                (job, f"{count} {kind}", _duration(wall), f"{count * wall * dollars + wall * HEAD_DOLLARS:.2f}")
            )
    return table(("job", "nodes", "until done", "US dollars, on demand"), rows)


def _duration(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.0f} h"


REGISTRIES: dict[str, Callable[[], str]] = {
    "backbones": backbones,
    "recipes": recipes,
    "vlm-recipes": vlm_recipes,
    "cards": cards,
    "prompts": prompts,
    "formats": formats,
    "text-metrics": text_metrics,
    "dataset-tables": dataset_tables,
    "run-tables": run_tables,
    "commands": commands,
    "settings": settings,
    "costs": costs,
}
