"""Take the models of a demo that trained its own into the package: `python -m microg.demo.trained runs/demo`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from microg import storage
from microg.console import say
from microg.demo.trained import ACTION_WEIGHTS, CARD, LANGUAGE_MODEL
from microg.errors import ConfigError


def card_of(demo: str) -> dict[str, Any]:
    """Return how the models of a finished demo were made, and what they scored. Raises `ConfigError` for others."""
    manifest = storage.read_json(storage.join(demo, "run.json"))
    if manifest.get("command") != "demo" or not manifest["config"].get("train"):
        raise ConfigError(f"{demo} is no demo that trained models", "microg demo --train --out RUN")
    config = manifest["config"]
    actions = storage.read_json(storage.join(demo, "har_score", "metrics.json"))["protocols"]["corrected"]
    texts = storage.read_json(storage.join(demo, "vlm_score", "metrics.json"))["tasks"]
    training = storage.read_json(storage.join(demo, "har_train", "metrics.json"))
    return {
        "made_with": f"microg demo --train --seed {config['seed']} --training-clips {config['training_clips']}",
        "code_version": manifest["code_version"],
        "seed": config["seed"],
        "training_clips": {"actions": config["training_clips"], "texts": 7 * config["training_clips"]},
        "scores": {
            "of": "the demo's footage of this seed, which neither model saw",
            "actions": {"val_map_corrected": training["best"]["map"], "map": actions["map"], "f1": actions["f1"]},
            "caption": texts["caption"]["paper"]["scores"],
            "vqa": texts["vqa"]["paper"]["scores"],
        },
    }


def main(demo: str) -> None:
    """Copy both models of a demo's run folder into the package, and write their card."""
    card = card_of(demo)
    shutil.copyfile(Path(demo) / "har_train" / "checkpoints" / "best.pt", ACTION_WEIGHTS)
    shutil.rmtree(LANGUAGE_MODEL, ignore_errors=True)
    shutil.copytree(Path(demo) / "vlm_train" / "model", LANGUAGE_MODEL, copy_function=shutil.copyfile)
    storage.write_json(CARD, card)
    say(f"wrote {ACTION_WEIGHTS}, {LANGUAGE_MODEL} and {CARD}")


if __name__ == "__main__":
    main(sys.argv[1])
