from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from microg.system import doctor, hardware, zoo
from microg.system.doctor import Check


def machine(**changes) -> hardware.Hardware:
    values = {
        "system": "Linux",
        "cpu": "x",
        "cores": 8.0,
        "memory_gb": 32.0,
        "available_gb": 30.0,
        "disk_free_gb": 100.0,
        "shared_memory_gb": 16.0,
        "gpus": (),
    }
    return hardware.Hardware(**{**values, **changes})


def ok(area: str, *names: str) -> list[Check]:
    return [Check(area, name, "ok", "CUDA: H100" if name == "torch" else "1.0") for name in names]


def test_engines_report_ok_missing_and_broken_and_a_crash_spares_the_other_processes():
    results = doctor.probe_engines(
        30.0,
        (
            {
                "good": "import json\nprint('noise on stdout')\ndetail = '1.2'",
                "absent": "import no_such_module_at_all\ndetail = ''",
                "depends": "import json\n__import__('no_such_dependency')",
                "raises": "raise OSError('libGL.so.1: cannot open shared object file')",
            },
            {"crash": "import os\nos.abort()", "after": "detail = 'x'"},
        ),
    )
    assert results["good"] == doctor.Probe("ok", "1.2")
    assert results["absent"].state == "missing"
    assert results["depends"].state == "broken"
    assert results["raises"] == doctor.Probe("broken", "OSError: libGL.so.1: cannot open shared object file")
    assert results["crash"].state == "broken"
    assert results["after"].state == "unknown"


def test_slow_engine_is_unknown_and_those_before_it_count(tmp_path: Path):
    late = tmp_path / "late"
    slow = f"import pathlib, time\ntime.sleep(60)\npathlib.Path({str(late)!r}).touch()"
    results = doctor.probe_engines(1.5, ({"quick": "detail = 'x'", "slow": slow},))
    assert not late.exists()  # it was not waited for
    assert (results["quick"].state, results["slow"].state) == ("ok", "unknown")


def test_real_engines_answer():
    names = ("pyav", "opencv")
    results = doctor.probe_engines(60.0, ({name: doctor.PROBES[0][name] for name in names},))
    assert [results[name].state for name in names] == ["ok", "ok"]


def test_declared_requirements_are_those_of_pyproject():
    groups = doctor.declared_requirements()
    names = {requirement.name for requirement in groups["core"]}
    assert {"ray", "pyarrow", "torch", "av"} <= names
    assert {"dev", "vllm-cpu", "vllm", "s3"} <= set(groups)


def test_packages_are_ok_different_or_missing():
    groups = {
        "core": [Requirement("pytest>=1"), Requirement("hypothesis==0.0.1"), Requirement("no-such-package==1")],
        "s3": [Requirement("no-such-extra")],
        "vllm-cpu": [Requirement("no-such-vllm-cpu")],
        "vllm": [Requirement("vllm-no-such"), Requirement("transformers<1000")],
    }
    checks = {check.name: check for check in doctor.check_packages(groups)}
    assert checks["pytest"].state == "ok"
    assert checks["hypothesis"].state == "differs"
    assert not checks["hypothesis"].fatal
    assert checks["no-such-package"].fatal
    assert checks["no-such-extra"].state == "missing"
    assert not checks["no-such-extra"].fatal
    assert not checks["vllm-no-such"].fatal


def test_broken_core_engine_is_fatal_and_a_broken_optional_one_is_not():
    found = {"torch": doctor.Probe("broken", "x"), "decord": doctor.Probe("broken", "x")}
    checks = {check.name: check for check in doctor.check_engines(found)}
    assert checks["torch"].fatal
    assert checks["torch"].fix
    assert not checks["decord"].fatal


def test_weights_are_found_in_search_order_and_otherwise_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MICROG_WEIGHTS", str(tmp_path / "mine"))
    missing, others = doctor.check_weights("yolo11n.pt")
    assert (missing.state, missing.fix) == ("missing", "microg data download weights yolo11n.pt")
    assert "AGPL-3.0" in missing.detail
    assert others.detail.startswith(f"{len(zoo.entries()) - 1} more")
    for folder in ("cache/microg/weights", "weights", "mine"):  # later ones come earlier in the search
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "yolo11n.pt").touch()
        assert doctor.check_weights("yolo11n.pt")[0].detail == str(tmp_path / folder / "yolo11n.pt")
    (tmp_path / "mine" / "other.onnx").touch()
    (tmp_path / "mine" / "notes.txt").touch()
    names = [check.name for check in doctor.check_weights("yolo11n.pt")]
    assert "other.onnx" in names
    assert "notes.txt" not in names
    assert doctor.check_weights(str(tmp_path / "mine" / "other.onnx"))[0].state == "ok"


def test_ray_is_reachable_unreachable_or_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert doctor.check_ray().state == "ok"
    assert doctor.check_ray("auto").fatal
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert doctor.check_ray(f"ray://127.0.0.1:{port}").detail.endswith("answers")
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
        assert doctor.check_ray("auto").detail == f"127.0.0.1:{port} answers"
        assert doctor.check_ray().detail == f"127.0.0.1:{port} answers"
    assert doctor.check_ray().detail.startswith("none needed")  # left behind by a dead cluster
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    assert doctor.check_ray().fatal
    assert doctor.check_ray("not an address:x").fatal


def test_advice_prefers_the_fastest_usable_backend():
    every = ("torch", "openvino", "onnxruntime", "vllm-cpu", "transformers")
    advice = doctor.advise(machine(), ok("engines", *every))
    assert (advice["detector_backend"], advice["detector_device"], advice["vlm_engine"]) == ("openvino", "cpu", "vllm")
    assert advice["resources"]["max_actors"] == 8
    broken = [*ok("packages", *every), Check("engines", "openvino", "broken", "x")]
    assert doctor.advise(machine(), broken)["detector_backend"] == "onnxruntime"
    assert doctor.advise(machine(available_gb=3.2), broken)["resources"]["max_actors"] == 2
    assert doctor.advise(machine(), [])["detector_backend"] is None


def test_advice_uses_gpus_when_torch_sees_them():
    two = machine(gpus=(hardware.Gpu("H100", 80.0, "1"), hardware.Gpu("H100", 80.0, "1")))
    advice = doctor.advise(two, ok("engines", "torch", "openvino", "vllm"))
    assert (advice["detector_backend"], advice["detector_device"]) == ("torch", "cuda")
    assert advice["resources"] == {"cpus": 1.0, "gpus": 1.0, "max_actors": 2}


def test_hardware_is_read_from_this_machine():
    found = hardware.inspect()
    assert 0 < found.cores <= 4096
    assert found.memory_gb is not None
    assert found.available_gb is not None
    assert 0 < found.available_gb <= found.memory_gb


def test_container_limits_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    free = hardware.usable_cores()
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert hardware.usable_cores() == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert hardware.usable_cores() == free
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert hardware.inspect().memory_gb == 1.0
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("25000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert hardware.usable_cores() == 0.25


def test_gpus_are_asked_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559, 570.1'\n")
    tool.chmod(0o755)
    (gpu,) = hardware.inspect().gpus
    assert (gpu.name, gpu.memory_gb, gpu.driver) == ("NVIDIA H100", 85.5, "570.1")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert hardware.inspect().gpus == ()


def test_nothing_heavy_is_imported_by_the_inspection_itself():
    code = (
        "import sys, microg.system.doctor; "
        "print([m for m in ('torch', 'ray', 'cv2', 'av', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_diagnosis_of_this_machine_is_whole_and_plain():
    found = doctor.diagnose(timeout_s=0.5)
    document = found.to_json()
    assert {check["area"] for check in document["checks"]} == {"packages", "engines", "weights", "ray"}
    assert document["version"]
    assert set(found.unanswered) <= {check["name"] for check in document["checks"]}


@pytest.mark.parametrize(
    ("installed", "gpus", "state", "told"),
    [
        (("vllm-cpu",), 0, "ok", "build for CPUs"),
        (("vllm",), 1, "ok", "build for GPUs"),
        (("vllm",), 0, "broken", "none here"),
        (("vllm-cpu",), 1, "differs", "leaves the GPU idle"),
        ((), 1, "missing", "neither"),
        (("vllm", "vllm-cpu"), 1, "broken", "overwrite"),
    ],
)
def test_vllm_is_usable_where_its_build_fits_the_machine(monkeypatch: pytest.MonkeyPatch, installed, gpus, state, told):
    def version(name: str) -> str:
        if name not in installed:
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    check = doctor.check_vllm(machine(gpus=(hardware.Gpu("H100", 80.0, "1"),) * gpus))
    assert check.state == state
    assert told in check.detail
    assert (check.fix is None) == (state == "ok")


def test_a_gpu_machine_with_vllm_for_cpus_is_advised_to_use_transformers():
    one = machine(gpus=(hardware.Gpu("H100", 80.0, "1"),))
    checks = [*ok("engines", "torch", "transformers"), Check("engines", "vllm", "differs", "0.32.0")]
    assert doctor.advise(one, checks)["vlm_engine"] == "transformers"
