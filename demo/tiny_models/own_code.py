"""Tiny models whose code lies in their repository: the folder as the hub has it, Python files included.

The files in `repositories/` are ours: the same architectures, with the names of classes, settings and weights that the
published repositories have, and written against transformers 4.4x as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from microg.demo.tiny_models.readable import is_readable
from microg.demo.tiny_models.size import Size
from microg.models.vlm.engines.checkpoint import find
from microg.models.vlm.engines.repository.consent import RepositoryCode
from microg.models.vlm.engines.repository.loading import load_tokenizer, make_model
from microg.models.vlm.engines.repository.models import asking_class

_REPOSITORIES = "microg.demo.tiny_models"
_SPREAD = 0.02


@dataclass(frozen=True)
class OwnCode:
    """What such a folder is made of.

    Attributes:
        name: Folder in `repositories/` that holds the Python files.
        config: What config.json says.
        tokenizer: The tokenizer, where transformers knows its class.
        files: Other files by name.
    """

    name: str
    config: dict[str, Any]
    tokenizer: Any = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path, seed: int, size: Size) -> Path:
        """Write code, settings, tokenizer and random weights to `folder` (see `microg.demo.tiny_models.build`)."""
        import torch
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        for file in (resources.files(_REPOSITORIES) / "repositories" / self.name).iterdir():
            if file.name.endswith(".py"):
                (folder / file.name).write_bytes(file.read_bytes())
        (folder / "config.json").write_text(json.dumps(self.config, indent=2), "utf-8")
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        code = RepositoryCode.of(find(str(folder)))
        model = make_model(folder, code, asking_class(code).adaptations, torch.float32)
        tokenizer, words = load_tokenizer(folder), model.language_model.get_output_embeddings().weight
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, size.spread or _SPREAD)
                elif not parameter.eq(1).all():
                    parameter.uniform_(-0.1, 0.1)
            words[[token for token in range(len(words)) if not is_readable(tokenizer, token)]] = 0.0
        save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
