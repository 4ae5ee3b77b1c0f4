"""The page of one run: its sections, laid out by a template, with style, script and data inside one HTML file.

In: the index artifact of a run. Out: an artifact with `index.html`, which loads nothing and sends nothing: its content
security policy allows no request, and no script but the one whose hash it names.
"""

import base64
import hashlib
import logging
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from retort.report.acceptance import acceptance, run_palette
from retort.report.blocks import Browser, Section
from retort.report.chains import browser, pack
from retort.report.comparisons import comparison
from retort.report.contents import Contents, open_run
from retort.report.cost import cost
from retort.report.curves import training
from retort.report.difficulty import difficulty
from retort.report.failures import failures
from retort.report.formatting import moment, visible
from retort.report.lineage import lineage
from retort.report.papers import papers
from retort.report.sample import draw
from retort.report.scores import headline
from retort.report.sweeps import sweeps
from retort.report.thoughts import thoughts
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find

logger = logging.getLogger(__name__)
VERSION = 8
LIBRARIES = ("jinja2", "matplotlib", "optuna", "scikit-learn", "scipy")


def report(store: Store, run: Artifact) -> Artifact:
    """The report of a run, from its index; found, if it was made before."""
    where = Address("report", VERSION, {}, {"run": run.id}, LIBRARIES)
    found = find(store, where)
    if found is not None:
        return found
    writer = Writer(store, where)
    contents = open_run(store, run)
    sections = compose(contents)
    page = render(contents, sections)
    num_chains = sum(block.num_rows for section in sections for block in section.blocks if isinstance(block, Browser))
    logger.info("report: %d sections, %d chains to browse, %d bytes", len(sections), num_chains, len(page))
    return writer.commit(
        [writer.put("index.html", page)], {"sections": len(sections), "chains": num_chains, "bytes": len(page)}
    )


def compose(contents: Contents) -> list[Section]:
    """The sections of the page, in order."""
    packed = pack(draw(contents), run_palette(contents))
    return [
        headline(contents),
        *sweeps(contents),
        *papers(contents),
        *thoughts(contents),
        *comparison(contents),
        acceptance(contents),
        *difficulty(contents, packed.sample.tallies),
        cost(contents),
        training(contents),
        *failures(contents, packed),
        browser(packed),
        lineage(contents),
    ]


def render(contents: Contents, sections: Sequence[Section]) -> bytes:
    """The page of a run as UTF-8. Equal sections give equal bytes."""
    made = moment(contents.run.manifest["created_at_s"])
    told = f"Reasoning, distilled: the report of one run by retort, {made}"
    return lay_out(contents.recipe["name"], told, sections, f"Run {contents.run.id}")


def lay_out(name: str, told: str, sections: Sequence[Section], source: str) -> bytes:
    """Sections as a page: its name and what is told of it above them, where it comes from below."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    script = _beside("columns.js") + _beside("browser.js")
    page = environment.from_string(_beside("page.html.j2")).render(
        name=name,
        told=told,
        sections=sections,
        source=source,
        style=Markup(_beside("style.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return page.encode()


def _beside(name: str) -> str:
    return resources.files("retort.report").joinpath(name).read_text(encoding="utf-8")


def _finalize(value: Any) -> Any:
    """What every expression of the template passes through before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
