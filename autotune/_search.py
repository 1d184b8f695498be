"""Which points to measure next: a pure function of the rows that exist, so that a resumed tune goes on where it was.

The default search of one program (same `--set` values and flags):

1. compile three counts at the case with the most steps: a small one, the cliff sqrt(2 n), and everything stored. The
   counts that the budget allows then lie between measured bytes, never beyond them;
2. time two or three of the counts that fit, in one interleaved batch, at the cases with the most and fewest steps.
   That parts the cost of an advance from that of a reversed step, so the other cases are forecast;
3. measure the count that could still beat the best one by more than MATTERS, the most promising first, until none
   could.

A program that differs from an earlier one in its flags alone is first timed at one count, and goes on if that pays.
`exhaustive` runs every count of every cell instead. What ran out of memory rules out larger counts unmeasured; what
timed out rules out counts that execute as many steps; a program that only ever fails is given up.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from autotune._forecast import Forecast, Work, passes
from autotune._space import Cell, Program, Space, grid_counts
from autotune._trial import Rung
from profiles._records import AdjointName, Case, Measurement, Status

MATTERS = 0.04
"""A gain in seconds below this share is not worth a trial: it is less than the noise of a shared machine."""
TOLERABLE_FACTOR = 8.0
"""The small count that is compiled first is the smallest whose executed steps are at most this many times the steps."""
STRETCH = 2.0
"""A count is timed only if it executes at most this many times the steps of one that is, so that a law that is wrong
far from its samples costs little."""
FEW_CELLS = 4
"""With more cells than this, cells between the two ends are left to the laws until the final run of each."""
FAILURES_BEFORE_GIVING_UP = 2
BATCH = 6
"""How many trials of one cell an exhaustive search interleaves at once."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One trial to make: where, how far, and the reason in words for whoever reads the log."""

    cell: Cell
    checkpoints: int
    rung: Rung
    why: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a search has to answer: over which space, within how many bytes, with whose adjoint.

    `works` holds the observed steps of every case; a case without an entry (its arguments are abstract, so nothing can
    run) is compiled only. `budget_bytes` None asks for the front alone.
    """

    space: Space
    works: Mapping[Case, Work]
    adjoint: AdjointName
    budget_bytes: int | None
    exhaustive: bool = False

    def steps(self, case: Case) -> int:
        """Steps that the reversal may store at most, 0 where nothing was observed."""
        return self.works[case].steps if case in self.works else 0

    def fits(self, likely_bytes: float) -> bool:
        """Whether the bytes are within the budget."""
        return self.budget_bytes is None or likely_bytes <= self.budget_bytes


class Search:
    """Answer `next_requests(rows)` for one question; it holds no state between calls."""

    def __init__(self, question: Question) -> None:
        """Keep the question."""
        self.question = question

    def next_requests(self, rows: Sequence[Measurement]) -> tuple[Request, ...]:
        """Return the next batch to measure, empty when nothing more is worth it."""
        past = _Past(rows, self.question)
        for program in self.question.space.programs:
            if past.gave_up(program):
                continue
            found = self._exhaustive(program, past) if self.question.exhaustive else self._economical(program, past)
            if found:
                return found
        return ()

    def _exhaustive(self, program: Program, past: "_Past") -> tuple[Request, ...]:
        for cell in self.question.space.of_program(program):
            counts = self.question.space.counts or grid_counts(self.question.steps(cell.case))
            rung = Rung.RUN if cell.case in self.question.works else Rung.COMPILED
            missing = [count for count in counts if not past.has(cell, count, rung)]
            # Ascending: where memory ends, one batch at most runs out of it, and the rest is ruled out.
            if missing:
                return tuple(
                    Request(cell=cell, checkpoints=count, rung=rung, why="the whole grid was asked for")
                    for count in missing[:BATCH]
                )
        return ()

    def _economical(self, program: Program, past: "_Past") -> tuple[Request, ...]:
        cells = self.question.space.of_program(program)
        reference = max(cells, key=self._cell_steps)
        first = self._first_of_flags(program)
        if first is not None and not past.gave_up(first):
            trial = self._does_flag_pay(reference, Cell(reference.case, first.xla_flags), past)
            if trial is not None:
                return trial
        return (
            self._compile(reference, past)
            or self._time(cells, reference, past)
            or self._challenge(cells if len(cells) <= FEW_CELLS else self._told_apart(cells), past)
        )  # fmt: skip

    def _first_of_flags(self, program: Program) -> Program | None:
        """Return the earlier program that differs from this one in its flags alone."""
        for other in self.question.space.programs:
            if other == program:
                return None
            if other.set_values == program.set_values:
                return other
        return None

    def _does_flag_pay(self, cell: Cell, base: Cell, past: "_Past") -> tuple[Request, ...] | None:
        """Time the flags once at the best count without them; None lets the search of this program go on."""
        best = past.fastest(base)
        if best is None or cell.case not in self.question.works:
            return ()
        count, seconds, peak = best
        if not past.has(cell, count, Rung.RUN):
            why = f"does XLA_FLAGS={cell.xla_flags or '(none)'} pay at the best count without it?"
            return (Request(cell=cell, checkpoints=count, rung=Rung.RUN, why=why),)
        mine = past.measured(cell).get(count)
        if mine is None or (mine[0] > (1 - MATTERS) * seconds and mine[1] > (1 - MATTERS) * peak):
            return ()
        return None

    def _compile(self, cell: Cell, past: "_Past") -> tuple[Request, ...]:
        """Ask for the compiled bytes of counts that enclose all others."""
        counts = self.question.space.counts or self._enclosing_counts(cell)
        design = sorted({counts[0], counts[len(counts) // 2], counts[-1]})
        missing = [count for count in design if not past.has(cell, count, Rung.COMPILED)]
        why = "bytes against checkpoints, from counts that enclose all others"
        if not missing and self.question.space.counts is None and not past.any_fits(cell):
            missing = [count for count in (1, 2) if count < counts[0] and not past.has(cell, count, Rung.COMPILED)]
            why = "nothing fits yet: the fewest checkpoints there are"
        return tuple(Request(cell=cell, checkpoints=count, rung=Rung.COMPILED, why=why) for count in missing)

    def _enclosing_counts(self, cell: Cell) -> tuple[int, ...]:
        """Choose a small count, one near the cliff, and everything stored."""
        steps = self.question.steps(cell.case)
        if steps < 1:  # nothing could be observed: bytes against counts in equal ratios
            return (1, 32, 1024)
        work = self.question.works[cell.case]
        grid = grid_counts(steps, at_most=24)
        tolerable = [c for c in grid if sum(passes(self.question.adjoint, work, c)) <= TOLERABLE_FACTOR * steps]
        cliff = next(count for count in grid if count * count >= 2 * steps or count == steps)
        return tuple(sorted({tolerable[0], cliff, steps}))

    def _time(self, cells: Sequence[Cell], reference: Cell, past: "_Past") -> tuple[Request, ...]:
        """Ask for interleaved timings that part the laws' terms, at the most and the fewest steps."""
        if reference.case not in self.question.works:
            return ()
        ends = self._told_apart(cells)
        shares = (1.0, 0.25) if len(ends) == 2 else (1.0, 1 / 3, 1 / 9)
        requests = []
        for cell in ends:
            fitting = past.fitting(cell)
            if not fitting or len(past.measured(cell)) >= len(shares):
                continue
            near = [c for c in fitting if self._passes(cell, c) <= STRETCH * self._passes(cell, fitting[-1])]
            wanted = {min(near, key=lambda c: abs(c - share * fitting[-1])) for share in shares}
            why = "seconds against checkpoints, below what fits"
            requests += [
                Request(cell=cell, checkpoints=count, rung=Rung.RUN, why=why)
                for count in sorted(wanted)
                if not past.has(cell, count, Rung.RUN)
            ]
        return tuple(requests)

    def _told_apart(self, cells: Sequence[Cell]) -> tuple[Cell, ...]:
        """The cell with the most steps, and the one with the fewest where they differ enough to part F from U."""
        by_steps = sorted((cell for cell in cells if cell.case in self.question.works), key=self._cell_steps)
        if not by_steps or self._cell_steps(by_steps[-1]) < 1.5 * self._cell_steps(by_steps[0]):
            return tuple(by_steps[-1:])
        return by_steps[-1], by_steps[0]

    def _passes(self, cell: Cell, count: int) -> int:
        return sum(passes(self.question.adjoint, self.question.works[cell.case], count))

    def _cell_steps(self, cell: Cell) -> int:
        return self.question.steps(cell.case)

    def _challenge(self, cells: Sequence[Cell], past: "_Past") -> tuple[Request, ...]:
        """Ask for the untimed count that could gain most over the best count of its cell."""
        promising = []
        for cell in cells:
            if cell.case not in self.question.works or past.timed(cell) >= (6 if len(cells) == 1 else 4):
                continue
            best = past.best_expected_seconds(cell)
            for count in past.fitting(cell):
                seconds = past.forecast.seconds_at(cell, count)
                if best is None or seconds is None or past.has(cell, count, Rung.RUN):
                    continue
                if self._passes(cell, count) > STRETCH * past.most_passes_timed(cell):
                    continue
                gain = 1 - seconds.low / best
                if gain > MATTERS:
                    why = f"may be {100 * gain:.0f} % faster than the best count known here"
                    promising.append((gain, Request(cell=cell, checkpoints=count, rung=Rung.RUN, why=why)))
        return tuple(request for _, request in sorted(promising, key=lambda pair: -pair[0])[:1])


class _Past:
    """The rows so far, indexed for the questions that a search asks of them."""

    def __init__(self, rows: Sequence[Measurement], question: Question) -> None:
        self._question = question
        self._rows: dict[tuple[Cell, int], list[Measurement]] = {}
        for row in rows:
            self._rows.setdefault((Cell(row.case, row.xla_flags), row.checkpoints), []).append(row)
        self.forecast = Forecast(rows, question.works, question.adjoint)

    def _of(self, cell: Cell) -> Iterable[tuple[int, list[Measurement]]]:
        return ((count, rows) for (of, count), rows in self._rows.items() if of == cell)

    def has(self, cell: Cell, count: int, rung: Rung) -> bool:
        """Whether the trial was made (however it ended), or is ruled out by how another ended."""
        rows = self._rows.get((cell, count), [])
        if any(row.status is not Status.OK or row.run_seconds or rung is not Rung.RUN for row in rows):
            return True
        return self._ruled_out(cell, count, rung)

    def _ruled_out(self, cell: Cell, count: int, rung: Rung) -> bool:
        work = self._question.works.get(cell.case)
        for other, rows in self._of(cell):
            ended = {row.status for row in rows}
            if Status.OUT_OF_MEMORY in ended and count >= other:
                return True
            if Status.TIMED_OUT in ended and work and rung is Rung.RUN:
                name = self._question.adjoint
                if sum(passes(name, work, count)) >= sum(passes(name, work, other)):
                    return True
        return False

    def gave_up(self, program: Program) -> bool:
        """Whether the program has failed often and never ended well."""
        rows = [row for (cell, _), rows in self._rows.items() if cell.program == program for row in rows]
        bad = [row for row in rows if row.status in (Status.FAILED, Status.NOT_FINITE)]
        return len(bad) >= FAILURES_BEFORE_GIVING_UP and len(bad) == len(rows)

    def measured(self, cell: Cell) -> dict[int, tuple[float, int]]:
        """Seconds and peak bytes of the counts that were timed at the cell and fit."""
        found = {}
        for count, rows in self._of(cell):
            seconds = self.forecast.seconds_at(cell, count)
            peak = self.forecast.bytes_at(cell, count)
            ok = any(row.status is Status.OK and row.run_seconds for row in rows)
            if ok and seconds and peak and self._question.fits(peak.likely):
                found[count] = (seconds.likely, int(peak.likely))
        return found

    def fastest(self, cell: Cell) -> tuple[int, float, int] | None:
        """Count, seconds and bytes of the fastest timed count that fits."""
        timed = self.measured(cell)
        if not timed:
            return None
        count = min(timed, key=lambda c: (timed[c][0], c))
        return count, *timed[count]

    def any_fits(self, cell: Cell) -> bool:
        """Whether some count whose bytes are known is within the budget."""
        ranges = [self.forecast.bytes_at(cell, count) for count in self.forecast.measured_counts(cell)]
        return any(self._question.fits(known.likely) for known in ranges if known)

    def fitting(self, cell: Cell) -> tuple[int, ...]:
        """Candidate counts that are within the budget as far as is known, ascending."""
        counts = self._question.space.counts or self._candidates(cell)
        known = [(count, self.forecast.bytes_at(cell, count)) for count in counts]
        return tuple(count for count, peak in known if peak and self._question.fits(peak.high))

    def _candidates(self, cell: Cell) -> tuple[int, ...]:
        """Counts in ratios of about sqrt(2), what was measured, and the largest that the budget allows."""
        steps = max(1, self._question.steps(cell.case))
        grid = {*grid_counts(steps, at_most=24), *self.forecast.measured_counts(cell)}
        return tuple(sorted(grid | {self._largest_fitting(cell, steps)}))

    def _largest_fitting(self, cell: Cell, steps: int) -> int:
        """Bisect for the largest count whose upper bound fits; bytes rise with the count."""
        fits = 1
        beyond = steps + 1
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            peak = self.forecast.bytes_at(cell, middle)
            if peak is not None and self._question.fits(peak.high):
                fits = middle
            else:
                beyond = middle
        return fits

    def best_expected_seconds(self, cell: Cell) -> float | None:
        """The least seconds, measured or forecast, of a count that fits."""
        known = [self.forecast.seconds_at(cell, count) for count in self.fitting(cell)]
        return min((seconds.likely for seconds in known if seconds), default=None)

    def most_passes_timed(self, cell: Cell) -> float:
        """The most passes of any count that was timed at the cell, infinite where none was."""
        work = self._question.works[cell.case]
        counts = [count for count, rows in self._of(cell) if any(row.run_seconds for row in rows)]
        return max((sum(passes(self._question.adjoint, work, count)) for count in counts), default=float("inf"))

    def timed(self, cell: Cell) -> int:
        """How many counts were timed at the cell."""
        return sum(any(row.run_seconds for row in rows) for _, rows in self._of(cell))
