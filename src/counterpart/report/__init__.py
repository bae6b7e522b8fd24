"""Records in, one self-contained page out. Imports no model, attack or data code."""

from .page import write_report

__all__ = ["write_report"]
