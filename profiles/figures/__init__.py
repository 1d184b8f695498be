"""Figures of profiles: one function each, from a table to an Altair chart. Pages and files show it.

May import `records` and `analysis`.
"""
