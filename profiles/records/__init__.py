"""What was measured, as frozen records of plain values, and as flat rows that the store and the tables share.

May import `profiles.errors`.
"""
