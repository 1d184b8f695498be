"""The command line: parses, calls the rooms, prints. Only here are typer and rich imported.

May import everything; nothing imports it.
"""

from .app import main as main
