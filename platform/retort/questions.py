"""Questions: how close generated sub-questions come to reference ones, as Socratic CoT's decomposer is judged.

In: for each problem the questions that were asked and the reference's. Out: one `QuestionScore` over all problems.

    score([["How many does he eat?", "How many are left?"]], [["How many does he eat?", "How many remain?"]])
    QuestionScore(bleu=69.9, same_count=1.0, similarity=0.84, problems=1)

The paper's own table of metrics could not be had; these are three of those that its authors use for generated
sub-questions elsewhere (Shridhar et al. 2022): sacreBLEU, the share of problems with the reference's number of
questions, and the cosine of sentence embeddings. Not covered: BERTScore, whose model is many times a student's size.
The embeddings are those that ship inside the `wordllama` wheel, so that nothing is downloaded: a question's is the mean
of its tokens', blind to word order. Similarities compare runs with each other, not with figures of another embedding.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wordllama import WordLlamaInference


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """Generated sub-questions against reference ones: `bleu` from 0 to 100, the others from 0 to 1.

    `bleu`: sacreBLEU's corpus BLEU as it is by default (13a tokens, case counts), a problem's questions as one segment.
    `same_count`: the share of problems with as many questions as the reference (`#Q`).
    `similarity`: the mean over problems of `alignment`.
    """

    bleu: float
    same_count: float
    similarity: float
    problems: int


def score(asked: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> QuestionScore:
    """The metrics over problems in the same order; a problem for which nothing was asked counts, with 0.

    Raises:
        ValueError: no problem, as many of one as not of the other, or a problem without reference questions.
    """
    import sacrebleu

    if len(asked) != len(reference) or not reference:
        raise ValueError(f"questions of {len(asked)} problems against {len(reference)}: expected as many, at least one")
    unknown = [place for place, questions in enumerate(reference) if not questions]
    if unknown:
        raise ValueError(f"problem {unknown[0]} of {len(reference)} has no reference questions: leave it out")
    bleu = sacrebleu.corpus_bleu([" ".join(said) for said in asked], [[" ".join(gold) for gold in reference]])
    return QuestionScore(
        bleu=min(bleu.score, 100.0),
        same_count=sum(len(said) == len(gold) for said, gold in zip(asked, reference, strict=True)) / len(reference),
        similarity=sum(map(alignment, asked, reference)) / len(reference),
        problems=len(reference),
    )


def alignment(asked: Sequence[str], reference: Sequence[str]) -> float:
    """How similar the questions of one problem are to its reference, from 0 to 1.

    Questions are matched one to one and in order, since each builds on the answers before it, so that the sum of their
    cosines is largest; the sum is divided by the larger number of questions. A question too many or too few thus costs
    its share and does not put those behind it against wrong partners; the same questions in another order are not 1.
    """
    if not asked or not reference:
        return 0.0
    vectors = embed([*asked, *reference])
    cosines = vectors[: len(asked)] @ vectors[len(asked) :].T
    best = np.zeros((len(asked) + 1, len(reference) + 1))  # of the first i asked and the first j of the reference
    for i in range(len(asked)):
        for j in range(len(reference)):
            best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], best[i, j] + cosines[i, j])
    return min(1.0, float(best[-1, -1]) / max(len(asked), len(reference)))


def embed(texts: Sequence[str]) -> "np.ndarray":
    """Mean-pooled embeddings [len(texts), 256] of length 1; zeros for a text without tokens."""
    vectors = _model().embed(list(texts))
    assert isinstance(vectors, np.ndarray)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


@functools.cache
def _model() -> "WordLlamaInference":
    """The embeddings inside the installed wheel.

    Version 0.4 looks for its tokenizer in `tokenizer/` and ships it in `tokenizers/`, where it would look in a cache;
    so its own folder is named as the cache, and nothing is downloaded.
    """
    import wordllama

    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
