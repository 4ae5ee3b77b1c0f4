"""Failures worth reading and the difficulty of problems: what the rules choose, and what the page says of it."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser

from retort.records import Prediction, Verdict
from retort.report.acceptance import acceptance
from retort.report.blocks import Exhibits, Remark, Section, Table
from retort.report.chains import browser as section
from retort.report.contents import Contents
from retort.report.difficulty import by_stratum, difficulty
from retort.report.failures import MIN_VOTES, Spoken, choose, confident, cut_off, failed, failures, within_reach
from retort.report.page import render
from retort.report.sample import Row, draw
from retort.report.sample import shown as visibly
from retort.report.tallies import STRATA, UNKNOWN, Asked, Said, Tally, by_reason, stratum
from test_report import HOSTILE, watched
from test_report import browser as browser  # a fixture
from test_report import contents as contents
from test_report import made as made
from test_report_browser import packed, rows_of, sample_of

TEMPLATE = rows_of(1)[0]


def group(problem: str, *said: str, thought: str = "cot") -> list[Row]:
    """Rows on one problem whose gold answer is 7, by what they say: an answer, or in brackets a reason of none."""
    rows: list[Row] = []
    for index, word in enumerate(said):
        reason = word.strip("[]") if word.startswith("[") else "correct" if word == "7" else "wrong"
        answer = None if word.startswith("[") else word
        rows.append(
            replace(
                TEMPLATE,
                problem=problem,
                thought=thought,
                index=index,
                gold="7",
                answer=answer,
                reason=reason,
                is_correct=reason == "correct",
                text=f"{'so ' * (9 - index)}{word}",
            )
        )
    return rows


def spoken(*groups: Sequence[Row], is_teacher: bool = True, on_page: Sequence[Row] | None = None) -> Spoken:
    rows = [row for group in groups for row in group]
    by_asked: dict[Asked, list[Row]] = defaultdict(list)
    for row in rows if on_page is None else on_page:
        by_asked[row.asked].append(row)
    return Spoken(is_teacher, sample_of(rows).tallies, by_asked)


def chosen(failures: Sequence[tuple[Row, str]] | list[tuple[Row, str]]) -> list[tuple[str, int]]:
    return [(row.problem, row.index) for row, _ in failures]


def test_confident_and_wrong_is_a_majority_for_one_wrong_answer():
    said = spoken(
        group("half", "3", "3", "7", "7"),
        group("few", "3", "3"),
        group("split", "3", "4", "5", "7"),
        group("most", "7", "3", "3", "7", "3"),
        group("all", "9", "9", "9"),
        group("many", *["9"] * 4),
        group("silent", "[no_answer]", "[no_answer]", "[no_answer]"),
    )
    found = list(confident(said))
    assert chosen(found) == [("many", 0), ("all", 0), ("most", 1)]
    assert [why for _, why in found][-1] == "Confident and wrong: 3 of 5 chains give this answer"
    assert MIN_VOTES == 3


def test_within_reach_is_a_teacher_that_is_mostly_wrong_and_once_right():
    groups = (
        group("never", "1", "2", "3"),
        group("half", "7", "1"),
        group("third", "1", "7", "2"),
        group("fifth", "[truncated]", "1", "2", "7", "3"),
        group("mostly", "7", "7", "1"),
        group("cut", "7", "[truncated]", "[truncated]"),
    )
    assert chosen(list(within_reach(spoken(*groups)))) == [("fifth", 1), ("third", 0)]
    assert list(within_reach(spoken(*groups, is_teacher=False))) == []


def test_programs_that_failed_are_told_by_reason_the_most_frequent_first_and_the_shortest():
    said = spoken(
        group("a", "[raised NameError]", "[syntax]", "[raised NameError]", thought="pot"),
        group("b", "[time]", "[syntax]", "[syntax]", "7", "[no_answer]", "3", "[truncated]", thought="pot"),
    )
    found = list(failed(said))
    assert chosen(found) == [("b", 2), ("a", 2), ("b", 0)]
    assert [why for _, why in found] == [
        "Failed: syntax, as 3 chains of this model did",
        "Failed: raised NameError, as 2 chains of this model did",
        "Failed: time, as 1 chain of this model did",
    ]


def test_the_problem_with_most_chains_cut_off_is_shown():
    said = spoken(group("one", "[truncated]", "7"), group("two", "7", "[truncated]", "[truncated]"))
    assert chosen(list(cut_off(said))) == [("two", 1), ("one", 0)]


def test_a_handful_is_chosen_and_no_problem_twice_by_two_rules():
    groups = [group(f"p{number}", "3", "3", "3", "7", "[truncated]") for number in range(9)]
    found = choose(spoken(*groups))
    assert chosen(found) == [("p0", 0), ("p1", 0), ("p2", 0), ("p3", 0), ("p4", 4)]


def test_what_is_not_on_the_page_is_not_chosen_but_counted():
    groups = [group(f"p{number}", "3", "3", "3", "7") for number in range(9)]
    on_page = [groups[4][2], groups[5][3], groups[8][0]]
    found = choose(spoken(*groups, on_page=on_page))
    assert chosen(found) == [("p4", 2), ("p8", 0)]
    assert found[0][1] == "Confident and wrong: 3 of 4 chains give this answer"


def test_the_choice_does_not_hang_on_the_order_of_reading():
    rows = [
        row
        for problem in range(40)
        for row in group(f"p{problem}", *random.Random(problem).choices(["3", "4", "7", "[time]", "[truncated]"], k=5))
    ]
    shuffled = random.Random(1).sample(rows, len(rows))
    there, back = spoken(rows), spoken(shuffled, on_page=rows)
    assert len(choose(there)) == 6
    assert choose(there) == choose(back)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("never right", [(0, 8), (0, 1)]),
        ("up to 25% right", [(1, 8), (2, 8), (1, 1000), (250, 1000)]),
        ("up to 50% right", [(3, 8), (4, 8), (251, 1000)]),
        ("up to 75% right", [(5, 8), (6, 8), (750, 1000)]),
        ("over 75% right", [(7, 8), (751, 1000), (999, 1000)]),
        ("always right", [(8, 8), (1, 1)]),
        (UNKNOWN, [(0, 0)]),
    ],
)
def test_strata_have_exact_bounds(name: str, rates: list[tuple[int, int]]):
    for right, judged in rates:
        said = {Said(True, "correct", "7"): right, Said(False, "wrong", "1"): judged - right}
        tally = Tally(Counter({**said, Said(None, "unlabelled", "7"): 3}))
        assert stratum(right, judged) == tally.stratum == name
        assert (tally.right, tally.judged, tally.chains) == (right, judged, judged + 3)


def test_a_right_answer_with_a_wrong_step_counts_as_right():
    tally = Tally(
        Counter({Said(True, "wrong_step", "7"): 1, Said(False, "wrong", "7.5"): 2, Said(False, "time", None): 1})
    )
    assert (tally.right, tally.agreed, tally.number("time")) == (1, ("7.5", 2), 1)
    assert by_reason([tally, tally]) == {"wrong_step": 2, "wrong": 4, "time": 2}


def tables(sections: Sequence[Section]) -> dict[str, Table]:
    return {block.caption: block for section in sections for block in section.blocks if isinstance(block, Table)}


def test_difficulty_adds_up_to_what_was_verified(contents: Contents):
    tallies = draw(contents).tallies
    shown = tables(difficulty(contents, tallies))
    for teacher in ("tiny", "recorded"):
        verdicts = [
            row
            for one in contents.samplings
            if one.model == teacher and one.plan == "cot" and one.verdicts
            for row in one.verdicts.records(Verdict)
        ]
        rates = defaultdict[str, list[bool]](list)
        for row in verdicts:
            rates[row.problem_id].append(bool(row.is_correct))
        strata = Counter(stratum(sum(rights), len(rights)) for rights in rates.values())
        rows = shown[f"Verdicts of {teacher}, cot, by pass rate"].rows
        assert {row[0]: int(row[1].split(" ")[0]) for row in rows} == strata
        assert [row[0] for row in rows] == [name for name in STRATA if name in strata]
        assert sum(int(row[2]) for row in rows) == len(verdicts) == 144
        group = {asked: tally for asked, tally in tallies.items() if asked.model == teacher and asked.split != "test"}
        assert sum(map(len, by_stratum(group).values())) == 36


def test_what_selection_took_is_told_by_difficulty_and_pick(contents: Contents):
    def counted(split: str, stratum: str, *numbers: int) -> dict[str, object]:
        told = dict(zip(("problems", "chains", "selected"), numbers, strict=True))
        return {"split": split, "thought": "cot", "stratum": stratum, **told}

    rows = [counted("train", "(0, 0.25]", 3, 24, 5), counted("train", "1", 9, 72, 40), counted("dev", "1", 1, 8, 5)]
    corpora = contents.stage("corpus")
    manifest = corpora["chains"].manifest
    told = replace(corpora["chains"], manifest={**manifest, "stats": {**manifest["stats"], "difficulty": rows}})
    changed = replace(contents, artifacts={**contents.artifacts, "corpus": {**corpora, "chains": told}})
    table = tables(difficulty(changed, draw(changed).tallies))["What selection took, by pass rate"]
    assert table.rows == (
        ("up to 25% right", "chains", "3", "24", "5 (20.8%)", "10.0%"),
        ("always right", "chains", "10", "80", "45 (56.2%)", "90.0%"),
    )
    assert "What selection took, by pass rate" not in tables(difficulty(contents, draw(contents).tallies))
    recipe = json.loads(json.dumps(contents.recipe))
    recipe["corpus"][0]["selection"]["pick"] = "open_ended"
    picked = replace(contents, run=replace(contents.run, manifest={**contents.run.manifest, "config": recipe}))
    remark = acceptance(picked).blocks[-1]
    assert isinstance(remark, Remark)
    assert remark.text.startswith("chains (rule correct, pick open-ended, at most 2 a problem and thought) teaches")


def test_students_are_told_by_how_often_their_teacher_is_right(contents: Contents):
    tests = [
        row
        for name in ("tiny/test-greedy", "tiny/test-maj")
        for row in contents.stage("verdicts")[name].records(Verdict)
    ]
    rights = {
        problem: [row.is_correct for row in tests if row.problem_id == problem]
        for problem in {r.problem_id for r in tests}
    }
    table = tables(difficulty(contents, draw(contents).tallies))[
        "Students on test problems of arithmetic, where tiny is …"
    ]
    names = [column.name for column in table.columns[2:]]
    for row in table.rows:
        by_name = defaultdict[str, list[bool]](list)
        for prediction in contents.stage("evaluation")[row[0]].records(Prediction):
            if prediction.decode == "greedy" and prediction.problem_id in rights:
                told = rights[prediction.problem_id]
                by_name[stratum(sum(map(bool, told)), len(told))].append(bool(prediction.is_correct))
        assert sum(map(len, by_name.values())) == 38
        for name, cell in zip(names, row[2:], strict=True):
            of = by_name[name]
            assert cell.startswith(f"{100 * sum(of) / len(of):.1f}% of {len(of)} (") if of else cell == "–"
    assert {row[0] for row in table.rows} == {"cot", "label-only"}


def test_a_failure_of_hostile_text_is_shown_as_text_and_its_link_opens_it(
    contents: Contents, browser: Browser, tmp_path: Path
):
    attack = visibly(f"{HOSTILE['closing']} {HOSTILE['pictured']} {HOSTILE['turned']} \ud800\x00 #%/?&\"'")
    rows = [
        replace(row, model="tiny", question=attack, text=f"{attack} {row.index}")
        for row in group(attack, "3", "3", attack)
    ]
    made = packed([*rows_of(200), *rows])
    sections = failures(contents, made)
    (shown, *others) = sections[0].blocks
    assert isinstance(shown, Exhibits)
    assert isinstance(others[-1], Remark)
    assert any(exhibit.id == rows[0].id for exhibit in shown.exhibits)
    path = tmp_path / "index.html"
    path.write_bytes(render(contents, [*sections, section(made)]))
    with watched(browser, path) as window:
        assert window.locator("img, .chain-text *, .question *, h3 *").count() == 0
        exhibit = window.locator(".exhibit", has_text="closing").first
        assert exhibit.locator(".chain-text").text_content() == rows[0].text
        link = exhibit.get_by_role("link", name="open in the browser")
        assert unquote((link.get_attribute("href") or "").removeprefix("#chain=")) == rows[0].id
        link.click()
        opened = window.locator(".chain.opened")
        opened.wait_for()
        assert opened.locator(".chain-text").text_content() == rows[0].text
