"""What `microg vlm models` and `microg vlm prompts` print."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from microg.models.vlm.cards import ModelCard
from microg.models.vlm.prompts import Prompt
from microg.screen import Screen, styled

_COLOURS = {"unproved": "yellow", "no": "red"}


def document(card: ModelCard) -> dict[str, Any]:
    """Return a card for JSON, with why its model cannot run."""
    return {**card.model_dump(mode="json"), "problem": card.problem()}


def show_cards(cards: list[ModelCard]) -> None:
    """Print a table of models, those of the paper first."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("model", "engine", "frames", "#f", "tables", "GB", "runs"):
        justify = "right" if heading in ("#f", "GB") else "left"
        table.add_column(heading, no_wrap=heading != "frames", overflow="fold", justify=justify)
    for card in sorted(cards, key=lambda card: (card.paper is None, card.name)):
        published, tables = (str(card.paper.frames), ", ".join(map(str, card.paper.tables))) if card.paper else ("", "")
        memory = "API" if card.api else f"{card.gpu_memory_gb:g}"
        state = "no" if card.problem() else card.runs
        runs = styled((state, _COLOURS.get(state, "green")))
        table.add_row(card.name, card.engine, card.frames.label(), published, tables, memory, runs)
    screen = Screen()
    screen.print(table)
    screen.print("\nmicrog vlm models MODEL tells the rest, and why one does not run.")
    screen.print("runs: what was proved here: the published weights, a tiny random model of the architecture, or the")
    screen.print("provider's protocol against a local server.")
    screen.print("#f: frames in the paper's tables. GB: GPU memory, estimated.")


def show_card(card: ModelCard) -> None:
    """Print one card in full."""
    confirmed = "" if card.hub_id_confirmed or card.api else "  (from public documentation, not loaded here)"
    rows: list[tuple[str, str]] = [
        ("model id", card.hub_id + confirmed),
        ("engine", card.engine),
        ("architecture", card.architecture),
        ("frames", card.frames.label()),
        ("chat template", card.chat_template),
        ("context", f"{card.context:,} tokens"),
        ("parameters", f"{card.parameters_b:g} billion" if card.parameters_b else ""),
        ("GPU memory", f"{card.gpu_memory_gb:g} GB, estimated" if card.gpu_memory_gb else ""),
    ]
    if card.paper is not None:
        tables = " and ".join(f"Table {number}" for number in card.paper.tables)
        rows.append(("in the paper", f"{card.paper.name}, {tables}, {card.paper.frames} frames"))
        rows.append(("", card.paper.note))
    state = "no" if card.problem() else card.runs
    rows += [("runs", state), ("why", card.problem() or card.why), ("to run it", card.to_run)]
    if card.shutdown is not None:
        rows.append(("switched off", str(card.shutdown)))
    rows.append(("successor", card.successor))
    rows += [("special" if number == 0 else "", text) for number, text in enumerate(card.special)]
    rows += [("setting", f"{key}: {value}") for key, value in card.settings.items()]
    table = Table(title=card.title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, value)
    Screen().print(table)


def show_prompts(prompts: list[Prompt]) -> None:
    """Print a table of prompts."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("prompt", "task", "hash", "about"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "about")
    for prompt in prompts:
        table.add_row(prompt.id, prompt.task, prompt.hash, prompt.about)
    Screen().print(table)


def show_prompt(prompt: Prompt) -> None:
    """Print one prompt in full."""
    screen = Screen()
    screen.print(styled((prompt.id, "bold"), f"  {prompt.task}  hash {prompt.hash}"))
    screen.print(styled((prompt.about, "italic")), end="\n\n")
    text = "\n\n".join(part for part in (prompt.system, prompt.user) if part)
    screen.print(text, soft_wrap=True)
    if prompt.json_schema:
        screen.print("\nanswer of the shape", prompt.json_schema)
