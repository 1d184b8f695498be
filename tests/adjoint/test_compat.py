"""The private names of other libraries that the adapters use: an upgrade that takes one away fails here first."""

import ast
import dataclasses
import importlib
import inspect
from pathlib import Path

import diffrax
import equinox as eqx
import pytest

import adjoint

FOLDER = Path(adjoint.__file__).parent
ADAPTERS = {"compat.py", "solve/compat.py"}
OTHERS = {"equinox", "diffrax", "jax", "jaxlib", "optimistix", "lineax"}
NAMES = {
    "equinox.internal": {"unvmap_any", "unvmap_max", "while_loop", "nondifferentiable", "nondifferentiable_backward"},
    "equinox.internal._loop.common": {"_Buffer"},
    "jax.extend.core": {"Primitive", "jaxpr_as_fun"},
    "jax.interpreters.ad": {
        "Zero",
        "instantiate_zeros",
        "is_undefined_primal",
        "primitive_jvps",
        "primitive_transposes",
    },
    "jax.interpreters.batching": {"fancy_primitive_batchers"},
    "jax.interpreters.mlir": {"lower_fun", "register_lowering", "emit_python_callback"},
    "jax.interpreters.partial_eval": {
        *("custom_partial_eval_rules", "dce_jaxpr", "dce_rules", "partial_eval_jaxpr_custom_rules"),
    },
    "jax._src.callback": {"_callback_op_sharding"},
    "jax._src.checkify": {"checkify_jaxpr", "error_checks"},
    "jax._src.interpreters.ad": {"fallback_linearize_rule", "primitive_linearizations"},
    "jax._src.lax.lax": {"_convert_element_type"},
    "jax._src.sharding_impls": {"ShardingContext"},
    "jax.custom_derivatives": {"SymbolicZero"},
    "diffrax._integrate": {"loop", "State"},
    "diffrax._brownian.tree": {"_levy_diff"},
    "diffrax._custom_types": {"levy_tree_transpose"},
    "diffrax._misc": {"linear_rescale"},
}


def is_private(name: str) -> bool:
    """Tell whether a dotted name belongs to another library and is not public."""
    head, *rest = name.split(".")
    return head in OTHERS and (any(part.startswith("_") for part in rest) or name.startswith("equinox.internal"))


def private_imports(path: Path) -> set[str]:
    """List what a module imports from private places of other libraries."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if is_private(name)}


@pytest.mark.parametrize("place", sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py")))
def test_private_names_are_imported_by_the_adapters_only(place: str) -> None:
    """Everywhere else the public API of JAX, Equinox and Diffrax has to do."""
    if place not in ADAPTERS:
        assert private_imports(FOLDER / place) == set()


def test_every_private_import_of_the_adapters_is_named_here() -> None:
    """An adapter that takes to another private name has to say so in the table above."""
    named = {f"{module}.{name}" for module, names in NAMES.items() for name in names} | {"equinox.internal"}
    for adapter in ADAPTERS:
        assert private_imports(FOLDER / adapter) <= named


@pytest.mark.parametrize("module", NAMES)
def test_the_names_are_where_the_adapters_look_for_them(module: str) -> None:
    """Each module still has them."""
    found = importlib.import_module(module)
    assert {name for name in NAMES[module] if not hasattr(found, name)} == set()


def test_a_buffer_of_equinox_has_the_fields_that_are_filled() -> None:
    """In the order in which the adapter's caller gives them."""
    buffer = importlib.import_module("equinox.internal._loop.common")._Buffer
    assert [field.name for field in dataclasses.fields(buffer)] == ["_array", "_pred", "_tag", "_makes_false_steps"]


def test_the_solve_of_diffrax_takes_the_loops_it_is_given() -> None:
    """`AbstractAdjoint._loop` is Diffrax's own solve, taking two loops; its state has the fields that we read."""
    integrate = importlib.import_module("diffrax._integrate")
    assert adjoint.RecursiveCheckpointAdjoint()._loop is integrate.loop
    parameters = inspect.signature(integrate.loop).parameters
    assert {"inner_while_loop", "outer_while_loop"} <= set(parameters)
    fields = {field.name for field in dataclasses.fields(integrate.State)}
    assert {"y", "tprev", "tnext", "num_steps", "num_accepted_steps", "solver_state", "controller_state"} <= fields


def test_our_adjoint_takes_what_diffrax_passes() -> None:
    """The arguments of `AbstractAdjoint.loop` are those that our `loop` was written for."""
    theirs = inspect.signature(diffrax.AbstractAdjoint.loop).parameters
    assert set(theirs) == {
        *("self", "args", "terms", "solver", "stepsize_controller", "event", "saveat", "t0", "t1", "dt0"),
        *("max_steps", "throw", "init_state", "passed_solver_state", "passed_controller_state", "progress_meter"),
    }
    ours = inspect.signature(adjoint.RecursiveCheckpointAdjoint.loop).parameters.values()
    assert all(p.name in theirs or p.kind is inspect.Parameter.VAR_KEYWORD for p in ours)


def test_explicit_solvers_of_diffrax_have_the_members_that_are_compared() -> None:
    """A solver that overrides none of them makes its steps by the tableau alone."""
    for name in ("step", "init", "func", "_common"):
        assert callable(getattr(diffrax.AbstractRungeKutta, name))
    solver = diffrax.Tsit5()
    assert isinstance(solver, diffrax.AbstractERK)
    assert solver.scan_kind is None
    assert eqx.is_array_like(solver.tableau.b_sol[0])
    assert callable(diffrax.ODETerm(lambda t, y, args: y).is_vf_expensive)
