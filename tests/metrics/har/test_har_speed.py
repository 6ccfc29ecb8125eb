"""What scoring may cost: CPU time of one test set of the published size, and of the benchmark's large runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import har_score
from microg.actions.rows import Predictions, Truth
from microg.data.label_space import MICROG_50
from microg.metrics.har.protocols import CORRECTED, PAPER
from microg.metrics.har.scoring import score


@pytest.mark.slow
def test_one_test_set_takes_less_than_150_ms_under_both_protocols():
    rows, truth = har_score.random_set(1137)
    assert rows.num_rows == 56_850
    boxes = Predictions.from_rows(rows, "logit", MICROG_50)
    spent = []
    for _ in range(3):
        started = time.process_time()
        score(boxes, Truth(truth), (PAPER, CORRECTED))
        spent.append(time.process_time() - started)
    assert min(spent) < 0.15


@pytest.mark.slow
def test_a_hundred_copies_take_less_than_8_s_and_1500_mb_and_1000_resamples_less_than_60_s():
    script = Path(har_score.__file__)
    done = subprocess.run([sys.executable, str(script), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["many"]["rows"] == 5_685_000
    assert found["many"]["cpu_s"] < 8
    assert found["many"]["peak_bytes"] < 1.5e9
    assert found["bootstrap"]["cpu_s"] < 60
    assert found["largest_difference"] < 1e-12
