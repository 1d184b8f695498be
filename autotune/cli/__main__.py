"""Run the command line as `python -m autotune.cli`."""

from .app import main

main()
