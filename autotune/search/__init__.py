"""Which point to measure next: a pure function of the space and of the rows that exist.

May import `model`, and `measuring` for the record of a trial.
"""
