"""`microg har forward` from the command line: logits, the weights' report, bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from microg.jobs import cli
from microg.models.har.backbones import build
from microg.models.har.checkpoints import export_pyslowfast, save_weights

CLIPS = np.random.default_rng(1).standard_normal((3, 3, 4, 64, 80)).astype(np.float32)
BOXES = np.array([[2, 3, 3, 40, 50], [0, 0, 0, 70, 60], [2, 20, 10, 60, 44], [0, 5, 5, 20, 30]], np.float64)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A model whose weights and input lie in the current folder; clip 1 has no boxes."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(2)
    built = build("TINY").eval()
    torch.nn.init.normal_(built.detection_head.proj.weight)
    export_pyslowfast(built, "tiny.pyth")
    np.save("clips.npy", CLIPS)
    np.save("boxes.npy", BOXES)
    return built


def _forward(*extra: str, weights: str = "tiny.pyth", model: str = "tiny") -> Result:
    files = ["--clips", "clips.npy", "--boxes", "boxes.npy", "--out", "logits.npy"]
    return CliRunner().invoke(cli.app, ["har", "forward", "--model", model, "--weights", weights, *files, *extra])


def _refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *extra: str, name: str = "tiny"
) -> str:
    files = ["--weights", "tiny.pyth", "--clips", "clips.npy", "--boxes", "boxes.npy", "--out", "logits.npy"]
    monkeypatch.setattr(sys, "argv", ["microg", "har", "forward", "--model", name, *files, *extra])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "Traceback" not in error
    assert not Path("logits.npy").exists()
    return error


def test_logits_are_those_of_the_model_in_the_order_of_the_boxes(model: torch.nn.Module) -> None:
    for batch in ("1", "2", "3"):
        done = _forward("--batch-size", batch, "--device", "cpu")
        assert done.exit_code == 0, done.output
        logits = np.load("logits.npy")
        assert logits.dtype == np.float32
        with torch.inference_mode():
            expected = model(torch.from_numpy(CLIPS), torch.from_numpy(BOXES).float())
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert "wrote logits.npy: logits 4 x 50 of TINY on cpu" in done.stdout
    assert "tiny.pyth (torch file" in done.stderr


def test_no_boxes_give_no_logits(model: torch.nn.Module) -> None:
    np.save("boxes.npy", np.zeros((0, 5), np.float32))
    assert _forward().exit_code == 0
    assert np.load("logits.npy").shape == (0, 50)


def test_json_tells_what_was_loaded_and_where_it_ran(model: torch.nn.Module) -> None:
    save_weights(model, "ours.pt")
    done = _forward("--json", "--roi-scale", "true", "--device", "cpu", weights="ours.pt")
    found = json.loads(done.stdout)
    assert (found["shape"], found["device"], found["roi_scale"]) == ([4, 50], "cpu", "true")
    assert (found["weights"]["layout"], found["weights"]["missing"]) == ("microg", [])


def test_weights_without_a_head_are_refused_until_allowed(model: torch.nn.Module) -> None:
    state = {name: value for name, value in model.state_dict().items() if "head" not in name}
    torch.save(state, "trunk.pt")
    assert "head" in str(_forward(weights="trunk.pt").exception)
    assert _forward("--allow-missing", "detection_head.*", weights="trunk.pt").exit_code == 0


@pytest.mark.parametrize(
    ("clips", "boxes", "message"),
    [
        (CLIPS[0], BOXES, "clips have shape (3, 4, 64, 80)"),
        ((CLIPS * 9).astype(np.uint8), BOXES, "clips are uint8"),
        (CLIPS[:, :2], BOXES, "clips have shape"),
        (CLIPS, BOXES[:, 1:], "boxes have shape (4, 4)"),
        (CLIPS, BOXES.astype(str), "boxes are <U32"),
        (CLIPS, BOXES + np.array([1, 0, 0, 0, 0]), "box 0 belongs to clip 3, and there are 3 clips"),
        (CLIPS, BOXES - np.array([0.5, 0, 0, 0, 0]), "box 0 belongs to clip 1.5"),
        (CLIPS, BOXES * np.array([1, 1, np.nan, 1, 1]), "box 0 holds NaN"),
        (CLIPS[:, :, :, :0], BOXES, "hold no pixels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_what_is_wrong(
    clips: np.ndarray,
    boxes: np.ndarray,
    message: str,
    model: torch.nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save("clips.npy", clips)
    np.save("boxes.npy", boxes)
    assert message in _refused(monkeypatch, capsys)


def test_files_that_are_no_arrays_are_refused_and_never_unpickled(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("clips.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "clips.npy is no array file" in _refused(monkeypatch, capsys)
    Path("clips.npy").write_bytes(b"")
    assert "clips.npy is no array file" in _refused(monkeypatch, capsys)
    np.savez("clips.npz", CLIPS)
    assert "archive" in _refused(monkeypatch, capsys, "--clips", "clips.npz")
    assert "nowhere.npy is not there" in _refused(monkeypatch, capsys, "--clips", "nowhere.npy")


def test_wrong_names_scales_devices_and_clip_lengths_are_refused(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no model 'x3d'" in _refused(monkeypatch, capsys, name="x3d")
    assert "roi_scale" in _refused(monkeypatch, capsys, "--roi-scale", "half")
    assert "no torch device" in _refused(monkeypatch, capsys, "--device", "toaster")
    assert "tiny.pyth holds no weights of MVIT_B" in _refused(monkeypatch, capsys, name="MVIT_B_16x4")


def test_boxes_given_as_shares_of_the_image_are_warned_of(model: torch.nn.Module) -> None:
    np.save("boxes.npy", BOXES / np.array([1, 80, 80, 80, 80]))
    assert "boxes are pixels" in _forward().stderr


def test_the_weights_of_a_key_are_taken_and_the_others_told(model: torch.nn.Module) -> None:
    state = model.state_dict()
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"state_dict": zeros, "state_dict_ema": state}, "tiny.pyth")
    done = _forward("--weights-key", "state_dict_ema", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "other weights in the file, for --weights-key: state_dict" in done.stderr
    with torch.inference_mode():
        expected = model(torch.from_numpy(CLIPS), torch.from_numpy(BOXES).float())
    np.testing.assert_allclose(np.load("logits.npy"), expected, atol=1e-5)
    assert _forward("--device", "cpu").exit_code == 0
    assert not np.allclose(np.load("logits.npy"), expected)
