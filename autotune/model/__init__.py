"""What rows say about counts that were not measured, with bounds. Pure functions of rows.

Imports no other room, so that a test can hold it to brute force.
"""
