"""Data sets of others, in rows of our own: their formats, what becomes of them, and what is refused."""

import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from external_rows import (
    Row,
    as_hub,
    as_inline,
    as_instructions,
    asdiv_rows,
    asdiv_xml,
    configs,
    csqa_rows,
    gsm8k_rows,
    imdb_folder,
    imdb_table,
    multiarith_rows,
    official_quarel_rows,
    openbookqa_rows,
    quarel_rows,
    socratic_rows,
    split_files,
    strategyqa_rows,
    svamp_rows,
    write,
    write_hub,
    write_numbered,
    write_text,
)
from retort.records import Problem, Split
from retort.tasks import (
    TASKS,
    asdiv,
    choices,
    commonsense_qa,
    gsm8k,
    imdb_contrast,
    multiarith,
    openbookqa,
    quarel,
    strategyqa,
    svamp,
)
from retort.tasks.config import TaskConfig


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Problem]]:
    """The problems of each task by `split/number`."""
    given: dict[str, Any] = configs(tmp_path_factory.mktemp("data"))
    return {name: {p.id.partition("/")[2]: p for p in task.load(given[name])} for name, task in TASKS.items()}


def splits(problems: dict[str, Problem]) -> Counter[Split]:
    return Counter(problem.split for problem in problems.values())


def one(problems: dict[str, Problem], number: str) -> Problem:
    (problem,) = (problem for place, problem in problems.items() if place.endswith(f"/{number}"))
    return problem


def test_gsm8k_rows_are_read(loaded: dict[str, dict[str, Problem]]):
    counts = splits(loaded["gsm8k"])
    assert counts["test"] == 1_319
    assert counts.total() == 7_473 + 1_319
    problem = loaded["gsm8k"]["test/00600"]
    assert problem.question == "Ann has 600 pens and buys 600 more. How many pens does she have?"
    assert (problem.answer, problem.steps) == (
        "1200",
        ("She has 600+600 = <<600+600=1200>>1,200 pens.", "That is all."),
    )


def test_gsm8k_gets_its_sub_questions_from_its_socratic_file(loaded: dict[str, dict[str, Problem]]):
    asked = {(p.split == "test", p.sub_questions) for p in loaded["gsm8k"].values()}
    assert asked == {(True, ("How many pens does she have?", "Is that all?")), (False, ())}


def test_svamp_rows_are_read(loaded: dict[str, dict[str, Problem]]):
    assert len(loaded["svamp"]) == 1_000
    assert 250 <= splits(loaded["svamp"])["test"] <= 350
    first, second = one(loaded["svamp"], "chal-1"), one(loaded["svamp"], "chal-2")
    assert first.question == "Each pack costs 20 dollars. How much is it with 5 dollars off?"
    assert second.question == "Each pack costs 21 dollars. How much is it with 5 dollars off?"
    assert (first.answer, first.steps) == ("15", ("( 20.0 - 5.0 )",))


def test_multiarith_rows_are_read(loaded: dict[str, dict[str, Problem]]):
    assert len(loaded["multiarith"]) == 600
    assert 140 <= splits(loaded["multiarith"])["test"] <= 220
    problem = one(loaded["multiarith"], "00007")
    assert (problem.question, problem.answer) == ("Ann has 7 pens and 2 books. How many things has she?", "9")


# asdiv


def test_asdiv_rows_are_read(loaded: dict[str, dict[str, Problem]]):
    assert len(loaded["asdiv"]) == 2_305
    assert 600 <= splits(loaded["asdiv"])["test"] <= 780
    problem = one(loaded["asdiv"], "nluds-0008")
    assert problem.question == "Ann has 7 pens & buys 2 more, how many has she?"
    assert (problem.answer, problem.steps) == ("9", ("x:The pens", "7+2=9"))


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("9 (apples)", "9"),
        ("0.46 (dollars)", "0.46"),
        ("12 (star-shaped stones)", "12"),
        ("5/2", "2.5"),
        ("-(1/3)", "-1/3"),
        ("6th", "6"),
        ("5:6", "a ratio or a time"),
        ("17:12", "a ratio or a time"),
        ("3:30 p.m.", "a ratio or a time"),
        ("5; 15; 20", "several numbers"),
        ("8 (km/hour); 3 (km/hour)", "several numbers"),
        ("Yes", "words"),
        ("The 60th caller.", "words"),
        ("February 3rd", "words"),
    ],
)
def test_asdiv_keeps_one_number_and_counts_what_it_leaves_out(
    answer: str, gold: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = [*asdiv_rows(2_304), asdiv_rows(1)[0] | {"Answer": answer}]
    config = asdiv.Config(id="asdiv", path=write_text(tmp_path / "A.xml", asdiv_xml(rows)))
    with caplog.at_level(logging.INFO, logger="retort.tasks.asdiv"):
        problems = list(asdiv.load(config))
    found = [problem.answer for problem in problems if problem.id.endswith("/nluds-2305")]
    said = [record.getMessage() for record in caplog.records]
    if asdiv.reason(answer) is None:
        assert (found, said) == ([gold], ["task asdiv: left out 0 of 2305 ()"])
    else:
        assert (found, said) == ([], [f"task asdiv: left out 1 of 2305 ({gold}: 1)"])


def test_a_task_may_be_for_evaluation_only(tmp_path: Path):
    path = write_text(tmp_path / "A.xml", asdiv_xml(asdiv_rows(2_305)))
    problems = list(asdiv.load(asdiv.Config(id="asdiv", path=path, test_share=1)))
    assert Counter(problem.split for problem in problems) == {"test": 2_305}


# strategyqa


def test_strategyqa_rows_are_read(loaded: dict[str, dict[str, Problem]]):
    assert splits(loaded["strategyqa"]) == strategyqa.SPLIT_COUNTS
    problem = loaded["strategyqa"][f"test/{12:020x}"]
    assert (problem.question, problem.answer_kind, problem.answer) == ("Is 12 an even number?", "yes_no", "yes")
    assert problem.facts == ("Even numbers are twice another.", "12 is a number.")
    assert problem.sub_questions == ("What is 12 divided by 2?", "Is #1 whole?")
    assert loaded["strategyqa"][f"test/{13:020x}"].answer == "no"


def test_strategyqa_as_one_file_is_split_by_seed(tmp_path: Path):
    path = write(tmp_path / "all.json", strategyqa_rows(2_290), as_list=True)
    problems = list(strategyqa.load(strategyqa.Config(id="strategyqa", paths={"train": path}, test_share=0.3)))
    counts = Counter(problem.split for problem in problems)
    assert counts.total() == 2_290
    assert 600 <= counts["test"] <= 780
    assert 110 <= counts["dev"] <= 210


def test_splits_come_in_one_order_whatever_the_order_of_their_files(tmp_path: Path):
    paths = split_files(tmp_path, strategyqa.SPLIT_COUNTS, strategyqa_rows)
    turned: dict[Split, str] = dict(reversed(paths.items()))
    one, other = (list(strategyqa.load(strategyqa.Config(id="s", paths=given))) for given in (paths, turned))
    assert one == other


# Multiple choice


def test_commonsense_qa_rows_are_read(loaded: dict[str, dict[str, Problem]]):
    counts = splits(loaded["commonsense_qa"])
    assert counts["test"] == 1_221
    assert counts["train"] + counts["dev"] == 9_741
    assert 800 <= counts["dev"] <= 1_150
    problem = loaded["commonsense_qa"][f"test/{8:032x}"]
    assert (problem.question, problem.answer) == ("What follows 7?", "d")
    assert problem.choices == ("5", "6", "7", "8", "9")


def test_of_choices_that_read_the_same_the_first_is_the_gold_one(tmp_path: Path):
    rows = openbookqa_rows(500)
    rows[3]["question"]["choices"][1]["text"] = "Dear 3."
    assert rows[3]["answerKey"] == "D"
    path = write(tmp_path / "test.jsonl", rows)
    problems = list(openbookqa.load(openbookqa.Config(id="o", paths={"test": path})))
    assert [problem.answer for problem in problems[:5]] == ["a", "b", "c", "b", "a"]


def test_openbookqa_is_the_same_in_each_of_its_forms(tmp_path: Path):
    rows = openbookqa_rows(500)
    files = {
        "ai2": write(tmp_path / "ai2.jsonl", rows),
        "hub": write(tmp_path / "hub.jsonl", as_hub(rows, "question_stem")),
        "instructions": write(tmp_path / "instructions.json", as_instructions(rows), as_list=True),
        "inline": write_numbered(tmp_path / "inline.jsonl", as_inline(rows[:498])),
    }
    forms = {
        name: [
            (problem.question, problem.choices, problem.answer)
            for problem in openbookqa.load(openbookqa.Config(id="o", paths={"test": path}))
        ]
        for name, path in files.items()
    }
    assert forms["ai2"][5] == (
        "Of liquid number 5(n) one knows that it is",
        ("hot. 5", "a fluid 5", "dry or so 5", "dear 5"),
        "b",
    )
    assert forms["ai2"] == forms["hub"] == forms["instructions"]
    assert forms["ai2"][:498] == forms["inline"]


def test_the_fact_of_an_openbookqa_row_is_kept(tmp_path: Path):
    rows = [row | {"fact1": "fluids flow"} for row in openbookqa_rows(500)]
    (first, *_) = openbookqa.load(openbookqa.Config(id="o", paths={"test": write(tmp_path / "t", rows)}))
    assert first.facts == ("fluids flow",)


def test_openbookqa_without_a_dev_file_takes_it_from_train(tmp_path: Path):
    paths: dict[Split, str] = {"train": write(tmp_path / "train.jsonl", openbookqa_rows(4_957))}
    counts = Counter(problem.split for problem in openbookqa.load(openbookqa.Config(id="o", paths=paths)))
    assert counts.total() == 4_957
    assert 400 <= counts["dev"] <= 600
    assert "test" not in counts


def test_quarel_rows_are_read_with_their_choices_apart(loaded: dict[str, dict[str, Problem]]):
    assert splits(loaded["quarel"]) == quarel.OFFICIAL_COUNTS
    problem = loaded["quarel"]["dev/QuaRel_V1_Fr_0001"]
    assert problem.question == "Sled 1 is slow on sand and fast on gravel. It is rougher on"
    assert (problem.choices, problem.answer) == (("sand", "gravel"), "a")


def test_quarel_is_the_same_in_both_of_its_forms(tmp_path: Path):
    files = write(tmp_path / "o.jsonl", official_quarel_rows(552)), write_numbered(tmp_path / "n", quarel_rows(552))
    official, numbered = (
        [(p.question, p.choices, p.answer) for p in quarel.load(quarel.Config(id="q", paths={"test": path}))]
        for path in files
    )
    assert official == numbered


def test_quarel_questions_with_many_recorded_chains_are_taken_once(tmp_path: Path):
    path = write_numbered(tmp_path / "train.jsonl", quarel_rows(8_203, copies=5))
    problems = list(quarel.load(quarel.Config(id="q", paths={"train": path})))
    assert len(problems) == len({problem.question for problem in problems}) == 1_641
    assert [problem.id.rpartition("/")[2] for problem in problems[:3]] == ["00000", "00005", "00010"]
    assert Counter(problem.split for problem in problems).keys() == {"train", "dev"}


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("It is (A) rough (B) smooth", "rough", "smooth"),
        ("It is (A) rough or (B) smooth.", "rough", "smooth"),
        ("It is (A) rough, or (B) smooth?", "rough", "smooth"),
        ("It is(A)rough/ (B) smooth ?", "rough", "smooth"),
        ("Which? (A) a door and (B) a motor", "a door", "a motor"),
        ("Which? (A) brand (B) for 2.5 hours", "brand", "for 2.5 hours"),
    ],
)
def test_what_stands_between_two_choices_is_no_part_of_them(text: str, first: str, second: str, tmp_path: Path):
    rows = [{"question": text, "answer": "(A)"}, *quarel_rows(551)]
    problem, *_ = quarel.load(quarel.Config(id="q", paths={"test": write(tmp_path / "t", rows)}))
    assert problem.question == re.split(r" ?\(A", text)[0]
    assert problem.choices == (first, second)


@pytest.mark.parametrize(
    "text",
    ["no choices", "(a) x (b) y", "q (b) x (a) y", "q (a) x", "q (a) (b) y", "q (a) x (b)", "q (a) x (b) y (a) z", ""],
)
def test_a_question_without_its_choices_in_order_is_refused(text: str):
    with pytest.raises(ValueError, match=r"^rows, line 3: field 'question' ends with .*expected a question with \(a\)"):
        choices.inline(text, "ab", "rows, line 3")


# imdb_contrast


def test_imdb_parts_are_paired_by_number_with_opposite_answers(tmp_path: Path):
    path = imdb_folder(tmp_path)
    config = imdb_contrast.Config(id="original", path=path, part="original")
    originals = list(imdb_contrast.load(config))
    contrasts = list(imdb_contrast.load(imdb_contrast.Config(id="contrast", path=path, part="contrast")))
    assert Counter(problem.split for problem in originals) == imdb_contrast.OFFICIAL_COUNTS
    assert [p.id.removeprefix("original") for p in originals] == [p.id.removeprefix("contrast") for p in contrasts]
    assert {(p.answer, q.answer) for p, q in zip(originals, contrasts, strict=True)} == {("a", "b")}
    assert originals[0].choices == ("negative", "positive")
    assert originals[107].context == 'Film 7 "Sand" was it.<br />I slept.'
    assert config.files() == [f"{path}/dev_original.tsv", f"{path}/test_original.tsv"]


def test_a_long_review_is_cut(tmp_path: Path):
    path = imdb_folder(tmp_path)
    write_text(tmp_path / "dev_original.tsv", imdb_table(99, "Negative") + f"Positive\t{'ab ' * 400}\n")
    config = imdb_contrast.Config(id="o", path=path, part="original", max_characters=301)
    *_, last = (problem for problem in imdb_contrast.load(config) if problem.split == "dev")
    assert (last.answer, last.context) == ("b", "ab " * 100 + "a")


# The hub


def test_the_hubs_own_fields_are_read(tmp_path: Path):
    """`datasets` prefers a folder of the name to the hub, so that its own reading of the rows is in the test."""
    write_hub(tmp_path)
    program = """
from collections import Counter
from retort.tasks import TASKS
for kind in ("asdiv", "strategyqa", "commonsense_qa", "openbookqa", "quarel"):
    problems = list(TASKS[kind].load(TASKS[kind].Config(id=kind)))
    counts = Counter(problem.split for problem in problems)
    first = problems[0]
    print(kind, len(problems), len(counts), first.answer, len(first.choices), len(first.steps), len(first.facts))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.splitlines() == [
        "asdiv 2305 3 2 0 2 0",
        "strategyqa 2290 3 yes 0 0 2",
        "commonsense_qa 10962 3 a 5 0 0",
        "openbookqa 5957 3 a 4 0 0",
        "quarel 2771 3 a 2 0 0",
    ], ran.stderr


# Refusals


def gsm8k_folder(folder: Path, train: list[Any], test: list[Any], socratic: list[Any] | None = None) -> TaskConfig:
    write(folder / "train.jsonl", train)
    write(folder / "test.jsonl", test)
    paths: Any = {"test": write(folder / "socratic.jsonl", socratic)} if socratic else {}
    return gsm8k.Config(id="gsm8k", path=str(folder), socratic_paths=paths)


def changed_socratic(folder: Path, change: Row) -> TaskConfig:
    return gsm8k_folder(folder, gsm8k_rows(7_473), gsm8k_rows(1_319), [*socratic_rows(1_318), change])


def changed_asdiv(folder: Path, change: Row) -> TaskConfig:
    xml = asdiv_xml([*asdiv_rows(2_304), asdiv_rows(1)[0] | change])
    return asdiv.Config(id="asdiv", path=write_text(folder / "A.xml", xml))


def changed_csqa(folder: Path, change: Row) -> TaskConfig:
    write(folder / "train_rand_split.jsonl", csqa_rows(9_741))
    write(folder / "dev_rand_split.jsonl", [csqa_rows(1)[0] | change, *csqa_rows(1_220)])
    return commonsense_qa.Config(id="csqa", path=str(folder))


def changed(task: Any, folder: Path, rows: list[Row], row: int, change: Row, split: Split = "test") -> TaskConfig:
    rows[row] = rows[row] | change
    return task.Config(id="changed", paths={split: write(folder / "rows.jsonl", rows)})


def changed_imdb(folder: Path, table: str) -> TaskConfig:
    imdb_folder(folder)
    write_text(folder / "test_original.tsv", table)
    return imdb_contrast.Config(id="imdb", path=str(folder), part="original")


LABELS = [{"label": label, "text": "x"} for label in "ABCDE"]

REFUSED: list[tuple[Callable[[Path], TaskConfig], list[str]]] = [
    (lambda to: gsm8k_folder(to, gsm8k_rows(7_472), gsm8k_rows(1_319)), ["train.jsonl", "7472", "7473"]),
    (lambda to: gsm8k_folder(to, gsm8k_rows(7_473), gsm8k_rows(1_320)), ["test.jsonl", "1320", "1319"]),
    (
        lambda to: gsm8k_folder(to, [*gsm8k_rows(7472), {"question": "q?", "answer": "so 3"}], gsm8k_rows(1_319)),
        ["train.jsonl, line 7473", "'answer'", "'so 3'", "####"],
    ),
    (
        lambda to: gsm8k_folder(to, [*gsm8k_rows(7472), {"question": "q?", "answer": "#### lots"}], gsm8k_rows(1_319)),
        ["train.jsonl, line 7473", "'answer'", "'lots'", "number"],
    ),
    (
        lambda to: gsm8k_folder(to, [{"answer": "#### 3"}, *gsm8k_rows(7472)], gsm8k_rows(1_319)),
        ["train.jsonl, line 1", "'question'"],
    ),
    (
        lambda to: gsm8k_folder(to, gsm8k_rows(7_473), gsm8k_rows(1_319), socratic_rows(1_318)),
        ["socratic.jsonl", "1318", "1319"],
    ),
    (
        lambda to: changed_socratic(to, socratic_rows(1)[0]),
        ["socratic.jsonl, line 1319", "'question'", "'Ann has 0", "test.jsonl, line 1319", "'Ann has 1318", "order"],
    ),
    (
        lambda to: changed_socratic(to, socratic_rows(1_319)[-1] | {"answer": "Why? ** So.\n#### 5"}),
        ["socratic.jsonl, line 1319", "'answer'", "'5'", "'2636'"],
    ),
    (
        lambda to: changed_socratic(to, gsm8k_rows(1_319)[-1]),
        ["socratic.jsonl, line 1319", "'answer'", "'She has 1318", "sub-question ** step"],
    ),
    (lambda to: svamp.Config(id="svamp", path=write(to / "S", svamp_rows(999), as_list=True)), ["999", "1000"]),
    (
        lambda to: svamp.Config(id="svamp", path=write(to / "S", [*svamp_rows(999), {"ID": "x"}], as_list=True)),
        ["element 1000", "'Body'"],
    ),
    (lambda to: multiarith.Config(id="multiarith", path=write(to / "M", multiarith_rows(601))), ["601", "600"]),
    (
        lambda to: multiarith.Config(
            id="multiarith", path=write(to / "M", [*multiarith_rows(599), {"sQuestion": "q?", "lSolutions": []}])
        ),
        ["line 600", "'lSolutions'", "[]"],
    ),
    (
        lambda to: asdiv.Config(id="asdiv", path=write_text(to / "A.xml", asdiv_xml(asdiv_rows(2_304)))),
        ["A.xml", "2304", "2305"],
    ),
    (lambda to: asdiv.Config(id="asdiv", path=write_text(to / "A.xml", "<a><b></a>")), ["A.xml", "not XML", "line 1"]),
    (
        lambda to: asdiv.Config(id="asdiv", path=write_text(to / "A.xml", b"<a>\xff</a>")),
        ["A.xml", "not XML", "line 1"],
    ),
    (lambda to: changed_asdiv(to, {"Question": ""}), ["A.xml, problem 2305", "'Question'", "None", "a text"]),
    (lambda to: changed(strategyqa, to, strategyqa_rows(457), 0, {}), ["rows.jsonl", "457", "458"]),
    (
        lambda to: strategyqa.Config(id="s", paths={"train": write(to / "train", strategyqa_rows(1_648))}),
        ["train", "1648", "2290"],
    ),
    (
        lambda to: changed(strategyqa, to, strategyqa_rows(458), 4, {"answer": "perhaps"}),
        ["rows.jsonl, line 5", "'answer'", "'perhaps'", "yes/no"],
    ),
    (
        lambda to: changed(strategyqa, to, strategyqa_rows(458), 4, {"facts": "One. Two."}),
        ["rows.jsonl, line 5", "'facts'", "One. Two.", "a list of texts"],
    ),
    (
        lambda to: changed(strategyqa, to, strategyqa_rows(458), 4, {"decomposition": ["", 3]}),
        ["rows.jsonl, line 5", "'decomposition'", "a list of texts"],
    ),
    (lambda to: changed_csqa(to, {"answerKey": "F"}), ["dev_rand_split.jsonl, line 1", "'answerKey'", "'F'", "choice"]),
    (lambda to: changed_csqa(to, {"question": {"stem": "q"}}), ["dev_rand_split.jsonl, line 1", "'choices'"]),
    (
        lambda to: changed_csqa(to, {"question": {"stem": "q", "choices": LABELS[:4]}}),
        ["dev_rand_split.jsonl, line 1", "'choices'", "'ABCD'", "'ABCDE'"],
    ),
    (
        lambda to: changed_csqa(to, {"question": {"stem": "q", "choices": "ABCDE"}}),
        ["dev_rand_split.jsonl, line 1", "'choices'", "ABCDE"],
    ),
    (
        lambda to: changed_csqa(to, {"question": {"stem": "q", "choices": [*LABELS[:4], "e"]}}),
        ["dev_rand_split.jsonl, line 1", "'label'", "str"],
    ),
    (
        lambda to: changed(openbookqa, to, openbookqa_rows(497), 0, {}),
        ["rows.jsonl", "497", "500", "a known copy's 498"],
    ),
    (
        lambda to: changed(openbookqa, to, as_instructions(openbookqa_rows(500)), 6, {"instruction": "Which? A or B"}),
        ["rows.jsonl, line 7", "'instruction'", "'Which? A or B'", "Answer4"],
    ),
    (
        lambda to: changed(openbookqa, to, as_instructions(openbookqa_rows(500)), 6, {"answer": "answer5"}),
        ["rows.jsonl, line 7", "'answer'", "'answer5'", "choice"],
    ),
    (
        lambda to: changed(openbookqa, to, as_inline(openbookqa_rows(500)), 6, {"question": "Which? (a) x (b) y"}),
        ["rows.jsonl, line 7", "'question'", "(a) x (b) y", "(d)"],
    ),
    (
        lambda to: openbookqa.Config(
            id="o", paths={"test": write_numbered(to / "t", [*as_inline(openbookqa_rows(497)), {"question": "q"}])}
        ),
        ["t, line 1, row '497'", "'question'", "'q'"],
    ),
    (lambda to: changed(quarel, to, quarel_rows(551), 0, {}), ["rows.jsonl", "551", "552"]),
    (
        lambda to: changed(quarel, to, official_quarel_rows(552), 8, {"answer_index": 2}),
        ["rows.jsonl, line 9", "'answer_index'", "'2'"],
    ),
    (
        lambda to: changed(quarel, to, quarel_rows(552), 8, {"answer": "(C)"}),
        ["rows.jsonl, line 9", "'answer'", "'(C)'"],
    ),
    (
        lambda to: quarel.Config(
            id="q",
            paths={
                "train": write_numbered(
                    to / "t", [*quarel_rows(8_202, 5), quarel_rows(8_203, 5)[-1] | {"answer": "(B)"}]
                )
            },
        ),
        ["t:", "'answer'", "row 08202", "'b'", "row 08200", "'a'", "one answer"],
    ),
    (lambda to: changed_imdb(to, imdb_table(489, "Positive")), ["test_original.tsv", "489", "488"]),
    (
        lambda to: changed_imdb(to, imdb_table(487, "Positive") + "Neutral\tA film.\n"),
        ["test_original.tsv, line 489", "'Sentiment'", "'Neutral'", "choice"],
    ),
    (
        lambda to: changed_imdb(to, imdb_table(487, "Positive") + "Positive\n"),
        ["test_original.tsv, line 489", "'Text'", "None"],
    ),
    (
        lambda to: changed_imdb(to, imdb_table(488, "Positive").replace("Text", "Review")),
        ["test_original.tsv, line 2", "no field 'Text'", "Review"],
    ),
    (lambda to: changed_imdb(to, 'Sentiment\tText\nPositive\t"A film.'), ["test_original.tsv", "tabs"]),
]


@pytest.mark.parametrize(("make", "said"), REFUSED)
def test_an_incomplete_or_changed_data_set_is_refused(
    make: Callable[[Path], TaskConfig], said: list[str], tmp_path: Path
):
    config: Any = make(tmp_path)
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
        list(TASKS[config.kind].load(config))
    assert [part for part in (str(tmp_path), *said) if part not in str(refused.value)] == [], refused.value


@pytest.mark.parametrize(
    ("task", "fields", "said"),
    [
        (gsm8k, {}, "train.jsonl"),
        (commonsense_qa, {}, "train_rand_split.jsonl"),
        (imdb_contrast, {"part": "original"}, "dev_original.tsv"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_before_anything_is_read(
    task: Any, fields: Row, said: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=re.escape(f"no file '{tmp_path}/{said}'")):
        task.Config(id="x", path=str(tmp_path), **fields)


@pytest.mark.parametrize("task", [openbookqa, quarel, strategyqa])
def test_a_missing_file_of_a_split_is_refused_before_anything_is_read(task: Any, tmp_path: Path):
    with pytest.raises(ValueError, match=re.escape(f"no file '{tmp_path}/dev'")):
        task.Config(id="x", paths={"train": write(tmp_path / "train", []), "dev": f"{tmp_path}/dev"})
