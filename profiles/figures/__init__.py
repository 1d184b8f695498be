"""Figures of profiles, as PNG and SVG.

May import `records` and `analysis`.
"""
