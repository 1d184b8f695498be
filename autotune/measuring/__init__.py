"""One trial: compiled, run and timed in a process of its own, and what became of it as a row.

May import `machine` and `problem`.
"""
