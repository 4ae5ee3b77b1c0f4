"""How values look on the page: texts that nobody vouches for, counts, shares, durations.

visible("a\\u202eb")  →  "a⟨U+202E⟩b"
share(961, 1200)     →  "80.1%"
"""

import math
import unicodedata
from datetime import UTC, datetime

NOT_RECORDED = "not recorded"
ABSENT = "–"
_KEPT = "\n\t"
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def visible(text: str) -> str:
    """A text in which every character can be seen: controls, bidi marks, lone surrogates and the like become ⟨U+…⟩.

    Line ends of either kind and tabs stay. The result can be encoded as UTF-8, whatever came in.
    """
    text = text.replace("\r\n", "\n")
    if text.isprintable():
        return text
    return "".join(_seen(character) for character in text)


def _seen(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    return f"⟨U+{ord(character):04X}⟩"


def shortened(text: str, most: int) -> str:
    """A text of at most about `most` characters: its middle gives way, with a count, since answers stand at the end."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    tail = most - head
    return f"{text[:head]}\n⟨{count(len(text) - most)} characters left out⟩\n{text[-tail:]}"


def label(text: str, most: int = 34) -> str:
    """A name that fits beside a plot, in one line; its middle makes room."""
    text = " ".join(visible(text).split())
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def count(number: int) -> str:
    """18600 → 18,600."""
    return f"{number:,}"


def percent(value: float) -> str:
    """0.615 → 61.5%."""
    return f"{100 * value:.1f}%"


def spread(mean: float, sd: float) -> str:
    """A mean and a standard deviation of shares: 91.3 ± 1.2%."""
    return f"{100 * mean:.1f} ± {100 * sd:.1f}%"


def interval(low: float, high: float) -> str:
    """The bounds of a share: 53.1–66.5%."""
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def probability(p: float) -> str:
    """A p-value; what would be rounded to none is bounded."""
    return "< 0.0001" if 0 <= p < 0.0001 else f"{p:.4f}"


def share(part: int, whole: int) -> str:
    """Part of a whole as a percentage; absent where there is no whole. Not quite none or all is not rounded to it."""
    if not whole:
        return ABSENT
    rounded = percent(part / whole)
    if rounded == "0.0%" and part:
        return "< 0.1%"
    return "> 99.9%" if rounded == "100.0%" and part < whole else rounded


def counted(part: int, whole: int) -> str:
    """961 of 1200 → 961 (80.1%)."""
    return f"{count(part)} ({share(part, whole)})" if part else "0"


def tokens(number: float, chains: int) -> str:
    """Tokens of some chains. No chain has none, so that zero means that nobody counted."""
    if not chains:
        return ABSENT
    if not number:
        return NOT_RECORDED
    return count(number) if isinstance(number, int) else f"{number:,.1f}"


def rate(number: float, seconds: float) -> str:
    """Something per second."""
    if not number or seconds <= 0:
        return ABSENT
    per_second = number / seconds
    return (
        f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:,.1f}" if per_second >= 10 else f"{per_second:.2f}"
    )


def size(num_bytes: float) -> str:
    """4120000 → 4.1 MB; a kB is 1,000 bytes, as stores bill them."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.0f} {unit}" if unit == "B" or num_bytes >= 99.95 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def number(value: float | None, digits: int = 4) -> str:
    """A measured number, or absent where it is missing or not finite."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """153.4 → 2 min 33 s."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.1 or not seconds else "< 0.1 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(at_s: float) -> str:
    """Seconds since 1970 as a date and time, UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
