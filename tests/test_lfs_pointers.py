"""A file of Git LFS that was not fetched is called that by every reader, not a broken video, table or checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from microg.errors import ConfigError, MicrogError, WeightsError
from microg.metrics.text.bertscore import BertScoreConfig, load_bertscore
from microg.metrics.text.sbert import SbertConfig, load_sbert
from microg.models.vlm.engines import checkpoint
from tests.fuzzing.readers import all_readers

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
# The others read replies of servers, which are no files.
READERS = {reader.name: reader for reader in all_readers() if not reader.refusals}


@pytest.mark.parametrize("name", READERS)
def test_a_pointer_in_place_of_a_file_is_named(name: str, tmp_path: Path) -> None:
    files, use = READERS[name].make(tmp_path)
    said = []
    for file in files:
        sound = file.read_bytes()
        file.write_bytes(POINTER)
        try:
            use()
        except MicrogError as error:
            said.append((file.name, error))
        file.write_bytes(sound)
    assert said  # some files of a folder are not read
    for name, error in said:
        assert f"{name} is a Git LFS pointer" in error.what
        assert "git lfs pull" in str(error.fix)


def test_pointers_in_folders_of_models_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen2VLForConditionalGeneration"]}')
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(ConfigError, match=r"model\.safetensors is a Git LFS pointer"):
        checkpoint.find(str(tmp_path))
    with pytest.raises(WeightsError, match=r"model\.safetensors is a Git LFS pointer"):
        load_sbert(SbertConfig(model=str(tmp_path)))
    with pytest.raises(WeightsError, match=r"model\.safetensors is a Git LFS pointer"):
        load_bertscore(BertScoreConfig(model=str(tmp_path)))
