"""A schedule as text, held to its own actions: every line is a sweep, every sweep reverses one step."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adjoint
from autotune.cli import schedule_view
from autotune.cli.schedule_view import MOST_LINES, SweepLine, draw_sweeps, draw_tree, view_schedule

solves = st.tuples(st.integers(1, 40), st.integers(1, 8), st.booleans())


def test_a_small_schedule_by_hand() -> None:
    """Five steps with two checkpoints: stored at 0 and 3, then at 0 and 1."""
    view = view_schedule(5, 2, 5)
    assert [(line.held, line.start, line.stored, line.reversed_step) for line in view.sweeps] == [
        ((), 0, (0, 3), 4),
        ((0, 3), 3, (), 3),
        ((0,), 0, (1,), 2),
        ((0, 1), 1, (), 1),
        ((0,), 0, (), 0),
    ]
    assert draw_sweeps(view) == [
        "held  0",
        "   2  ○──○◂",
        "   2  ●  ◂",
        "   2  ●○◂",
        "   2  ●◂",
        "   1  ◂",
    ]
    assert draw_tree(view) == ["0 to 5, slot 0", "├─ 3 to 5, slot 1", "└─ 1 to 3, slot 1"]
    assert (view.executed_steps, view.optimal_steps, view.recompute_factor) == (13, 12, 13 / 5)


@given(solves)
def test_sweeps_execute_what_the_schedule_executes_and_hold_no_more_than_there_is_room_for(
    solve: tuple[int, int, bool],
) -> None:
    """Steps are reversed from the last to the first, each from a state that is held."""
    steps, checkpoints, predicted = solve
    view = view_schedule(steps, checkpoints, steps if predicted else None)
    assert [line.reversed_step for line in view.sweeps] == list(reversed(range(steps)))
    for line in view.sweeps:
        assert len({*line.held, *line.stored}) <= checkpoints
        assert line.start in {*line.held, *line.stored}
        assert line.start == max(step for step in (*line.held, 0) if step <= line.reversed_step)
    assert sum(line.reversed_step - line.start + 1 for line in view.sweeps) >= view.optimal_steps - steps
    assert view.executed_steps == adjoint.executed_steps(steps, checkpoints, steps if predicted else None)
    assert view.optimal_steps <= view.executed_steps


@given(solves)
def test_a_drawing_has_a_line_for_each_sweep_with_the_signs_in_their_columns(solve: tuple[int, int, bool]) -> None:
    """Where every step has a column of its own."""
    steps, checkpoints, predicted = solve
    view = view_schedule(steps, checkpoints, steps if predicted else None)
    header, *lines = draw_sweeps(view)
    assert header.split()[0] == "held"
    assert len(lines) == steps
    for line, text in zip(view.sweeps, lines, strict=True):
        row = text[6:]
        assert int(text[:4]) == len({*line.held, *line.stored})
        assert row[line.reversed_step] == "◂"
        assert len(row) == line.reversed_step + 1
        assert {place for place, sign in enumerate(row) if sign == "○"} == {*line.stored} - {line.reversed_step}
        held = {*line.held} - {*line.stored, line.reversed_step}
        assert {place for place, sign in enumerate(row) if sign == "●"} == held


@given(solves)
def test_a_tree_has_a_line_for_each_checkpoint_below_the_one_that_it_came_from(solve: tuple[int, int, bool]) -> None:
    """Indented by three columns a level."""
    steps, checkpoints, predicted = solve
    view = view_schedule(steps, checkpoints, steps if predicted else None)
    lines = draw_tree(view)
    assert len(lines) == len(view.nodes)
    levels = [(len(line) - len(line.lstrip("│├└─ "))) // 3 for line in lines]
    ranges = [tuple(int(word.rstrip(",")) for word in line.lstrip("│├└─ ").split()[0:3:2]) for line in lines]
    assert levels[0] == 0
    for place in range(1, len(lines)):
        above = max(other for other in range(place) if levels[other] == levels[place] - 1)
        assert ranges[above][0] <= ranges[place][0] <= ranges[place][1] <= ranges[above][1]


def test_a_long_solve_is_drawn_in_the_columns_that_there_are() -> None:
    """Several steps to a column, numbered every tenth; the last step stays within."""
    view = view_schedule(40, 3, 40)
    header, *lines = draw_sweeps(view, 20)
    assert header == "held  0         20"
    assert len(lines) == 40
    assert max(len(line) for line in lines) <= 6 + 20
    assert lines[0].endswith("◂")
    assert len(lines[0]) == 26
    assert draw_sweeps(view_schedule(25, 3, 25))[0] == "held  0         10        20"


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps and checkpoints beyond the most lines of a drawing."""
    assert MOST_LINES == 400
    monkeypatch.setattr(schedule_view, "MOST_LINES", 3)
    view = view_schedule(10, 3, 10)
    assert draw_sweeps(view)[-1] == "      … and 7 more sweeps"
    assert len(draw_sweeps(view)) == 5
    assert draw_tree(view)[-1] == f"… and {len(view.nodes) - 3} more checkpoints"
    assert len(draw_tree(view)) == 4
    few = view_schedule(10, 3, 10, most_sweeps=2)
    assert len(few.sweeps) == 2
    assert draw_sweeps(few)[-1] == "      … and 8 more sweeps"
    assert len(draw_sweeps(view_schedule(3, 3, 3))) == 4


def test_the_json_of_a_schedule_holds_every_sweep_and_node() -> None:
    """Plain values, with the version of their form."""
    view = view_schedule(5, 2, 5)
    document = view.to_json()
    assert document["schema_version"] == 1
    assert [document[key] for key in ("steps", "checkpoints", "expected_steps", "executed_steps")] == [5, 2, 5, 13]
    assert [SweepLine(**line) for line in document["sweeps"]] == list(view.sweeps)
    assert document["tree"] == [dataclasses.asdict(node) for node in view.nodes]
    assert view_schedule(0, 2, None).recompute_factor == 0.0
