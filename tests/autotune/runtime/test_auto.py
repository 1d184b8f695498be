"""The count chosen at run time, on a small solve in this process."""

import dataclasses
import logging
import pathlib
import subprocess
import sys

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import adjoint as ours
import autotune
from autotune import AutotuneError
from autotune.machine.budget import Budget
from autotune.problem.loading import load_problem
from autotune.problem.steps import Observation, SiteSteps
from autotune.runtime import auto, opening, quick_probe
from profiles import Tier, open_store
from tests.autotune.fake_lab import lab
from tests.autotune.fake_machine import PROBLEM
from tests.conftest import REPOSITORY

STATE = 4096


def make(*, adjoint, horizon=1.0):
    """The gradient of a small solve of constant steps: 32 kB a state in double precision, 100 steps a unit."""

    def loss(y0):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y * y),
            diffrax.Heun(),
            t0=0.0,
            t1=horizon,
            dt0=0.01,
            y0=y0,
            adjoint=adjoint,
            max_steps=4096,
        )
        assert solution.ys is not None
        return jnp.sum(solution.ys)

    return eqx.filter_grad(loss), (jnp.ones(STATE),)


@pytest.fixture
def url(tmp_path: pathlib.Path) -> str:
    """A store of its own."""
    return str(tmp_path / "profiles.db")


def _forbid_probing(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(*_: object) -> None:
        raise AssertionError("it probed")

    monkeypatch.setattr(quick_probe.Probe, "run", probe)


def test_the_choice_fits_the_budget_and_is_stored_for_the_next_process(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first call probes and stores; the second reads; both are logged once and choose alike; gradients agree."""
    caplog.set_level(logging.INFO, logger="autotune")
    first = autotune.auto_adjoint(make, budget="1MiB", store=url)
    assert isinstance(first, ours.RecursiveCheckpointAdjoint)
    with open_store(url) as store:
        rows = store.measurements()
    assert 1 <= sum(bool(row.run_seconds) for row in rows) <= 3
    assert sum(row.compile_seconds is not None for row in rows) <= 3
    chosen = [row for row in rows if row.checkpoints == first.checkpoints]
    assert chosen
    assert all((row.peak_bytes or 0) <= 2**20 for row in chosen)
    assert len([record for record in caplog.records if "checkpoints of" in record.message]) == 1
    _forbid_probing(monkeypatch)
    second = autotune.auto_adjoint(make, budget="1MiB", store=url)
    assert (second.checkpoints, second.expected_steps) == (first.checkpoints, first.expected_steps)
    fn, args = make(adjoint=first)
    reference, _ = make(adjoint=diffrax.RecursiveCheckpointAdjoint())
    assert jnp.allclose(fn(*args), reference(*args), rtol=1e-5)


def test_memory_as_objective_times_nothing(url: str) -> None:
    """With objective="memory" no count is run."""
    autotune.auto_adjoint(make, budget="1MiB", store=url, objective="memory")
    with open_store(url) as store:
        assert not any(row.run_seconds for row in store.measurements())


def test_a_store_that_cannot_be_written_does_not_stop_the_choice(tmp_path: pathlib.Path) -> None:
    """Where the store is a place that no store can be in, the choice is made from the probe alone."""
    (tmp_path / "file").write_text("no folder")
    chosen = autotune.auto_adjoint(
        make, budget="1MiB", store=str(tmp_path / "file" / "profiles.db"), objective="memory"
    )
    assert chosen.checkpoints >= 1


def test_a_tier_that_a_tune_has_stored_is_taken_where_it_is_allowed(
    url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored row with a tier is a choice for those alone who let states lie there; the adjoint has its directory."""
    autotune.auto_adjoint(make, budget="1MiB", store=url)
    _forbid_probing(monkeypatch)
    with open_store(url) as store:
        row = next(row for row in store.measurements() if row.run_seconds)
        tier = Tier(name="disk", windows=7, transfer_cost=0.5)
        store.put(dataclasses.replace(row, tier=tier, run_seconds=(1e-9,), recompute_factor=2.0))
    directory = str(tmp_path)
    chosen = autotune.auto_adjoint(make, budget="1MiB", store=url, tiers=("disk",), directory=directory)
    assert (chosen.tier, chosen.windows, chosen.directory) == ("disk", 7, directory)
    assert autotune.auto_adjoint(make, budget="1MiB", store=url).tier is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tiers": ("tape",)}, "'tape' is neither 'host' nor 'disk'"),
        ({"tiers": "disk"}, "the disk tier, and it alone, has a directory"),
        ({"tiers": ("host",), "directory": "/tmp"}, "the disk tier, and it alone, has a directory"),
        ({"tiers": ("disk",), "directory": "/no/such"}, "not a directory that can be written to"),
    ],
)
def test_tiers_that_cannot_be_had_are_refused(url: str, options: dict, said: str) -> None:
    """Before anything is measured, in one line."""
    with pytest.raises(AutotuneError, match=said):
        autotune.auto_adjoint(make, budget="1MiB", store=url, **options)


def test_nothing_fits_is_an_error_that_names_the_smallest(url: str) -> None:
    """A hopeless budget is refused with the bytes that would do."""
    with pytest.raises(AutotuneError, match=r"fits 1.* the smallest needs .*KiB"):
        autotune.auto_adjoint(make, budget="1KiB", store=url, objective="memory")


def test_an_unknown_profile_says_what_to_run(url: str) -> None:
    """A name that is no profile and no module is answered with what there is and what to do."""
    with pytest.raises(AutotuneError, match="ckpt-tune tune"):
        autotune.auto_adjoint("nobody:make", budget="1MiB", store=url)


def test_inside_jit_it_is_refused(url: str) -> None:
    """Called while a function is traced it says to be called before."""

    def traced(x):
        autotune.auto_adjoint(make, budget="1MiB", store=url)
        return x

    with pytest.raises(AutotuneError, match="inside jit"):
        jax.jit(traced)(1.0)


def test_the_probe_leaves_no_copy_of_the_arguments(url: str) -> None:
    """After a choice as many arrays of the state's size are alive as before."""
    mine = jnp.ones(STATE)

    def alive() -> int:
        return sum(array.shape == (STATE,) for array in jax.live_arrays())

    before = alive()
    autotune.auto_adjoint(make, budget="1MiB", store=url, objective="memory")
    assert alive() <= before
    assert mine.shape == (STATE,)


def test_a_monitor_chooses_again_when_the_steps_leave_their_range(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the range nothing changes; at three times the steps the prediction follows, without another probe."""
    monitor = autotune.StepMonitor(make, budget="1MiB", store=url)
    _forbid_probing(monkeypatch)
    monkeypatch.setattr(opening, "open_store", lambda *_, **__: pytest.fail("the store was opened"))
    steps = monitor.choice.recommendation.accepted
    assert steps is not None
    assert not monitor.update({"num_accepted_steps": jnp.array([steps]), "num_steps": jnp.array([steps + 2])})
    assert monitor.update({"num_accepted_steps": 3 * steps, "num_steps": 3 * steps})
    assert monitor.adjoint.expected_steps == 3 * steps
    assert not monitor.update(3 * steps)


def test_a_probe_counts_the_steps_that_are_visited_at_each_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them below the count from which on rejected ones are left out: here 60, above the cliff of 45."""
    solve = SiteSteps(site="a", steps=(1000,), accepted=(800,), rejected=(200,), max_steps=4096, accepted_from=60)
    seen = Observation(horizon=None, tolerance=None, sites=(solve,), differentiated=True)
    machine = lab()
    monkeypatch.setattr("autotune.measuring.runners.InProcessRunner", lambda problem: machine)
    monkeypatch.setattr("autotune.problem.probe.observe", lambda *_, **__: seen)
    probe = quick_probe.Probe(
        quick_probe.AutoRequest(problem=make, budget=10**9), load_problem(make), key=PROBLEM,
        info=machine.device_info(), budget=Budget(bytes=10**9, margin_bytes=0, asked="1GB"), store=None,
    )  # fmt: skip
    probe.run([])
    visited = {trial.checkpoints: trial.reversed_steps for trial in machine.asked}
    assert min(visited) < 60 <= max(visited)
    assert visited == {count: 1000 if count < 60 else 800 for count in visited}


def test_a_schedule_of_horizons_probes_at_its_ends_only(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three horizons cost two probes; the middle one's steps lie between, and one count serves all."""
    probes = []
    run = quick_probe.Probe.run
    monkeypatch.setattr(quick_probe.Probe, "run", lambda self, rows: probes.append(1) or run(self, rows))
    schedule = autotune.AdjointSchedule(make, budget="1MiB", horizons=[0.5, 1.0, 2.0], store=url)
    assert len(probes) == 2
    assert 50 < schedule.expected_steps(horizon=1.0) < 200
    assert schedule(horizon=2.0).expected_steps == schedule.expected_steps(horizon=2.0)
    assert schedule.checkpoints >= schedule(horizon=0.5).checkpoints
    with pytest.raises(AutotuneError, match="not listed"):
        schedule(horizon=7.0)


def test_what_is_probed_in_double_precision_is_stored_as_such(url: str) -> None:
    """A row says in what precision it was measured, and the next process with that precision reads it."""
    with jax.enable_x64(True):
        choice = auto.auto_choice(auto.AutoRequest(problem=make, budget="8MiB"), store=url)
        again = auto.auto_choice(auto.AutoRequest(problem=make, budget="8MiB"), store=url)
    assert {row.x64 for row in choice.rows} == {True}
    assert again.source == "profile"


SHARDED = """
import sys
import diffrax, jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import autotune
from autotune import AutoRequest, auto_choice

mesh = Mesh(np.array(jax.devices()[: int(sys.argv[2])]), ("batch",))
split = NamedSharding(mesh, PartitionSpec("batch"))

def make(*, adjoint):
    def loss(y):
        field = diffrax.ODETerm(lambda t, y, args: jnp.sin(y))
        solution = diffrax.diffeqsolve(field, diffrax.Euler(), 0.0, 1.0, 0.01, y, adjoint=adjoint, max_steps=128)
        return jnp.sum(solution.ys)
    return jax.jit(jax.grad(loss), in_shardings=split), (jax.device_put(jnp.ones((4, 8192)), split),)

choice = auto_choice(AutoRequest(problem=make, budget=sys.argv[3], objective="memory"), store=sys.argv[1])
print(choice.checkpoints, choice.recommendation.peak_bytes, choice.budget.bytes)
"""


def test_on_several_devices_the_bytes_are_those_of_one_and_so_is_the_budget(tmp_path: pathlib.Path) -> None:
    """A batch over four devices holds four times the states, a quarter of each, within the same budget."""

    def choose(devices: int, budget: str) -> list[int]:
        environment = {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path),
            "PYTHONPATH": str(REPOSITORY), "PATH": "",
        }  # fmt: skip
        arguments = [str(tmp_path / "sharded.py"), str(tmp_path / f"{devices}.db"), str(devices), budget]
        command = [sys.executable, *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return [int(figure) for figure in ended.stdout.split()]

    (tmp_path / "sharded.py").write_text(SHARDED)
    alone, peak, budget = choose(1, "2500KiB")
    shared, shard, same = choose(4, "2500KiB")
    assert budget == same == 2500 * 1024
    assert peak <= budget
    assert shard <= budget
    assert alone < 24 < 64 < shared  # states of 128 KiB, and of 32
