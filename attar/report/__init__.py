"""Results as one self-contained HTML page; all tables, all charts."""

from attar.report.page import write_report

__all__ = ["write_report"]
