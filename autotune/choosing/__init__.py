"""What to take, given rows and a budget: a recommendation with the evidence of each figure. Pure functions of rows.

May import `machine`, `measuring`, `model` and `search`.
"""
