"""Where rows are kept, durable before `put` returns, and found again by what a person types.

May import `records`.
"""
