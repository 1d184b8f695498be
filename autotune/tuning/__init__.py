"""A tune from request to answer: prepared, searched, measured here or by workers, verified, stored.

May import every room before it; not `runtime` and not `cli`.
"""
