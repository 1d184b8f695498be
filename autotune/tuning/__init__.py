"""A tune from question to answer: prepared, searched, measured here and by helpers, verified, stored.

May import every room before it; not `runtime` and not `cli`.
"""
