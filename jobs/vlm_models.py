"""`microg vlm models` and `microg vlm prompts`: what can be asked, and how."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import JsonOption, command, finish, main

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


@command("vlm models", epilog=EPILOG)
def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="One card in full: a name, or the path of your own card.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that the benchmark knows: engine, frames, memory, and why one cannot run."""
    from microg.jobs.commands.vlm_models import document, show_card, show_cards
    from microg.models.vlm import cards

    if name is not None:
        card = cards.card(name)
        finish(document(card), lambda _: show_card(card), as_json=as_json)
    else:
        known = [cards.card(each) for each in cards.names()]
        finish([document(card) for card in known], lambda _: show_cards(known), as_json=as_json)


@command("vlm prompts", epilog=PROMPTS_EPILOG)
def prompts(
    name: Annotated[str | None, typer.Argument(metavar="[PROMPT]", help="One prompt in full.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the prompts and their hashes; a released prompt never changes."""
    from microg.jobs.commands.vlm_models import show_prompt, show_prompts
    from microg.models.vlm import prompts as library

    selection = [library.prompt(each) for each in ([name] if name else library.names())]
    documents = [{**prompt.model_dump(mode="json"), "hash": prompt.hash} for prompt in selection]
    if name:
        finish(documents[0], lambda _: show_prompt(selection[0]), as_json=as_json)
    else:
        finish(documents, lambda _: show_prompts(selection), as_json=as_json)


if __name__ == "__main__":
    main("List the models and prompts of the benchmark.")
