"""Rows of our own in the formats of external data sets, in their official numbers, and the files that hold them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from retort.records import Split
from retort.tasks import (
    arithmetic,
    asdiv,
    commonsense_qa,
    gsm8k,
    imdb_contrast,
    jsonl,
    multiarith,
    openbookqa,
    quarel,
    source,
    strategyqa,
    svamp,
)
from retort.tasks.config import TaskConfig

Row = dict[str, Any]
RIVALS = ("glass", "gravel", "ice", "sand", "silk", "stone", "straw")


def write(path: Path, rows: list[Any], *, as_list: bool = False) -> str:
    """Rows as JSON lines or as one JSON list, gzipped where the name says so."""
    text = json.dumps(rows) if as_list else "".join(json.dumps(row) + "\n" for row in rows)
    return write_text(path, gzip.compress(text.encode()) if path.suffix == ".gz" else text)


def write_numbered(path: Path, rows: list[Any]) -> str:
    """Rows as one JSON object keyed by row number."""
    return write(path, [{str(number): row for number, row in enumerate(rows)}])


def write_text(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def gsm8k_rows(count: int) -> list[Row]:
    return [
        {
            "question": f"Ann has {n} pens and buys {n} more. How many pens does she have?",
            "answer": f"She has {n}+{n} = <<{n}+{n}={2 * n}>>{2 * n:,} pens.\n\nThat is all.\n#### {2 * n:,}",
        }
        for n in range(count)
    ]


def socratic_rows(count: int) -> list[Row]:
    """The same problems, with a sub-question before each line of a solution, blank ones too."""
    return [
        {
            "question": row["question"],
            "answer": row["answer"]
            .replace("She has", "How many pens does she have? ** She has")
            .replace("\n\n", "\nHow many pens does she have? ** \n")
            .replace("That is", "Is that all? ** That is"),
        }
        for row in gsm8k_rows(count)
    ]


def svamp_rows(count: int) -> list[Row]:
    return [
        {
            "ID": f"chal-{n + 1}",
            "Body": f"Each pack costs {n + 20} dollars{'.' if n % 2 else ''}",
            "Question": "How much is it with 5 dollars off?",
            "Equation": f"( {n + 20}.0 - 5.0 )",
            "Answer": float(n + 15),
            "Type": "Subtraction",
        }
        for n in range(count)
    ]


def multiarith_rows(count: int) -> list[Row]:
    return [
        {
            "iIndex": n,
            "lAlignments": [1, 2],
            "lEquations": [f"X=({n}.0+2.0)"],
            "lSolutions": [n + 2.0],
            "sQuestion": f" Ann has {n} pens and 2 books. How many things has she? ",
        }
        for n in range(count)
    ]


def asdiv_rows(count: int) -> list[Row]:
    return [
        {
            "Body": f"Ann has {n} pens & buys\n 2 more, ",
            "Question": "how many has she?",
            "Solution-Type": "Addition",
            "Answer": f"{n + 2} (pens)",
            "Formula": f"x:The pens; {n}+2={n + 2}",
        }
        for n in range(count)
    ]


def asdiv_xml(rows: list[Row]) -> str:
    """The rows as ASDiv.xml has them."""
    problems = "".join(
        f'<Problem ID="nluds-{number:04d}" Grade="1" Source="none">'
        + "".join(f"<{name}>{escape(value)}</{name}>" for name, value in row.items())
        + "</Problem>\n"
        for number, row in enumerate(rows, start=1)
    )
    return f'<?xml version="1.0" encoding="UTF-8" ?>\n<File>\n<ProblemSet>\n{problems}</ProblemSet>\n</File>\n'


def strategyqa_rows(count: int) -> list[Row]:
    return [
        {
            "qid": f"{n:020x}",
            "term": "Number",
            "description": "what one counts with",
            "question": f"Is {n} an even number? ",
            "answer": n % 2 == 0,
            "facts": ["Even numbers are twice another.", f"{n} is a number."],
            "decomposition": [f"What is {n} divided by 2?", "Is #1 whole?"],
            "evidence": [[[["Parity-1"]], "operation"]],
            "rationale": "…",
        }
        for n in range(count)
    ]


def csqa_rows(count: int) -> list[Row]:
    return [
        {
            "answerKey": "ABCDE"[n % 5],
            "id": f"{n:032x}",
            "question": {
                "question_concept": "number",
                "choices": [{"label": "ABCDE"[i], "text": f"{n - n % 5 + i}"} for i in range(5)],
                "stem": f"What follows {n - 1}?",
            },
        }
        for n in range(count)
    ]


def as_hub(rows: list[Row], stem: str) -> list[Row]:
    """AI2's rows with the hub's fields."""
    return [
        {
            "id": row["id"],
            stem: row["question"]["stem"],
            "choices": {key: [choice[key] for choice in row["question"]["choices"]] for key in ("text", "label")},
            "answerKey": row["answerKey"],
        }
        for row in rows
    ]


def openbookqa_rows(count: int) -> list[Row]:
    """As AI2 publishes them."""
    return [
        {
            "id": f"{n}-{n}",
            "question": {
                "stem": f"Of liquid number {n}(n) one knows that it is",
                "choices": [
                    {"label": label, "text": f"{text} {n}"}
                    for label, text in zip("ABCD", ("hot.", "a fluid", "dry or so", "dear"), strict=True)
                ],
            },
            "answerKey": "ABCD"[n % 4],
        }
        for n in range(count)
    ]


def as_instructions(rows: list[Row]) -> list[Row]:
    """AI2's rows of four choices, rewritten as instructions."""
    made: list[Row] = []
    for row in rows:
        texts = (choice["text"] for choice in row["question"]["choices"])
        choices = " ".join(f"Answer{number}: {text}" for number, text in enumerate(texts, start=1))
        answer = f"answer{'ABCD'.index(row['answerKey']) + 1}"
        stem = row["question"]["stem"]
        instruction = (
            f"Please choose the correct answer to the question: {stem}\n\n{choices}\n\nAnswer format: answer1/…"
        )
        made.append(
            {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}
        )
    return made


def as_inline(rows: list[Row]) -> list[Row]:
    """AI2's rows with the choices inside the question."""
    return [
        {
            "question": " ".join(
                [row["question"]["stem"], *(f"({c['label'].lower()}) {c['text']}" for c in row["question"]["choices"])]
            ),
            "rationale": "dummy",
            "answer": f"({row['answerKey'].lower()})",
        }
        for row in rows
    ]


def quarel_rows(count: int, copies: int = 1) -> list[Row]:
    """Inline rows: `count` rows of which `copies` in a row share a question, as a file of recorded chains has them."""
    return [
        {
            "question": f"Sled {n // copies} is slow on sand and fast on {RIVALS[n // copies % 7]}. It is rougher on "
            f"{'(A) sand or (B) ' if n // copies % 2 else '(A)sand(B)'}{RIVALS[n // copies % 7]}.",
            "rationale": f"Rough things are slow, said for the {n}th time.",
            "answer": "(A)",
        }
        for n in range(count)
    ]


def official_quarel_rows(count: int) -> list[Row]:
    return [
        {
            "id": f"QuaRel_V1_Fr_{n:04d}",
            "question": row["question"],
            "answer_index": 0,
            "logical_forms": ["(infer …)"],
            "world_literals": {"world1": "sand", "world2": "silk"},
        }
        for n, row in enumerate(quarel_rows(count))
    ]


def imdb_table(count: int, label: str) -> str:
    """A table with tabs; a review with quotes is quoted, and its quotes are doubled."""
    rows = (f'{label}\t"Film {n} ""Sand"" was it.<br />I slept."\n' for n in range(count))
    return "Sentiment\tText\n" + "".join(rows)


def imdb_folder(folder: Path) -> str:
    for split, count in imdb_contrast.OFFICIAL_COUNTS.items():
        for part, label in (("original", "Negative"), ("contrast", "Positive")):
            write_text(folder / f"{split}_{part}.tsv", imdb_table(count, label))
    return str(folder)


def split_files(folder: Path, counts: dict[Split, int], rows: Callable[[int], list[Row]]) -> dict[Split, str]:
    return {split: write(folder / f"{split}.jsonl", rows(count)) for split, count in counts.items()}


def configs(folder: Path) -> dict[str, TaskConfig]:
    """One recipe entry for every task, under an id that is not its kind."""
    own = [{"question": f"What is {n} + 1?", "answer": n + 1} for n in range(60)]
    own_paths: dict[Split, str] = {
        "train": write(folder / "own.jsonl", own),
        "test": write(folder / "t.jsonl", own[:9]),
    }
    for split, count in gsm8k.OFFICIAL_COUNTS.items():
        write(folder / f"gsm8k/{split}.jsonl", gsm8k_rows(count))
    for split, name in commonsense_qa.FILES.items():
        write(folder / "csqa" / name, csqa_rows(commonsense_qa.OFFICIAL_COUNTS[split]))
    return {
        "arithmetic": arithmetic.Config(id="my-arithmetic", train=40, dev=10, test=10),
        "gsm8k": gsm8k.Config(
            id="my-gsm8k",
            path=str(folder / "gsm8k"),
            socratic_paths={"test": write(folder / "socratic.jsonl", socratic_rows(1_319))},
        ),
        "svamp": svamp.Config(id="my-svamp", path=write(folder / "S.json", svamp_rows(1_000), as_list=True)),
        "asdiv": asdiv.Config(id="my-asdiv", path=write_text(folder / "A.xml", asdiv_xml(asdiv_rows(2_305)))),
        "multiarith": multiarith.Config(
            id="my-multiarith", path=write(folder / "M.json", multiarith_rows(600), as_list=True)
        ),
        "strategyqa": strategyqa.Config(
            id="my-strategyqa", paths=split_files(folder / "sqa", strategyqa.SPLIT_COUNTS, strategyqa_rows)
        ),
        "commonsense_qa": commonsense_qa.Config(id="my-commonsense_qa", path=str(folder / "csqa")),
        "openbookqa": openbookqa.Config(
            id="my-openbookqa", paths=split_files(folder / "obqa", openbookqa.OFFICIAL_COUNTS, openbookqa_rows)
        ),
        "quarel": quarel.Config(
            id="my-quarel", paths=split_files(folder / "quarel", quarel.OFFICIAL_COUNTS, official_quarel_rows)
        ),
        "imdb_contrast": imdb_contrast.Config(
            id="my-imdb_contrast", path=imdb_folder(folder / "imdb"), part="contrast"
        ),
        "jsonl": jsonl.Config(id="my-jsonl", paths=own_paths, answer_kind="number"),
    }


def write_hub(folder: Path) -> None:
    """Folders that `datasets` reads under the names of the hub's, with the hub's splits and fields."""
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n"
    for split, name in source.HUB_SPLITS.items():
        rows = as_hub(openbookqa_rows(openbookqa.OFFICIAL_COUNTS[split]), "question_stem")
        write(folder / f"{openbookqa.HUB}/main/{name}.jsonl", rows)
        write(folder / f"{quarel.HUB}/{name}.jsonl", official_quarel_rows(quarel.OFFICIAL_COUNTS[split]))
        card += f"  - split: {name}\n    path: main/{name}.jsonl\n"
    write_text(folder / f"{openbookqa.HUB}/README.md", f"{card}---\n")
    for split, name in commonsense_qa.HUB_SPLITS.items():
        rows = as_hub(csqa_rows(commonsense_qa.OFFICIAL_COUNTS[split]), "question")
        write(folder / f"{commonsense_qa.HUB}/{name}.jsonl", rows)
    write(folder / f"{strategyqa.HUB}/train.jsonl", strategyqa_rows(strategyqa.OFFICIAL_COUNT))
    rows = [{name.lower().replace("-", "_"): value for name, value in row.items()} for row in asdiv_rows(2_305)]
    write(folder / f"{asdiv.HUB}/validation.jsonl", rows)
