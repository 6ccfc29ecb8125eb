"""`microg vlm models` and `microg vlm prompts`: what can be asked, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs.common import JsonOption, command, main, print_json

if TYPE_CHECKING:
    from microg.models.vlm.cards import ModelCard

EPILOG = """
**Examples**

`microg vlm models`

`microg vlm models tarsier2-recap-7b`

`microg vlm models my_card.yaml --json`
"""
PROMPTS_EPILOG = """
**Examples**

`microg vlm prompts`

`microg vlm prompts vqa-unanswerable-v1`
"""
_COLOURS = {"yes": "green", "unverified": "yellow", "no": "red"}


@command("vlm models", epilog=EPILOG)
def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="One card in full: a name, or the path of your own card.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that the benchmark knows: engine, frames, memory, and why one cannot run."""
    from microg.models.vlm import cards

    if name is not None:
        card = cards.card(name)
        if as_json:
            print_json(_document(card))
        else:
            _print_card(card)
        return
    known = [cards.card(each) for each in cards.names()]
    if as_json:
        print_json([_document(card) for card in known])
    else:
        _print_table(known)


@command("vlm prompts", epilog=PROMPTS_EPILOG)
def prompts(
    name: Annotated[str | None, typer.Argument(metavar="[PROMPT]", help="One prompt in full.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the prompts and their hashes; a released prompt never changes."""
    from microg.models.vlm import prompts as library

    shown = [library.prompt(each) for each in ([name] if name else library.names())]
    if as_json:
        documents = [{**prompt.model_dump(mode="json"), "hash": prompt.hash} for prompt in shown]
        print_json(documents[0] if name else documents)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if name:
        console.print(f"[bold]{shown[0].id}[/bold]  {shown[0].task}  hash {shown[0].hash}", highlight=False)
        console.print(f"[italic]{escape(shown[0].about)}[/italic]\n")
        text = "\n\n".join(part for part in (shown[0].system, shown[0].user) if part)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        if shown[0].json_schema:
            console.print("\nanswer of the shape", shown[0].json_schema)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("prompt", "task", "hash", "about"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "about")
    for prompt in shown:
        table.add_row(prompt.id, prompt.task, prompt.hash, escape(prompt.about))
    console.print(table)


def _document(card: ModelCard) -> dict[str, Any]:
    return {**card.model_dump(mode="json"), "problem": card.problem()}


def _print_table(known: list[ModelCard]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    def order(card: ModelCard) -> tuple[bool, str]:
        return card.paper is None, card.name

    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("model", "engine", "frames", "#f", "tables", "GB", "runs"):
        justify = "right" if heading in ("#f", "GB") else "left"
        table.add_column(heading, no_wrap=heading != "frames", overflow="fold", justify=justify)
    for card in sorted(known, key=order):
        published, tables = (str(card.paper.frames), ", ".join(map(str, card.paper.tables))) if card.paper else ("", "")
        memory = "API" if card.api else f"{card.gpu_memory_gb:g}"
        state = "no" if card.problem() else card.runs
        table.add_row(
            card.name,
            card.engine,
            escape(card.frames.label()),
            published,
            tables,
            memory,
            f"[{_COLOURS[state]}]{state}[/]",
        )
    console = Console()
    console.print(table)
    console.print("\nmicrog vlm models MODEL tells the rest, and why one does not run.", highlight=False)
    console.print("#f: frames in the paper's tables. GB: GPU memory, estimated.", highlight=False)


def _print_card(card: ModelCard) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

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
    rows += [("special" if number == 0 else "", text) for number, text in enumerate(card.special)]
    rows += [("setting", f"{key}: {value}") for key, value in card.settings.items()]
    table = Table(title=card.title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, escape(value))
    Console().print(table)


if __name__ == "__main__":
    main("List the models and prompts of the benchmark.")
