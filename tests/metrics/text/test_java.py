"""METEOR and the PTB tokenizer: the oracle's values, hostile texts, hung and killed programs, and none left behind."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.text_corpus import captions
from microg.errors import MetricError
from microg.metrics.text import java, scoring
from microg.metrics.text import meteor as module
from microg.metrics.text.java import JavaError, JavaProgram, jar
from microg.metrics.text.meteor import Meteor, MeteorState, Vocabulary, shared, without_perfect_chunks, write_cut_table
from microg.metrics.text.tokenize import one_line, ptb

REPEATED = " ".join(["float in the module"] * 300)


@pytest.fixture(scope="module")
def meteor() -> Iterator[Meteor]:
    with Meteor(workers=1) as server:
        yield server


def _java_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children(recursive=True) if child.name() == "java"]


def _wait_until(condition, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_meteor_of_a_sentence_worked_out_by_hand() -> None:
    # 4 of 5 words of each side match exactly, "the" and "in" being function words, in two chunks
    row = np.zeros((1, 23))
    row[0, [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22]] = [5, 5, 2, 2, 2, 2, 2, 2, 2, 4, 4]
    precision = (0.75 * 2 + 0.25 * 2) / (0.75 * 3 + 0.25 * 2)
    expected = precision * (1 - 0.6 * (2 / 4) ** 0.2)
    assert MeteorState.empty().score(row, np.ones(1))["meteor"][0] == pytest.approx(expected)


def test_only_a_segment_matched_word_for_word_loses_its_chunk() -> None:
    rows = np.zeros((3, 23), np.int64)
    rows[:, [0, 1, 20, 21, 22]] = [[3, 3, 1, 3, 3], [3, 3, 2, 3, 3], [3, 4, 1, 3, 3]]
    assert without_perfect_chunks(rows)[:, 20].tolist() == [0, 2, 1]


@pytest.mark.slow
def test_meteor_is_that_of_the_stock_wrapper(meteor: Meteor) -> None:
    said = ["the crew floats in the hatch", "a man waves", "", "He is drifting slowly.", "red"]
    true = [
        ["the astronauts are floating in the hatch"],
        ["a person is waving", "a man waves"],
        ["x"],
        ["He drifts"],
        ["red"],
    ]
    from pycocoevalcap.meteor.meteor import Meteor as Stock

    path = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(java.java()).parent}{os.pathsep}{path}"
    try:
        stock = Stock()
        score, items = stock.compute_score(dict(enumerate(true)), {n: [text] for n, text in enumerate(said)})
        del stock
    finally:
        os.environ["PATH"] = path
    state = MeteorState.empty()
    names = [str(n) for n in range(5)]
    state.update(names, said, true)
    assert state.compute()["meteor"] == pytest.approx(score, abs=1e-12)
    assert state.per_item()[1]["meteor"] == pytest.approx(items, abs=1e-12)
    statistics = meteor.statistics(said, true)
    assert statistics[2, 4:].tolist() == [0] * 19


def test_texts_that_would_break_the_protocol_are_scored(meteor: Meteor) -> None:
    hostile = [
        "a\nb",
        "a\r\nb",
        "a\u2028b",
        "a ||| b",
        "EVAL ||| 1",
        "宇航员",
        "😀 🚀",
        "x" * 5000,
        "",
        " ",
        "a\x00b",
        "\x1c",
    ]
    found = meteor.statistics(hostile, [["a b"]] * len(hostile))
    assert found[0].tolist() == found[1].tolist() == found[2].tolist() == found[3].tolist()
    assert found[0, 21] == 2
    again = meteor.statistics(["a b"], [["a b ||| c"]])  # one reference of three words, not two references
    assert again[0, 1] == 3


def test_ten_thousand_words_are_scored(meteor: Meteor) -> None:
    words = " ".join(f"word{n % 977}" for n in range(10_000))
    assert meteor.statistics([words], [["a short reference with word5"]])[0, 0] == 10_000


def test_a_text_on_which_meteor_hangs_is_named_and_the_rest_can_be_scored(meteor: Meteor) -> None:
    with Meteor(workers=1, stall_s=3) as impatient:
        with pytest.raises(
            MetricError, match=r"fails at item 'bad_001' \(1200 words\): METEOR has not answered for 3 s"
        ):
            impatient.statistics(["a", REPEATED], [["a"], [REPEATED]], ["good_000", "bad_001"])
        assert impatient.statistics(["a"], [["a"]])[0, 0] == 1


def test_a_killed_program_is_started_again_and_its_batch_asked_again(meteor: Meteor) -> None:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    meteor.close()
    said = [f"word{n} floats" for n in range(300)]
    expected = meteor.statistics(said, [["word7 floats away"]] * 300)
    program = meteor._programs[0]
    assert program is not None
    assert program._input.fileno() > 9  # shells may know descriptors of one digit only
    (process,) = [p for p in _java_of(os.getpid()) if p.ppid() == program._process.pid]
    process.send_signal(signal.SIGSTOP)
    fresh = [f"{text} floats" for text in said]
    timer = threading.Timer(1, process.kill)
    timer.start()
    found = meteor.statistics(fresh, [["word7 floats away"]] * 300)
    timer.join()
    for descriptor in held:
        os.close(descriptor)
    assert meteor._programs[0] is not program
    assert found[:, 0].tolist() == (expected[:, 0] + 1).tolist()


def test_other_words_bring_in_their_paraphrases(meteor: Meteor) -> None:
    with Meteor(workers=1) as server:
        assert server.statistics(["a cat"], [["the cat"]])[0, 21] == 1
        before = server._programs[0]
        found = server.statistics(["it is of great importance"], [["it is very important"]])
        assert server._programs[0] is not before
        after = server._programs[0]
        assert server.statistics(["is of great"], [["very important"]]).shape == (1, 23)
        assert server._programs[0] is after
        assert found.tolist() == meteor.statistics(["it is of great importance"], [["it is very important"]]).tolist()
        assert found[0, 16:20].sum() > 0


@pytest.mark.slow
def test_the_cut_table_gives_the_statistics_of_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = captions(150, seed=9)
    true = [[text] for text in corpus.references]
    monkeypatch.setattr(module, "_MOST_TABLES", 0)
    with Meteor(workers=1) as whole:
        expected = whole.statistics(corpus.predictions, true)
        assert whole._folder is None
    monkeypatch.setattr(module, "_MOST_TABLES", 8)
    for close in (3, 0):
        monkeypatch.setattr(module, "_CLOSE_TABLES", close)
        with Meteor(workers=1) as cut:
            assert cut.statistics(corpus.predictions, true).tolist() == expected.tolist()
    assert expected[:, 16:20].sum() > 50


@pytest.mark.parametrize("closely", [True, False])
def test_the_table_is_cut_to_phrases_that_are_there(closely: bool, tmp_path: Path) -> None:
    there = Vocabulary.of(["It's very important to the crew.", "Part of it is of great importance"])
    number = write_cut_table(there, tmp_path / "cut.gz", closely=closely)
    with gzip.open(tmp_path / "cut.gz", "rt") as file:
        lines = file.read().splitlines()
    assert len(lines) == 3 * number > 0
    phrases = {*lines[1::3], *lines[2::3]}
    found = {run for phrase in phrases for run in re.findall("[a-z0-9]+", phrase)}
    assert found <= {"it", "s", "very", "important", "to", "the", "crew", "part", "of", "is", "great", "importance"}
    assert "very important" in phrases
    assert ("important part" in phrases) is not closely


def test_a_table_serves_texts_without_new_neighbours() -> None:
    there = Vocabulary.of(["the crew is very important", "part of it"])
    assert there.covers(Vocabulary.of(["is very important", "qqqq of it"]), closely=True)
    assert not there.covers(Vocabulary.of(["important part"]), closely=True)
    assert there.covers(Vocabulary.of(["important part"]), closely=False)
    assert not there.covers(Vocabulary.of(["large"]), closely=False)


def test_a_german_machine_gives_the_same_numbers() -> None:
    with JavaProgram(
        "METEOR",
        ["-Duser.region=DE"],
        ["-jar", str(jar("meteor", "meteor-1.5.jar")), "-", "-", "-stdio", "-l", "en", "-norm", "-m", "exact"],
    ) as program:
        assert program.ask(["SCORE ||| a b ||| a"])[0].startswith("1.0 2.0 ")


def test_a_program_that_cannot_start_says_why() -> None:
    with pytest.raises(JavaError, match=r"Nothing ended early: .*no\.such\.Main"):
        JavaProgram("Nothing", [], ["no.such.Main"]).ask(["x"])


def test_ptb_tokens_are_those_of_the_oracle(oracles: Path) -> None:
    cases = json.loads((oracles / "text/ptb_cases.json").read_text())["cases"]
    assert ptb([case["text"] for case in cases]) == [case["tokens"] for case in cases]
    assert ptb([case["text"] for case in cases[::-1]]) == [case["tokens"] for case in cases[::-1]]


def test_ptb_tokens_of_a_text_do_not_depend_on_its_neighbours() -> None:
    texts = ["No.", "3 men", "a\u2028b", "", "It's a T-shirt (red).", "He said no.", "10 dogs", "a\x0bb\x85c"]
    tokens = ptb(texts)
    assert tokens[:4] == ["no", "3 men", "a b", ""]
    assert tokens[4] == "it 's a t-shirt -lrb- red -rrb-"
    assert ptb(texts[::-1]) == tokens[::-1]


def test_one_line_holds_no_separator_and_no_line_end() -> None:
    assert one_line(" a\r\n\x0b\x0c\x1c\x85\u2028\u2029b ||| c|||d\xa0") == "a b c d"


@pytest.mark.parametrize("protocol", ["paper", "standard"])
@pytest.mark.parametrize("task", ["captions", "qa"])
def test_small_corpus_scores_are_those_of_the_oracle(oracles: Path, protocol: str, task: str) -> None:
    items = json.loads((oracles / "text/microg_mini_input.json").read_text())[task]
    expected = json.loads((oracles / "text/microg_mini_expected.json").read_text())[task]
    expected = expected[{"paper": "paper_raw", "standard": "standard_ptb"}[protocol]]
    names = [f"{n:03d}" for n in range(len(items))]
    states = scoring.measure(protocol, names, [i["prediction"] for i in items], [i["reference"] for i in items])
    found = scoring.scores(states)
    ours = {
        **{f"Bleu_{n}": f"bleu_{n}" for n in range(1, 5)},
        "CIDEr": "cider",
        "ROUGE_L": "rouge_l",
        "METEOR": "meteor",
    }
    assert [found[ours[name]] for name in expected["corpus"]] == pytest.approx([*expected["corpus"].values()], abs=1e-9)
    assert states["bleu"].statistics()[1].sum(axis=0).tolist() == expected["bleu_sums_testlen_reflen_guess4_correct4"]
    for name, values in expected["items"].items():
        state = states[ours[name].split("_")[0] if name.startswith("Bleu") else ours[name]]
        assert state.per_item()[1][ours[name]] == pytest.approx(values, abs=1e-9)
    raw = scoring.tokenized(
        scoring.check(names, [i["prediction"] for i in items], [i["reference"] for i in items]),
        {"paper": "raw", "standard": "ptb"}[protocol],
    )
    assert shared().statistics(raw.predictions, raw.references).tolist() == expected["meteor_stats"]


@pytest.mark.parametrize("protocol", ["paper_raw", "standard_ptb"])
def test_meteor_of_the_coco_example_is_that_published(oracles: Path, protocol: str) -> None:
    data = json.loads((oracles / "text/coco_fakecap_1000.json").read_text())
    texts = [*data["candidates_raw"], *(text for texts in data["references_raw"] for text in texts)]
    if protocol == "standard_ptb":
        tokens = ptb(texts)
        assert tokens == [*data["candidates_ptb"], *(text for texts in data["references_ptb"] for text in texts)]
        texts = tokens
    left = iter(texts)
    said = [next(left) for _ in data["ids"]]
    true = [[next(left) for _ in texts] for texts in data["references_raw"]]
    state = MeteorState.empty().update(data["ids"], said, true)
    expected = data[f"expected_{protocol}"]
    assert state.compute()["meteor"] == pytest.approx(expected["corpus"]["METEOR"], abs=1e-9)
    values = dict(zip(state.per_item()[0], state.per_item()[1]["meteor"], strict=True))
    assert [values[name] for name in data["ids"]] == pytest.approx(expected["items"]["METEOR"], abs=1e-9)


_SCORE_FOREVER = f"""
import sys
from microg.metrics.text.meteor import Meteor
server = Meteor(workers=2)
server.statistics(["a"], [["a"]])
print("ready", flush=True)
server.statistics(["{REPEATED}"], [["{REPEATED}"]])
"""


def test_a_program_that_starts_while_all_are_ended_ends_too() -> None:
    with Meteor(workers=1) as server:
        server._stopped = True  # as Ctrl-C leaves it
        with pytest.raises(JavaError):
            server._running(0)
        (program,) = server._programs
        assert program is not None
        assert program.closed


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_java_program_outlives_its_parent_even_when_busy(sent: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SCORE_FOREVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        time.sleep(1)
        programs = _java_of(parent.pid)
        assert programs
        parent.send_signal(sent)
        parent.wait(timeout=20)
    assert _wait_until(lambda: not any(program.is_running() for program in programs), 10)


def test_programs_end_with_the_process() -> None:
    code = "from microg.metrics.text.meteor import shared; import os\nshared(workers=1).statistics(['a'], [['a']])\n"
    code += "import psutil\nprint([p.pid for p in psutil.Process().children(recursive=True) if p.name() == 'java'][0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert _wait_until(lambda: not psutil.pid_exists(int(done.stdout)), 10)
