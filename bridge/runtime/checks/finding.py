"""A check's result and its advice. Knows no check."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Severity; PROBLEM and WRONG differ in who can solve them."""

    OK = "ok"
    WARNING = "warning"
    NOT_CHECKED = "not checked"
    PROBLEM = "problem"  # an outside system refuses
    WRONG = "wrong"  # the configuration holds a mistake


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: `found` about `subject`, and what to do about it."""

    level: Level
    subject: str
    found: str
    advice: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """Exit status: 2 for wrong configuration, 1 for a problem outside, else 0."""
    levels = {finding.level for finding in findings}
    if Level.WRONG in levels:
        return 2
    return 1 if Level.PROBLEM in levels else 0
