"""Texts in the cells of CSV files, of which spreadsheets would make formulas.

The rule: a text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return, or with apostrophes before one of
these, gets one apostrophe more in front. It is undone by taking one apostrophe away where one stands before such a
text, so that every text comes back as it was. Numbers are left alone.
"""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_QUOTED = re.compile(r"'+[=+\-@\t\r]")


def quoted_cell(text: str) -> str:
    """Write a text as a cell that no spreadsheet computes."""
    return f"'{text}" if _FORMULA.match(text) else text


def unquoted_cell(cell: str) -> str:
    """Read what `quoted_cell` wrote."""
    return cell[1:] if _QUOTED.match(cell) else cell
