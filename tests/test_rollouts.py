"""Rollouts: one turn, a calculator in it, and two or three students in turns, as one chain."""

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence

import pytest

from retort import prompts
from retort.engines.interface import Completion, PromptTooLongError, SamplingDistribution, until_stop
from retort.prompts import Messages
from retort.records import Chain, Problem, Request
from retort.rollouts import VERSION, Rollout, roll_out, turn_seed
from retort.store.hashing import digest
from retort.store.plan import seed
from retort.tasks import arithmetic
from retort.thoughts import socratic
from retort.thoughts.socratic import Iterative

COLD = SamplingDistribution(temperature=0.0)
STORY = max(itertools.islice(arithmetic.stories("train", 0), 40), key=lambda story: len(story.steps))
PROBLEM = STORY.problem("train", 0)
STEPS = socratic.steps_of(STORY.socratic())


class Scripted:
    """An engine that answers by a function of the prompt, one token a word, and stops where it is told to.

    It sees prompts of `longest` characters, and tells each token's log-probability where it has a `logprob` to tell.
    """

    def __init__(
        self, answer: Callable[[str], str | None], longest: int = 10_000, logprob: float | None = None
    ) -> None:
        self.answer, self.longest, self.logprob = answer, longest, logprob
        self.seeds, self.asked = list[int](), list[str]()

    @property
    def num_tokens(self) -> None:
        return

    async def start(self) -> None:
        return

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        assert isinstance(prompt, str)
        self.seeds.append(request.seed)
        self.asked.append(prompt)
        if len(prompt) > self.longest:
            raise PromptTooLongError(f"prompt of {len(prompt)} characters")
        answer = self.answer(prompt)
        if answer is None:
            return None
        text, stop = until_stop(answer, distribution.stop)
        words = text.split(" ")
        most = request.max_new_tokens
        if len(words) > most:
            completion = Completion(" ".join(words[:most]), "length", 7, most)
        else:
            completion = Completion(text, "stop", 7, len(words), stop)
        if self.logprob is None:
            return completion
        logprobs = (self.logprob,) * completion.num_tokens
        ids = tuple(range(completion.num_tokens))
        return completion._replace(logprob=sum(logprobs), token_logprobs=logprobs, token_ids=ids)

    def close(self) -> None:
        self.asked.clear()


def taught(settings: Iterative, problem: Problem = PROBLEM, text: str = STORY.socratic()) -> list[Scripted]:
    """Students that say in every turn exactly what `views` teaches of a chain, and go on where they are stopped."""

    def recite(lesson: dict[str, str]) -> Callable[[str], str]:
        def answer(prompt: str) -> str:
            (learned,) = (one for one in lesson if prompt.startswith(one))
            return lesson[learned].removeprefix(prompt[len(learned) :])

        return answer

    unified = prompts.render(problem, socratic.CUE)
    lessons = [dict(socratic.views(unified, text, role, settings)) for role in settings.roles]
    return [Scripted(recite(lesson)) for lesson in lessons]


def request(prompt: str, index: int = 0, max_new_tokens: int = 64) -> Request:
    canonical = prompts.canonical(prompt)
    key = prompts.prompt_hash(canonical)
    return Request(key, index, canonical, seed(key, index), max_new_tokens, PROBLEM.id, "socratic", PROBLEM.question)


def rolled(engines: Sequence[Scripted], asked: Request, rollout: Rollout) -> Chain:
    chain = asyncio.run(roll_out(engines, asked, COLD, rollout))
    assert chain is not None
    return chain


@pytest.mark.parametrize("questions", ["at_once", "interleaved"])
@pytest.mark.parametrize("guidance", ["none", "operators", "equations"])
def test_students_that_say_what_they_were_taught_say_the_whole_chain(questions: str, guidance: str):
    settings = Iterative.model_validate({"questions": questions, "guidance": guidance})
    chain = rolled(taught(settings), request(socratic.first_prompt(PROBLEM, settings)), Rollout(iterative=settings))
    assert chain.text == STORY.socratic()
    assert chain.finish_reason == "stop"


def test_a_rollout_is_one_chain_that_keeps_its_turns():
    settings = Iterative(questions="interleaved")
    engines = taught(settings)
    asked = request(socratic.first_prompt(PROBLEM, settings), index=3)
    chain = rolled(engines, asked, Rollout(iterative=settings))
    turns = [json.loads(turn) for turn in chain.turns]
    assert chain.prompt == asked.prompt
    assert [turn["role"] for turn in turns] == [*["ask", "solve"] * len(STEPS), "ask"]
    assert [turn["seed"] for turn in turns] == [asked.seed, *(turn_seed(asked, t) for t in range(1, len(turns)))]
    assert len({turn["seed"] for turn in turns}) == len(turns)
    assert chain.num_tokens == sum(turn["num_tokens"] for turn in turns)
    assert chain.longest_turn == max(turn["num_tokens"] for turn in turns) < chain.num_tokens


def test_one_cut_off_turn_cuts_off_the_chain_and_ends_it():
    settings = Iterative()
    engines = taught(settings)
    longest = max(len(step.solution.split(" ")) for step in STEPS)
    needed = len("\n".join(step.question for step in STEPS).split(" "))
    whole = rolled(engines, request(socratic.first_prompt(PROBLEM, settings), 0, needed), Rollout(iterative=settings))
    assert needed > longest
    assert whole.finish_reason == "stop"
    cut = rolled(
        taught(settings), request(socratic.first_prompt(PROBLEM, settings), 0, needed - 1), Rollout(iterative=settings)
    )
    assert cut.finish_reason == "length"
    assert len(cut.turns) < len(whole.turns)


def test_a_student_that_never_stops_asking_is_cut_off_at_the_limit():
    settings = Iterative(questions="interleaved", max_steps=5)
    engines = [Scripted(lambda prompt: "And then?"), Scripted(lambda prompt: "1 + 1 = <<1+1=2>>2")]
    chain = rolled(engines, request(socratic.first_prompt(PROBLEM, settings)), Rollout(iterative=settings))
    assert chain.finish_reason == "length"
    assert len(socratic.steps_of(chain.text)) == 5


def test_a_student_that_asks_nothing_gives_an_empty_chain():
    engines = [Scripted(lambda prompt: " \n "), Scripted(lambda prompt: "1")]
    chain = rolled(engines, request(socratic.first_prompt(PROBLEM, Iterative())), Rollout(iterative=Iterative()))
    assert (chain.text, chain.finish_reason) == ("", "stop")


def test_where_an_engine_has_nothing_there_is_no_chain():
    engines = [Scripted(lambda prompt: "How?"), Scripted(lambda prompt: None)]
    asked = request(socratic.first_prompt(PROBLEM, Iterative()))
    assert asyncio.run(roll_out(engines, asked, COLD, Rollout(iterative=Iterative()))) is None


def test_a_solution_of_several_lines_becomes_one():
    engines = [Scripted(lambda prompt: "How?"), Scripted(lambda prompt: "1 +\n 1 =\n<<1+1=2>>2")]
    chain = rolled(engines, request(socratic.first_prompt(PROBLEM, Iterative())), Rollout(iterative=Iterative()))
    assert chain.text == "How? ** 1 + 1 = <<1+1=2>>2\n#### 2"


def weak(prompt: str) -> str:
    """A model that copies well and cannot add."""
    said = prompt.partition("\n#\n")[2]
    if "<<" not in said:
        return "12 + 5 = <<12+5=99>>99. The answer is 99."
    value = said.rpartition("=")[2].removesuffix(">>")
    return f"{value}. The answer is {value}."


def test_a_calculator_puts_the_right_value_in_and_the_model_goes_on_with_it():
    engine = Scripted(weak)
    plain = rolled([engine], request("12 + 5?\n#\n"), Rollout())
    assert plain.text == "12 + 5 = <<12+5=99>>99. The answer is 99."
    chain = rolled([engine], request("12 + 5?\n#\n"), Rollout(calculator=True))
    assert chain.text == "12 + 5 = <<12+5=17>>17. The answer is 17."
    assert chain.turns == ()
    assert chain.seed == plain.seed


def test_a_calculator_leaves_alone_what_it_cannot_compute():
    engine = Scripted(lambda prompt: "" if "<<" in prompt else "so <<x+1=3>>")
    chain = rolled([engine], request("x?\n#\n"), Rollout(calculator=True))
    assert chain.text == "so <<x+1=3>>"


@pytest.mark.parametrize("said", ["<<1+1=2>>", "5 >> 2"])
def test_a_model_that_calculates_for_ever_is_cut_off(said: str):
    engine = Scripted(lambda prompt: said)
    short = rolled([engine], request("?\n#\n", max_new_tokens=8), Rollout(calculator=True))
    assert short.finish_reason == "length"
    assert short.num_tokens == 8
    long = rolled([engine], request("?\n#\n", max_new_tokens=10_000), Rollout(calculator=True))
    assert long.finish_reason == "length"


def test_a_mark_that_closes_no_annotation_is_text():
    engine = Scripted(lambda prompt: ["if 5 >> 2", " 2 is <<2-1=9>>", "1."][prompt.count(">>")])
    chain = rolled([engine], request("?\n#\n"), Rollout(calculator=True))
    assert (chain.text, chain.finish_reason) == ("if 5 >> 2 is <<2-1=1>>1.", "stop")


@pytest.mark.parametrize(("said", "stops"), [("so <<1+1=", ()), ("so <<1+1=\nQuestion: >>", ("\nQ",))])
def test_a_model_that_ends_inside_an_annotation_has_ended(said: str, stops: tuple[str, ...]):
    distribution = COLD.model_copy(update={"stop": stops})
    engine = Scripted(lambda prompt: said)
    chain = asyncio.run(roll_out([engine], request("?\n#\n"), distribution, Rollout(calculator=True)))
    assert chain is not None
    assert (chain.text, chain.finish_reason, len(engine.asked)) == ("so <<1+1=", "stop", 1)


def test_no_part_of_a_chain_shares_its_seed_with_a_sibling():
    engine = Scripted(lambda prompt: "<<1+1=2>>")
    asked = [request("?\n#\n", index, max_new_tokens=3) for index in range(8)]
    for one in asked:
        rolled([engine], one, Rollout(calculator=True))
    assert engine.seeds[::3] == [one.seed for one in asked]
    assert len(set(engine.seeds)) == len(engine.seeds) == 8 * 3


def test_a_first_prompt_that_a_model_cannot_see_is_refused():
    settings = Iterative()
    for prompt, rollout in ((socratic.first_prompt(PROBLEM, settings), Rollout(iterative=settings)), ("?", Rollout())):
        for calculator in (False, True):
            engines = [Scripted(lambda prompt: "How?", longest=0) for _ in (1, 2)]
            with pytest.raises(PromptTooLongError):
                rolled(engines, request(prompt), rollout.model_copy(update={"calculator": calculator}))


@pytest.mark.parametrize("questions", ["at_once", "interleaved"])
def test_a_later_prompt_that_a_model_cannot_see_cuts_off_the_chain(questions: str):
    settings = Iterative.model_validate({"questions": questions})
    asked = request(socratic.first_prompt(PROBLEM, settings))
    whole = rolled(taught(settings), asked, Rollout(iterative=settings))
    lengths = [len(json.loads(turn)["prompt"]) for turn in whole.turns]
    cut_off_at = set[int]()
    for longest in {length - 1 for length in lengths if length > lengths[0]}:
        engines = taught(settings)
        for engine in engines:
            engine.longest = longest
        chain = rolled(engines, asked, Rollout(iterative=settings))
        number = next(number for number, length in enumerate(lengths) if length > longest)
        last = json.loads(chain.turns[number])
        assert chain.finish_reason == last["finish_reason"] == "length"
        assert (last["text"], last["num_tokens"], len(last["prompt"])) == ("", 0, lengths[number])
        assert (chain.turns[:number], len(chain.turns)) == (whole.turns[:number], number + 1)
        cut_off_at.add(number)
    assert len(cut_off_at) >= 3, "the prompts were to be too long at several turns"


def test_a_later_part_that_a_model_cannot_see_cuts_off_the_turn():
    prompt, first = "12 + 5?\n#\n", "12 + 5 = <<12+5=17>>"
    for longest, text in ((len(prompt + first), f"{first}17. The answer is 17."), (len(prompt + first) - 1, first)):
        chain = rolled([Scripted(weak, longest)], request(prompt), Rollout(calculator=True))
        assert (chain.text, chain.finish_reason) == (text, "length" if text == first else "stop")
        assert chain.num_prompt_tokens == (7 if text == first else 14)


SMALL = Problem(
    id="t/train/0",
    task="t",
    split="train",
    question="Tom has 12 apples. He buys 5 more and gives 3 away. How many has he now?",
    answer_kind="number",
    answer="14",
    steps=("12 + 5 = <<12+5=17>>17", "17 - 3 = <<17-3=14>>14"),
    sub_questions=("How many has Tom after he buys 5?", "How many are left?"),
)
PROMPTS = {
    "one turn": "1225294694591b024ab022cf",
    "at_once none predicted": "77c9c1db218aa4688b38839e",
    "at_once operators predicted": "b6ccff589f2d6295acf15614",
    "at_once equations predicted": "1f3fefed3666292a17625410",
    "at_once equations gold": "bb64be617731116630cd5d27",
    "interleaved none predicted": "e2a7ede6109b089fa1c7047c",
    "interleaved operators predicted": "221478654d20094eb37dcdd5",
    "interleaved equations predicted": "f7b63d191608c440ed428430",
    "interleaved equations gold": "d95e36bb63263ede2e9513eb",
}


def asked_of(rollout: Rollout) -> list[list[str]]:
    """What each engine is asked, in order, while it says the small story."""
    text = socratic.gold(SMALL)
    assert text is not None
    if rollout.iterative is None:
        unified = prompts.render(SMALL, socratic.CUE)
        engines = [Scripted(lambda prompt: text.removeprefix(prompt.removeprefix(unified)))]
        chain = rolled(engines, request(unified), rollout)
    else:
        engines = taught(rollout.iterative, SMALL, text)
        chain = rolled(engines, request(socratic.first_prompt(SMALL, rollout.iterative)), rollout)
    assert (chain.text, chain.finish_reason) == (text, "stop")
    return [engine.asked for engine in engines]


def test_prompts_change_only_with_their_version():
    """Where this fails and is meant: raise `rollouts.VERSION`, or one pool will hold chains of two kinds."""
    modes: dict[str, Iterative | None] = {"one turn": None}
    for questions, told in itertools.product(
        ("at_once", "interleaved"),
        (("none", "predicted"), ("operators", "predicted"), ("equations", "predicted"), ("equations", "gold")),
    ):
        fields = {"questions": questions, "guidance": told[0], "hints": told[1]}
        modes[" ".join(fields.values())] = Iterative.model_validate(fields)
    got = {
        name: digest([asked_of(Rollout(iterative=mode, calculator=calculator)) for calculator in (False, True)])[:24]
        for name, mode in modes.items()
    }
    assert len(set(got.values())) == len(modes)
    assert (VERSION, got) == (1, PROMPTS), f"new prompts; if they are meant, keep:\n{json.dumps(got, indent=4)}"


def test_the_budget_is_each_turns_own():
    for budget, finish_reason in ((6, "stop"), (5, "length")):
        asked = request("?\n#\n", max_new_tokens=budget)
        chain = rolled([Scripted(lambda prompt: "a b c d e f")], asked, Rollout(calculator=True))
        assert (chain.finish_reason, chain.num_tokens) == (finish_reason, budget)


def test_log_probabilities_of_turns_add_up_where_all_engines_tell_them():
    settings = Iterative()
    asked = request(socratic.first_prompt(PROBLEM, settings))
    engines = taught(settings)
    for engine in engines:
        engine.logprob = -0.5
    chain = rolled(engines, asked, Rollout(iterative=settings))
    lengths = [json.loads(turn)["num_tokens"] for turn in chain.turns]
    assert len(lengths) > 1
    assert chain.logprob == -0.5 * sum(lengths)
    assert chain.token_logprobs == (-0.5,) * sum(lengths)
    assert chain.token_ids == tuple(itertools.chain.from_iterable(map(range, lengths)))
    engines[1].longest = 0
    cut_off = rolled(engines, asked, Rollout(iterative=settings))
    assert (cut_off.finish_reason, cut_off.logprob) == ("length", -0.5 * lengths[0])
    engines[1].longest, engines[1].logprob = 10_000, None
    assert rolled(engines, asked, Rollout(iterative=settings)).logprob is None


def test_log_probabilities_of_a_calculating_turn_are_those_of_what_the_model_wrote():
    engine = Scripted(weak, logprob=-0.5)
    chain = rolled([engine], request("12 + 5?\n#\n"), Rollout(calculator=True))
    assert len(engine.asked) == 2
    assert chain.num_tokens == len(chain.token_logprobs) == len(chain.token_ids) > 0
    assert chain.logprob == -0.5 * chain.num_tokens
