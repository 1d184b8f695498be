"""Which points to measure next: a pure function of the rows that exist, so that a resumed tune goes on where it was.

The default search of one variant (same `--set` values and flags):

1. within a budget compile one checkpoint, and the cliff sqrt(2 n): where the first does not fit, nothing does, and the
   search ends there; where the cliff does not, only smaller counts are looked at;
2. compile counts that enclose all others at the case with the most steps: a small one, the cliff, every step in a slot
   of its own, and, where the adjoint has a path of its own for it, everything stored without a schedule. The counts
   that the budget allows then lie between measured bytes, never beyond them. What fits is timed at once, and
   likewise at the case with the fewest steps, which separates the cost of an advance from that of a reversed step:
   the other cases are forecast;
3. where the budget allowed fewer than two of them, time two or three of the counts that do fit;
4. measure the count that could still beat the best one by more than MATTERS, the most promising first, until none
   could; and, of a lone cell, one count on each side of the best, since nothing says that seconds fall with the count.

A variant that differs from an earlier one in its flags or its tier alone is first timed at one count, and goes on if
that pays; a tier only where it saves steps at the count that is best without it.
`exhaustive` runs every count of every cell instead. What ran out of memory rules out larger counts unmeasured; what
timed out rules out counts that execute as many steps; a variant that only ever fails is given up.
"""

import dataclasses
import math
from collections.abc import Sequence

from autotune.measuring.trial import Rung
from autotune.model.cells import Cell, Variant
from autotune.search.history import Past, SearchGoal
from autotune.search.space import grid_counts
from profiles import AdjointName, Measurement

MATTERS = 0.05
"""A gain in seconds below this share is not worth a trial: it is less than the noise of a shared machine."""
MATTERS_ALONE = 0.03
"""The same for the only cell of a variant, whose trials are all there is to spend."""
MOST_COMPILED_ALONE = 7
"""How many counts of the only cell of a variant are compiled at most before the final run. One that is timed again is
found in the compilation cache."""
BESIDE = 4.0
"""A best count is surrounded where counts within this ratio were timed on both its sides."""
UNLIKELY = 0.2
"""Everything stored without a schedule is tried unless more than this share of the line through the other counts, which
hold the schedule too, lies beyond the budget."""
TOLERABLE_FACTOR = 4.0
"""The small count that is tried first is the smallest whose executed steps are at most this many times the steps."""
STRETCH = 2.0
"""A count is timed only if it executes at most this many times the steps of one that is, so that a law that is wrong
far from its samples costs little."""
MOST_TIMED_ALONE, MOST_TIMED = 5, 4
"""How many counts of a cell are timed at most: of the only cell of a variant, and of one among several."""
CHALLENGERS = 2
"""How many counts challenge the best one in one batch."""
APART = 1.5
"""Ratio of two counts that may challenge in one batch."""
FEW_CELLS = 4
"""With more cells than this, cells between the two ends are left to the laws until the final run of each."""
BATCH = 6
"""How many trials of one cell an exhaustive search interleaves at once."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """One trial to make: where, how far, and the reason in words for whoever reads the log.

    Trials of one `batch` are timed in alternation; the row keeps its number as `repeat`.
    """

    cell: Cell
    checkpoints: int
    rung: Rung
    why: str
    batch: int = 0


class Search:
    """The search for one goal: `next_requests(rows)` says what to measure next; nothing is kept between calls."""

    def __init__(self, question: SearchGoal) -> None:
        """Keep the question."""
        self.question = question

    def next_requests(
        self, rows: Sequence[Measurement], *, pending: Sequence[TrialRequest] = ()
    ) -> tuple[TrialRequest, ...]:
        """Return the next batch to measure, empty when nothing more is worth it, or is not known to be so yet.

        Args:
            rows: everything that is known, in any order.
            pending: what is being measured. Only what is wanted however that ends is requested beside it: further
                counts of a whole grid, and variants that wait for no answer of it.
        """
        past = Past(rows, self.question)
        for variant in self.question.space.variants:
            if past.gave_up(variant):
                continue
            if self.question.exhaustive:
                batch = self._exhaustive(variant, past, pending)
            elif self._waits(variant, pending):
                continue
            else:
                batch = self._economical(variant, past)
            if batch:
                return tuple(dataclasses.replace(asked, batch=past.next_batch) for asked in self._anchored(batch, past))
        return ()

    def _waits(self, variant: Variant, pending: Sequence[TrialRequest]) -> bool:
        """Return whether what to measure next of a variant depends on what is being measured."""
        variants = {asked.cell.variant for asked in pending}
        return variant in variants or self._first_alike(variant) in variants

    def _anchored(self, batch: Sequence[TrialRequest], past: Past) -> list[TrialRequest]:
        """Time the fastest known count of every cell again beside what is new; `autotune.model.drift` says why."""
        again = []
        for cell in dict.fromkeys(asked.cell for asked in batch if asked.rung is Rung.RUN):
            known = past.timed(cell)
            if known and known[0].checkpoints not in {asked.checkpoints for asked in batch if asked.cell == cell}:
                why = "timed again beside the others"
                again.append(TrialRequest(cell=cell, checkpoints=known[0].checkpoints, rung=Rung.RUN, why=why))
        return [*again, *batch]

    def _exhaustive(self, variant: Variant, past: Past, pending: Sequence[TrialRequest]) -> tuple[TrialRequest, ...]:
        for cell in self.question.space.of_variant(variant):
            counts = self.question.space.counts or grid_counts(self.question.steps(cell.case))
            rung = Rung.RUN if cell.case in self.question.works else Rung.COMPILED
            asked = {one.checkpoints for one in pending if one.cell == cell}
            if asked and rung is Rung.RUN and not past.timed(cell):
                continue  # the first batch of a cell is what later ones are compared with
            missing = [count for count in counts if count not in asked and not past.has(cell, count, rung)]
            # Ascending: where memory ends, one batch at most runs out of it, and the rest is ruled out.
            if missing:
                return tuple(
                    TrialRequest(cell=cell, checkpoints=count, rung=rung, why="part of the whole grid")
                    for count in missing[:BATCH]
                )
        return ()

    def _economical(self, variant: Variant, past: Past) -> tuple[TrialRequest, ...]:
        cells = self.question.space.of_variant(variant)
        reference = max(cells, key=self._cell_steps)
        first = self._first_alike(variant)
        if first is not None and not past.gave_up(first):
            trial = self._does_it_pay(reference, Cell(reference.case, first.xla_flags, first.tier), past)
            if trial is not None:
                return trial
        few = cells if len(cells) <= FEW_CELLS else self._extremes(cells)
        return (
            self._least(reference, past)
            or self._first(cells, reference, past)
            or self._time(cells, past)
            or self._challenge(few, past)
        )  # fmt: skip

    def _least(self, cell: Cell, past: Past) -> tuple[TrialRequest, ...]:
        """Request one checkpoint before anything of a variant is known: where it does not fit, nothing does.

        Beside it the cliff, which decides whether to look at smaller or larger counts.
        """
        goal = self.question
        if goal.space.counts is not None or goal.budget_bytes is None or past.forecast.measured_counts(cell):
            return ()
        if cell.case not in goal.works or past.has(cell, 1, Rung.COMPILED):
            return ()
        why = "the fewest checkpoints there are: does anything fit?"
        return tuple(
            TrialRequest(cell=cell, checkpoints=count, rung=Rung.COMPILED, why=why)
            for count in sorted({1, *self._enclosing_counts(cell)[1:2]})
        )

    def _first_alike(self, variant: Variant) -> Variant | None:
        """Return the earlier variant that differs from this one in its flags or its tier alone."""
        for other in self.question.space.variants:
            if other == variant:
                return None
            if other.set_values == variant.set_values:
                return other
        return None

    def _does_it_pay(self, cell: Cell, base: Cell, past: Past) -> tuple[TrialRequest, ...] | None:
        """Time flags or tier once beside the best count without them; None lets the search of this variant go on."""
        if cell.case not in self.question.works or (cell.tier is None and not past.timed(base)):
            return ()
        best = self._best_without(base, past)
        count = best if cell.tier is None else self._count_for_tier(cell, base, best, past)
        if not count:
            return ()
        if not past.has(cell, count, Rung.RUN):
            tried = f"the tier {cell.tier}" if cell.tier else f"XLA_FLAGS={cell.xla_flags or '(none)'}"
            why = f"does {tried} pay beside the best count without it?"
            asked = TrialRequest(cell=cell, checkpoints=count, rung=Rung.RUN, why=why)
            plain = TrialRequest(cell=base, checkpoints=best, rung=Rung.RUN, why="timed again beside the others")
            return (plain, asked) if past.timed(base) else (asked,)
        return None if self._paid(cell, base, past) else ()

    def _best_without(self, base: Cell, past: Past) -> int:
        """Pick the fastest count that fits; the largest that fits where each took too long to be timed; 0 for none."""
        known = past.timed(base)
        return known[0].checkpoints if known else max(past.fitting(base), default=0)

    def _count_for_tier(self, cell: Cell, base: Cell, best: int, past: Past) -> int:
        """Pick the count to try a tier at: the best one without it, or the largest that leaves room for what it adds.

        0 where the tier saves no steps there, or was too large even so.
        """
        count = best
        planned = past.forecast.bytes_at(cell, best) if past.has(cell, best, Rung.COMPILED) else None
        alone = past.forecast.bytes_at(base, best) if best else None
        if planned and alone and best not in past.timed_counts(cell):
            added = planned.likely - alone.likely
            sizes = [(other, past.forecast.bytes_at(base, other)) for other in past.fitting(base)]
            roomy = [other for other, size in sizes if size and self.question.fits(size.likely + added)]
            count = max((other for other in roomy if other < best), default=0)
        if not count:
            return 0
        steps = self.question.passes(cell, count)
        return count if steps < (1 - MATTERS) * self.question.passes(base, best) else 0

    def _paid(self, cell: Cell, base: Cell, past: Past) -> bool:
        """Return whether flags or tier were faster or smaller, compared within the batch that timed both."""
        for count in past.timed_counts(cell):  # what is faster and too large may be faster with fewer checkpoints too
            batch = past.last_batch(cell, count)
            assert batch is not None
            changed, without = past.in_batch(cell, count, batch), past.fastest_in_batch(base, batch)
            peak, alone = past.forecast.bytes_at(cell, count), past.forecast.bytes_at(base, count)
            faster = changed and (changed < (1 - MATTERS) * without if without else cell.tier is not None)
            if faster or (peak and alone and peak.likely < (1 - MATTERS) * alone.likely):
                return True
        return False

    def _first(self, cells: Sequence[Cell], reference: Cell, past: Past) -> tuple[TrialRequest, ...]:
        """Request counts that enclose all others in bytes, run where they fit, at the most and the fewest steps."""
        why = "counts that enclose all others"
        listed = self.question.space.counts
        fewest = (1,) if self.question.adjoint is AdjointName.OURS else (1, 2)  # ours never needs less for more
        known = all(past.has(reference, count, Rung.COMPILED) for count in fewest)
        if listed is None and known and not past.any_fits(reference):
            return ()
        counts = (listed[0], listed[len(listed) // 2], listed[-1]) if listed else self._enclosing(reference, past)
        wanted = [(reference, count) for count in sorted(set(counts))]
        for cell in self._extremes(cells)[1:]:
            counts = (listed[len(listed) // 2], listed[-1]) if listed else self._enclosing(cell, past)[1:]
            wanted += [(cell, count) for count in sorted(set(counts))]
        missing = [(cell, count) for cell, count in wanted if not past.has(cell, count, Rung.COMPILED)]
        if missing and listed is None and self.question.budget_bytes is not None and known:
            # The cliff was compiled beside one checkpoint, and is timed beside the others.
            cliff = [(reference, count) for count in self._enclosing_counts(reference)[1:2]]
            missing += [one for one in cliff if one not in missing and not past.has(*one, Rung.RUN)]
        if not missing and self.question.space.counts is None and not past.any_fits(reference):
            missing = [(reference, count) for count in fewest if not past.has(reference, count, Rung.COMPILED)]
            why = "nothing fits yet: the fewest checkpoints there are"
        return tuple(
            TrialRequest(cell=cell, checkpoints=count, rung=self._affordable_rung(cell, count), why=why)
            for cell, count in sorted(missing, key=lambda one: wanted.index(one) if one in wanted else 0)
        )

    def _affordable_rung(self, cell: Cell, count: int) -> Rung:
        """Run what executes few steps; compile alone what would run long, or cannot run."""
        if cell.case not in self.question.works:
            return Rung.COMPILED
        most = 2 * TOLERABLE_FACTOR * self._cell_steps(cell)
        return Rung.RUN if self.question.passes(cell, count) <= most else Rung.COMPILED

    def _enclosing(self, cell: Cell, past: Past) -> tuple[int, ...]:
        """Choose a small count, one near the cliff, all steps, and what stores everything where it may fit.

        Within a budget one checkpoint, which was compiled, stands in for the small count; and the small count for all
        others where the cliff was found too large.
        """
        small, *more = self._enclosing_counts(cell)
        work = self.question.works.get(cell.case)
        if work is None or not more:
            return (small, *more)
        first = small
        if self.question.budget_bytes is not None and past.has(cell, 1, Rung.COMPILED):
            at_cliff = past.forecast.bytes_at(cell, more[0])
            too_large = at_cliff is not None and not self.question.fits(at_cliff.likely)
            if past.ran_out(cell, more[0]) or (too_large and past.has(cell, more[0], Rung.COMPILED)):
                return (small, more[0])
            first = 1
        if work.everything is None:
            return (first, *more)
        *some, last = more
        below = min(last, work.everything - 1)
        ends = [work.everything] if self._may_store_everything(cell, work.everything, past) else []
        return (first, *some, below, *ends)

    def _may_store_everything(self, cell: Cell, count: int, past: Past) -> bool:
        """Return whether everything stored without a schedule may fit, as far as the other counts tell."""
        known = past.forecast.bytes_at(cell, count)
        if known is not None:
            return True  # measured, here or at another case
        others = past.forecast.bytes_at(cell, count - 1)
        return others is None or self.question.fits(UNLIKELY * others.likely)

    def _enclosing_counts(self, cell: Cell) -> tuple[int, ...]:
        """Choose a small count, one near the cliff, and everything stored."""
        steps = self._cell_steps(cell)
        if steps < 1:  # nothing could be observed: bytes against counts in equal ratios
            return (1, 32, 1024)
        grid = grid_counts(steps, at_most=24)
        tolerable = [count for count in grid if self.question.passes(cell, count) <= TOLERABLE_FACTOR * steps]
        cliff = next(count for count in grid if count * count >= 2 * steps or count == steps)
        return tuple(sorted({min(tolerable[0], max(1, cliff // 3)), cliff, steps}))

    def _time(self, cells: Sequence[Cell], past: Past) -> tuple[TrialRequest, ...]:
        """Request, at the most and fewest steps, two timings below what fits and the count that executes least."""
        ends = self._extremes(cells)
        shares = (1.0, 0.25) if len(ends) == 2 else (1.0, 1 / 3, 1 / 9)
        requests = []
        for cell in ends:
            fitting = past.fitting(cell)
            if not fitting:
                continue
            executed = {count: self.question.passes(cell, count) for count in fitting}
            wanted = {}
            if len(past.timed(cell)) < 2:
                near = [count for count in fitting if executed[count] <= STRETCH * executed[fitting[-1]]]
                for share in shares:
                    wanted[min(near, key=lambda c, share=share: abs(c - share * fitting[-1]))] = (
                        "seconds below what fits"
                    )
            least = min(fitting, key=lambda count: executed[count])
            timed = [self.question.passes(cell, count) for count in past.timed_counts(cell)]
            if executed[least] < (1 - MATTERS) * min(timed, default=math.inf):
                wanted[least] = "executes the fewest steps of all that fit"
            requests += [
                TrialRequest(cell=cell, checkpoints=count, rung=Rung.RUN, why=why)
                for count, why in sorted(wanted.items())
                if not past.has(cell, count, Rung.RUN)
            ]
        return tuple(requests)

    def _extremes(self, cells: Sequence[Cell]) -> tuple[Cell, ...]:
        """Pick the cell with the most steps, and that with the fewest where they differ enough to separate F from U."""
        by_steps = sorted((cell for cell in cells if cell.case in self.question.works), key=self._cell_steps)
        if not by_steps or self._cell_steps(by_steps[-1]) < 1.5 * self._cell_steps(by_steps[0]):
            return tuple(by_steps[-1:])
        return by_steps[-1], by_steps[0]

    def _cell_steps(self, cell: Cell) -> int:
        return self.question.steps(cell.case)

    def _challenge(self, cells: Sequence[Cell], past: Past) -> tuple[TrialRequest, ...]:
        """Request the untimed counts that could gain most over the best count of their cell, apart from each other."""
        alone = len(cells) == 1
        most, matters = (MOST_TIMED_ALONE, MATTERS_ALONE) if alone else (MOST_TIMED, MATTERS)
        left = self._left(cells[0], past) if alone else CHALLENGERS
        promising = []
        for cell in cells:
            if cell.case not in self.question.works or len(past.timed_counts(cell)) >= most:
                continue
            best = past.best_expected_seconds(cell)
            certain = set(past.fitting(cell))
            for count in past.possible(cell):
                seconds = past.forecast.seconds_at(cell, count)
                if best is None or seconds is None or past.has(cell, count, Rung.RUN):
                    continue
                if self.question.passes(cell, count) > STRETCH * past.most_passes_timed(cell):
                    continue
                # What may not fit at all has to promise a gain without luck, or the search creeps up to the budget.
                gain = 1 - (seconds.low if count in certain else seconds.likely) / best
                if gain > matters:
                    why = f"may be {100 * gain:.0f} % faster than the best count known here"
                    promising.append((gain, TrialRequest(cell=cell, checkpoints=count, rung=Rung.RUN, why=why)))
        wanted = [asked for _, asked in sorted(promising, key=lambda pair: -pair[0])]
        if alone and len(past.timed_counts(cells[0])) < most:
            wanted = [*wanted[:1], *self._beside(cells[0], past), *wanted[1:]]
        chosen: list[TrialRequest] = []
        for asked in wanted:
            if all(asked.cell == c.cell and _apart(asked.checkpoints, c.checkpoints) for c in chosen):
                chosen.append(asked)
        return tuple(chosen[: max(0, min(left, CHALLENGERS))])

    def _left(self, cell: Cell, past: Past) -> int:
        """Count the programs that may still be compiled at a lone cell."""
        if self.question.space.counts is not None:
            return CHALLENGERS
        return MOST_COMPILED_ALONE - len(past.forecast.measured_counts(cell))

    def _beside(self, cell: Cell, past: Past) -> list[TrialRequest]:
        """Request a count near the best one on each side where none was timed and some fit."""
        known, timed = past.timed(cell), past.timed_counts(cell)
        if not known or cell.case not in self.question.works or self.question.space.counts is not None:
            return []
        best = known[0].checkpoints
        affordable = STRETCH * past.most_passes_timed(cell)
        near = [count for count in past.fitting(cell) if best / BESIDE <= count <= best * BESIDE]
        found = []
        for side in ([count for count in near if count < best], [count for count in near if count > best]):
            apart = [count for count in side if _apart(count, best) and not past.has(cell, count, Rung.RUN)]
            apart = [count for count in apart if self.question.passes(cell, count) <= affordable]
            if apart and not any(count in timed for count in side):
                count = min(apart, key=lambda count: abs(math.log(count / best)))
                why = f"beside {best}, the best count known here"
                found.append(TrialRequest(cell=cell, checkpoints=count, rung=Rung.RUN, why=why))
        return found


def _apart(left: int, right: int) -> bool:
    """Return whether two counts are so different that timing one says little about the other."""
    return max(left, right) >= APART * min(left, right)
