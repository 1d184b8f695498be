"""The count chosen by itself inside a training script, and chosen again when the training changes.

May import every room before it; not `cli`.
"""
