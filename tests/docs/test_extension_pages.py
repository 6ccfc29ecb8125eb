"""The code on the pages that say how to add a backbone, a model, a metric or a dataset format works as it stands."""

from __future__ import annotations

import doctest
import json
import os
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from typer.testing import CliRunner

from microg import storage
from microg.data.dataset import Dataset
from microg.formats import FORMATS, FormatEntry
from microg.jobs import cli
from microg.jobs.commands.har_train import load_har_train_config
from microg.metrics.har import registry as har_registry
from microg.metrics.text import registry as text_registry
from microg.metrics.text.scoring import measure
from microg.models.har.backbones import registry as backbones
from microg.models.har.checkpoints import load_weights, save_weights
from microg.models.vlm.base import Request, Sampling
from microg.models.vlm.cards import card
from microg.models.vlm.engines import registry
from microg.pipelines.vlm.live_scores import clip_states
from microg.reports.run_folders import find_runs
from microg.reports.tables.har_tables import har_table
from microg.texts.items import ItemKey
from microg.texts.pairs import Pair
from tests.support.annotations import rows
from tests.support.har_cases import random_rows, write_csv
from tests.support.helpers import make_dataset
from tests.support.processes import microg

PAGES = Path(__file__).resolve().parents[2] / "docs" / "extend"


def block(page: str, title: str) -> str:
    """Return the block of code whose title begins like this."""
    text = (PAGES / f"{page}.md").read_text()
    found = re.search(rf'^```\w+ title="{re.escape(title)}[^"]*"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert found, f"{page}.md shows no {title}"
    return found[1]


def as_module(monkeypatch: pytest.MonkeyPatch, page: str, path: str) -> types.ModuleType:
    """Make the block importable as the module that its title says."""
    name = "microg." + path.removeprefix("microg/").removesuffix(".py").replace("/", ".")
    assert not (PAGES.parents[1] / path).exists()
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(block(page, path), path, "exec"), module.__dict__)
    return module


def value(page: str, title: str, **names: Any) -> Any:
    """Return what the expression in a block is."""
    found: dict[str, Any] = dict(names)
    exec(f"value = {block(page, title)}", found)
    return found["value"]


def test_the_backbone_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    as_module(monkeypatch, "backbone", "models/har/backbones/mine.py")
    spec = value("backbone", "models/har/backbones/registry.py", BackboneSpec=backbones.BackboneSpec)
    monkeypatch.setitem(backbones.BACKBONES, spec.name, spec)
    model = backbones.build(spec.name, roi_scale="true").eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == spec.params
    clips, boxes = torch.rand(1, 3, spec.frames, 64, 96), torch.tensor([[0, 8.0, 8, 40, 56], [0, 50, 0, 90, 60]])
    logits = model(clips, boxes)
    assert logits.shape == (2, 50)
    assert not torch.equal(logits[0], logits[1])
    assert model(clips, boxes[:0]).shape == (0, 50)

    save_weights(model, str(tmp_path / "mine.pt"))
    again = backbones.build(spec.name, roi_scale="true").eval()
    load_weights(again, str(tmp_path / "mine.pt"))
    assert torch.equal(again(clips, boxes), logits)

    for name, tensor in (("clips", clips), ("boxes", boxes)):
        np.save(tmp_path / f"{name}.npy", tensor.numpy())
    files = [word for name in ("clips", "boxes") for word in (f"--{name}", tmp_path / f"{name}.npy")]
    words = ("--model", "mine_8X8", "--weights", tmp_path / "mine.pt", *files, "--out", tmp_path / "logits.npy")
    assert microg("har", "forward", *words, "--roi-scale", "true", "--device", "cpu") == 0
    assert np.allclose(np.load(tmp_path / "logits.npy"), logits.detach().numpy(), atol=1e-6)

    (tmp_path / "mine.yaml").write_text(block("backbone", "recipes/har/mine.yaml"))
    assert load_har_train_config(str(tmp_path / "mine.yaml")).model.name == spec.name


def test_the_model_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "my-model.yaml"
    path.write_text(block("vlm", "my-model.yaml"))
    mine = card(str(path)).require()
    assert mine.frames.model_dump()["count"] == 9
    assert microg("vlm", "models", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "my-model"


def test_the_engine_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray_session: None):
    """The commands run as written, in a folder that holds nothing but the page's files and a data set."""
    for title in ("echo_engine.py", "echo.yaml"):
        (tmp_path / title).write_text(block("vlm", title))
    make_dataset(tmp_path / "data" / "mine")
    shell = re.search(r"^```sh\n(export PYTHONPATH.*?)^```$", (PAGES / "vlm.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shell
    command = (
        shell[1].replace("microg ", f"{sys.executable} -m microg.jobs.cli ").replace("--dry-run", "--dry-run --json")
    )
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    done = subprocess.run(
        ["bash", "-ec", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    plan = json.JSONDecoder().raw_decode(done.stdout)[0]
    assert (plan["engine"], plan["cost_at_most"], plan["rows_to_do"]) == (
        "echo_engine:EchoEngine",
        "none: it runs here",
        28,
    )
    rows = storage.read_parquet(str(tmp_path / "runs" / "echo" / "tables" / "generations.parquet")).to_pylist()
    assert {(row["engine"], row["model"], row["status"]) for row in rows} == {("echo", "echo", "ok")}
    assert len(rows) == 28

    monkeypatch.syspath_prepend(tmp_path)
    for name, place in value("vlm", "models/vlm/engines/registry.py").items():
        monkeypatch.setitem(registry.ENGINES, name, place)
    engine = registry.open_engine("echo", "me/echo")
    replies = list(engine.generate([Request("a", "Who floats?"), Request("b", "")], Sampling(max_tokens=3)))
    assert [(reply.key, reply.text, reply.status) for reply in replies] == [("a", "Who", "ok"), ("b", None, "error")]


def test_the_metric_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    module = as_module(monkeypatch, "metric", "metrics/text/jaccard.py")
    assert doctest.testmod(module) == (0, 1)
    found = value("metric", "metrics/text/registry.py", TextMetric=text_registry.TextMetric, Score=text_registry.Score)
    monkeypatch.setitem(text_registry.METRICS, found.name, found)
    ids, said, true = list("abc"), ["he waves slowly", "", "red"], ["he waves", "a man", ["blue", "red"]]
    whole = measure("paper", ids, said, true, [found.name])[found.name]
    assert whole.compute() == {"jaccard": pytest.approx((2 / 3 + 0 + 1) / 3)}
    parts = [measure("paper", [a], [b], [c], [found.name])[found.name] for a, b, c in zip(ids, said, true, strict=True)]
    assert parts[2].merge(parts[0]).merge(parts[1]).compute() == whole.compute()

    truth = {f"film_{number:03d}": f"a man floats {number}" for number in range(4)}
    (tmp_path / "true.json").write_text(json.dumps(truth))
    (tmp_path / "said.json").write_text(json.dumps({clip: text.replace("man", "cat") for clip, text in truth.items()}))
    words = ("--predictions", tmp_path / "said.json", "--references", tmp_path / "true.json", "--out", tmp_path / "run")
    capsys.readouterr()
    words += ("--metrics", "jaccard,cider", "--resamples", "10", "--no-plots", "--json")
    assert microg("vlm", "score", *words) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]["caption"]["paper"]
    scores = found["scores"]
    assert scores["jaccard"] == pytest.approx(3 / 5)
    assert {"low", "high"} <= set(found["intervals"]["jaccard"])
    assert all("jaccard" in system for system in found["baselines"].values())
    for name in ("text_scores", "text_items", "text_bootstrap"):
        assert "jaccard" in pq.read_table(tmp_path / "run" / "tables" / f"{name}.parquet")["metric"].to_pylist()
    assert "Jaccard" in CliRunner().invoke(cli.app, ["vlm", "score", *map(str, words[:-1])]).output
    # help is made when the settings are imported, as in a process that has the page's entry from its start
    monkeypatch.delitem(sys.modules, "microg.jobs.commands.vlm_score.settings", raising=False)
    assert "jaccard" in CliRunner().invoke(cli.app, ["vlm", "score", "--help"]).output
    assert "jaccard" in clip_states([Pair(ItemKey("caption", "film_000"), ("a man floats",), None, "a cat", "ok")])


def test_the_metric_page_on_action_recognition(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, title in (("jaccard", "in _ALL"), ("r_precision", "of cells")):
        module = as_module(monkeypatch, "metric", f"metrics/har/{name}.py")
        assert doctest.testmod(module) == (0, 1)
        found = value("metric", f"metrics/har/registry.py, {title}", HarMetric=har_registry.HarMetric)
        monkeypatch.setitem(har_registry.METRICS, name, replace(found, column=found.title))

    rows, truth = random_rows(8)
    people: dict[tuple, int] = {}
    truth = [(*row, people.setdefault(row[:6], len(people) + 1)) for row in truth]
    files = write_csv(tmp_path / "said.csv", rows), write_csv(tmp_path / "true.csv", truth)
    words = ("har", "score", "--predictions", files[0], "--groundtruth", files[1], "--run", tmp_path / "run")
    capsys.readouterr()
    assert microg(*words, "--resamples", "10", "--no-plots", "--json") == 0
    protocols = json.loads(capsys.readouterr().out)["protocols"]
    for name in ("jaccard", "r_precision"):
        for scores in protocols.values():
            assert all(0 < scores[name][average] < 1 for average in ("macro", "micro", "weighted"))
            assert scores["slices"]["persons/one"][name]["macro"] > 0
            assert scores["bracket"][name][0] <= scores["bracket"][name][1]
        assert {"clip", "source"} == set(protocols["corrected"]["intervals"][f"{name}_macro"])
        tables = {
            table: pq.read_table(tmp_path / "run" / "tables" / f"har_{table}.parquet").to_pandas()
            for table in ("scores", "bootstrap", "classes")
        }
        assert name in set(tables["scores"]["metric"]) & set(tables["bootstrap"]["metric"])
        assert tables["classes"][name].notna().any()
    f1, jaccard = (tables["classes"][name].to_numpy() for name in ("f1", "jaccard"))
    np.testing.assert_allclose(jaccard, f1 / (2 - f1))

    again = (*words[:-1], tmp_path / "other", "--compare", tmp_path / "run")
    assert microg(*again, "--resamples", "10", "--no-plots") == 0

    shown = capsys.readouterr().out
    assert "Jaccard" in shown
    assert "R-precision" in shown
    heads = [head.title for head in har_table(find_runs([str(tmp_path / "run")]), fine_tuned=True).heads]
    assert heads[-2:] == ["Jaccard (%)", "R-precision (%)"]


def test_the_format_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    as_module(monkeypatch, "format", "microg/formats/boxes_csv.py")
    found: dict[str, Any] = {"FormatEntry": FormatEntry}
    exec(f"value = {{{block('format', 'microg/formats/__init__.py')}}}", found)
    ((name, entry),) = found["value"].items()
    data = make_dataset(tmp_path / "data")
    refused = microg("data", "export", name, data.root, tmp_path / "boxes")
    assert (refused, f"dataset formats are {', '.join(FORMATS)}" in capsys.readouterr().err) == (2, True)
    monkeypatch.setitem(FORMATS, name, entry)

    assert microg("data", "export", name, data.root, tmp_path / "boxes", "--json") == 0
    notes = "\n".join(json.loads(capsys.readouterr().out)["notes"])
    assert f"{name} cannot express table 'captions': 4 rows were not written" in notes
    assert f"{name} has no box confidence" in notes
    assert microg("data", "export", name, data.root, tmp_path / "b", "--frames") == 2
    assert "its own options: --copy-videos" in capsys.readouterr().err

    videos = f"{data.root}/videos"
    assert microg("data", "import", name, tmp_path / "boxes", tmp_path / "again", "--videos", videos, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"clips": 4, "boxes": 72}
    again = Dataset.open(str(tmp_path / "again"))
    assert rows(again.table("boxes"), drop=("confidence",)) == rows(data.table("boxes"), drop=("confidence",))
    assert again.table("clips")["num_frames"].to_pylist() == data.table("clips")["num_frames"].to_pylist()
    assert microg("data", "import", name, videos, tmp_path / "none") == 2
    assert "holds no CSV files" in capsys.readouterr().err
