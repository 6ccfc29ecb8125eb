"""What `microg vlm merge` prints."""

from __future__ import annotations

from typing import Any

from microg.console import say


def show(report: dict[str, Any]) -> None:
    """Print which weights changed, and how well the merged model agrees with the one with adapters."""
    say(f"{report['merged']} matrices merged, largest change of a weight {report['largest']:.3g}")
    if report["unchanged"]:
        say(f"note: {report['unchanged']} adapters had learnt nothing")
    agreement = f"{report['same_choice']:.1%} of next tokens are the same"
    say(f"logits of the merged model: {report['logits']:.2g} apart at most, {agreement}")
    say(f"wrote {report['model']}")
    say(f"next: microg vlm generate --model {report['model']} --dataset DATASET --run ...")
