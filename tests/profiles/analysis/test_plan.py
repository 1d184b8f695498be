"""Plans: what a device holds, against brute force over every count."""

import dataclasses
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotune.choosing.plan_laws import steps_law
from autotune.model.bytes_law import BytesLaw
from profiles import AdjointName, Device, Laws, PlanRequest, Profile, ProfilesError, plan, plan_table
from tests.profiles.makers import a_measurement, a_sweep

MIB = 2**20


def recompute(steps: int, checkpoints: int) -> float:
    """A factor of the tests' own: falls as the count rises, rises with the steps, 2 when everything is stored."""
    return 2.0 + math.log(steps / checkpoints)


LAWS = Laws(recompute=recompute, sizes=lambda measured: BytesLaw(measured, AdjointName.DIFFRAX), steps=steps_law)


def a_device(mib: float, **fields) -> Device:
    """A device of some MiB."""
    return Device(name=f"{mib:g}mib", memory_bytes=int(mib * MIB), **fields)


@pytest.fixture
def profile() -> Profile:
    """Peak bytes are 3 MiB + 2 MiB a checkpoint, steps are the horizon at tolerance 1e-3."""
    return Profile(name="spirals:make", measurements=tuple(a_sweep()))


def peak(count: int) -> int:
    """The bytes of the sweep's rule."""
    return (3 + 2 * count) * MIB


@settings(max_examples=40, deadline=None)
@given(st.floats(1, 400), st.floats(2, 5), st.sampled_from([0.0, 0.1, 0.5]))
def test_a_row_is_what_brute_force_over_every_count_finds(mib: float, limit: float, margin: float):
    """Count, factor, the memory for the limit and the memory that buys nothing more, against all counts."""
    profile = Profile(name="x", measurements=tuple(a_sweep()))
    request = PlanRequest(max_recompute=limit, margin=margin, tolerances=(1e-3,))
    device = a_device(mib)
    for row in plan(profile, [device], request, LAWS).rows:
        usable = device.memory_bytes * (1 - margin)
        counts = range(1, row.steps + 1)
        fits = [count for count in counts if peak(count) <= usable]
        if fits:
            best = min(recompute(row.steps, count) for count in fits)
            assert recompute(row.steps, row.checkpoints or 1) == pytest.approx(best)
            known = {r.checkpoints: r.recompute_factor for r in a_sweep() if r.case == row.case}
            assert row.recompute_factor == pytest.approx(known.get(row.checkpoints or 1) or best)
            assert row.checkpoints == min(c for c in fits if recompute(row.steps, c) <= best)
            assert row.checkpoints is not None
            assert row.peak_bytes == peak(row.checkpoints)
        else:
            assert (row.checkpoints, row.peak_bytes, row.recompute_factor) == (None, None, None)
        wanted = [count for count in counts if recompute(row.steps, count) <= limit]
        assert row.needed_checkpoints == min(wanted)
        assert row.needed_bytes == peak(min(wanted))
        assert row.saturated_bytes == peak(row.steps)
        assert row.smallest_bytes == peak(1)


def test_rows_are_those_measured_where_no_horizon_is_asked_for(profile: Profile):
    """Every measured case once for each device, with the steps that were counted."""
    made = plan(profile, [a_device(20), a_device(2000)], PlanRequest(), LAWS)
    assert len(made.rows) == 2 * len(profile.cases)
    assert {row.case for row in made.rows} == set(profile.cases)
    assert all(row.steps_evidence == "measured" for row in made.rows)
    assert {row.bytes_evidence for row in made.rows if row.device == "20mib"} == {"interpolated"}
    assert {row.bytes_evidence for row in made.rows if row.device == "2000mib"} == {"extrapolated"}
    assert any("Seconds do not" in note for note in made.notes)


def test_horizons_that_were_not_measured_are_told_and_said_to_be(profile: Profile):
    """Steps at asked horizons come from the measured ones, with their evidence."""
    request = PlanRequest(horizons=(100, 300, 1000), tolerances=(1e-3,))
    rows = plan(profile, [a_device(50)], request, LAWS).rows
    assert [(row.case.horizon, row.steps, row.steps_evidence) for row in rows] == [
        (100, 100, "measured"), (300, 300, "interpolated"), (1000, 1000, "extrapolated"),
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [2.0, 3.0])
def test_the_longest_horizon_is_the_longest_within_the_limit(profile: Profile, limit: float):
    """One step more would break the limit with the largest count that fits; the horizon is that of the steps."""
    device = a_device(23.1 / 0.9)  # ten checkpoints, after the margin
    request = PlanRequest(tolerances=(1e-3,), max_recompute=limit)
    (found,) = plan(profile, [device], request, LAWS).longest
    assert found.checkpoints == 10
    assert found.steps == max(n for n in range(1, 10_000) if n <= 10 or recompute(n, 10) <= limit)
    assert found.horizon == pytest.approx(found.steps)


def test_a_device_too_small_for_anything_holds_no_horizon(profile: Profile):
    """Nothing fits, and the smallest bytes that would do are still said."""
    made = plan(profile, [a_device(1)], PlanRequest(), LAWS)
    assert {(row.checkpoints, row.smallest_bytes) for row in made.rows} == {(None, peak(1))}
    assert {(one.steps, one.horizon, one.checkpoints) for one in made.longest} == {(0, None, None)}


def test_a_device_that_holds_everything_buys_nothing_with_more(profile: Profile):
    """Where all is stored the factor is 2, the count is the number of steps, and the bytes are the saturated ones."""
    for row in plan(profile, [a_device(2**24)], PlanRequest(), LAWS).rows:
        assert (row.checkpoints, row.recompute_factor, row.peak_bytes) == (row.steps, 2.0, row.saturated_bytes)


def windowed(steps: int, checkpoints: int, windows: int) -> float:
    """A factor of the tests' own: states in host memory do as much as half as many on the device."""
    return 2.0 + math.log(steps / min(steps, checkpoints + windows // 2))


LAWS_WITH_HOST = dataclasses.replace(LAWS, windowed=windowed)


@settings(max_examples=40, deadline=None)
@given(st.floats(8, 200), st.floats(2, 4), st.none() | st.floats(1, 400))
@example(146.0, 3.0, None)  # measured within the limit, where the law alone says that it is not
def test_host_memory_is_the_least_that_keeps_the_limit(mib: float, limit: float, host_mib: float | None):
    """Against every number of states; a device within the limit, or host memory for no state, is told nothing of."""
    profile = Profile(name="x", measurements=tuple(a_sweep()))
    host_bytes = None if host_mib is None else int(host_mib * MIB)
    request = PlanRequest(max_recompute=limit, tolerances=(1e-3,), host_bytes=host_bytes)
    for row in plan(profile, [a_device(mib)], request, LAWS_WITH_HOST).rows:
        allowed = row.steps if host_mib is None else min(row.steps, int(host_mib * MIB) // (2 * MIB))
        if row.recompute_factor is None or row.recompute_factor <= limit or not allowed:
            assert (row.host_windows, row.host_bytes, row.host_recompute_factor) == (None, None, None)
            continue
        assert row.checkpoints is not None
        keeps = [w for w in range(1, allowed + 1) if windowed(row.steps, row.checkpoints, w) <= limit]
        assert row.host_windows == min(keeps, default=allowed)
        assert row.host_bytes == row.host_windows * 2 * MIB
        assert row.host_recompute_factor == windowed(row.steps, row.checkpoints, row.host_windows)


def test_an_adjoint_without_tiers_is_planned_without_host_memory(profile: Profile):
    """Where theory knows no windows, none are told of."""
    rows = plan(profile, [a_device(20)], PlanRequest(), LAWS).rows
    assert {row.host_windows for row in rows} == {None}


def test_seconds_are_given_only_where_something_supports_them(profile: Profile):
    """On the measured device, or with a relative speed of the user's; a price turns them into a cost."""
    measured = a_device(60 / 0.9, kinds=("CPU",), price_per_hour=3600.0, currency="EUR")
    faster = dataclasses.replace(a_device(60 / 0.9), name="faster", relative_speed=4.0)
    other = dataclasses.replace(a_device(60 / 0.9), name="other", price_per_hour=1.0)
    made = plan(profile, [measured, faster, other], PlanRequest(), LAWS)
    for case in profile.cases:
        one, two, three = (row for row in made.rows if row.case == case)
        fits = [r for r in profile.rows(case) if r.run_median_seconds and r.peak_bytes and r.peak_bytes <= 60 * MIB]
        least = min(r.run_median_seconds for r in fits if r.run_median_seconds)
        assert one.run_seconds == pytest.approx(least)
        assert one.cost == pytest.approx(least)
        assert one.currency == "EUR"
        assert two.run_seconds == pytest.approx(least / 4)
        assert two.cost is None
        assert (three.run_seconds, three.cost) == (None, None)


def test_settings_are_planned_apart():
    """Rows of different `--set` values have different bytes and are not mixed."""
    small = a_sweep(tolerances=(1e-3,))
    large = [
        dataclasses.replace(row, set_values={"batch": 8}) for row in a_sweep(tolerances=(1e-3,), state_bytes=8 * MIB)
    ]
    profile = Profile(name="x", measurements=(*small, *large))
    rows = plan(profile, [a_device(100)], PlanRequest(), LAWS).rows
    assert {(row.case.set_values, row.smallest_bytes) for row in rows} == {
        ((), 5 * MIB), ((("batch", 8),), 40 * MIB),
    }  # fmt: skip


def test_a_problem_without_horizon_or_tolerance_is_planned():
    """None stands for what the factory does not take; asking for horizons then is an error."""
    profile = Profile(name="x", measurements=tuple(a_sweep(horizons=(None,), tolerances=(None,))))
    made = plan(profile, [a_device(50)], PlanRequest(), LAWS)
    assert [(row.case.horizon, row.steps) for row in made.rows] == [(None, 50)]
    assert made.longest[0].horizon is None
    assert made.longest[0].steps >= 1
    with pytest.raises(ProfilesError, match="takes no horizon"):
        plan(profile, [a_device(50)], PlanRequest(horizons=(10,)), LAWS)


def test_what_cannot_be_planned_is_said(profile: Profile):
    """A tolerance that was not measured, a profile of failures, and limits that make no sense give one line each."""
    with pytest.raises(ProfilesError, match=r"tolerance 0\.5, only at 1e-06, 0\.001"):
        plan(profile, [a_device(50)], PlanRequest(tolerances=(0.5,)), LAWS)
    failed = a_measurement(status="failed", peak_bytes=None, peak_source=None, run_seconds=())
    with pytest.raises(ProfilesError, match="no measured bytes"):
        plan(Profile(name="x", measurements=(failed,)), [a_device(50)], PlanRequest(), LAWS)
    for wrong in (
        lambda: PlanRequest(max_recompute=1.5),
        lambda: PlanRequest(margin=1.0),
        lambda: PlanRequest(margin=-0.1),
        lambda: PlanRequest(horizons=(0.0,)),
    ):
        with pytest.raises(ProfilesError):
            wrong()


def test_the_documented_defaults_are_those_of_the_code():
    """A plan asks for everything stored and leaves a tenth of the memory alone."""
    request = PlanRequest()
    assert (request.max_recompute, request.margin, request.horizons, request.tolerances) == (2.0, 0.1, (), ())


def test_few_counts_are_asked_of_theory_even_for_long_solves(profile: Profile):
    """Theory may be slow, so a device asks for some hundreds of counts, not for all."""
    asked = []

    def counted(steps: int, checkpoints: int) -> float:
        asked.append((steps, checkpoints))
        return recompute(steps, checkpoints)

    request = PlanRequest(horizons=(10**6,), tolerances=(1e-3,), max_recompute=4.0)
    plan(profile, [a_device(100_000)], request, dataclasses.replace(LAWS, recompute=counted))
    assert 0 < len(asked) < 1500


def test_the_table_of_a_plan_has_its_rows(profile: Profile):
    """One row a device and case, figures as numbers."""
    made = plan(profile, [a_device(20), a_device(1)], PlanRequest(), LAWS)
    frame = plan_table(made)
    assert frame["device"].tolist() == [row.device for row in made.rows]
    assert frame["needed_bytes"].tolist() == [row.needed_bytes for row in made.rows]
    assert frame["checkpoints"].isna().tolist().count(True) == len(profile.cases)
    assert str(frame["peak_bytes"].dtype) == "Int64"
