"""Picks: in which order chains that qualify are taken. A budget takes the first of the order, so that budgets nest.

Rows in and out: `Verdict`, of one problem, thought and teacher.

The rules are those of SCoTD's study of what makes a good sample. What it leaves open is chosen here: the encoder is the
one that ships in the `wordllama` wheel, and the clustering is agglomerative, by average linkage of cosine distances.
"""

from collections.abc import Callable, Sequence

from retort.records import Verdict
from retort.selection.config import Pick
from retort.store.hashing import digest

LIBRARIES = ("wordllama", "scikit-learn", "scipy", "numpy")
"""What decides the order of `diverse`."""


def lot(*drawn_by: int | str) -> str:
    """A lot that depends on its arguments alone: what is drawn is what has the smallest."""
    return digest(drawn_by)


def _lot(chain: Verdict, seed: int) -> str:
    return lot(seed, chain.problem_id, chain.thought, chain.index)


def first(chains: Sequence[Verdict], seed: int) -> list[Verdict]:
    """By index."""
    del seed
    return sorted(chains, key=lambda chain: chain.index)


def random(chains: Sequence[Verdict], seed: int) -> list[Verdict]:
    """By lot."""
    return sorted(chains, key=lambda chain: _lot(chain, seed))


def likely(chains: Sequence[Verdict], seed: int) -> list[Verdict]:
    """By log-likelihood per token under the teacher, the highest first.

    Raises:
        ValueError: a chain whose log-probability is not known.
    """
    for chain in chains:
        if chain.logprob is None:
            raise ValueError(f"{chain.problem_id}, {chain.thought}, chain {chain.index} has no log-probability")
    return sorted(first(chains, seed), key=lambda chain: -(chain.logprob or 0.0) / max(1, chain.num_tokens))


def shortest(chains: Sequence[Verdict], seed: int) -> list[Verdict]:
    """By number of tokens; of equally many, and where the engine could not tell them, by characters."""
    return sorted(first(chains, seed), key=lambda chain: (chain.num_tokens, len(chain.text)))


def diverse(chains: Sequence[Verdict], seed: int) -> list[Verdict]:
    """So that any first k are one of each of the k clusters that the chains fall into.

    A cluster is represented by the chain of the smallest lot. Where it falls in two, one of them keeps that chain and
    the other's is new: each split, from one cluster down to clusters of one, thus names the next chain.
    """
    ordered = first(chains, seed)
    if len(ordered) < 2:
        return ordered
    lots = [_lot(chain, seed) for chain in ordered]
    representatives = list(range(len(ordered)))
    newcomers: list[int] = []
    for merged in _merges([chain.text for chain in ordered]):
        winner, loser = sorted((representatives[cluster] for cluster in merged), key=lots.__getitem__)
        representatives.append(winner)
        newcomers.append(loser)
    return [ordered[place] for place in (representatives[-1], *reversed(newcomers))]


def _merges(texts: Sequence[str]) -> list[list[int]]:
    """Pairs of clusters in the order in which they are merged; merge m makes the cluster len(texts) + m."""
    from sklearn.cluster import AgglomerativeClustering

    from retort.questions import embed

    vectors = embed(texts)
    # Rounded, so that which of equal distances comes first does not hang on the arithmetic of a machine.
    distances = (1 - vectors @ vectors.T).round(5)
    tree = AgglomerativeClustering(n_clusters=1, metric="precomputed", linkage="average")
    return tree.fit(distances).children_.tolist()


ORDERS: dict[Pick, Callable[[Sequence[Verdict], int], list[Verdict]]] = {
    "first": first,
    "random": random,
    "diverse": diverse,
    "likely": likely,
    "open_ended": random,  # its budget differs by problem (`budgets`)
    "shortest": shortest,
}
"""The chains that qualify and a seed → the chains, in the order in which they are taken."""
