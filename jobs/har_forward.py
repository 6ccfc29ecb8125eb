"""`microg har forward`: one backbone on raw arrays, the parity check anyone can repeat."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.console import say, say_aside
from microg.jobs.common import JsonOption, OfflineOption, command, main, print_json
from microg.reading import reads

if TYPE_CHECKING:
    import numpy as np

EPILOG = """
**Examples**

`microg har forward --model X3D_S --weights x3d_s.pyth --clips clips.npy --boxes boxes.npy --out logits.npy`

`microg har forward --model MVITv2_S_16x4 --weights mine.pyth --clips clips.npy --boxes boxes.npy --out logits.npy
--roi-scale true --device cpu`
"""

AllowMissingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-missing",
        metavar="PATTERN",
        help="Accept that tensors fitting this pattern stay as initialised; may be given repeatedly.",
    ),
]

WeightsKeyOption = Annotated[
    str | None,
    typer.Option(
        "--weights-key", metavar="KEY", help="Weights to take where the file holds several, such as state_dict_ema."
    ),
]


@command("har forward", epilog=EPILOG)
def forward(
    model: Annotated[str, typer.Option("--model", help="Configuration, such as SLOWFAST_8x8_R50; any case.")],
    weights: Annotated[
        str,
        typer.Option(
            "--weights", help="PySlowFast .pyth, caffe2 .pkl, safetensors, another trainer's or our own file."
        ),
    ],
    clips: Annotated[
        str, typer.Option("--clips", help="npy (N, 3, T, H, W) float32, RGB, normalised by mean 0.45, deviation 0.225.")
    ],
    boxes: Annotated[
        str, typer.Option("--boxes", help="npy (M, 5): clip index from 0, x1, y1, x2, y2 in pixels of the clips.")
    ],
    out: Annotated[str, typer.Option("--out", help="npy to write: logits (M, classes) float32, in the boxes' order.")],
    roi_scale: Annotated[
        str, typer.Option("--roi-scale", help="published (1/16, as all runs did) or true (from the model's stride).")
    ] = "published",
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", min=1, help="Classes of the head; default: as published.")
    ] = None,
    allow_missing: AllowMissingOption = None,
    weights_key: WeightsKeyOption = None,
    offline: OfflineOption = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips in memory at a time.")] = 2,
    json_output: JsonOption = False,
) -> None:
    """Run one action recognition model on arrays: evaluation mode, float32, no activation after the last layer."""
    from microg.console import ProgressDisplay
    from microg.models.har.backbones import backbone

    backbone(model)  # a wrong name or a missing array is told before torch is imported
    clip_array, box_array = _load_array(clips), _load_array(boxes)

    from microg import storage
    from microg.models.devices import resolve_device
    from microg.models.har.backbones import build
    from microg.models.har.checkpoints import load_weights
    from microg.models.har.forward import check_arrays, forward_arrays
    from microg.system import zoo

    check_arrays(clip_array, box_array)
    target = resolve_device(device)
    classifier = build(model, num_classes=num_classes, roi_scale=roi_scale)  # type: ignore[arg-type]
    if storage.is_local(weights):
        weights = str(zoo.obtain(weights) or weights)
    report = load_weights(classifier, weights, allow_missing=allow_missing or (), require_head=True, key=weights_key)
    say_aside(*report.lines())
    if len(box_array) and box_array[:, 1:].max() <= 1:
        say_aside("warning: no box exceeds 1: boxes are pixels of the clips, not shares of them")
    started = time.monotonic()
    with ProgressDisplay("forward", len(set(box_array[:, 0].tolist()))) as progress:
        logits = forward_arrays(
            classifier, clip_array, box_array, device=target, batch_size=batch_size, progress=progress.advance
        )
    _save_array(out, logits)
    if json_output:
        print_json(
            {
                "out": out,
                "shape": logits.shape,
                "device": target,
                "roi_scale": roi_scale,
                "seconds": round(time.monotonic() - started, 3),
                "weights": report.to_dict(),
            }
        )
    else:
        say(f"wrote {out}: logits {logits.shape[0]} x {logits.shape[1]} of {classifier.spec.name} on {target}")


@reads()
def _load_array(path: str) -> np.ndarray:
    """Return an array, as a memory map where the file is local; nothing in it is unpickled."""
    import io
    from tokenize import TokenError

    import numpy as np

    from microg import storage
    from microg.errors import FormatError

    try:
        if storage.is_local(path):
            loaded: Any = np.load(storage.local_path(path), mmap_mode="r", allow_pickle=False)
        else:
            loaded = np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False)
    except FileNotFoundError:
        raise FormatError(f"{path} is not there") from None
    except (ValueError, EOFError, OSError, SyntaxError, TokenError) as error:
        raise FormatError(f"{path} is no array file (npy): {error}", "write it with numpy.save") from error
    if not isinstance(loaded, np.ndarray):
        raise FormatError(f"{path} is an archive of arrays", "write one array with numpy.save")
    return loaded


def _save_array(path: str, array: np.ndarray) -> None:
    import io

    import numpy as np

    from microg import storage

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    storage.write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    main("Run one action recognition model on arrays.")
