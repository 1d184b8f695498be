"""The law of seconds against sums of passes at known prices."""

import math
import statistics

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


def spread_of(said):
    """The standard deviation of a forecast, as a log ratio; its bounds lie as far above as below."""
    assert said.high / said.likely == pytest.approx(said.likely / said.low)
    return math.log(said.high / said.likely)


def spread_at(distance, noise):
    """One sample: a prior of 15 % whose covariance falls off as exp(-distance / 1.5)."""
    near = 0.15**2 * math.exp(-distance / 1.5)
    return math.sqrt(0.15**2 - near**2 / (0.15**2 + noise**2))


@pytest.mark.parametrize("count", [8, 9, 16, 64, 4096])
@pytest.mark.parametrize("case", [CASE, SHORTER])
def test_certainty_falls_off_with_the_logarithms_of_count_and_steps(case, count):
    """By the formula for one sample: its own noise is 3 %, since samples that agree say nothing of their noise."""
    law = SecondsLaw({(CASE, 8): [0.1] * 5}, costs)
    distance = abs(math.log(count / 8)) + abs(math.log(STEPS[case] / STEPS[CASE]))
    assert spread_of(law.at(case, count)) == pytest.approx(spread_at(distance, 0.03))


@pytest.mark.parametrize(
    ("logs", "noise"),
    [
        ((0.0,), 0.06),
        ((0.0, 0.0), 0.06),
        ((0.0, 0.0, 0.0), 0.03),
        ((-0.1, -0.05, 0.0, 0.05, 0.1), 1.2533 * 1.4826 * 0.05 / math.sqrt(5)),
        ((-0.2, -0.1, 0.0, 0.1, 0.2), 1.2533 * 1.4826 * 0.1 / math.sqrt(5)),
        ((-0.02, -0.01, 0.0, 0.01, 0.02), 0.03),
        ((-0.9, -0.5, 0.0, 0.5, 0.9), 0.1),
        ((-0.1, -0.1, 0.0, 0.1, 0.1), 1.2533 * 1.4826 * 0.1 / math.sqrt(5)),
    ],
)
def test_the_noise_of_a_sample_is_that_of_its_median_within_bounds(logs, noise):
    """Fewer than three samples are taken for twice as uncertain as three that agree."""
    law = SecondsLaw({(CASE, 8): [0.1 * math.exp(log) for log in logs]}, costs)
    said = law.at(CASE, 8)
    assert said.likely == pytest.approx(0.1)
    assert spread_of(said) == pytest.approx(spread_at(0, noise))


def test_of_samples_the_median_counts():
    """One call that took ten times as long moves nothing."""
    law = SecondsLaw({(CASE, 8): [0.1, 0.1, 0.1, 0.1, 1.0]}, costs)
    assert law.at(CASE, 8).likely == pytest.approx(statistics.median([0.1, 0.1, 0.1, 0.1, 1.0]))


def test_what_writing_a_checkpoint_costs_is_told_up_to_everything_stored():
    """A price for each checkpoint beside the passes; beyond all steps nothing more is written."""
    truth = lambda case, count: seconds(case, count, 0.0, 1e-5, 6e-5) + 2e-4 * min(count, STEPS[case])
    counts = (2, 8, 64, 300, 1000)
    law = SecondsLaw({(case, count): [truth(case, count)] * 5 for case in STEPS for count in counts}, costs)
    for count in (4, 30, 150, 700, 1000, 5000):
        assert law.at(CASE, count).likely == pytest.approx(truth(CASE, count), rel=0.03)
    assert law.at(CASE, 5000).likely == pytest.approx(law.at(CASE, 1000).likely, rel=0.03)


def test_samples_count_by_their_share_and_not_by_their_seconds():
    """Two counts are told within a few per cent though one takes a thousand times as long."""
    steep = lambda case, count: (10 if count == 64 else 10_000, 1)
    law = SecondsLaw({(CASE, 64): [1e-3] * 5, (CASE, 2): [1.2] * 5}, steep)
    assert law.at(CASE, 64).likely == pytest.approx(1e-3, rel=0.05)
    assert law.at(CASE, 2).likely == pytest.approx(1.2, rel=0.05)


def test_where_no_gradient_is_taken_there_is_nothing_to_reverse():
    """No passes are taped, whatever the count; seconds are those of the advances."""
    forward = lambda case, count: (STEPS[case], 0)
    law = SecondsLaw({(case, 4): [1e-4 * STEPS[case]] * 5 for case in STEPS}, forward)
    assert law.at(CASE, 4).likely == pytest.approx(0.1, rel=0.01)
    assert law.at(SHORTER, 64).likely == pytest.approx(0.04, rel=0.01)
    assert law.step_seconds == pytest.approx(1e-4, rel=0.01)


def test_a_step_that_samples_do_not_part_is_the_smallest_share_of_a_pass_in_any_call():
    """Where nothing is advanced untaped; the shares of the two calls are 1e-4 and 2e-5."""
    taped_only = lambda case, count: (0, 100 if count == 4 else 1000)
    law = SecondsLaw({(CASE, 4): [0.01] * 5, (CASE, 9): [0.02] * 5}, taped_only)
    assert law.step_seconds == pytest.approx(2e-5)


def test_another_path_of_the_program_is_no_outlier_of_the_first():
    """One count is 24 times faster, on a path of its own: it is known, and every other is predicted as without it."""
    at = lambda case, count: seconds(case, count, 1e-3, 1e-5, 6e-5)
    path = lambda case, count: int(count >= STEPS[case])
    samples = {(CASE, count): [at(CASE, count)] * 5 for count in (2, 8, 64)}
    alone = SecondsLaw(samples, costs, path)
    both = SecondsLaw({**samples, (CASE, 1000): [at(CASE, 1000) / 24] * 5}, costs, path)
    assert both.at(CASE, 1000).likely == pytest.approx(at(CASE, 1000) / 24, rel=0.05)
    for count in (3, 16, 64, 500, 999):
        assert both.at(CASE, count) == pytest.approx(alone.at(CASE, count))
    untimed, timed = alone.at(CASE, 1000), alone.at(CASE, 999)
    assert untimed.low / untimed.likely < 0.9 * timed.low / timed.likely  # a path that was not timed may jump
