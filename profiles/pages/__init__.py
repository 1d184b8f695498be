"""The report: one self-contained HTML page, and the folder with it, the figures and the rows.

May import every other room of `profiles`.
"""
