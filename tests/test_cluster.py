"""cluster.yaml against Ray's own offline checks, and what Ray uploads of the working directory."""

from __future__ import annotations

import copy
import itertools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from tests.support.cluster_files import launcher, variant

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def config() -> dict[str, Any]:
    return launcher()


def validated(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults and validate, as `ray up` does first."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_cluster_file_is_valid(config: dict[str, Any]):
    prepared = validated(config)
    assert prepared["head_node_type"] == "head"
    assert prepared["available_node_types"]["cpu_worker"]["node_config"]["InstanceType"] == "c7i.4xlarge"


def test_google_cloud_variant_is_valid_and_has_the_same_kinds_of_nodes(config: dict[str, Any]):
    changes = variant("Google Cloud")
    prepared = validated(config | changes)
    assert prepared["provider"]["type"] == "gcp"
    theirs, ours = changes["available_node_types"], config["available_node_types"]
    for name in ours:
        assert theirs[name]["resources"] == ours[name]["resources"]
        assert theirs[name].get("idle_timeout_s") == ours[name].get("idle_timeout_s")
        assert ("scheduling" in theirs[name]["node_config"]) == (name != "head")
    for name in ("cpu_worker", "gpu_worker"):
        assert theirs[name]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert not set(theirs["gpu_worker"]["node_config"]) & {"InstanceType", "ImageId"}


def test_on_premise_variant_is_valid(config: dict[str, Any]):
    changes = variant("Your own machines")
    machines = {name: value for name, value in config.items() if name not in ("available_node_types", "head_node_type")}
    prepared = validated(machines | changes)
    assert prepared["provider"]["type"] == "local"
    assert prepared["max_workers"] == len(changes["provider"]["worker_ips"])
    with pytest.raises(click.ClickException, match="available_node_types is not supported"):  # as the comment says
        validated(config | changes)


def misspell_top(config: dict) -> None:
    config["idle_timeout_minute"] = 5


def misspell_node_type(config: dict) -> None:
    config["available_node_types"]["cpu_worker"]["min_worker"] = 0


def fractional_resource(config: dict) -> None:
    config["available_node_types"]["gpu_worker"]["resources"]["GPU"] = 0.5


def missing_head(config: dict) -> None:
    config["head_node_type"] = "haed"


def too_many_minimum(config: dict) -> None:
    config["available_node_types"]["cpu_worker"]["min_workers"] = 13


@pytest.mark.parametrize(
    "spoil", [misspell_top, misspell_node_type, fractional_resource, missing_head, too_many_minimum]
)
def test_mistake_is_rejected(config: dict[str, Any], spoil: Callable[[dict], None]):
    spoil(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validated(config)


def test_head_takes_no_work_and_workers_are_spot_that_end_when_idle(config: dict[str, Any]):
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    for name in ("cpu_worker", "gpu_worker"):
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert types[name]["min_workers"] == 0
        assert types[name]["idle_timeout_s"] > 0
    assert types["cpu_worker"]["resources"].get("GPU") is None
    assert types["gpu_worker"]["resources"]["GPU"] == 1


def test_every_node_gets_the_code_that_the_project_installs(config: dict[str, Any]):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    mounted = {local: remote for remote, local in config["file_mounts"].items()}
    for local in (*packages, "pyproject.toml", *project["project"]["license-files"], project["project"]["readme"]):
        assert mounted[local] == f"~/microg-bench/{local}"
        assert (ROOT / local).exists()
    assert "." not in mounted  # Ray would hash .venv


def test_groups_and_extras_that_the_setup_asks_for_exist(config: dict[str, Any]):
    google = variant("Google Cloud")
    commands = [
        *config["setup_commands"],
        *config["available_node_types"]["gpu_worker"]["worker_setup_commands"],
        *google["setup_commands"],
        *google["available_node_types"]["gpu_worker"]["worker_setup_commands"],
        *variant("Your own machines")["setup_commands"],
    ]
    words = [word.rstrip(";") for command in commands if "uv sync" in command for word in command.split()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = {
        flag: {b for a, b in itertools.pairwise(words) if a == flag} for flag in ("--group", "--no-group", "--extra")
    }
    assert named["--group"] | named["--no-group"] <= set(project["dependency-groups"])
    assert named["--extra"] == {"s3", "gcs"} <= set(project["project"]["optional-dependencies"])


def test_cluster_asks_for_a_token_and_shows_its_dashboard_to_nobody_else(config: dict[str, Any]):
    starts = [
        command
        for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_working_directory_upload_leaves_out_what_is_large_or_private(tmp_path: Path):
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    for name in (".gitignore", ".rayignore"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    excluded = get_excludes_from_ignore_files(tmp_path, include_gitignore=True)
    assert len(excluded) == 2

    def left_out(relative: str) -> bool:
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return any(exclude(path) for exclude in excluded)

    unwanted = [
        ".venv/bin/python",
        "runs/a/run.json",
        "data/videos/a.mp4",
        "weights/x.pt",
        "tests/test_x.py",
        ".env",
        ".github/workflows/ci.yml",
        "benchmarks/curate.py",
        "microg/__pycache__/a.pyc",
        "models/devices.py",
        "recipes/curate.yaml",
    ]
    wanted = [
        "microg/data/ids.py",
        "jobs/curate.py",
        "pyproject.toml",
        "microg/reports/pages/templates/a.j2",
        "microg/recipes/har/tiny.yaml",
        "microg/models/vlm/cards/gpt-4o.yaml",
    ]
    assert [relative for relative in unwanted if not left_out(relative)] == []
    assert [relative for relative in wanted if left_out(relative)] == []
