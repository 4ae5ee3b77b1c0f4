"""What a section of the page is made of: tables, figures and remarks. The template knows these and nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers stand at the right."""

    name: str
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """A table of texts. The first cell of a row names the row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    kind: Literal["table"] = "table"

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows)


@dataclass(frozen=True)
class Figure:
    """A plot as inline SVG. `summary` says in words what is to be seen; `legend` pairs names with colours."""

    name: str
    caption: str
    summary: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Figures:
    """Plots that stand side by side where there is room."""

    figures: tuple[Figure, ...]
    kind: Literal["figures"] = "figures"


@dataclass(frozen=True)
class Remark:
    """A paragraph. A finding is what a reader takes home; other remarks say how to read what stands around them."""

    text: str
    is_finding: bool = False
    kind: Literal["remark"] = "remark"


@dataclass(frozen=True)
class Listing:
    """A text to be read as it is, with a heading that opens it."""

    caption: str
    text: str
    kind: Literal["listing"] = "listing"


@dataclass(frozen=True)
class Exhibit:
    """A chain that is worth reading, and why; `id` is what the browser finds it by, `colour` that of its reason.

    An empty `id` is one of a page without a browser, an empty `question` one that stands above.
    """

    why: str
    id: str
    facts: tuple[str, ...]
    question: str
    text: str
    answer: str | None
    gold: str | None
    reason: str
    colour: str


@dataclass(frozen=True)
class Exhibits:
    """Chains of one model, below a heading that opens them."""

    caption: str
    exhibits: tuple[Exhibit, ...]
    is_open: bool
    kind: Literal["exhibits"] = "exhibits"


@dataclass(frozen=True)
class Choice:
    """A column of the browser that its rows can be filtered by: its values, each with its wording."""

    name: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Browser:
    """Rows that the page's script shows, filters and searches: `data` is packed text, safe inside a script element."""

    data: str
    num_rows: int
    choices: tuple[Choice, ...]
    has_tokens: bool
    has_likelihood: bool
    kind: Literal["browser"] = "browser"


Block = Table | Figures | Remark | Listing | Exhibits | Browser


@dataclass(frozen=True)
class Section:
    """One heading of the page and what stands below it."""

    id: str
    title: str
    blocks: tuple[Block, ...]


def table(caption: str, words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose first columns hold words and whose others hold numbers."""
    columns = (*(Column(name, is_number=False) for name in words), *(Column(name) for name in numbers))
    return Table(caption, columns, tuple(map(tuple, rows)))
