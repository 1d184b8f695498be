"""The command `check`: do the stored choices of a problem still hold."""

from autotune.cli.opening import reading
from autotune.cli.screen import Exit, Format, Screen
from autotune.measuring.trial import RunSettings
from autotune.tuning.lab import make_machine
from autotune.tuning.request import TuneRequest
from autotune.tuning.stored_choice import check_problem
from profiles import AdjointName


def check_command(
    screen: Screen, problem: str, adjoint: AdjointName, *, settings: RunSettings, store_url: str | None, format: Format
) -> Exit:
    """Print whether the stored choices of a problem hold."""
    located, search_path = TuneRequest(problem=problem).located()
    machine = make_machine(settings, search_path=search_path)
    try:
        with reading(store_url) as store:
            checked = check_problem(located, adjoint=adjoint, asked=machine, store=store)
    finally:
        machine.close()
    records = [{**one.choice, "holds": not one.reasons, "reasons": list(one.reasons)} for one in checked]
    if format is Format.JSON:
        screen.json({"schema_version": 1, "problem": problem, "adjoint": str(adjoint), "choices": records})
    elif format is Format.CSV:
        screen.csv(records)
    else:
        columns = ("horizon", "tolerance", "checkpoints", "holds", "reason")
        keys = ("horizon", "tolerance", "checkpoints")
        lines = [(*(r[key] for key in keys), "yes" if r["holds"] else "no", "; ".join(r["reasons"])) for r in records]
        screen.table(columns, lines)
    stale = [one for one in checked if one.reasons]
    if stale:
        screen.fail(f"{len(stale)} of {len(checked)} stored choices are stale; run `ckpt-tune tune {problem}` again")
    return Exit.STALE if stale else Exit.DONE
