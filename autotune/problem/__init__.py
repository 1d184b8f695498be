"""What the user's code is and does: loading it, fingerprinting it, tracing it, counting its steps.

May import `machine`.
"""
