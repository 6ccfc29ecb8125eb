"""Kinds of questions: rules that agree with people's labels, and a version that changes with the rules."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest

from microg.data.qa_kinds import qa_kind, qa_rules

_NONE = "Not mentioned."
LABELLED = {
    "foreground action": [
        "What gesture does Ye Guangfu make towards the camera?",
        "What is he doing with the cable?",
        "What do the taikonauts do?",
        "Which hand grabs the strut?",
        "What is the astronaut doing in the video?",
        "How does the astronaut move through the module?",
        "What action does the woman perform with the ball?",
        "Is the man eating?",
        "Are the two astronauts shaking hands?",
        "Does the astronaut catch the apple?",
        "What object manipulation task are they engaged in?",
        "What is the crew member holding on to a rail with one hand doing?",
        "How is the astronaut propelling herself forward?",
    ],
    "background/spatial": [
        "Where is the sleeping bag?",
        "In which module is she?",
        "What is visible in the background?",
        "Where does the scene take place?",
        "What is mounted on the wall behind the astronauts?",
        "What kind of environment is shown?",
        "What can be seen outside the window?",
        "How is the cabin lit?",
        "Is Ricky Arnold floating upright?",
        "What trails behind the astronaut?",
        "What surrounds the astronaut?",
    ],
    "entity/attribute": [
        "What colour is Drew Feustel's shirt?",
        "How many people are visible?",
        "Is the astronaut wearing gloves?",
        "What is the astronaut's name?",
        "How many crew members wear white spacesuits?",
        "What does the third crew member read from?",
        "Are the men sad?",
        "3 or 2 men?",
        "What brand is the treadmill?",
        "What instrument does the woman play?",
        "What is the astronaut holding?",
        "What is the woman wearing?",
        "Who is holding the camera?",
        "What object is in her left hand?",
        "What type of clothing does he have?",
    ],
    "temporal": [
        "What is the time of day during the video?",
        "What does he do after catching the ball?",
        "When does she let go of the handrail?",
        "What happens at the end of the clip?",
        "How long does he wave?",
        "What is the first thing that he picks up?",
        "In what order do they enter?",
    ],
    "causal": [
        "Why does he hold on to the truss?",
        "What holds her down?",
        "What happens to the water sphere?",
        "What is the purpose of the strap?",
        "What causes the bag to drift away?",
        "What allows the crew to float?",
        "What is the tether used for?",
    ],
    "counterfactual": [
        "What would happen if she let go of the flute?",
        "If gravity returned, what would the drops do?",
        "Would he drift away without the foot straps?",
        "What might happen if the hatch were open?",
    ],
}


@pytest.mark.parametrize("kind", LABELLED)
def test_rules_agree_with_the_labels_of_people(kind: str) -> None:
    assert {question: qa_kind(question, "Yes.") for question in LABELLED[kind]} == dict.fromkeys(LABELLED[kind], kind)


def test_a_question_without_an_answer_is_unanswerable_whatever_it_asks() -> None:
    for questions in LABELLED.values():
        assert {qa_kind(question, _NONE) for question in questions} == {"unanswerable"}
    assert qa_kind("Who is he?", "His name is not mentioned, but a patch says Ye.") == "entity/attribute"
    assert qa_kind("", None) == qa_rules().otherwise


def test_the_version_changes_with_the_rules() -> None:
    text = resources.files("microg.data").joinpath("qa_kinds.yaml").read_bytes()
    known = {1: "2d2041163d9a"}
    assert hashlib.sha256(text).hexdigest()[:12] == known[qa_rules().version], "new rules need a new version"


def test_every_rule_is_of_a_known_kind() -> None:
    rules = qa_rules()
    assert {kind for kind, _ in rules.rules} | {rules.otherwise} == set(rules.kinds)
