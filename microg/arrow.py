"""`pc`: pyarrow.compute, whose functions are made when it is imported, so that type checkers do not know them."""

from __future__ import annotations

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute
