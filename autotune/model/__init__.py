"""What rows say about counts that were not measured, with bounds. Pure functions of rows.

May import `machine.errors` only, so that it can be held to brute force.
"""
