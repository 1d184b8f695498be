"""An adjoint that only watches: it solves forward, reports how many steps that took, and has a zero backward pass.

The one module here that touches private names of Diffrax (`AbstractAdjoint._loop`) and Equinox (`internal.while_loop`).

A solve reports through a callback of the compiled program, once per run and vmap lane. What the reversal would do is
not run at all, so a probe costs one forward solve whatever the number of checkpoints. Gradients are zero: if a later
solve of the same call depends on an earlier gradient (two training steps in one `fn`), its steps are those of a step
that changed nothing.
"""

import contextlib
import dataclasses
import functools
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np

import adjoint
from autotune.errors import is_user_file

Report = Callable[..., None]
"""Called at run time as `report(site=…, steps=…, accepted=…, rejected=…, hit_max=…, okay=…, time=…, end=…, …)`."""


def _some_count() -> int:
    """Draw a count that nobody else has; its square fits 32 bits, since loops count with such squares."""
    return 20_000 + secrets.randbelow(45_000)


@runtime_checkable
class Hears(Protocol):
    """A report that also hears what is seen while a program is traced."""

    def counts_were_read(self) -> None:
        """Note that the adjoint's counts were read."""
        ...

    def solve_was_traced(self) -> None:
        """Note that a solve with this adjoint was traced."""
        ...


def ignore_steps(**_: Any) -> None:
    """Report to nobody."""


_PYTREES = tuple(str(Path(module.__file__).parent) for module in (eqx, jax) if module.__file__)


def _reads_for_itself(filename: str) -> bool:
    """Return whether a file's code is ours, or reads every field of a module as flattening and printing do."""
    folder = str(Path(filename).parent)
    return filename == __file__ or filename == dataclasses.__file__ or folder.startswith(_PYTREES)


class ProbeAdjoint(diffrax.RecursiveCheckpointAdjoint):
    """An adjoint that solves forward, reports the steps, and gives zero gradients.

    A subclass of Diffrax's class, as the adjoint that is tuned is: code that checks `isinstance` takes the same path
    here as in training.

    `report` is called with host scalars; `Hears` lists what else it may be notified of. What plain loops take of an
    adjoint is there too: `checkpoints` is a number that no other probe and no real run has, so that no jit cache takes
    one for the other; nothing is allocated for it where our loop or Diffrax's solve runs, since no backward pass does.
    """

    checkpoints: int = eqx.field(static=True, default_factory=_some_count)
    report: Report = eqx.field(static=True, default=ignore_steps)

    def __getattribute__(self, name: str) -> Any:
        """Notify the report where the counts are read by code other than that which moves PyTrees about."""
        value = super().__getattribute__(name)
        if name == "checkpoints" and not _reads_for_itself(sys._getframe(1).f_code.co_filename):
            report = super().__getattribute__("report")
            if isinstance(report, Hears):
                report.counts_were_read()
        return value

    @property
    def expected_steps(self) -> None:
        """The expectation for plain loops: none."""
        return None

    @property
    def tier(self) -> None:
        """The tier for plain loops: none, as with `windows`, `tier_bytes` and `directory`."""
        return None

    windows = tier_bytes = directory = tier

    @property
    def transfer_cost(self) -> float:
        """The cost of a transfer for plain loops, which make none."""
        return 1.0

    def loop(
        self,
        *,
        terms: Any,
        saveat: Any,
        init_state: Any,
        max_steps: int | None,
        throw: bool,
        passed_solver_state: bool,
        passed_controller_state: bool,
        **rest: Any,
    ) -> Any:
        """Run the solve's loop without any means of going back, and report."""
        del passed_solver_state, passed_controller_state
        site = call_site()
        least = adjoint.accepted_steps_from(init_state, rest["stepsize_controller"], max_steps)
        listener: Any = self.report
        if isinstance(listener, Hears):
            listener.solve_was_traced()

        def solve(inputs: Any) -> Any:
            terms, saveat, init_state, rest = inputs
            return self._loop(
                terms=terms,
                saveat=saveat,
                init_state=init_state,
                max_steps=max_steps,
                inner_while_loop=functools.partial(eqxi.while_loop, kind="lax"),
                outer_while_loop=_without_checkpoints,
                **rest,
            )

        inputs = (terms, saveat, init_state, rest)
        # Values that a vector field closes over reach the loop neither through `args` nor `terms`; converting the
        # closure makes them inputs, so that they can be cut off from the gradient as well.
        solve = _cut(eqx.filter_closure_convert(solve, inputs))
        final_state, aux_stats = solve(_cut(inputs))
        result = final_state.result
        report = functools.partial(self.report, site=site, max_steps=max_steps, throw=throw, accepted_from=least)
        _report_lanes(
            report,
            {
                "steps": jnp.asarray(final_state.num_steps),
                "accepted": jnp.asarray(final_state.num_accepted_steps),
                "rejected": jnp.asarray(final_state.num_rejected_steps),
                "hit_max": jnp.asarray(result == diffrax.RESULTS.max_steps_reached),
                "okay": jnp.asarray(diffrax.is_okay(result)),
                "time": jnp.asarray(final_state.tprev),
                "end": jnp.asarray(rest["t1"]),
                "mapped": jnp.asarray(False),
            },
        )
        if throw:
            # The report says what went wrong, with its figures; an error raised from inside the program would not.
            final_state = eqx.tree_at(lambda state: state.result, final_state, diffrax.RESULTS.successful)
        return final_state, aux_stats


def _report_lanes(report: Report, figures: dict[str, jax.Array]) -> None:
    """Report while the program runs, once for each lane of `jax.vmap`.

    One callback for all lanes: JAX's own batching makes one for each, which takes XLA seconds for some hundreds.
    """

    def called(figures: dict[str, Any]) -> None:
        names = list(figures)
        for lane in zip(*(np.ravel(figures[name]) for name in names), strict=True):
            report(**dict(zip(names, lane, strict=True)))

    @jax.custom_batching.custom_vmap
    def reported(figures: dict[str, jax.Array]) -> jax.Array:
        jax.debug.callback(called, figures)
        return jnp.zeros(())

    @reported.def_vmap
    def _(size: int, batched: list[dict[str, bool]], figures: dict[str, jax.Array]) -> tuple[jax.Array, bool]:
        lanes = {
            name: figure if batched[0][name] else jnp.broadcast_to(figure, (size, *jnp.shape(figure)))
            for name, figure in figures.items()
        }
        return reported(lanes | {"mapped": jnp.ones_like(lanes["mapped"])}), False

    reported(figures)


def _without_checkpoints(*args: Any, checkpoints: int | None = None, **kwargs: Any) -> Any:
    del checkpoints
    return eqxi.while_loop(*args, kind="lax", **kwargs)


def _cut(tree: Any) -> Any:
    """Stop the gradient at every array of a tree."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


@contextlib.contextmanager
def watching(report: Report) -> Iterator[None]:
    """Watch the plain loops (`adjoint.checkpointed_while_loop`) that are traced inside, reporting as a solve does."""

    def loop_ended(site: str, steps: int, max_steps: int | None) -> None:
        report(site=site, steps=steps, max_steps=max_steps)

    with adjoint.observe_steps(loop_ended):
        yield


def call_site() -> str:
    """Name the line of the user's code that is being traced, as `file.py:line`."""
    frame = sys._getframe(1)
    while frame is not None:
        if is_user_file(frame.f_code.co_filename):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "a solve"
