"""A tune from request to answer: prepared, searched, measured here and by helpers, verified, stored.

May import every room before it; not `runtime` and not `cli`.
"""
