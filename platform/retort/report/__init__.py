"""The report: a run's artifacts as tables, plots and a browser of chains, in one self-contained HTML page."""

from retort.report.page import report

__all__ = ["report"]
