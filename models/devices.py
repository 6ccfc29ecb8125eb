"""Which torch device a run uses."""

from __future__ import annotations

from microg.errors import ConfigError


def resolve_device(device: str) -> str:
    """Return the torch device that `auto` means here; raises `ConfigError` for one that is not there."""
    import torch  # what resolves nothing does without it

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"there is no torch device {device!r} here", "use auto, cpu or cuda") from error
    return device
