"""Fingerprints: the same for the same problem, in every process and at every horizon; different when it changed."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from autotune.problem.fingerprint import problem_key
from autotune.problem.loading import load_problem

MODEL = """
    import diffrax, jax, jax.numpy as jnp
    from sizes_for_test import WIDTH

    def make(*, adjoint, horizon=10, tolerance=1e-3, solver="euler", width=WIDTH):
        '''Document.'''
        solvers = {"euler": diffrax.Euler, "heun": diffrax.Heun}
        # a comment
        def loss(w, data):
            sol = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, y, w: w * y), solvers[solver](), 0.0, horizon, 0.1, jnp.ones(width), w,
                saveat=diffrax.SaveAt(ts=jnp.linspace(0, horizon, len(data))), adjoint=adjoint,
            )
            return jnp.sum((sol.ys - data) ** 2)
        return jax.grad(loss), (jnp.ones(()), jnp.zeros((int(horizon), width)))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model with a neighbour that it imports."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "model_for_test.py").write_text(textwrap.dedent(MODEL))
    (tmp_path / "sizes_for_test.py").write_text("WIDTH = 4\n")
    yield tmp_path
    for name in ("model_for_test", "sizes_for_test"):
        sys.modules.pop(name, None)


def key(folder, *, horizon=10, tolerance=1e-3, **values):
    """Load afresh and fingerprint."""
    for name in ("model_for_test", "sizes_for_test"):
        sys.modules.pop(name, None)
    problem = load_problem(f"{folder}/model_for_test.py:make", set_values=values)
    return problem_key(problem, horizon=horizon, tolerance=tolerance)


def edit(folder, old, new, name="model_for_test.py"):
    """Change a file."""
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def changed(before, after):
    """Name the components that differ."""
    return {name for name in before.components if before.components[name] != after.components[name]}


def test_horizon_and_tolerance_do_not_matter_though_shapes_follow_the_horizon(folder):
    """One profile serves a curriculum of horizons; the dimension that follows the horizon is written as a star."""
    keys = [key(folder, horizon=h, tolerance=t) for h, t in ((10, 1e-3), (16, 1e-3), (25, 1e-6))]
    assert len({k.fingerprint for k in keys}) == 1
    assert "float32[*,4]" in keys[0].components["shapes"]


def test_comments_docstrings_and_layout_do_not_matter(folder):
    """A profile is not thrown away for a typo in a comment."""
    before = key(folder)
    edit(folder, "# a comment", "# another\n\n")
    edit(folder, "'''Document.'''", "'''Describe it better.'''")
    assert key(folder) == before


@pytest.mark.parametrize(
    ("old", "new", "name", "expected"),
    [
        ("w * y", "w * jnp.sin(y)", "model_for_test.py", {"source", "program"}),
        ("jnp.ones(width), w", "2 * jnp.ones(width), w", "model_for_test.py", {"source", "program"}),
        ("WIDTH = 4", "WIDTH = 5", "sizes_for_test.py", {"source", "shapes"}),
        ("0.1,", "0.2,", "model_for_test.py", {"source"}),
    ],
)
def test_a_change_of_the_code_is_told_by_its_component(folder, old, new, name, expected):
    """Also one in a neighbour that the file imports."""
    before = key(folder)
    edit(folder, old, new, name)
    after = key(folder)
    assert changed(before, after) == expected
    assert before.fingerprint != after.fingerprint


def test_set_values_are_a_component_and_leave_the_generation_alone(folder):
    """Rows of one sweep over a --set key belong together although their programs differ."""
    euler, heun = key(folder), key(folder, solver="heun")
    assert changed(euler, heun) == {"set", "program"}
    assert heun.components["set"] == "solver='heun'"
    assert euler.generation == heun.generation


SCRIPT = """
import sys
from autotune.problem.fingerprint import problem_key
from autotune.problem.loading import load_problem
print(problem_key(load_problem(sys.argv[1]), horizon=10, tolerance=1e-3).fingerprint)
"""


def test_the_fingerprint_is_the_same_in_every_process_and_under_every_error_setting(folder):
    """Hash seeds, Equinox's EQX_ON_ERROR and the working directory differ between a worker and its user."""
    here = key(folder).fingerprint
    for seed, on_error, cwd in (("1", "nan", folder), ("2", "off", folder.parent)):
        environment = {"PYTHONHASHSEED": seed, "EQX_ON_ERROR": on_error, "JAX_PLATFORMS": "cpu", "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-P", "-c", SCRIPT, f"{folder}/model_for_test.py:make"], capture_output=True, text=True,
            env=environment, cwd=cwd, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == here


def test_x64_and_versions_are_components(folder, x64):
    """Twice the bytes, another compiler: not the same problem."""
    found = key(folder)
    assert found.components["x64"] == "True"
    assert "float64" in found.components["shapes"]
    assert found.components["versions"].startswith("jax 0.")
    assert "diffrax" in found.components["versions"]


def test_a_factory_that_refuses_other_horizons_has_a_fingerprint(tmp_path):
    """Where neither half nor twice the horizon can be made, shapes stand as they are."""
    path = tmp_path / "strict_for_test.py"
    path.write_text(textwrap.dedent(MODEL).replace("from sizes_for_test import WIDTH", "WIDTH = 2").replace(
        "    solvers =", "    assert horizon == 7\n    solvers ="))  # fmt: skip
    problem = load_problem(f"{path}:make")
    assert Path(problem.path or "") == path
    assert "float32[7,2]" in problem_key(problem, horizon=7, tolerance=1e-3).components["shapes"]
    sys.modules.pop("strict_for_test", None)


CLOSED = """

    def closes(*, adjoint):
        scale = jnp.ones(4) * 2
        def loss(w):
            sol = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, y, w: w * y), diffrax.Euler(), 0.0, 1.0, 0.1, scale, w, adjoint=adjoint
            )
            return jnp.sum(sol.ys * scale)
        return jax.grad(loss), (jnp.ones(()),)

    def looks(*, adjoint):
        fn, args = make(adjoint=adjoint)
        return fn, (args[0] * float(jnp.sum(args[1]) + 1), args[1])
"""


@pytest.mark.parametrize("factory", ["make", "closes", "looks"])
def test_a_key_from_shapes_alone_is_the_same(folder, factory):
    """Also of a factory that looks at its arrays, and of one whose function holds some: both are called as they are."""
    path = folder / "model_for_test.py"
    path.write_text(path.read_text() + textwrap.dedent(CLOSED))
    problem = load_problem(f"{path}:{factory}")
    assert problem_key(problem) == problem_key(problem, shapes_only=True)


def test_data_that_a_factory_would_compute_is_not_computed_for_its_shapes(folder):
    """A factory whose arrays would not fit any machine has a key from shapes."""
    edit(folder, "jnp.zeros((int(horizon), width))", "jnp.zeros((2**25, 2**25))")
    edit(folder, "jnp.linspace(0, horizon, len(data))", "jnp.linspace(0, horizon, 3)")
    edit(folder, "sol.ys - data", "sol.ys - data[0, 0]")
    problem = load_problem(f"{folder}/model_for_test.py:make")
    assert "33554432" in problem_key(problem, shapes_only=True).components["shapes"]
