from __future__ import annotations

import fnmatch
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from microg.data.dataset import Dataset
from microg.errors import ConfigError, DatasetError
from microg.jobs.commands.har_score.settings import load_har_score_config
from microg.jobs.commands.har_train import load_har_train_config
from microg.models.har.backbones.registry import backbone

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPES = {path.stem: path for path in sorted((ROOT / "recipes" / "har").glob("*.yaml"))}
TRAINED = sorted(name for name in RECIPES if not name.startswith("zeroshot"))
PUBLISHED = sorted(set(TRAINED) - {"tiny"})
# Models whose parameters have the names of another's.
_SAME_NAMES = {
    "C2D_NLN_8x8_R50": "I3D_NLN_8x8_R50",
    "SLOWFAST_4x16_R50": "SLOWFAST_8x8_R50",
    "SLOWONLY_4x16_R50": "SLOWONLY_8x8_R50",
}


@pytest.fixture(scope="module")
def facts(oracles: Path) -> dict[str, Any]:
    return json.loads((oracles / "har_models" / "protocol_facts.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_are_what_the_runs_logged(name: str, facts: dict[str, Any]) -> None:
    config = load_har_train_config(str(RECIPES[name]))
    assert config.row is not None
    assert config.variant == "published"
    logged = facts["models"][config.row]
    spec = backbone(config.model.name)
    assert spec.name == config.row
    assert (spec.frames, spec.sampling_rate, spec.test_short_side) == (
        logged["T"],
        logged["tau"],
        logged["test_short_side"],
    )
    assert (spec.train_crop, list(spec.train_jitter)) == (logged["train_crop"], logged["jitter"])
    assert config.model.roi_scale == "published"
    assert config.model.dropout == facts["common"]["dropout_before_fc"]
    assert (config.model.drop_path or 0.0) == logged["droppath"]
    assert config.batch == logged["batch_global"]
    assert config.batch == config.micro * logged["gpus"]
    assert config.epochs == logged["max_epoch_last_run"]
    assert config.validation.every == facts["common"]["eval_every_epochs"]
    assert config.validation.geometry == "val"
    assert config.validation.select == "paper"
    schedule, optimizer = config.schedule, config.optimizer
    assert (schedule.policy, schedule.lr) == ("steps", logged["base_lr"])
    assert (list(schedule.starts), list(schedule.relative)) == (logged["steps"], logged["lrs"])
    assert (schedule.warmup_epochs, schedule.warmup_start_lr) == (logged["warmup_epochs"], logged["warmup_start_lr"])
    assert (optimizer.name, optimizer.weight_decay) == (logged["optimizer"], logged["weight_decay"])
    assert optimizer.clip_grad_norm == logged["clip_grad_l2"]
    assert (optimizer.momentum, optimizer.nesterov) == (facts["common"]["momentum"], facts["common"]["nesterov"])
    assert list(optimizer.betas) == facts["common"]["adamw_betas"]
    assert optimizer.batch_norm_weight_decay == facts["common"]["bn_weight_decay"]
    assert (config.step.precision, config.step.sync_batch_norm) == ("float16", False)
    assert config.weights.file == logged["pretrained_file"]
    assert config.seed == facts["common"]["seed"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_allow_exactly_what_the_logs_say_was_not_loaded(name: str, oracles: Path) -> None:
    with gzip.open(oracles / "har_models" / "caffe2_blob_names.json.gz", "rt") as file:
        logs = json.load(file)
    config = load_har_train_config(str(RECIPES[name]))
    if config.row not in logs:
        pytest.skip(f"{config.row} started from no caffe2 file: its log does not list parameters")
    alike = _SAME_NAMES.get(config.row or "", config.row)
    pairs = json.loads((oracles / "har_models" / "keymaps" / f"{alike}.json").read_text())["map"]
    ours = {ours for reference, ours in pairs.items() if not reference.startswith("head.")}
    allowed = {key for key in ours if any(fnmatch.fnmatchcase(f"model.{key}", p) for p in config.weights.allow_missing)}
    expected = {pairs[key] for key in logs[config.row]["not_loaded"] if not key.startswith("head.")}
    counters = {key for key in allowed if key.endswith("num_batches_tracked")}  # caffe2 has none
    assert allowed - counters == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_intended_recipes_fix_the_defects_and_change_nothing_else(name: str) -> None:
    published = load_har_train_config(str(RECIPES[name]), variant="published")
    intended = load_har_train_config(str(RECIPES[name]), variant="intended")
    assert intended.model.roi_scale == "true"
    assert intended.weights.allow_missing == ()
    assert intended.validation.geometry == "test"
    spec = backbone(intended.model.name)
    if name.startswith("slowfast"):
        assert (spec.frames, spec.sampling_rate) == (32, 2)
    fixed = {"model", "weights", "validation", "variant"}
    before, after = published.identity(), intended.identity()
    assert {key: before[key] for key in before.keys() - fixed} == {key: after[key] for key in after.keys() - fixed}
    assert published.model.drop_path == intended.model.drop_path


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_with_a_training_section_still_configure_scoring(name: str) -> None:
    settings = load_har_score_config(str(RECIPES[name]), (), {})
    assert settings.protocol == "both"


def test_zero_shot_recipes_are_refused_with_what_they_are_for() -> None:
    with pytest.raises(ConfigError, match="har predict"):
        load_har_train_config(str(RECIPES["zeroshot_slow_8x8_r50_k400"]))


def test_a_dataset_of_other_actions_than_the_settings_is_refused(tmp_path: Path) -> None:
    from microg.pipelines.har.train.checks import check_and_plan

    Dataset.create(str(tmp_path / "set"), "jhmdb", label_space="jhmdb21")
    settings = load_har_train_config(str(RECIPES["tiny"]), ["label_space=microg50"])
    with pytest.raises(DatasetError, match="jhmdb21, those of the model of microg50"):
        check_and_plan(settings, str(tmp_path / "set"), str(tmp_path / "run"))


def test_an_unknown_variant_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="published, intended"):
        load_har_train_config(str(RECIPES["x3d_s"]), variant="fixed")
    with pytest.raises(ConfigError, match="it has none"):
        load_har_train_config(str(RECIPES["tiny"]), variant="published")


def test_options_win_over_set_which_wins_over_the_variant() -> None:
    config = load_har_train_config(
        str(RECIPES["x3d_s"]),
        ["epochs=3", "model.roi_scale=true", "weights.file=a.pyth"],
        options={"weights.file": "b: c.pyth", "limit": None, "resources.workers": 3},
    )
    assert (config.epochs, config.model.roi_scale, config.weights.file) == (3, "true", "b: c.pyth")
    assert (config.limit, config.resources.workers) == (None, 3)


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("batch=10", "batch 10 is no multiple of micro_batch 21"),
        ("resources.workers=2", "cannot be shared by 2 workers"),
        ("schedule.starts=[0, 1]", "2 starts and 4 relative rates"),
        ("epoch=3", "did you mean 'epochs'"),
        ("validation.geometry=centre", "'val' or 'test'"),
    ],
)
def test_settings_that_cannot_work_are_refused(override: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_har_train_config(str(RECIPES["x3d_s"]), [override])


def test_where_it_runs_does_not_change_the_digest_and_what_it_computes_does() -> None:
    plain = load_har_train_config(str(RECIPES["x3d_s"]))
    same = ["resources.workers=3", "resources.address=auto", "step.channels_last=true", "weights.file=other.pyth"]
    assert load_har_train_config(str(RECIPES["x3d_s"]), same).digest() == plain.digest()
    for other in ("micro_batch=7", "seed=1", "step.precision=bfloat16", "scheme=source", "limit=8"):
        assert load_har_train_config(str(RECIPES["x3d_s"]), [other]).digest() != plain.digest(), other


def test_reading_a_recipe_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from microg.jobs.commands.har_train import load_har_train_config as load; "
        f"load({str(RECIPES['x3d_s'])!r}); print([m for m in ('torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
