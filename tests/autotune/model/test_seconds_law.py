"""The law of seconds against sums of passes at known prices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.model.seconds_law import SecondsLaw
from profiles import Case

CASE, SHORTER = Case(horizon=10.0), Case(horizon=5.0)
STEPS = {CASE: 1000, SHORTER: 400}


def costs(case, checkpoints):
    """Advances and taped passes: the fewer checkpoints, the more advances."""
    return round(STEPS[case] * (1 + 8 / checkpoints)), STEPS[case]


def seconds(case, checkpoints, call, advance, taped):
    """The truth: a price for the call, for each advance and for each taped pass."""
    advances, reversed_steps = costs(case, checkpoints)
    return call + advance * advances + taped * reversed_steps


@given(st.floats(0, 1e-2), st.floats(1e-6, 1e-3), st.floats(1e-6, 1e-2))
def test_what_follows_the_law_is_found_again_between_and_at_the_samples(call, advance, taped):
    """Without noise, at counts and a horizon that were timed, and at counts between them."""
    at = lambda case, count: seconds(case, count, call, advance, taped)
    law = SecondsLaw({(case, count): [at(case, count)] * 5 for case in STEPS for count in (2, 8, 64)}, costs)
    for case in STEPS:
        for count in (2, 4, 8, 16, 64):
            assert law.at(case, count).likely == pytest.approx(at(case, count), rel=0.02)
            assert law.at(case, count).low <= law.at(case, count).likely <= law.at(case, count).high


@pytest.mark.parametrize("seed", range(5))
def test_noisy_samples_predict_held_out_counts_within_two_of_its_deviations(seed):
    """Ten per cent of noise on six samples."""
    rng = np.random.default_rng(seed)
    at = lambda case, count: seconds(case, count, 1e-3, 1e-5, 6e-5)
    noisy = lambda case, count: list(at(case, count) * np.exp(rng.normal(0, 0.1, 5)))
    law = SecondsLaw({(case, count): noisy(case, count) for case in STEPS for count in (2, 8, 64)}, costs)
    for count in (3, 5, 16, 32):
        said = law.at(CASE, count)
        assert (said.low / said.likely) ** 2 <= at(CASE, count) / said.likely <= (said.high / said.likely) ** 2


def test_what_the_law_leaves_out_is_corrected_near_the_samples_and_less_far_away():
    """One count takes 20 % longer than its passes: itself, its neighbours, and hardly a count far away."""
    law = SecondsLaw(
        {
            (CASE, count): [seconds(CASE, count, 0.0, 1e-5, 6e-5) * (1.2 if count == 64 else 1)] * 5
            for count in (2, 8, 64)
        },
        costs,
    )
    excess = [law.at(CASE, count).likely / seconds(CASE, count, 0.0, 1e-5, 6e-5) for count in (64, 48, 8)]
    assert excess[0] == pytest.approx(1.2, rel=0.05)
    assert excess[0] > excess[1] > excess[2]


def test_a_step_costs_what_an_advance_does_or_a_share_where_samples_do_not_part_it():
    """With two counts it is told apart; with one it is at most the call's share."""
    at = lambda count: seconds(CASE, count, 0.0, 1e-4, 0.0)
    assert SecondsLaw({(CASE, c): [at(c)] * 5 for c in (2, 8, 64)}, costs).step_seconds == pytest.approx(1e-4, rel=0.05)
    alone = SecondsLaw({(CASE, 8): [at(8)] * 5}, costs)
    assert 0 < alone.step_seconds <= at(8) / 1000


def test_far_from_every_sample_the_range_is_as_wide_as_the_prior():
    """A count that nobody timed nearby is less certain than one that was."""
    law = SecondsLaw({(CASE, 4): [0.1] * 9}, costs)
    near, far = law.at(CASE, 4), law.at(CASE, 4096)
    assert near.high / near.low < 1.1 < far.high / far.low
