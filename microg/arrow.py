"""pyarrow as it is used here: `pc` is pyarrow.compute, `parse_schema` reads a schema from text."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made when it is imported, so that type checkers do not know them


def parse_schema(text: str) -> pa.Schema:
    """Return the schema that a text declares: names before a colon and their type; `[type]` is a list of it.

    >>> parse_schema("clip_id uri: string, boxes: [float32]").names
    ['clip_id', 'uri', 'boxes']
    """
    groups = [group.partition(":") for group in text.split(",")]
    return pa.schema([(name, _parse_type(kind.strip())) for names, _, kind in groups for name in names.split()])


def _parse_type(name: str) -> pa.DataType:
    return pa.list_(_parse_type(name[1:-1])) if name.startswith("[") else pa.type_for_alias(name)
