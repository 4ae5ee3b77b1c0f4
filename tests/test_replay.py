"""The replay engine: recorded completions are found, in order, whatever shape the recording has."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from retort import prompts
from retort.engines import replay
from retort.engines.interface import Completion, SamplingDistribution
from retort.records import Request
from retort.rollouts import single_turn

QUESTION = "How many apples has Tom?"


def write(path: Path, rows: list[Any], *, as_list: bool = False) -> str:
    text = json.dumps(rows) if as_list else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def request(
    index: int = 0, question: str = QUESTION, problem_id: str = "t/test/00017", thought: str = "cot"
) -> Request:
    prompt = prompts.canonical(f"Question: {question}\nThink.\n")
    return Request(prompts.prompt_hash(prompt), index, prompt, 5 + index, 64, problem_id, thought, question)


def complete(engine: replay.Engine, asked: Request, *stop: str) -> Completion | None:
    distribution = SamplingDistribution(temperature=1.0, stop=stop)
    return asyncio.run(engine.complete(json.loads(asked.prompt), asked, distribution))


def texts(engine: replay.Engine, most: int = 9, **asked: Any) -> list[str]:
    """What the engine has to give for one problem, by index."""
    found = [complete(engine, request(index, **asked)) for index in range(most)]
    given = [completion.text for completion in found if completion is not None]
    assert found[len(given) :] == [None] * (most - len(given)), "a gap in the indices"
    return given


def engine(*paths: str, **fields: Any) -> replay.Engine:
    return replay.Engine(replay.Config(paths=paths, **fields))


@pytest.mark.parametrize("asked", [QUESTION, QUESTION.upper(), "  how many\tapples \n has tom? "])
@pytest.mark.parametrize("recorded", [QUESTION, "HOW  many apples has Tom?\n"])
def test_a_question_is_found_whatever_its_case_and_blanks(asked: str, recorded: str, tmp_path: Path):
    rows = [{"question": "Another?", "completions": ["no"]}, {"question": recorded, "completions": ["one", "two"]}]
    assert texts(engine(write(tmp_path / "r.jsonl", rows)), question=asked) == ["one", "two"]


@pytest.mark.parametrize(
    ("recorded", "problem_id"),
    [("00017", "t/test/00017"), ("Chal-1", "t/train/Chal-1"), ("a/b", "t/train/a/b"), (17, "t/train/17")],
)
def test_a_row_without_a_question_is_found_by_its_id(recorded: Any, problem_id: str, tmp_path: Path):
    rows = [{"id": "99", "completions": ["no"]}, {"id": recorded, "completions": ["one"]}]
    made = engine(write(tmp_path / "r.jsonl", rows))
    assert texts(made, problem_id=problem_id) == ["one"]
    assert texts(made, problem_id="t/train/18") == []


def test_a_completion_says_that_it_ended_and_that_its_tokens_are_not_known(tmp_path: Path):
    made = engine(write(tmp_path / "r.jsonl", [{"question": QUESTION, "completions": ["one"]}]))
    assert complete(made, request()) == Completion("one", "stop", 0, 0, logprob=None, token_logprobs=(), token_ids=())


def test_one_completion_needs_no_list(tmp_path: Path):
    assert texts(engine(write(tmp_path / "r.jsonl", [{"question": QUESTION, "completions": "one"}]))) == ["one"]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.json", "r.json.gz"])
def test_recordings_are_lines_or_one_list_gzipped_or_not(name: str, tmp_path: Path):
    rows = [{"question": QUESTION, "completions": ["one"]}, {"question": "Another?", "completions": []}]
    path = write(tmp_path / name, rows, as_list=".json." in f"{name}.")
    assert texts(engine(path)) == ["one"]


def test_several_rows_and_files_add_up_in_their_order(tmp_path: Path):
    paths = [
        write(
            tmp_path / f"{number}.jsonl",
            [
                {"question": QUESTION, "completions": [f"{number}a", f"{number}b"]},
                {"question": "Another?", "completions": ["no"]},
                {"question": QUESTION.lower(), "completions": f"{number}c"},
            ],
        )
        for number in (1, 2)
    ]
    assert texts(engine(*paths)) == ["1a", "1b", "1c", "2a", "2b", "2c"]
    assert texts(engine(*paths[::-1])) == ["2a", "2b", "2c", "1a", "1b", "1c"]


def test_questions_in_files_of_their_own_are_paired_row_by_row(tmp_path: Path):
    first = write(tmp_path / "1.json", ["one", "two"], as_list=True)
    second = write(tmp_path / "2.jsonl", ["three", {"completions": ["four", "five"]}])
    asked = write(tmp_path / "q.jsonl", [{"input": QUESTION}, {"input": "B?"}, {"input": "C?"}, {"input": QUESTION}])
    made = engine(first, second, questions=(asked,), question_field="input")
    assert texts(made) == ["one", "four", "five"]
    assert texts(made, question="b?") == ["two"]
    assert texts(made, question="C?") == ["three"]


def test_fields_may_have_other_names(tmp_path: Path):
    rows = [{"q": QUESTION, "said": ["one"]}, {"number": 4, "said": ["two"]}]
    made = engine(
        write(tmp_path / "r.jsonl", rows),
        question_field="q",
        id_field="number",
        completions_field="said",
        thought="pot",
    )
    assert texts(made, thought="pot") == ["one"]
    assert texts(made, question="?", problem_id="t/train/4", thought="pot") == ["two"]
    assert texts(made) == []


def test_thoughts_are_kept_apart(tmp_path: Path):
    rows = [{"question": QUESTION, "thought": name, "completions": [name]} for name in ("cot", "pot")]
    made = engine(write(tmp_path / "r.jsonl", [*rows, {"question": QUESTION, "completions": ["more"]}]), thought="pot")
    assert texts(made, thought="cot") == ["cot"]
    assert texts(made, thought="pot") == ["pot", "more"]
    assert texts(made, thought="eot") == []


@pytest.mark.parametrize(
    ("stops", "text", "stop"),
    [
        ((), "The answer is 3.\n\nQ: Another?\n\nQ: B?", None),
        (("\n\nQ:",), "The answer is 3.", "\n\nQ:"),
        (("nothing",), "The answer is 3.\n\nQ: Another?\n\nQ: B?", None),
        (("Another", " 3"), "The answer is", " 3"),
        (("The",), "", "The"),
    ],
)
def test_a_stop_string_cuts_a_completion_at_its_first_place(
    stops: tuple[str, ...], text: str, stop: str | None, tmp_path: Path
):
    rows = [{"question": QUESTION, "completions": ["The answer is 3.\n\nQ: Another?\n\nQ: B?"]}]
    completion = complete(engine(write(tmp_path / "r.jsonl", rows)), request(), *stops)
    assert completion == Completion(text, "stop", 0, 0, stop)


def test_what_a_recording_lacks_is_no_chain(tmp_path: Path):
    made = engine(write(tmp_path / "r.jsonl", [{"question": QUESTION, "completions": ["one"]}]))
    distribution = SamplingDistribution(temperature=1.0)
    assert asyncio.run(single_turn(made, request(1), distribution)) is None
    assert asyncio.run(single_turn(made, request(0, question="Another?"), distribution)) is None
    chain = asyncio.run(single_turn(made, request(0), distribution))
    assert chain is not None
    assert (chain.text, chain.index, chain.seed, chain.problem_id) == ("one", 0, 5, "t/test/00017")
    assert chain.prompt_hash == request().prompt_hash


def test_lone_surrogates_do_not_hide_a_question(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"question": "Q\\ud800?", "completions": ["so \\udfff 3"]}')
    assert texts(engine(str(path)), question="q\ufffd?") == ["so \ufffd 3"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "q?", "completions": []}, {"completions": ["a"]}], ["line 2", "'question' or 'id'"]),
        ([{"question": "q?", "answers": ["a"]}], ["line 1", "'completions'", "['answers', 'question']"]),
        ([{"question": "q?", "completions": None}], ["line 1", "'completions'", "None", "a list of texts"]),
        ([{"question": "q?", "completions": 3}], ["line 1", "'completions'", "3", "a list of texts"]),
        ([{"question": "q?", "completions": ["a", 3]}], ["line 1", "'completions'", "3", "a list of texts"]),
        ([{"question": "q?", "completions": {"a": 1}}], ["line 1", "'completions'", "{'a': 1}", "a list of texts"]),
        ([{"question": "q?", "completions": []}, 3], ["line 2", "got 3", "an object"]),
        ([None], ["line 1", "got None", "an object"]),
        (["a bare text"], ["line 1", "'question' or 'id'"]),
    ],
)
def test_a_bad_row_is_refused_with_its_place_and_field(rows: list[Any], said: list[str], tmp_path: Path):
    path = write(tmp_path / "r.jsonl", rows)
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
        engine(path)
    assert [part for part in (path, *said) if part not in str(refused.value)] == [], refused.value


@pytest.mark.parametrize(
    ("recorded", "questions", "place"),
    [(["a", "b"], [{"question": "q?"}], "r.jsonl, line 2"), (["a"], [{"question": "q?"}] * 3, "q.jsonl, line 2")],
)
def test_files_that_do_not_pair_are_refused_at_the_first_row_that_is_alone(
    recorded: list[Any], questions: list[Any], place: str, tmp_path: Path
):
    paths = write(tmp_path / "r.jsonl", recorded), write(tmp_path / "q.jsonl", questions)
    with pytest.raises(ValueError, match=r"stands alone; expected as many rows") as refused:
        engine(paths[0], questions=(paths[1],))
    assert place in str(refused.value)


def test_a_partner_that_is_no_object_is_refused(tmp_path: Path):
    asked = write(tmp_path / "q.jsonl", ["q?"])
    with pytest.raises(ValueError, match=r"q\.jsonl, line 1: got 'q\?'; expected an object"):
        engine(write(tmp_path / "r.jsonl", ["a"]), questions=(asked,))


def test_a_recording_is_known_by_its_content(tmp_path: Path):
    rows = [{"question": QUESTION, "completions": ["one"]}]
    one, copy = write(tmp_path / "1.jsonl", rows), write(tmp_path / "2.jsonl", rows)
    other = write(tmp_path / "3.jsonl", [{"question": QUESTION, "completions": ["two"]}])
    known = replay.Config(paths=(one,)).identity()
    assert known == replay.Config(paths=(copy,)).identity()
    others = [{"paths": (other,)}, {"paths": (one, copy)}, {"paths": (one,), "thought": "pot"}]
    assert known not in [replay.Config.model_validate(fields).identity() for fields in others]
