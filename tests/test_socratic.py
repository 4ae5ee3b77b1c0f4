"""The Socratic layout: what a chain says, what each role learns of it, and that roles are asked as they were taught."""

import itertools
from dataclasses import replace

import pytest

from retort import answers, prompts
from retort.tasks import arithmetic
from retort.thoughts import cues, socratic
from retort.thoughts.socratic import Iterative, Step

STORIES = list(itertools.islice(arithmetic.stories("train", 0), 40))
STORY = max(STORIES, key=lambda story: len(story.steps))
PROBLEM = STORY.problem("train", 0)
UNIFIED = prompts.render(PROBLEM, socratic.CUE)
EVERY = [
    Iterative(questions=questions, guidance=guidance, hints=hints)
    for questions in ("at_once", "interleaved")
    for guidance in ("none", "operators", "equations")
    for hints in ("gold", "predicted")
]


def test_a_chain_is_read_and_written_alike():
    for story in STORIES:
        steps = socratic.steps_of(story.socratic())
        assert [step.question for step in steps] == list(story.sub_questions())
        assert socratic.text_of(steps, str(story.answer)) == story.socratic()


@pytest.mark.parametrize(
    ("solution", "kind", "answer"),
    [
        ("12 + 5 = <<12+5=17>>17", "number", "17"),
        ("12 + 5 = 17 apples.", "number", "17"),
        ("He has 3 pears and 5 apples, <<3+5=8>>8 in all.", "number", "8"),
        ("Yes, a goose is a bird.", "yes_no", "yes"),
        ("No.", "yes_no", "no"),
        ("(b) apple", "choice", "b"),
        ("No, he died <<1877-1791=86>>86 years before.", "yes_no", "no"),
    ],
)
def test_the_last_solution_gives_the_answer(solution: str, kind: answers.AnswerKind, answer: str):
    text = socratic.text_of([Step("How?", solution)], socratic.answer_of(solution))
    choices = ("stone", "apple") if kind == "choice" else ()
    found = answers.find(kind, text, choices=choices)
    assert found is not None
    assert answers.canonical(kind, found, choices=choices) == answer


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("How? ** 1 + 1 = 2 ** 3", ("How?", "1 + 1 = 2 ** 3")),
        ("How many **apples** are there? ** 2 + 3 = 5", ("How many **apples** are there?", "2 + 3 = 5")),
        ("**How many?** ** 3", ("**How many?**", "3")),
        ("no separator", None),
        (" ** no question", None),
        ("a**b", None),
    ],
)
def test_a_line_is_a_step_where_a_question_and_its_solution_are_set_apart(line: str, step: tuple[str, str] | None):
    assert socratic.steps_of(f"{line}\n#### 2") == ([] if step is None else [step])
    assert socratic.is_in_layout(f"{line}\n#### 2") == (step is not None)


@pytest.mark.parametrize("text", ["", "#### 2", "How? ** 2", "How? ** 1\nI think\n#### 2", "\n\n"])
def test_other_texts_are_not_in_the_layout(text: str):
    assert not socratic.is_in_layout(text)


def test_every_gold_chain_is_in_the_layout():
    assert all(socratic.is_in_layout(story.socratic()) for story in STORIES)


def test_all_questions_at_once_are_one_view_and_one_by_one_are_one_more_than_steps():
    chain, steps = STORY.socratic(), socratic.steps_of(STORY.socratic())
    ((prompt, target),) = socratic.views(UNIFIED, chain, "ask", Iterative())
    assert prompt.endswith(f"\n{cues.ASK_ALL}\n")
    assert target.splitlines() == [step.question for step in steps]
    views = socratic.views(UNIFIED, chain, "ask", Iterative(questions="interleaved"))
    assert [target for _, target in views] == [*(step.question for step in steps), socratic.NO_MORE]
    solved = socratic.views(UNIFIED, chain, "solve", Iterative())
    assert [target for _, target in solved] == [step.solution for step in steps]


def test_no_view_shows_what_is_to_be_said():
    for settings in EVERY:
        for role in settings.roles:
            for prompt, target in socratic.views(UNIFIED, STORY.socratic(), role, settings):
                if role == "solve":
                    assert target not in prompt
                elif role == "ask":
                    assert all(line not in prompt for line in target.splitlines())


@pytest.mark.parametrize(
    ("steps", "guidance", "expected"),
    [
        (["12 + 5 = <<12+5=17>>17", "17 - 3 = <<17-3=14>>14"], "operators", "+ -"),
        (["12 + 5 = <<12+5=17>>17", "17 - 3 = <<17-3=14>>14"], "equations", "12+5=17; 17-3=14"),
        (["12 + 5 = 17"], "operators", "+"),
        (["( 76.0 - 25.0 ) * 2 = 102.0"], "operators", "- *"),
        (["( 8.0 - 3.0 )"], "operators", "-"),
        (["half-price ticket = 5"], "operators", ""),
        (["He eats."], "operators", ""),
    ],
)
def test_hints_tell_the_operators_or_the_equations(steps: list[str], guidance: str, expected: str):
    assert socratic.hint(steps, guidance) == expected


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: "-".join(map(str, settings.model_dump().values())))
def test_the_first_prompt_gives_back_the_problem_and_its_hint(settings: Iterative):
    prompt = socratic.first_prompt(PROBLEM, settings)
    body, told = socratic.parts_of_first(prompt, settings)
    assert body == prompts.body(PROBLEM)
    wants_gold = settings.guidance != "none" and settings.hints == "gold"
    assert told == (socratic.hint(PROBLEM.steps, settings.guidance) if wants_gold else None)


def test_gold_hints_of_a_problem_without_steps_are_refused():
    bare = replace(PROBLEM, steps=())
    with pytest.raises(ValueError, match=r"arithmetic/train/00000: no steps with operators to hint at"):
        socratic.first_prompt(bare, Iterative(guidance="operators", hints="gold"))
    assert socratic.first_prompt(bare, Iterative(guidance="operators"))


def test_gold_annotations_teach_the_whole_chain():
    assert PROBLEM.sub_questions == STORY.sub_questions()
    gold = socratic.gold(PROBLEM)
    assert gold is not None
    assert socratic.steps_of(gold) == list(map(Step, STORY.sub_questions(), PROBLEM.steps))
    assert socratic.gold(replace(PROBLEM, sub_questions=())) is None
    assert socratic.gold(replace(PROBLEM, answer=None)) is None


@pytest.mark.parametrize("role", ["hint", "ask"])
def test_where_nothing_is_computed_no_empty_hint_is_taught(role: socratic.Role):
    unified = prompts.render(PROBLEM, socratic.CUE)
    views = socratic.views(
        unified, "Do geese fly? ** Geese are birds.\n#### yes", role, Iterative(guidance="equations")
    )
    assert all(target and socratic.HINT_LINE not in prompt for prompt, target in views)


@pytest.mark.parametrize(
    ("text", "does"),
    [
        ("How? ** 1 + 1 = <<1+1=2>>2\n#### 2", True),
        ("How? ** 1 + 1 = <<1+1=3>>3\n#### 2", False),  # the pair would learn the 3
        ("How? ** It is 1,200 dollars.\n#### 1200", True),
        ("Is it? ** Yes, it is.\n#### yes", True),
        ("Is it? ** No, it is not.\n#### yes", False),
        ("#### 2", False),
    ],
)
def test_a_chain_concludes_where_its_last_solution_says_its_answer(text: str, does: bool):
    assert socratic.concludes(text) == does
