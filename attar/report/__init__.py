"""Results and distilled sets as one self-contained HTML page, for people who would rather look than read."""

from attar.report.page import write_report

__all__ = ["write_report"]
