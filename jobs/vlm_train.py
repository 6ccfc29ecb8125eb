"""`microg vlm train`: train one tiny Qwen2.5-VL from nothing on a dataset's captions and questions.

Also `python jobs/vlm_train.py DATASET --run R`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs.common import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    SchemeOption,
    SetOption,
    SettingsOption,
    command,
    finish,
    given,
    main,
    setting,
    show_plan,
)

if TYPE_CHECKING:
    from microg.demo.tiny_vlm.settings import VlmTrainSettings

EPILOG = """
**Examples**

`microg vlm train data/lessons --run runs/tiny-vlm`

`microg vlm train data/lessons --run runs/longer --epochs 20 --set vision_epochs=40`

`microg vlm generate --model runs/tiny-vlm/model --engine transformers --dataset data/lessons --split test --run
runs/answers` asks the trained model

More settings: `--set size.hidden=256`, `size.side=168` (pixels of a frame), `'frames={kind: uniform, count: 8}'`,
`schedule.lr=0.001`, `batch=16`, `cells=0` (learn from texts alone), `optimizer.muon=0` (AdamW alone),
`device=cuda`, `threads=1`.
"""


@command("vlm train", settings="microg.demo.tiny_vlm.settings:VlmTrainSettings", epilog=EPILOG)
def vlm_train(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Dataset folder with captions or questions, and splits.")
    ],
    run_folder: Annotated[str, typer.Option("--run", help="Run folder to make or to resume.")] = "runs/tiny-vlm",
    epochs: Annotated[int | None, setting("epochs")] = None,
    scheme: SchemeOption = None,
    limit: LimitOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    list_settings: SettingsOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a tiny Qwen2.5-VL on the train split, so that `microg vlm generate` has a model that runs anywhere.

    A million parameters, a few minutes of two cores for a thousand clips. The picture encoder first learns alone,
    from people's boxes and actions where they are known and from the words said of a clip. Killed at any time, the
    same command goes on from the last checkpoint; a finished run says so and returns. RUN/model is a checkpoint folder
    in the Hugging Face layout, which vLLM and transformers load; it also tells with which frames it is to be asked.
    """
    from microg.config import load_config, merged, recipe_section
    from microg.demo.tiny_vlm.settings import VlmTrainSettings

    # on top of the defaults written out, so that one key of a section can be given
    values = merged(VlmTrainSettings().model_dump(mode="json"), recipe_section(config, "vlm_train"))
    settings = load_config(VlmTrainSettings, None, [*(overrides or []), given(context)], **values)
    if dry_run:
        show_plan(_plan(settings, dataset, run_folder), as_json, "nothing was trained")
        return
    from microg.demo.tiny_vlm.train import train

    with _Display() as display:
        result = train(settings, dataset, run_folder, display.update)
    finish(result, _show, as_json=as_json, failed=result["failures"])


def _plan(settings: VlmTrainSettings, dataset: str, folder: str) -> dict[str, Any]:
    from collections import Counter

    from microg.demo.tiny_vlm.lessons import read_lessons

    lessons = read_lessons(dataset, settings)
    kinds = Counter(lesson.kind for clip in lessons.train for lesson in clip.lessons)
    return {
        "run": folder,
        "dataset": dataset,
        "clips": {"train": len(lessons.train), "val": len(lessons.val)},
        "lessons": dict(kinds),
        "questions_answered_by_labels": sum(sum(map(len, c.more)) for c in lessons.train),
        "frames": settings.frames.label(),
        "views": settings.views,
        "size": vars(settings.size),
        "vision_epochs": settings.vision_epochs,
        "epochs": settings.epochs,
        "steps": (settings.vision_epochs + settings.epochs) * -(-len(lessons.train) // settings.batch),
        "device": settings.device,
    }


class _Display:
    """Bars: clips read, then steps of each phase of the training with loss and rate."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._phase = ""

    def __enter__(self) -> _Display:
        return self

    def update(self, said: dict[str, Any]) -> None:
        """Show what the training says of itself."""
        if said["phase"] == "read":
            self._begin("read", said["total"], "clips")
            self._bar.advance(1, int(said["error"] is not None))
            return
        left = (said["end"] - said["epoch"]) * said["steps"] - said["step"] + 1
        self._begin(said["phase"], left, "steps")
        self._bar.advance(1, note=f"epoch {said['epoch'] + 1}/{said['end']}, loss {said['loss']:.3f}")

    def _begin(self, phase: str, total: int, unit: str) -> None:
        from microg.console import ProgressDisplay

        if self._bar is None or self._phase != phase or (phase == "read" and self._bar.done == self._bar.total):
            self.__exit__()
            self._bar = ProgressDisplay(phase, total, unit=unit).__enter__()
            self._phase = phase

    def __exit__(self, *ended: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _show(result: dict[str, Any]) -> None:
    if result["already_finished"]:
        print(f"{result['run']} is finished: {result['epochs']} epochs. Give another --run to train again.")
    print(f"{result['clips']['train']} clips to learn from, {result['clips']['val']} to look at")
    for row in result["history"]:
        if "val" in row:
            right = ", ".join(f"{kind} {share:.0%}" for kind, share in row["val"].items())
            print(f"epoch {row['epoch']:3d}: loss {row['loss']:.3f}, {row['train_s']:.0f} s; right on val: {right}")
    for failure in result["failures"][:5]:
        print(f"failed: {failure}", file=sys.stderr)
    if len(result["failures"]) > 5:
        print(f"failed: {len(result['failures']) - 5} more, see {result['run']}/metrics.json", file=sys.stderr)
    print(f"next: microg vlm generate --model {result['model']} --dataset DATASET --split test --run ...")


if __name__ == "__main__":
    main("Train a tiny vision-language model.")
