"""What devices that are not here would make of a problem, as XLA plans it for them; nothing is run on any of them.

May import the rooms below: machine, problem, measuring, model, search, choosing, tuning.
"""
