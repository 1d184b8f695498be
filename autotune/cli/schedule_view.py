"""A schedule as text: one line for each sweep, and the tree of checkpoints. Plain integers, no jax.

    held  0         10        20
       3  ●────────●────●───◂
       3  ●        ●    ●──◂

A line is one sweep: it starts at the checkpoint nearest below the step that is reversed next (`●` are those held), goes
on from there (`─`), stores on its way (`○`), and reverses one step (`◂`).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import adjoint
from autotune.cli.screen import Exit, Format, Screen
from autotune.errors import AutotuneError

WIDEST = 100
"""Most columns of a drawing; longer solves have several steps a column."""
MOST_LINES = 400
"""Most lines of a drawing; what is left out is said."""
MOST_CHECKPOINTS = 1_000
"""So many checkpoints are laid out as a tree."""
MOST_SWEEPS = 20_000
"""So many sweeps are listed, each with what it holds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SweepLine:
    """One sweep: the checkpoints held when it starts, where it starts, what it stores, the step that it reverses."""

    held: tuple[int, ...]
    start: int
    stored: tuple[int, ...]
    reversed_step: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleView:
    """A schedule with its figures; `optimal_steps` are those of the best schedule that any loop could have."""

    steps: int
    checkpoints: int
    expected_steps: int | None
    executed_steps: int
    optimal_steps: int
    sweeps: tuple[SweepLine, ...]
    nodes: tuple[Any, ...]

    @property
    def recompute_factor(self) -> float:
        """Executed steps over steps."""
        return self.executed_steps / self.steps if self.steps else 0.0

    def to_json(self) -> dict[str, Any]:
        """Give the JSON that `schedule` prints."""
        return {
            "schema_version": 1,
            "steps": self.steps,
            "checkpoints": self.checkpoints,
            "expected_steps": self.expected_steps,
            "executed_steps": self.executed_steps,
            "optimal_steps": self.optimal_steps,
            "recompute_factor": self.recompute_factor,
            "sweeps": [dataclasses.asdict(line) for line in self.sweeps],
            "tree": [dataclasses.asdict(node) for node in self.nodes],
        }


def view_schedule(
    steps: int, checkpoints: int, expected_steps: int | None, *, most_sweeps: int | None = None
) -> ScheduleView:
    """Lay a schedule of our loop out.

    Args:
        steps: steps of the solve.
        checkpoints: states held at once.
        expected_steps: the prediction that the loop is given; None where it has none.
        most_sweeps: how many sweeps to lay out; all where None.
    """
    return ScheduleView(
        steps=steps,
        checkpoints=checkpoints,
        expected_steps=expected_steps,
        executed_steps=adjoint.executed_steps(steps, checkpoints, expected_steps),
        optimal_steps=adjoint.optimal_steps(steps, checkpoints),
        sweeps=tuple(itertools.islice(_sweeps(steps, checkpoints, expected_steps), most_sweeps)),
        nodes=tuple(adjoint.schedule_tree(steps, checkpoints, expected_steps)),
    )


def _sweeps(steps: int, checkpoints: int, expected_steps: int | None) -> Iterator[SweepLine]:
    """Bring the actions of a schedule together to sweeps, each ending with one reversed step."""
    held: dict[int, int] = {}  # slot -> step
    before: tuple[int, ...] = ()
    stored: list[int] = []
    start: int | None = None
    for action in adjoint.schedule(steps, checkpoints, expected_steps):
        if action.kind == "store":
            held = {slot: step for slot, step in held.items() if slot < action.slot} | {action.slot: action.start}
            stored.append(action.start)
        elif action.kind == "advance":
            start = action.start if start is None else start
        else:
            yield SweepLine(
                held=before,
                start=action.start if start is None else start,
                stored=tuple(stored),
                reversed_step=action.stop - 1,
            )
            held = {slot: step for slot, step in held.items() if step < action.stop - 1}
            before, stored, start = tuple(held.values()), [], None


def draw_sweeps(view: ScheduleView, width: int = WIDEST) -> list[str]:
    """Draw every sweep as one line, at most `width` columns wide."""
    columns = max(1, min(view.steps, width))
    lines = [f"held  {_axis(view.steps, columns)}"]
    for line in itertools.islice(view.sweeps, MOST_LINES):
        row = [" "] * columns
        for step in range(line.start, line.reversed_step):
            row[_column(step, view.steps, columns)] = "─"
        for step in line.held:
            row[_column(step, view.steps, columns)] = "●"
        for step in line.stored:
            row[_column(step, view.steps, columns)] = "○"
        row[_column(line.reversed_step, view.steps, columns)] = "◂"
        lines.append(f"{len({*line.held, *line.stored}):>4}  {''.join(row).rstrip()}")
    if view.steps > len(lines) - 1:  # each sweep reverses one step
        lines.append(f"      … and {view.steps - len(lines) + 1} more sweeps")
    return lines


def draw_tree(view: ScheduleView) -> list[str]:
    """Draw the checkpoints as a tree: each with the steps that are reversed from it, below the one it came from."""
    children: dict[int | None, list[int]] = {}
    for index, node in enumerate(view.nodes):
        children.setdefault(node.parent, []).append(index)
    lines: list[str] = []
    waiting = [(root, "", "") for root in reversed(children.get(None, []))]  # (node, prefix of what is below, stem)
    while waiting:
        index, prefix, stem = waiting.pop()
        node = view.nodes[index]
        lines.append(f"{stem}{node.start} to {node.stop}, slot {node.slot}")
        below = children.get(index, [])
        for place in reversed(range(len(below))):
            last = place == len(below) - 1
            waiting.append((below[place], prefix + ("   " if last else "│  "), prefix + ("└─ " if last else "├─ ")))
    cut: Sequence[str] = lines[:MOST_LINES]
    left = len(lines) - len(cut)
    return [*cut, f"… and {left} more checkpoints"] if left else list(cut)


def _column(step: int, steps: int, columns: int) -> int:
    return step if columns == steps else min(columns - 1, step * columns // steps)


def _axis(steps: int, columns: int) -> str:
    """Number the columns, every tenth."""
    text = ""
    for column in range(0, columns, 10):
        label = str(column if columns == steps else column * steps // columns)
        text = text.ljust(column) + label
    return text


def schedule_command(
    screen: Screen, steps: int, checkpoints: int, expected_steps: int | None, *, out: Path | None, format: Format
) -> Exit:
    """Print a schedule, and draw its tree where a folder is named.

    Raises:
        AutotuneError: there is more to lay out than anybody could look at.
    """
    if min(steps, checkpoints) > MOST_CHECKPOINTS or (format is Format.JSON and steps > MOST_SWEEPS):
        raise AutotuneError(
            f"{steps} steps with {checkpoints} checkpoints are too many to lay out: at most {MOST_CHECKPOINTS} "
            f"checkpoints, and {MOST_SWEEPS} steps in JSON, which lists every sweep; name fewer"
        )
    most = MOST_LINES if format is Format.TABLE else None
    view = view_schedule(steps, checkpoints, expected_steps, most_sweeps=most)
    if format is Format.JSON:
        screen.json(view.to_json())
    elif format is Format.CSV:
        screen.csv([dataclasses.asdict(node) for node in view.nodes])
    else:
        expected = "no prediction" if expected_steps is None else f"expecting {expected_steps}"
        screen.line(f"{steps} steps, {checkpoints} checkpoints, {expected}")
        screen.line(
            f"executed steps {view.executed_steps}, recompute factor {view.recompute_factor:.3f}; "
            f"the best offline schedule executes {view.optimal_steps}"
        )
        screen.line()
        screen.line("sweeps: ● held, ○ stored on the way, ─ advanced, ◂ reversed")
        for text in draw_sweeps(view, screen.width - 6):
            screen.line(text)
        screen.line()
        screen.line("tree: the steps that are reversed from each checkpoint")
        for text in draw_tree(view):
            screen.line(text)
    if out is not None:
        import profiles

        tree = profiles.Tree(case=profiles.Case(), checkpoints=checkpoints, steps=steps, blocks=view.nodes)
        out.mkdir(parents=True, exist_ok=True)
        for path in profiles.save_figure(
            profiles.tree_figure(profiles.tree_table(tree)), out / f"schedule-{steps}-{checkpoints}"
        ):
            screen.say(f"wrote {path}")
    return Exit.DONE
