"""The controls of our Label Studio project: their names, the labeling config, and the results they make."""

from __future__ import annotations

import re
from typing import Any
from xml.sax.saxutils import quoteattr

from microg.data import taxonomy
from microg.formats.labelmap import action_label

PERSON = "person"
PERSON_ID = "person_id"
_ACTIONS, _CAPTION, _BOX, _VIDEO = "actions", "caption", "box", "video"
_SLOT = re.compile(r"(question|answer)_([0-9]{1,4})")
_MIN_PAIRS = 6  # the published number of questions a clip


def labeling_config(pairs: int) -> str:
    """Return the labeling config (XML) with room for `pairs` questions, at least six."""
    lines = [
        "<View>",
        f'  <Labels name="label" toName="{_VIDEO}"><Label value="{PERSON}" background="#1f77b4"/></Labels>',
        f'  <Video name="{_VIDEO}" value="$video" framerate="$fps" height="480"/>',
        f'  <VideoRectangle name="{_BOX}" toName="{_VIDEO}"/>',
        '  <View visibleWhen="region-selected">',
        '    <Header value="Person number" size="5"/>',
        f'    <Number name="{PERSON_ID}" toName="{_VIDEO}" perRegion="true" min="0" step="1"/>',
        '    <Header value="Actions of this person (all that apply)" size="5"/>',
        f'    <Taxonomy name="{_ACTIONS}" toName="{_VIDEO}" perRegion="true" leafsOnly="true">',
    ]
    for group in taxonomy.GROUPS:
        lines.append(f"      <Choice value={quoteattr(taxonomy.GROUP_NAMES[group])}>")
        for action in taxonomy.ACTIONS:
            if action.group == group:
                lines.append(f"        <Choice value={quoteattr(action_label(action.id))}/>")
        lines.append("      </Choice>")
    lines += ["    </Taxonomy>", "  </View>", '  <Header value="Caption" size="5"/>']
    lines.append(f'  <TextArea name="{_CAPTION}" toName="{_VIDEO}" rows="4" editable="true" maxSubmissions="1"/>')
    for number in range(1, max(pairs, _MIN_PAIRS) + 1):
        lines.append(f'  <Header value="Question and answer {number}" size="6"/>')
        for part in ("question", "answer"):
            lines.append(f'  <TextArea name="{part}_{number}" toName="{_VIDEO}" editable="true" maxSubmissions="1"/>')
    return "\n".join([*lines, "</View>", ""])


def region_results(person_id: int, value: dict[str, Any], actions: list[int]) -> list[dict]:
    """Return the results of one person: the rectangle, its number and its actions, all with the region's id."""
    region = f"person-{person_id}"
    common = {"id": region, "to_name": _VIDEO, "origin": "prediction"}
    paths = [[taxonomy.GROUP_NAMES[taxonomy.action(a).group], action_label(a)] for a in actions]
    results = [
        {**common, "from_name": _BOX, "type": "videorectangle", "value": value},
        {**common, "from_name": PERSON_ID, "type": "number", "value": {"number": person_id}},
    ]
    if paths:
        results.append({**common, "from_name": _ACTIONS, "type": "taxonomy", "value": {"taxonomy": paths}})
    return results


def text_results(entry: dict[str, Any]) -> list[dict]:
    """Return the text area results of {caption, qa_pairs: [{Q, A}]}."""
    named = [] if entry.get("caption") is None else [(_CAPTION, entry["caption"])]
    for number, pair in enumerate(entry.get("qa_pairs", []), 1):
        named += [(f"question_{number}", pair["Q"]), (f"answer_{number}", pair["A"])]
    return [
        {"id": name, "from_name": name, "to_name": _VIDEO, "type": "textarea", "value": {"text": [text]}}
        for name, text in named
    ]


def region_labels(region: str, result: list[dict]) -> list[str]:
    """Return the action labels of a region, from a taxonomy (the last name of each path) or from choices."""
    labels = []
    for item in result:
        if item["id"] == region and item["type"] == "taxonomy":
            labels += [path[-1] for path in item["value"]["taxonomy"]]
        elif item["id"] == region and item["type"] == "choices":
            labels += item["value"]["choices"]
    return labels


def read_texts(result: list[dict]) -> tuple[dict[str, Any], int]:
    """Return {caption, qa_pairs} of a task's results, and how many question slots lack one of their halves."""
    texts: dict[str, str] = {}
    for item in result:
        if item["type"] == "textarea":
            text = item["value"]["text"]
            texts[item["from_name"]] = "\n".join(text) if isinstance(text, list) else str(text)
    slots: dict[int, dict[str, str]] = {}
    for name, text in texts.items():
        match = _SLOT.fullmatch(name)
        if match:
            slots.setdefault(int(match[2]), {})[match[1]] = text
    complete = [slots[number] for number in sorted(slots) if len(slots[number]) == 2]
    pairs = [{"Q": slot["question"], "A": slot["answer"]} for slot in complete]
    return {"caption": texts.get(_CAPTION), "qa_pairs": pairs}, len(slots) - len(complete)
