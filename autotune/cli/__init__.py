"""The command line: parses, calls the rooms, prints. Only here are typer and rich imported.

May import everything; nothing imports it.
"""

from autotune.errors import AutotuneError as _AutotuneError
from autotune.shadowing import check_own_packages as _check_own_packages

# Once more, for the case that `autotune/__init__.py` is not ours and so has checked nothing.
try:
    _check_own_packages()
except _AutotuneError as error:
    raise SystemExit(f"ckpt-tune: {error}") from None

from .app import main as main
