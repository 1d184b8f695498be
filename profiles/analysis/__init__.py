"""What rows say: fronts, comparisons, plans for other devices, tables. Pure functions of records.

May import `records` and `store`.
"""
