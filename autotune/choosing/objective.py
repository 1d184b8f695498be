"""What is minimised within a budget. Plain values: the command line reads them before anything is loaded."""

import enum


class Objective(enum.StrEnum):
    """What is minimised within the budget: measured seconds, or executed steps, which need no timing."""

    TIME = "time"
    MEMORY = "memory"
