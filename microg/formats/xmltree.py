"""XML from strangers: parsed without document types, so that no entity can be declared, fetched or expanded."""

from __future__ import annotations

import xml.etree.ElementTree as ET
import xml.parsers.expat

from microg.errors import FormatError


def parse(data: bytes, where: str) -> ET.Element:
    """Return the root element. Raises `FormatError` for broken XML and for any DOCTYPE."""
    builder = ET.TreeBuilder()
    parser = xml.parsers.expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise FormatError(f"{where} declares a DOCTYPE, which is refused", "no annotation tool writes one")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except xml.parsers.expat.ExpatError as error:
        raise FormatError(f"{where} is not valid XML: {error}") from error
    return builder.close()


def text(element: ET.Element | None) -> str | None:
    """Return the stripped text of an element, or None when it is absent or empty."""
    return ((element.text or "").strip() or None) if element is not None else None
