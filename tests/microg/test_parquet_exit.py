"""Reading tables leaves the interpreter able to exit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from microg.data import schema
from microg.data.dataset import Dataset

_SCRIPT = """
import sys
from microg.data.dataset import Dataset
dataset = Dataset.open(sys.argv[1])
print(sum(dataset.table(name).num_rows for name in ("clips", "boxes", "actions")), "pandas" in sys.modules)
"""


def test_a_process_that_read_tables_exits_cleanly_and_never_imported_pandas(tmp_path: Path):
    # With pq.read_table of pyarrow 26.0.1 about one exit in three aborted: six in a row seldom pass.
    dataset = Dataset.create(str(tmp_path / "set"), "small")
    for name in ("clips", "boxes", "actions"):
        dataset.write(name, schema.from_rows(name, [{"clip_id": "a_000"}]))
    for _ in range(6):
        ended = subprocess.run([sys.executable, "-c", _SCRIPT, dataset.root], capture_output=True, text=True)
        assert (ended.returncode, ended.stdout.split()) == (0, ["3", "False"]), ended.stderr
