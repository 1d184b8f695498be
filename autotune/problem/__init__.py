"""What the user's code is and does: loading it, telling it from others, tracing it, counting its steps.

May import `machine`.
"""
