"""What an observation says of the steps of a problem, against its entries counted one by one."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import AutotuneError
from autotune.adjoints import Work
from autotune.errors import ProblemChangedError
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.wire import encode
from autotune.problem.differences import component_differences, differences
from autotune.problem.steps import Observation, SiteSteps, decode_observation, is_current, seen_or_failed
from profiles import AdjointName, DeviceKey, ProblemKey
from tests.autotune.rows import a_row

entries = st.lists(st.integers(1, 500), min_size=1, max_size=8).map(tuple)


def seen(*sites: SiteSteps, **changes: object) -> Observation:
    """Observe sites at one horizon."""
    return Observation(**{"horizon": 10, "tolerance": 1e-3, "sites": sites, **changes})


@given(st.lists(entries, min_size=1, max_size=3), st.floats(0, 1))
def test_steps_and_quantiles_are_the_largest_over_call_sites(sites: list[tuple[int, ...]], share: float) -> None:
    """A quantile is the smallest entry that at least this share does not exceed."""
    found = seen(*[SiteSteps(site=f"{number}", steps=steps) for number, steps in enumerate(sites)])
    assert found.steps == max(max(steps) for steps in sites)

    def quantile(steps: tuple[int, ...]) -> int:
        enough = [one for one in steps if sum(other <= one for other in steps) >= share * len(steps) - 1e-9]
        return min(enough)

    assert found.quantile(share) == max(map(quantile, sites))
    assert (found.accepted, found.rejected) == (found.steps, 0)


def test_of_an_adaptive_solve_accepted_and_rejected_steps_are_told_apart() -> None:
    """Each by its own largest entry; a plain loop beside it accepts every pass."""
    adaptive = SiteSteps(site="a", steps=(10, 9), accepted=(6, 8), rejected=(4, 1), max_steps=100)
    plain = SiteSteps(site="b", steps=(7,))
    assert (seen(adaptive, plain).steps, seen(adaptive, plain).accepted, seen(adaptive).rejected) == (10, 8, 4)
    assert (seen().steps, seen().accepted, seen().rejected, seen().quantile(0.5)) == (None, None, None, None)


@pytest.mark.parametrize(
    ("changes", "visited"),
    [({}, 8), ({"accepted_from": None}, 10), ({"mapped": True}, 10), ({"accepted": (), "rejected": ()}, 10)],
)
def test_rejected_steps_are_left_out_from_a_count_on_of_a_solve_that_is_not_mapped(changes: dict, visited: int) -> None:
    """Else our backward pass visits all of them."""
    parts = {"steps": (10, 9), "accepted": (6, 8), "rejected": (4, 1), "max_steps": 100, "accepted_from": 5, **changes}
    site = SiteSteps(site="a", **parts)
    assert site.reversed_steps == visited
    work = seen(site).work()
    assert work is not None
    assert work.switches == ((2, 5, 100) if visited == 8 else (2, 100))
    assert work.everything == 100
    assert dataclasses.replace(work, switches=(), everything=None) == Work(
        steps=10, reversed_steps=visited, accepted=8 if site.accepted else 10, accepted_from=5 if visited == 8 else 1
    )
    assert (work.visited(4), work.visited(5)) == (10, visited)


def test_of_several_solves_the_last_that_visits_more_than_the_rest_says_from_which_count_on() -> None:
    """A solve that never makes more steps than are visited anyway says nothing."""
    long = SiteSteps(site="a", steps=(100,), accepted=(50,), accepted_from=2)
    middle = SiteSteps(site="b", steps=(60,), accepted=(30,), accepted_from=10)
    short = SiteSteps(site="c", steps=(40,), accepted=(20,), accepted_from=90)
    plain = SiteSteps(site="d", steps=(45,))
    found = seen(long, middle, short, plain).work()
    assert found is not None
    assert found.everything is None  # of a loop without a bound
    assert found.switches == (2, 10, 90, 129, 2049)
    assert dataclasses.replace(found, switches=()) == Work(steps=100, reversed_steps=50, accepted=50, accepted_from=10)


def test_a_note_that_does_not_tell_from_which_count_on_is_an_older_one() -> None:
    """It is counted again; what nothing was seen of is told in full."""
    made = encode(seen(SiteSteps(site="a", steps=(10,))))
    assert is_current(made)
    del made["sites"][0]["accepted_from"]
    assert not is_current(made)
    assert is_current(encode(seen(note="n")))


def test_without_a_gradient_none_is_visited_and_without_steps_there_is_no_work() -> None:
    """The steps themselves are made all the same."""
    site = SiteSteps(site="a", steps=(10,))
    assert seen(site).work(forward_only=True) == Work(steps=10, reversed_steps=0, accepted=10)
    assert seen().work() is None
    assert seen(SiteSteps(site="a", steps=(0,))).work() is None


@given(
    st.builds(
        SiteSteps, site=st.text(max_size=5), steps=entries, accepted=st.one_of(st.just(()), entries),
        max_steps=st.one_of(st.none(), st.integers(1, 9)), truncated=st.integers(0, 3), mapped=st.booleans(),
        accepted_from=st.one_of(st.none(), st.integers(1, 9)),
    ),
    st.booleans(),
)  # fmt: skip
def test_an_observation_is_read_back_from_json(site: SiteSteps, differentiated: bool) -> None:
    """As it crosses the line between processes, and as a store notes it."""
    made = seen(site, differentiated=differentiated, note="n", mesh="x=2", repeats=3)
    assert decode_observation(json.loads(json.dumps(encode(made)))) == made


def test_what_fails_at_one_case_is_what_was_seen_there() -> None:
    """With the user's own frames after its line; a problem that was edited ends everything."""
    question = ProbeRequest(problem="m:make", horizon=7, tolerance=1e-5)

    def failing(error: Exception):
        def observe(asked: ProbeRequest) -> Observation:
            raise error

        return observe

    found = seen_or_failed(failing(AutotuneError("no steps", frames=("  m.py:3 in make",))), question)
    assert (found.horizon, found.tolerance, found.steps) == (7, 1e-5, None)
    assert found.failure == "no steps\n  m.py:3 in make"
    with pytest.raises(ProblemChangedError):
        seen_or_failed(failing(ProblemChangedError("edited")), question)
    with pytest.raises(ZeroDivisionError):
        seen_or_failed(failing(ZeroDivisionError()), question)
    assert seen_or_failed(lambda asked: seen(), question) == seen()


# --- how two problems differ


def key(**components: str) -> ProblemKey:
    """A problem of some components."""
    return ProblemKey(name="m:make", components=components)


@pytest.mark.parametrize(
    ("known", "today", "said"),
    [
        ({"source": "a"}, {"source": "a"}, []),
        ({"source": "a"}, {"source": "b"}, ["source of the module: stored a, here b"]),
        ({"program": "p"}, {}, ["traced program: stored p, here none"]),
        ({}, {"set": "w=8"}, ["--set values: stored none, here w=8"]),
        ({"odd": "1"}, {"odd": "2"}, ["odd: stored 1, here 2"]),
        ({"shapes": "f32[3] f32[4]"}, {"shapes": "f32[3] f32[5]"}, ["shapes: stored f32[4], here f32[5]"]),
        ({"shapes": "f32[3]"}, {"shapes": "f32[3] f32[5]"}, ["shapes: stored f32[3], here f32[3] f32[5]"]),
        (
            {"versions": "jax 1 jaxlib 2 old 3"},
            {"versions": "jax 1 jaxlib 4 new 5"},
            ["jaxlib: stored 2, here 4, new: stored none, here 5, old: stored 3, here none"],
        ),
        (
            {"source": "a", "program": "p"},
            {"source": "b", "program": "q"},
            ["traced program: stored p, here q", "source of the module: stored a, here b"],
        ),
    ],
)
def test_components_that_differ_are_named_with_both_sides(
    known: dict[str, str], today: dict[str, str], said: list[str]
) -> None:
    """What is equal in a list of words is left out."""
    assert component_differences(key(**known), key(**today)) == said


def test_a_row_differs_by_its_device_and_ours_by_the_version_of_ckpt_tune_too() -> None:
    """Of several devices the number is said; a row that knows no version is not held to one."""
    here = DeviceKey(platform="gpu", kind="B")
    row = a_row(4, 0.5, problem=key(source="a"), device=DeviceKey(platform="gpu", kind="A", count=4))
    assert differences(row, key(source="a"), here) == ["device: stored 4 x A, here B"]
    same = a_row(4, 0.5, problem=key(source="a"), device=here)
    assert differences(same, key(source="a"), here) == []
    old = a_row(4, 0.5, problem=key(source="a"), device=here, versions={"ckpt-tune": "0.0.0"})
    (reason,) = differences(old, key(source="a"), here)
    assert reason.startswith("ckpt-tune: stored 0.0.0, here ")
    stock = a_row(
        4, 0.5, problem=key(source="a"), device=here, versions={"ckpt-tune": "0.0.0"}, adjoint=AdjointName.DIFFRAX
    )
    assert differences(stock, key(source="a"), here) == []
