"""Recipes: a wrong one is refused in one line, before anything heavy is loaded."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from retort.config import Recipe
from retort.engines import replay
from retort.loading import load
from retort.tasks import jsonl

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "jobs/recipes/demo.toml"

TASK = '[[task]]\nid = "arithmetic"\n'
TEACHER = """[[teacher]]
id = "tiny"
engine = "vllm"
model = "shipped:teacher"
temperature = 1.0
max_new_tokens = 96
num_chains = 8
"""
CORPUS = '[[corpus]]\nid = "chains"\ntasks = ["arithmetic"]\nteachers = ["tiny"]\nthoughts = ["cot"]\n'
STUDENT = """[[student]]
id = "small"
base = "shipped:student"
corpus = "chains"
training = { steps = 600, batch_examples = 32, learning_rate = 1e-3 }
"""
WHOLE = f'name = "whole"\n{TASK}{TEACHER}{CORPUS}{STUDENT}[evaluation]\ntasks = ["arithmetic"]\n'
OWN_DATA = 'id = "own"\nkind = "jsonl"\nanswer_kind = "number"\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(WHOLE)
    return path


def refusal(path: Path | str, *overrides: str) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
        load(path, overrides)
    return str(refused.value)


# What stands in the recipe, what is there instead, and what the refusal must say: key, what it got, what is allowed.
WRONG: list[tuple[str, str, list[str]]] = [
    ("name =", "nam =", ["nam: unknown key", "did you mean 'name'", "evaluation"]),
    ('name = "whole"\n', "", ["name: missing", "a text"]),
    ('"whole"', '"The Whole"', ["name = 'The Whole'", "lower-case"]),
    ('"whole"', "2024-01-01", ["name = datetime.date(2024, 1, 1)", "a text"]),
    ('name = "whole"', 'name = "whole"\n"new\\nline" = 1', ["unknown key"]),
    ("[evaluation]", "[evaluatoin]", ["evaluatoin: unknown key", "did you mean 'evaluation'"]),
    ("name =", "name = =", ["not TOML", "line 1"]),
    # Policies of sampling
    (TEACHER, TEACHER + 'policy = "best"\n', ["teacher.tiny.policy = 'best'", "until_correct"]),
    (TEACHER, TEACHER + 'policy = "greedy"\n', ["greedy", "temperature = 1, num_chains = 8", "0 and 1"]),
    (TEACHER, TEACHER + 'policy = "until_correct"\n', ["num_correct = None", "go together"]),
    (TEACHER, TEACHER + "num_correct = 2\n", ["num_correct = 2 with policy 'fixed'", "go together"]),
    (TEACHER, TEACHER + 'policy = "until_correct"\nnum_correct = 9\n', ["9 of num_chains = 8", "no more"]),
    (
        TEACHER + CORPUS,
        TEACHER + 'policy = "until_correct"\nnum_correct = 2\n' + CORPUS + 'selection = { rule = "majority" }\n',
        ["corpus.chains.selection.rule", "'majority'", "same chains of every problem", "expected 'correct'"],
    ),
    ("[evaluation]", "[sampling]\npilot = {}\n[evaluation]", ["sampling.pilot.min_accepted: missing"]),
    ("[evaluation]", "[sampling]\nmax_tokens_total = 0\n[evaluation]", ["sampling.max_tokens_total = 0"]),
    # Tasks
    (TASK, "", ["task: missing", "a list"]),
    (TASK, "task = []\n", ["task = []", "at least 1"]),
    (TASK, "task = [3]\n", ["task.0", "got 3", "[[task]]"]),
    (TASK, '[task]\nid = "arithmetic"\n', ["task = {'id': 'arithmetic'}", "a list"]),
    (TASK, "[[task]]\ntrain = 3\n", ["task.0", "id is missing", "arithmetic"]),
    (TASK, TASK.replace("arith", "aritt"), ["task.arittmetic", "did you mean 'arithmetic'", "svamp", "jsonl"]),
    (TASK, '[[task]]\nid = ["arithmetic"]\n', ["['arithmetic']", "expected one of arithmetic"]),
    (TASK, '[[task]]\nid = "own"\nkind = 3\n', ["task.own", "unknown task 3", "expected one of arithmetic"]),
    (TASK, TASK + "trian = 3\n", ["task.arithmetic.trian: unknown key", "did you mean 'train'"]),
    (TASK, TASK + 'train = "many"\n', ["task.arithmetic.train = 'many'", "an integer"]),
    (TASK, TASK + "train = 1.5\n", ["task.arithmetic.train = 1.5", "an integer"]),
    (TASK, TASK + "train = -3\n", ["task.arithmetic.train = -3", "0"]),
    (TASK, TASK + TASK, ["task", "'arithmetic'", "distinct"]),
    (TASK, TASK + '[[task]]\nid = "gsm8k"\npath = "/missing"\n', ["task.gsm8k.path", "/missing/train.jsonl"]),
    (TASK, TASK + '[[task]]\nid = "svamp"\npath = "/missing"\n', ["task.svamp.path", "/missing"]),
    (TASK, TASK + '[[task]]\nid = "svamp"\npath = "${NOT_SET_X}/S"\n', ["${NOT_SET_X}/S", "not set"]),
    (TASK, TASK + "[[task]]\n" + OWN_DATA, ["task.own.paths: missing", "a table"]),
    (TASK, TASK + f"[[task]]\n{OWN_DATA}paths = {{}}\n", ["task.own.paths = {}", "at least 1"]),
    (TASK, TASK + f'[[task]]\n{OWN_DATA}paths = {{ train = "/no" }}\n', ["task.own.paths", "'/no'", "existing"]),
    (TASK, TASK + f'[[task]]\n{OWN_DATA}paths = {{ tran = "/no" }}\n', ["paths.tran", "did you mean 'train'", "dev"]),
    (
        TASK,
        TASK + f'[[task]]\n{OWN_DATA}paths = {{ train = "{DEMO}" }}\n'.replace('"number"', '"nmber"'),
        ["task.own.answer_kind = 'nmber'", "did you mean 'number'", "yes_no"],
    ),
    # Teachers
    (TEACHER, TEACHER + TEACHER, ["teacher", "'tiny'", "distinct"]),
    ('id = "tiny"\n', "", ["teacher.0.id: missing", "a text"]),
    ('"vllm"', '"vlm"', ["teacher.tiny", "engine 'vlm'", "did you mean 'vllm'", "replay"]),
    ('"vllm"', '["vllm"]', ["teacher.tiny", "engine ['vllm']", "expected one of endpoint, hf, replay"]),
    ('engine = "vllm"\n', "", ["teacher.tiny", "engine is missing", "expected one of endpoint, hf, replay"]),
    ("temperature =", "temprature =", ["teacher.tiny", "'temprature'", "did you mean 'temperature'", "top_p"]),
    ("temperature =", "dtyp =", ["teacher.tiny", "'dtyp'", "did you mean 'dtype'", "top_p"]),
    ("temperature =", "settings = {}\ntemperature =", ["teacher.tiny", "unknown key 'settings'"]),
    ("temperature = 1.0", "temperature = 11", ["teacher.tiny.temperature = 11", "10"]),
    ("temperature = 1.0", "temperature = nan", ["teacher.tiny.temperature = nan", "10"]),
    ("temperature = 1.0", 'temperature = "hot"', ["teacher.tiny.temperature = 'hot'", "a number"]),
    ("temperature = 1.0", 'temperature = 1\nchat = "maybe"', ["teacher.tiny.chat = 'maybe'", "true or false"]),
    ("temperature = 1.0", 'temperature = 1\nstop = [""]', ["teacher.tiny.stop.0 = ''", "text"]),
    ("temperature = 1.0", 'temperature = 1\ndtype = "flot32"', ["dtype = 'flot32'", "did you mean 'float32'", "auto"]),
    ("max_new_tokens = 96\n", "", ["teacher.tiny.max_new_tokens: missing", "an integer"]),
    ('model = "shipped:teacher"\n', "", ["teacher.tiny.model: missing", "a text"]),
    ('"shipped:teacher"', '"shipped:teach"', ["teacher.tiny.model", "'shipped:teach'", "shipped:teacher"]),
    ('"shipped:teacher"', '"/missing"', ["teacher.tiny.model", "'/missing'", "config.json"]),
    ('"shipped:teacher"', '"no such/model/name"', ["teacher.tiny.model", "no such/model/name", "org/name"]),
    ('engine = "vllm"\nmodel = "shipped:teacher"', 'engine = "replay"', ["teacher.tiny.paths: missing", "a list"]),
    (
        'engine = "vllm"\nmodel = "shipped:teacher"',
        'engine = "replay"\npaths = ["/missing"]',
        ["teacher.tiny.paths", "'/missing'", "existing"],
    ),
    # Corpora
    (CORPUS, CORPUS + CORPUS, ["corpus", "'chains'", "distinct"]),
    ('thoughts = ["cot"]', 'thoughts = "cot"', ["corpus.chains.thoughts = 'cot'", "a list"]),
    ('thoughts = ["cot"]', "thoughts = []", ["corpus.chains.thoughts = []", "at least 1"]),
    ('thoughts = ["cot"]', 'thoughts = ["cott"]', ["corpus.chains.thoughts", "'cott'", "did you mean 'cot'", "answer"]),
    ('teachers = ["tiny"]', 'teachers = ["tny"]', ["corpus.chains.teachers", "'tny'", "did you mean 'tiny'"]),
    ('teachers = ["tiny"]\nthoughts = ["cot"]', 'thoughts = ["pot"]', ["corpus.chains.teachers", "'pot'", "teacher"]),
    (TEACHER, "", ["corpus.chains.teachers", "'tiny'", "there is none"]),
    ('tasks = ["arithmetic"]\nteach', 'tasks = ["arith"]\nteach', ["corpus.chains.tasks", "did you mean 'arithmetic'"]),
    (STUDENT, "selection = 3\n", ["corpus.chains.selection = 3", "a table"]),
    (STUDENT, 'selection = { rul = "all" }\n', ["corpus.chains.selection.rul: unknown", "did you mean 'rule'"]),
    (STUDENT, 'selection = { rule = "corect" }\n', ["selection.rule = 'corect'", "did you mean 'correct'", "all"]),
    (STUDENT, "selection = { chains_per_problem = 0 }\n", ["corpus.chains.selection.chains_per_problem = 0", "1"]),
    # Students
    (STUDENT, STUDENT + STUDENT, ["student", "'small'", "distinct"]),
    ('corpus = "chains"', 'corpus = "chain"', ["student.small.corpus", "'chain'", "did you mean 'chains'"]),
    ("steps = 600, ", "", ["student.small.training.steps: missing", "an integer"]),
    ("steps = 600", "stps = 600", ["student.small.training.stps: unknown", "did you mean 'steps'", "learning_rate"]),
    ("steps = 600", "steps = 0", ["student.small.training.steps = 0", "1"]),
    (
        'base = "shipped:student"',
        'base = "shipped:pupil"',
        ["student.small.base", "'shipped:pupil'", "shipped:student"],
    ),
    ('base = "shipped:student"', 'init = "warm"', ["student.small.base: missing", "a text"]),
    ("steps = 600", "seeds = [0, 0], steps = 600", ["student.small.training", "seeds"]),
    ("steps = 600", "thought_weights = { cot = 0 }, steps = 600", ["thought_weights", "0"]),
    ('corpus = "chains"', 'corpus = "chains"\ntasks = ["arith"]', ["student.small.tasks", "did you mean 'arithmetic'"]),
    ('corpus = "chains"', 'corpus = "chains"\nengine = "tgi"', ["student.small.engine = 'tgi'", "hf, vllm"]),
    ('corpus = "chains"', 'corpus = "chains"\nrollout = { iterativ = {} }', ["did you mean 'iterative'"]),
    (
        'corpus = "chains"',
        'corpus = "chains"\nrollout = { iterative = { questions = "once" } }',
        ["student.small.rollout.iterative.questions = 'once'", "at_once, interleaved"],
    ),
    (
        'corpus = "chains"',
        'corpus = "chains"\nrollout = { iterative = {} }',
        ["student.small.rollout.iterative", "teaches cot", "expected socratic"],
    ),
    # How a teacher is asked
    ("temperature = 1.0", 'temperature = 1.0\ngiven = "step"', ["teacher.tiny.given = 'step'", "did you mean 'steps'"]),
    ("temperature = 1.0", "temperature = 1.0\nexemplar = 3", ["'exemplar'", "did you mean 'exemplars'"]),
    ("temperature = 1.0", "temperature = 1.0\nexemplars = -1", ["teacher.tiny.exemplars = -1", "0"]),
    # Combiners and assumptions
    (
        "[evaluation]\n",
        '[evaluation]\ncombine = ["fallbck:pot,cot"]\n',
        ["evaluation.combine", "did you mean 'fallback'"],
    ),
    ("[evaluation]\n", '[evaluation]\ncombine = ["fallback:pot,cot"]\n', ["no student learns all thoughts"]),
    (
        'name = "whole"',
        'name = "whole"\nassumed = ["teacher.tiny.tempratur"]',
        ["assumed", "did you mean 'temperature'"],
    ),
    ('name = "whole"', 'name = "whole"\nassumed = ["teacher.big.top_p"]', ["assumed", "'teacher.big.top_p'", "tiny"]),
    # The rest
    ("[evaluation]\ntasks = ", "[evaluation]\ntasks = 3 # ", ["evaluation.tasks = 3", "a list"]),
    ("[evaluation]\n", '[evaluation]\ndecodes = ["maj"]\n', ["evaluation.decodes", "'maj'", "maj@k"]),
    ("[evaluation]\n", "[evaluation]\nreferences = { tny = [] }\n", ["evaluation.references", "did you mean 'tiny'"]),
    ("[evaluation]\n", '[evaluation]\nreferences = { base = ["x"] }\n', ["evaluation.references.base", "'x'", "arith"]),
    ("[evaluation]\n", "[evaluation]\nengine = { dtyp = 1 }\n", ["evaluation.engine.dtyp", "did you mean 'dtype'"]),
    ("[evaluation]\n", "[sampling]\nflush = 3\n[evaluation]\n", ["sampling.flush: unknown", "did you mean 'flush_s'"]),
    ("[evaluation]\n", "[verification]\nrelative_tolerance = 1\n[evaluation]\n", ["relative_tolerance = 1", "less"]),
    ('name = "whole"', 'name = "whole"\nstore = "data"', ["store", "'data'", "relative", "absolute"]),
    ('name = "whole"', 'name = "whole"\nstore = "s4://data"', ["store", "unknown scheme 's4'", "file:///"]),
]


@pytest.mark.parametrize(("right", "wrong", "said"), WRONG)
def test_a_wrong_recipe_is_refused_in_one_line(recipe: Path, right: str, wrong: str, said: list[str]):
    assert WHOLE.count(right) == 1, right
    load(recipe)
    recipe.write_text(WHOLE.replace(right, wrong))
    line = refusal(recipe)
    assert str(recipe) in line
    assert [part for part in said if part not in line] == [], line


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("teacher.tiny.num_chains", ["KEY=VALUE", "teacher.tiny.num_chains=16"]),
        ("=16", ["KEY=VALUE"]),
        ("teacher..num_chains=16", ["KEY=VALUE"]),
        ("teacher.tny.num_chains=16", ["'tny'", "did you mean 'tiny'"]),
        ("teacher.tiny=16", ["teacher.tiny=16", "an element's id and key"]),
        ("teacher=16", ["teacher = 16", "a list"]),
        ("name.tiny=16", ["'name' is a value", "table"]),
        ("corpus.chains.tasks.arithmetic.x=16", ["'arithmetic'", "there is none"]),
        ("corpus.chains.tasks.x=16", ["corpus.chains.tasks.x=16", "an element's id and key"]),
        ("sampler.flush_s=3", ["sampler: unknown key", "did you mean 'sampling'"]),
        ("teacher.tiny.num_chain=16", ["'num_chain'", "did you mean 'num_chains'"]),
        ("teacher.tiny.num_chains=many", ["teacher.tiny.num_chains = 'many'", "an integer"]),
        ("teacher.tiny.num_chains=", ["teacher.tiny.num_chains = ''", "an integer"]),
        ("teacher.tiny.num_chains=16\nname='x'", ['teacher.tiny.num_chains = "16', "an integer"]),
        ("evaluation.decodes=greedy", ["evaluation.decodes = 'greedy'", "a list"]),
        ("student.small.training.steps=0", ["student.small.training.steps = 0", "1"]),
        ("store=elsewhere", ["store", "'elsewhere'", "absolute"]),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(recipe: Path, override: str, said: list[str]):
    line = refusal(recipe, override)
    assert [part for part in said if part not in line] == [], line


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("teacher.tiny.num_chains=16", lambda recipe: recipe.teacher[0].num_chains == 16),
        ("teacher.tiny.temperature=0", lambda recipe: recipe.teacher[0].distribution.temperature == 0),
        ('teacher.tiny.stop=["\\n\\nQ:", "a=b"]', lambda recipe: recipe.teacher[0].stop == ("\n\nQ:", "a=b")),
        ("teacher.tiny.model=shipped:student", lambda recipe: recipe.teacher[0].settings.model == "shipped:student"),
        ("task.arithmetic.train=7", lambda recipe: recipe.task[0].train == 7),
        ("corpus.chains.selection.rule=all", lambda recipe: recipe.corpus[0].selection.rule == "all"),
        ('corpus.chains.selection={ rule = "all" }', lambda recipe: recipe.corpus[0].selection.rule == "all"),
        ("student.small.training.learning_rate=1e-4", lambda recipe: recipe.student[0].training.learning_rate == 1e-4),
        ('evaluation.decodes=["greedy","maj@2"]', lambda recipe: recipe.evaluation.decodes == ("greedy", "maj@2")),
        ("evaluation.references.base=['arithmetic']", lambda recipe: "base" in recipe.evaluation.references),
        ("evaluation.engine.dtype=float32", lambda recipe: recipe.evaluation.engine.dtype == "float32"),
        ("teacher.tiny.exemplars=2", lambda recipe: recipe.teacher[0].lesson.exemplars == 2),
        ("student.small.training.seeds=[1,2]", lambda recipe: list(recipe.student[0].runs) == ["small@1", "small@2"]),
        ("verification.sandbox.timeout_s=1", lambda recipe: recipe.verification.sandbox.timeout_s == 1),
        ("verification.last_number=true", lambda recipe: recipe.verification.last_number),
        ("store=/some/where", lambda recipe: recipe.store == "/some/where"),
        ("name=other", lambda recipe: recipe.name == "other"),
    ],
)
def test_an_override_sets_one_key(recipe: Path, override: str, value: Any):
    assert not value(load(recipe))
    assert value(load(recipe, [override]))


def test_later_overrides_win(recipe: Path):
    assert load(recipe, ["name=one", "name=two"]).name == "two"


def test_the_demo_is_a_recipe():
    demo = load(DEMO)
    assert [demo.find_corpus(student.corpus).thoughts for student in demo.student] == [("cot",), ("answer",)]
    assert demo.teacher_decodes(demo.teacher[0]) == ("greedy", "maj@5")


def test_a_teacher_votes_with_the_chains_that_it_has():
    few = load(DEMO, ["teacher.tiny.num_chains=4"])
    assert few.evaluation.decodes == ("greedy", "maj@5")
    assert few.teacher_decodes(few.teacher[0]) == ("greedy",)


def test_each_kind_keeps_its_own_settings(tmp_path: Path):
    rows, path = tmp_path / "rows.jsonl", tmp_path / "recipe.toml"
    rows.write_text('{"question": "q", "completions": ["a"]}\n')
    path.write_text(
        f'name = "kinds"\n[[task]]\n{OWN_DATA}paths = {{ train = "{rows}" }}\n'
        f'[[teacher]]\nid = "rec"\nengine = "replay"\npaths = ["{rows}"]\n'
        "temperature = 1\nmax_new_tokens = 8\nnum_chains = 1\n"
    )
    read = load(path)
    (task,), (teacher,) = read.task, read.teacher
    assert isinstance(task, jsonl.Config)
    assert task.files() == [str(rows)]
    assert isinstance(teacher.settings, replay.Config)
    assert teacher.settings.paths == (str(rows),)
    again = Recipe.model_validate({**dict(read), "name": "again"})
    assert (again.task, again.teacher) == (read.task, read.teacher)


def test_a_greedy_teacher_needs_neither_temperature_nor_number(recipe: Path):
    text = TEACHER.replace("temperature = 1.0\n", "").replace("num_chains = 8\n", "") + 'policy = "greedy"\n'
    recipe.write_text(WHOLE.replace(TEACHER, text))
    (teacher,) = load(recipe).teacher
    assert (teacher.distribution.temperature, teacher.num_chains) == (0, 1)


@pytest.mark.parametrize(("content", "said"), [(None, "FileNotFoundError"), (b"\xff", "UnicodeDecodeError")])
def test_what_is_no_recipe_is_refused_with_the_nearest_file(tmp_path: Path, content: bytes | None, said: str):
    path = tmp_path / "recpie.toml"
    (tmp_path / "recipe.toml").write_text(WHOLE)
    if content is not None:
        path.write_bytes(content)
    line = refusal(path)
    assert str(path) in line
    assert said in line
    assert content is not None or "did you mean 'recipe.toml'" in line


def test_loading_a_recipe_loads_nothing_heavy():
    program = (
        f"import sys; from retort.loading import load; load({str(DEMO)!r}); "
        "print(sorted({'ray', 'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        ("missing.toml", [], "missing.toml"),
        (str(DEMO), ["teacher.tiny.temprature=1"], "did you mean 'temperature'"),
        (str(DEMO), ["evaluation.task=[]"], "did you mean 'tasks'"),
        (str(DEMO), ["student.cot.base=org/unresolvable"], "`revision`"),
        (str(DEMO), ["task.arithmetic.nothing=1"], "task.arithmetic.nothing"),
    ],
)
def test_a_job_refuses_a_wrong_recipe_at_once(tmp_path: Path, recipe: str, overrides: list[str], said: str):
    # Three seconds are the claim here. They are counted as CPU time, which is the wall time on a machine that does
    # nothing else, so that a busy one does not fail; Ray and PyTorch alone would take more.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, ROOT / "jobs/distill.py", recipe, f"store={tmp_path}", "task.arithmetic.train=9", *overrides],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "HOME": str(tmp_path), "RAY_ADDRESS": "127.0.0.1:9"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in done.stderr.splitlines() if " task arithmetic: " not in line]
    assert (done.returncode, done.stdout, len(lines)) == (2, "", 1), done.stderr
    assert said in lines[0]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def test_assumed_fields_have_the_values_of_the_recipe(recipe: Path):
    recipe.write_text(
        WHOLE.replace("name =", 'assumed = ["teacher.tiny.top_p", "student.small.training.steps"]\nname =')
    )
    loaded = load(recipe)
    assert [loaded.value(name) for name in loaded.assumed] == [1.0, 600]
    assert loaded.value("teacher.tiny.exemplars") == 0


def test_a_pair_of_students_is_trained_from_one_corpus(recipe: Path):
    socratic = WHOLE.replace('thoughts = ["cot"]', 'thoughts = ["socratic"]')
    recipe.write_text(socratic.replace('corpus = "chains"', 'corpus = "chains"\nrollout = { iterative = {} }'))
    student = load(recipe).student[0]
    assert student.roles == ("ask", "solve")
    guided = load(recipe, ["student.small.rollout.iterative.guidance=operators"]).student[0]
    assert guided.roles == ("hint", "ask", "solve")
