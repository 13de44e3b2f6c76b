"""What a check found, and what to do about it. Knows no check."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is; the two kinds of problem differ in who can solve them."""

    OK = "ok"
    WARNING = "warning"
    NOT_CHECKED = "not checked"
    PROBLEM = "problem"  # something out there refuses
    WRONG = "wrong"  # something is written wrongly in the configuration


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` was looked at, `found` is what is so, `advice` what to do about it."""

    level: Level
    subject: str
    found: str
    advice: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """2 where configuration is wrong, 1 where something refuses, else 0."""
    levels = {finding.level for finding in findings}
    if Level.WRONG in levels:
        return 2
    return 1 if Level.PROBLEM in levels else 0
