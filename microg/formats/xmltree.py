"""XML from strangers: parsed without document types, so that no entity can be declared, fetched or expanded."""

from __future__ import annotations

import xml.etree.ElementTree as ET
import xml.parsers.expat

from microg.errors import FormatError

_MAX_DEPTH, _MAX_ELEMENTS = 100, 3_000_000


def parse(data: bytes, where: str) -> ET.Element:
    """Return the root element. Raises `FormatError` for broken XML and for any DOCTYPE."""
    builder = ET.TreeBuilder()
    parser = xml.parsers.expat.ParserCreate()
    parser.buffer_text = True
    depth = elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > _MAX_DEPTH or elements > _MAX_ELEMENTS:
            what = f"nested over {_MAX_DEPTH} deep" if depth > _MAX_DEPTH else f"of over {_MAX_ELEMENTS:,} elements"
            raise FormatError(f"{where} is {what}", "no annotation of a clip is")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise FormatError(f"{where} declares a DOCTYPE, which is refused", "no annotation tool writes one")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as error:  # or an encoding that Python lacks
        raise FormatError(f"{where} is not valid XML: {error}") from error
    return builder.close()


def text(element: ET.Element | None) -> str | None:
    """Return the stripped text of an element, or None when it is absent or empty."""
    return ((element.text or "").strip() or None) if element is not None else None
