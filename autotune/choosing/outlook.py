"""How sure a recommendation is: the interval of its seconds, who came second, and what would change it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from autotune.adjoints import Work, passes
from autotune.choosing.recommendation import Option, Recommendation
from profiles import AdjointName, format_bytes

WORTH = 1.1
"""More memory is mentioned where it makes a call at least so many times faster."""
MORE_STEPS = 1.25
"""By how much the steps are taken to grow where it is said what that would cost."""
FEWEST_SAMPLES = 3


def interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """Bound the median of what was sampled, by order statistics, with 95 % confidence where there are six samples.

    Args:
        samples: seconds of single calls.

    Returns:
        The least and the greatest value; None of fewer than three samples.
    """
    if len(samples) < FEWEST_SAMPLES:
        return None
    ordered = sorted(samples)
    # Of n samples the k-th lies below the median unless fewer than k of n fair coins fall on heads.
    skipped, below = 0, 0.5 ** len(ordered)
    chance = below
    while chance <= 0.025 and skipped < (len(ordered) - 1) // 2:
        skipped += 1
        below *= (len(ordered) - skipped + 1) / skipped
        chance += below
    first = max(0, skipped - 1)
    return ordered[first], ordered[-1 - first]


def outlook(said: Recommendation, candidates: Sequence[Option], work: Work | None, name: AdjointName) -> Recommendation:
    """Add to a recommendation who came second, and what would change it.

    Args:
        said: the recommendation.
        candidates: everything that could have been chosen, best first among what fits, and what does not fit.
        work: the steps of the case; None where they are not known.
        name: whose adjoint.
    """
    others = [option for option in candidates if (option.checkpoints, option.cell.tier, option.cell.xla_flags)
              != (said.checkpoints, said.tier, said.xla_flags)]  # fmt: skip
    second = next((o for o in others if o.peak.high <= said.budget_bytes and o.seconds is not None), None)
    found: dict[str, Any] = {"would_change": tuple(_changes(said, others, work, name))}
    if second is not None and second.seconds is not None and said.run_seconds:
        found |= {"runner_up": second.checkpoints, "runner_up_seconds": second.seconds.likely}
    return dataclasses.replace(said, **found)


def _changes(said: Recommendation, others: Sequence[Option], work: Work | None, name: AdjointName) -> list[str]:
    """Say what more memory would buy, and what more steps would cost."""
    lines = []
    if said.run_seconds:
        larger = [o for o in others if o.peak.likely > said.budget_bytes and o.seconds is not None]
        gains = [(o, said.run_seconds / o.seconds.likely) for o in larger if o.seconds and math.isfinite(o.peak.high)]
        worth = [(option, gain) for option, gain in gains if gain >= WORTH]
        if worth:
            option, gain = min(worth, key=lambda pair: pair[0].peak.high)
            more = format_bytes(math.ceil(option.peak.high) - said.budget_bytes)
            how = "timed" if option.timed else "forecast"
            lines.append(f"with {more} more: {gain:.1f}x faster at {option.checkpoints} checkpoints ({how})")
    if work is not None and work.reversed_steps and said.checkpoints:
        lines.append(_of_more_steps(said, work, name))
    return lines


def _of_more_steps(said: Recommendation, work: Work, name: AdjointName) -> str:
    """Say that bytes follow the count, and what a solve that takes more steps than predicted executes."""
    assert said.checkpoints is not None
    longer = dataclasses.replace(
        work,
        steps=round(MORE_STEPS * work.steps),
        reversed_steps=round(MORE_STEPS * work.reversed_steps),
        accepted=None if work.accepted is None else round(MORE_STEPS * work.accepted),
    )
    before = sum(passes(name, work, said.checkpoints, said.tier))
    after = sum(passes(name, longer, said.checkpoints, said.tier, said.expected_steps))
    most = f"up to max_steps={work.everything} " if work.everything is not None else ""
    return (
        f"more steps {most}fit as well, since bytes follow the count; "
        f"{MORE_STEPS - 1:.0%} more would execute {after / before:.2f}x the steps"
    )
