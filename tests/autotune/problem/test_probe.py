"""Counting steps through the adjoint, against numbers that the problems fix by construction."""

import dataclasses
import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from autotune import AutotuneError
from autotune.adjoints import make_adjoint
from autotune.measuring.wire import encode
from autotune.problem.loading import load_problem
from autotune.problem.probe import observe
from autotune.problem.probe_adjoint import ProbeAdjoint
from autotune.problem.steps import Observation, SiteSteps, decode_observation
from profiles import AdjointName
from tests.conftest import REPOSITORY

PROBLEMS = REPOSITORY / "tests/assets/problems"
USES, DECAY = PROBLEMS / "shapes_of_use.py", PROBLEMS / "decay.py"


def seen(factory, *where, path=USES, variations=(), repeats=1, **values):
    """Observe a problem."""
    problem = load_problem(f"{path}:{factory}", set_values=values)
    return observe(problem, *where, variations=variations, repeats=repeats)


def steps_by_site(observation):
    """Sort each call site's entries."""
    return [sorted(site.steps) for site in observation.sites]


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("make_donating", [[5]]),
        ("make_static", [[5]]),
        ("make_module", [[5]]),
        ("make_closed_over_tracer", [[7]]),
        ("make_batch", [[3, 6, 9, 12]]),
        ("make_two_solves", [[5], [8, 12]]),
        ("make_nested", [[3] * 10, [10]]),
        ("make_hessian", [[4]]),
        ("make_plain_loop", [[9]]),
        ("make_module_level", [[6]]),
    ],
)
def test_every_call_site_and_lane_is_counted_however_fn_is_written(factory, expected):
    """Jitted, donating, with modules, closed-over values, lanes, several solves, nested solves, Hessians."""
    found = seen(factory)
    assert sorted(steps_by_site(found)) == sorted(expected)
    assert found.steps == max(max(steps) for steps in expected)
    assert all(site.site.startswith("shapes_of_use.py:") for site in found.sites)


def test_adaptive_steps_agree_with_what_the_solve_itself_reports():
    """Accepted and rejected steps are those of the solution's own statistics."""
    found = seen("make", 20, 1e-4, path=DECAY)
    controller = diffrax.PIDController(rtol=1e-4, atol=1e-4)
    _, (weights, y0) = load_problem(f"{DECAY}:make").factory(adjoint=diffrax.RecursiveCheckpointAdjoint())
    stats = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, w: jnp.tanh(w @ y) * jnp.cos(t)), diffrax.Heun(), 0.0, 20.0, 0.1, y0, weights,
        stepsize_controller=controller,
    ).stats  # fmt: skip
    assert found.steps == int(stats["num_steps"])
    assert found.accepted == int(stats["num_accepted_steps"])
    assert found.rejected == int(stats["num_rejected_steps"]) > 0


def test_a_probe_is_not_swallowed_by_a_jit_cache():
    """The same problem probed twice in one process is counted twice, though the solve is jitted inside Diffrax."""
    first, second = seen("make_static"), seen("make_static")
    assert first.sites[0].steps == second.sites[0].steps == (5,)


def test_a_probe_leaves_nothing_in_a_jit_cache_of_the_users():
    """A function that is jitted once for a whole module is probed each time, and its gradient stays what it is."""
    problem = load_problem(f"{USES}:make_module_level")
    before = [observe(problem).steps for _ in range(2)]
    call = problem.make(make_adjoint(AdjointName.OURS, 2))
    gradient = call.fn(*call.args)
    assert before == [6, 6]
    assert float(gradient) != 0.0
    assert observe(problem, 4).steps == 4


def test_repeats_and_variations_add_entries():
    """Two repeats of three seeds are six entries; noise makes them differ, and quantiles describe them."""
    found = seen("make_sde", variations=[{"seed": seed} for seed in range(3)], repeats=2)
    (site,) = found.sites
    assert len(site.steps) == 6
    assert len(set(site.steps)) > 1
    assert found.quantile(1.0) == max(site.steps) == found.steps
    assert min(site.steps) <= (found.quantile(0.5) or 0) <= max(site.steps)


def test_shapes_without_data_are_not_run_and_that_is_said():
    """Unknown steps are None, with the reason."""
    found = seen("make_abstract")
    assert found.steps is None
    assert found.accepted is None
    assert "shapes and no data" in found.note


@pytest.mark.parametrize("throw", [True, False])
def test_reaching_max_steps_is_an_error_with_both_figures(throw):
    """The text names the bound, the horizon, and how far the solve came."""
    with pytest.raises(AutotuneError) as caught:
        seen("make", 10, path=DECAY, adaptive=False, max_steps=30, throw=throw)
    assert "max_steps=30 at horizon 10, at time 3 of 10" in str(caught.value)
    assert "decay.py:" in str(caught.value)


def test_exactly_max_steps_is_enough():
    """A solve that needs its last step does not fail."""
    assert seen("make", 3, path=DECAY, adaptive=False, max_steps=30).steps == 30


def test_an_adjoint_that_is_never_used_is_an_error():
    """There is nothing to tune, and the text says how there would be."""
    with pytest.raises(AutotuneError, match=r"never used its adjoint.*hand `adjoint` on"):
        seen("make_unused", path=DECAY)


def test_gradients_under_the_probe_are_zero_and_of_the_right_shape():
    """What follows the solves in `fn` (an optimiser's update) runs on."""
    problem = load_problem(f"{DECAY}:make")
    call = problem.make(ProbeAdjoint())
    _, gradient = eqx.filter_jit(call.fn)(*call.args)
    assert gradient.shape == call.args[0].shape
    assert not gradient.any()


def test_a_solve_that_fails_is_an_error():
    """A step size that underflows is not a number of steps to tune for."""
    with pytest.raises(AutotuneError, match=r"the solve at \w+.py:\d+ failed"):
        observe(load_problem(_failing))


def _failing(*, adjoint):
    def fn(y0):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: y**2), diffrax.Heun(), 0.0, 10.0, 0.1, y0, adjoint=adjoint,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3, dtmin=1e-2, force_dtmin=False),
        ).ys  # fmt: skip

    return fn, (jnp.ones(1),)


def test_an_observation_survives_the_wire():
    """What a worker saw is what its parent reads."""
    observation = Observation(
        horizon=100, tolerance=1e-3, repeats=2, mesh="x=2",
        sites=(SiteSteps(site="a.py:1", steps=(3, 4), accepted=(2, 4), rejected=(1, 0), max_steps=9, truncated=1),),
    )  # fmt: skip
    back = decode_observation(json.loads(json.dumps(encode(observation))))
    assert back == observation
    assert type(back.horizon) is int
    as_float = dataclasses.replace(observation, horizon=100.0)
    assert type(decode_observation(json.loads(json.dumps(encode(as_float)))).horizon) is float


def test_quantiles_of_a_plain_loop_take_every_pass_for_accepted():
    """A loop without a controller accepts what it does."""
    observation = Observation(horizon=None, tolerance=None, sites=(SiteSteps(site="a", steps=(1, 9, 5)),))
    assert (observation.accepted, observation.rejected) == (9, 0)
    assert [observation.quantile(q) for q in (0.0, 0.3, 0.5, 0.9, 1.0)] == [1, 1, 5, 9, 9]


def test_many_lanes_are_told_by_one_callback():
    """XLA compiles as many callbacks for five hundred lanes as for two; each lane is still told."""
    told: list[int] = []

    def solve(rate):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, rate: -rate * y), diffrax.Heun(), 0.0, 1.0, 0.1, 1.0, rate,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6),
            adjoint=ProbeAdjoint(report=lambda *, steps, **_: told.append(int(steps))),
        ).ys  # fmt: skip

    def callbacks(lanes):
        return jax.jit(jax.vmap(solve)).lower(jnp.ones(lanes)).as_text().count("callback")

    assert callbacks(512) == callbacks(2)
    jax.block_until_ready(jax.jit(jax.vmap(solve))(jnp.linspace(1.0, 9.0, 512)))
    jax.effects_barrier()
    assert len(told) == 512
    assert len(set(told)) > 2
