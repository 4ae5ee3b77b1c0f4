"""The chain browser of the report with as many chains as a page holds, in a real browser."""

import base64
import json
import random
import re
import statistics
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from playwright.sync_api import Browser, Page

from retort.report import sample as sample_module
from retort.report.blocks import Remark
from retort.report.chains import Packed, browser, pack
from retort.report.contents import Contents, open_run
from retort.report.page import render
from retort.report.reasons import palette
from retort.report.sample import MAX_CHAINS, Row, Sample
from retort.report.tallies import Said
from retort.run import Run, index
from retort.store.local import LocalStore
from test_report import HOSTILE, chromium, found, recipe_in, watched

WORDS = re.findall(
    "[a-z]+",
    "eggs pens apples books shells stamps buys sells loses finds doubles triples keeps gives away then after half of "
    "the rest so there are more than before each day every week per box in all left over now at last still needs pays",
)
SEARCH_S = 0.2
"""What a search over all chains of a page is to take at most; the test that prints what it takes asks for less."""


def sample_of(rows: Sequence[Row]) -> Sample:
    """A sample of all rows, as `draw` makes it, ranked in their order."""
    sample = Sample()
    for number, row in enumerate(rows):
        sample.strata[row.model, row.reason].append((number, 0, number, row))
        sample.sizes[row.model, row.reason] += 1
        sample.tallies[row.asked].said[Said(row.is_correct, row.reason, row.answer)] += 1
    return sample


def rows_of(number: int, chains: int = 8, words: int = 60) -> list[Row]:
    """Rows of one plan: problems with some chains each, of about as many characters as a solution of GSM8K has."""
    draw = random.Random(0)
    made: list[Row] = []
    for place in range(number):
        problem, chain = divmod(place, chains)
        reason = draw.choices(["correct", "wrong", "no_answer", "truncated"], [6, 3, 1, 1])[0]
        answer = {"correct": str(problem), "wrong": str(draw.randrange(99))}.get(reason)
        said = " ".join(draw.choices(WORDS, k=words))
        made.append(
            Row(
                model="tiny" if chain < chains / 2 else "large",
                plan="cot",
                wording="train + dev, cot",
                task="sums",
                split="train",
                thought="cot",
                problem=f"sums/train/{problem:05}",
                index=chain,
                question=f"Nora has {problem} eggs and {WORDS[problem % len(WORDS)]} {problem * 7}. How many?",
                gold=str(problem),
                answer=answer,
                text=f"First {said}: {draw.randrange(10**6)}. The answer is {answer}.",
                reason=reason,
                is_correct=reason == "correct",
                tokens=draw.randrange(10, 400),
                likelihood=-round(draw.random(), 4),
            )
        )
    return sorted(made, key=lambda row: (row.problem, row.index))


def packed(rows: Sequence[Row]) -> Packed:
    return pack(sample_of(rows), palette([Counter(row.reason for row in rows)]))


def unpacked(data: str) -> list[dict[str, Any]]:
    """The rows of a page, as its script reads them."""
    head, *blocks = (json.loads(zlib.decompress(base64.b64decode(line))) for line in data.split("\n"))
    values: dict[str, list[Any]] = {name: [] for name in head["coded"]}
    rows: list[dict[str, Any]] = []
    for block in blocks:
        for name, fresh in block["values"].items():
            values[name] += fresh
        texts = zip(*([values[name][code] for code in block["codes"][name]] for name in values), strict=True)
        numbers = zip(*(block["numbers"][name] for name in head["numbers"]), strict=True)
        keys = (*values, *head["numbers"])
        rows += [dict(zip(keys, (*text, *number), strict=True)) for text, number in zip(texts, numbers, strict=True)]
    assert len(rows) == head["rows"]
    return rows


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """A run that has a name and nothing else."""
    recipe = recipe_in(tmp_path_factory.mktemp("bare"))
    recipe = recipe.model_copy(update={"teacher": (), "corpus": (), "student": ()})
    store = LocalStore(recipe.store)
    return open_run(store, index(Run(recipe, store)))


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def page_of(contents: Contents, packed: Packed, path: Path) -> Path:
    path.write_bytes(render(contents, [browser(packed)]))
    return path


# The time from an input event to the moment when its result has been painted.
PAINTED = """
async (field, words) => {
    field.value = words;
    const start = performance.now();
    field.dispatchEvent(new Event("input", { bubbles: true }));
    const handled = performance.now();
    await new Promise((done) => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = done;
        channel.port2.postMessage(null);
    }));
    return [performance.now() - start, handled - start];
}
"""


@pytest.mark.slow  # about 10 s: a page of 10^5 chains has to be made and read
def test_a_search_over_as_many_chains_as_a_page_holds_is_quick_and_right(
    bare: Contents, chrome: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made = packed(rows_of(MAX_CHAINS))
    assert len(made.rows) == MAX_CHAINS
    texts = ["\n".join((row.question, row.text, row.answer or "", row.problem)).lower() for row in made.rows]
    searches = [
        "e",
        "eggs",
        "half of the",
        "stamps buys sells",
        "nora has 77 eggs",
        "the answer is 12.",
        "12345",
        "zzz",
    ]
    searches += ["Then AFTER", "sums/train/00123", "costs so there are more", "none"]
    times: list[float] = []
    with watched(chrome, page_of(bare, made, tmp_path / "index.html")) as window:
        field = window.get_by_role("searchbox")
        for words in searches:
            painted, _ = field.evaluate(f"(field, words) => ({PAINTED})(field, words)", words)
            times.append(painted / 1000)
            wanted = [place for place, text in enumerate(texts) if words.lower() in text]
            assert found(window).startswith(f"{len(wanted):,} of 100,000 chains")
            shown = window.locator(".chain .link").evaluate_all("links => links.map((link) => link.hash)")
            assert [linked(hash) for hash in shown] == [made.rows[place].id for place in wanted[:20]]
    told = f"{len(times)} searches over {MAX_CHAINS:,} chains: median {1000 * statistics.median(times):.0f} ms"
    with capsys.disabled():
        print(f"\n{told}, worst {1000 * max(times):.0f} ms, to be under {1000 * SEARCH_S:.0f} ms")
    assert max(times) < 5 * SEARCH_S


def linked(hash: str) -> str:
    """The chain that a link names."""
    return unquote(hash.removeprefix("#chain="))


@pytest.fixture(scope="module")
def thousand() -> Packed:
    """A page of several blocks. Of some chains nobody counted tokens, nor told how likely they are."""
    rows = rows_of(6000, words=12)
    return packed(
        [replace(row, tokens=0, likelihood=None) if place % 50 == 0 else row for place, row in enumerate(rows)]
    )


@pytest.fixture(scope="module")
def file(bare: Contents, thousand: Packed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(bare, thousand, tmp_path_factory.mktemp("page") / "index.html")


@pytest.fixture
def opened(chrome: Browser, file: Path) -> Iterator[Page]:
    with watched(chrome, file) as window:
        yield window


def choose(window: Page, name: str, value: str) -> None:
    window.locator(f"select[name='{name}']").select_option(value)


def shown(window: Page) -> list[str]:
    """The chains that are on the page that is shown."""
    return [linked(hash) for hash in window.locator(".chain .link").evaluate_all("links => links.map((a) => a.hash)")]


def test_every_row_is_packed_whole_and_in_order(thousand: Packed):
    assert thousand.data.count("\n") >= 2  # blocks
    assert re.fullmatch(r"[A-Za-z0-9+/=\n]+", thousand.data)
    for row, read in zip(thousand.rows, unpacked(thousand.data), strict=True):
        tally = thousand.sample.tallies[row.asked]
        told = {name: getattr(row, name) for name in Row.__slots__ if name != "is_correct"}
        assert read == {**told, "correct": "yes" if row.is_correct else "no", "difficulty": tally.stratum}


def test_a_page_that_would_be_too_large_holds_fewer_chains(thousand: Packed):
    everything = thousand.sample
    colours = palette([Counter(row.reason for row in thousand.rows)])
    for smaller in (
        pack(everything, colours, max_bytes=len(thousand.data) // 3),
        pack(everything, colours, max_text=sum(len(row.text) for row in thousand.rows) // 3),
    ):
        assert 1500 < len(smaller.rows) < 2100
        assert smaller.rows == everything.cut(len(smaller.rows)).rows
        (told, _) = browser(smaller).blocks
        assert isinstance(told, Remark)
        assert told.text.startswith(f"{len(smaller.rows):,} of 6,000 chains are on this page")
        counts = Counter(row.reason for row in smaller.rows)
        assert counts["truncated"] > 0.5 * counts["correct"]  # as even as possible over reasons


def test_difficulty_tokens_and_outcome_filter(opened: Page, thousand: Packed):
    tallies = thousand.sample.tallies
    choose(opened, "difficulty", "up to 50% right")
    wanted = [row for row in thousand.rows if tallies[row.asked].stratum == "up to 50% right"]
    assert 0 < len(wanted) < len(thousand.rows)
    assert shown(opened) == [row.id for row in wanted[:20]]
    choose(opened, "correct", "no")
    opened.locator("input[name=least]").fill("100")
    opened.locator("input[name=most]").fill("200")
    wanted = [row for row in wanted if not row.is_correct and 100 <= row.tokens <= 200]
    assert shown(opened) == [row.id for row in wanted[:20]]
    told = "(correct no, difficulty up to 50% right, at least 100 tokens, at most 200 tokens)"
    assert f"{len(wanted)} of 6,000 chains on this page match {told}" in found(opened)
    opened.get_by_role("button", name="Clear").click()
    assert found(opened).startswith("6,000 of 6,000 chains")
    opened.locator("input[name=least]").fill("0")
    assert found(opened).startswith(f"{sum(row.tokens > 0 for row in thousand.rows):,} of 6,000 chains")


@pytest.mark.parametrize(
    ("order", "field", "sign"),
    [("shortest", "tokens", 1), ("longest", "tokens", -1), ("least likely", "likelihood", 1)],
)
def test_chains_are_sorted_and_those_that_lack_the_number_come_last(
    opened: Page, thousand: Packed, order: str, field: str, sign: int
):
    choose(opened, "order", order)
    choose(opened, "model", "large")
    rows = [row for row in thousand.rows if row.model == "large"]
    known = sorted((row for row in rows if getattr(row, field)), key=lambda row: sign * getattr(row, field))
    assert shown(opened) == [row.id for row in known[:20]]
    assert len(known) < len(rows)
    opened.evaluate("for (let page = 0; page < 200; page++) document.querySelector('[name=next]').click()")
    assert shown(opened)[-1] == [row.id for row in rows if not getattr(row, field)][-1]


@pytest.mark.parametrize("words", ["nora has 3 eggs", "THE ANSWER IS 77", "sums/train/00700", "  after  ", "none", "["])
def test_a_search_finds_what_questions_chains_answers_and_problems_say(opened: Page, thousand: Packed, words: str):
    opened.get_by_role("searchbox").fill(words)
    sought = words.strip().lower()
    wanted = [
        row
        for row in thousand.rows
        if any(
            sought in text.lower() for text in (row.question, row.text, row.answer or "", row.gold or "", row.problem)
        )
    ]
    assert found(opened).startswith(f"{len(wanted):,} of 6,000 chains")
    assert shown(opened) == [row.id for row in wanted[:20]]


def test_a_link_opens_its_chain_whatever_is_filtered(chrome: Browser, file: Path, thousand: Packed):
    row = thousand.rows[4321]
    with watched(chrome, file) as window:
        choose(window, "correct", "no" if row.is_correct else "yes")
        assert row.id not in shown(window)
        window.evaluate("id => { location.hash = '#chain=' + encodeURIComponent(id); }", row.id)
        opened = window.locator(".chain.opened")
        opened.wait_for()
        assert opened.locator(".question").inner_text() == row.question
        assert opened.locator(".chain-text").inner_text() == row.text
        assert opened.evaluate("card => card === document.activeElement")
        assert row.id in shown(window)
        assert found(window).startswith("6,000 of 6,000")
        other = window.locator(".chain").nth(3)
        other.get_by_role("link").click()
        window.locator(".chain.opened").wait_for()
        assert window.locator(".chain").nth(3).evaluate("card => card.classList.contains('opened')")
        for hash, told in (("#chain=nobody/cot", "The chain nobody/cot is not on this page"), ("#chain=%E0%A4", None)):
            window.evaluate("hash => { location.hash = hash; }", hash)
            assert told is None or found(window) == told
    for address in (f"{file.as_uri()}#chain={quote(row.id)}", f"{file.as_uri()}#chain={quote(row.id, safe='')}"):
        window = chrome.new_page()
        window.goto(address)
        window.locator(".chain.opened").wait_for()
        assert window.locator(".chain.opened .chain-text").inner_text() == row.text
        window.close()


def test_the_keyboard_reaches_everything(opened: Page):
    opened.get_by_role("searchbox").focus()
    opened.keyboard.type("after")
    before = found(opened)
    assert "“after”" in before
    opened.keyboard.press("Enter")  # submits nothing
    reached: list[str] = []
    for _ in range(12):
        opened.keyboard.press("Tab")
        reached.append(opened.evaluate("document.activeElement.name || document.activeElement.className"))
    names = ["model", "reason", "correct", "difficulty", "least", "most", "order"]
    assert reached[:7] == names
    assert reached[8:12] == ["link"] * 4
    assert found(opened) == before


def test_a_browser_that_cannot_unpack_says_so_and_shows_the_rest(chrome: Browser, file: Path):
    window = chrome.new_page()
    window.add_init_script("delete window.DecompressionStream")
    complaints: list[str] = []
    window.on("pageerror", lambda error: complaints.append(str(error)))
    window.goto(file.as_uri())
    assert "cannot unpack the chains" in found(window)
    assert window.locator("progress, form.controls").locator("visible=true").count() == 0
    assert window.locator("footer").is_visible()
    assert complaints == []
    window.close()


def test_damaged_chains_are_told(chrome: Browser, file: Path, thousand: Packed, tmp_path: Path):
    path, second = tmp_path / "index.html", thousand.data.split("\n")[1]
    path.write_text(file.read_text().replace(second, second[: len(second) // 8 * 4]))
    window = chrome.new_page()
    window.goto(path.as_uri())
    window.locator(".found", has_text="are damaged and cannot be unpacked").wait_for()
    assert not window.locator("form.controls").is_visible()
    window.close()


def test_a_phone_and_paper_show_no_more_than_is_asked_for(opened: Page):
    opened.set_viewport_size({"width": 390, "height": 844})
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    choose(opened, "reason", "wrong")
    opened.emulate_media(media="print")
    assert not opened.locator("form.controls").is_visible()
    assert not opened.locator(".paging").is_visible()
    assert opened.locator(".chain").locator("visible=true").count() == 20
    assert "(reason wrong), 1–20 shown" in found(opened)


ATTACKS = {
    **HOSTILE,
    "ended": "</script><style>body{display:none}</style></noscript><svg/onload=alert(5)> ended",
    "opened": "<!--<script>opened",
    "quoted": "' onmouseover='alert(6)' \" onfocus=\"alert(7)\" `quoted`",
    "halved": "halved \ud83d and \udc00 \x00",
    "named": "__proto__ constructor named",
    "addressed": "#chain=%00/../?&addressed=1%",
    "dotted": "İstanbul ẞ ﬁ dotted",
}


def test_whatever_a_model_wrote_stays_text_in_every_field(bare: Contents, chrome: Browser, tmp_path: Path):
    template = rows_of(1)[0]
    rows: list[Row] = []
    for place, (word, attack) in enumerate(ATTACKS.items()):
        seen = sample_module.shown(attack)
        fields = (
            "model",
            "plan",
            "wording",
            "task",
            "thought",
            "problem",
            "question",
            "gold",
            "answer",
            "text",
            "reason",
        )
        rows.append(replace(template, index=place, **dict.fromkeys(fields, f"{word} {seen}"), is_correct=False))
    rows += [replace(template, model="__proto__", reason="__proto__", text="plain")]
    made = packed(rows)
    with watched(chrome, page_of(bare, made, tmp_path / "index.html")) as window:
        assert found(window).startswith(f"{len(rows)} of {len(rows)} chains")
        assert window.locator("img, svg[onload], iframe, .chain-text *, .question *, dd *, option *").count() == 0
        assert window.locator("script").count() == 2
        for word, row in zip(ATTACKS, rows, strict=False):
            window.get_by_role("searchbox").fill(word if word != "dotted" else "i̇stanbul")
            assert row.text in window.locator(".chain-text").all_text_contents()
            choose(window, "model", row.model)
            assert window.locator(".model").all_text_contents() == [row.model]
            window.evaluate("id => { location.hash = '#chain=' + encodeURIComponent(id); }", row.id)
            window.locator(".chain.opened").wait_for()
            assert window.locator(".chain.opened .question").text_content() == row.question
            assert window.evaluate("document.documentElement.scrollWidth") <= 1280
            window.get_by_role("button", name="Clear").click()
