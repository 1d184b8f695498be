# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tune in a notebook
#
# How many checkpoints should this solve keep? Open this file in Jupyter with jupytext, or make a notebook of it:
# `jupytext --to ipynb scripts/examples/notebook.py`.
#
# A problem lies in a file, since it is measured in processes of its own. This one is the gradient of a damped spring.

# %%
from pathlib import Path

import autotune
from profiles import open_store

Path("spring.py").write_text(
    """
import diffrax
import equinox as eqx
import jax.numpy as jnp


def make(*, adjoint, horizon=4.0):
    def loss(start):
        term = diffrax.ODETerm(lambda t, y, args: jnp.stack([y[1], -y[0] - 0.1 * y[1]]))
        solution = diffrax.diffeqsolve(
            term, diffrax.Heun(), 0.0, horizon, 0.02, start, adjoint=adjoint, max_steps=512
        )
        return jnp.sum(solution.ys**2)

    return eqx.filter_value_and_grad(loss), (jnp.ones((2, 512)),)
"""
)

# %% [markdown]
# ## Tune
#
# The cell shows what is compiled and timed while it runs. Every measurement is stored: the second time takes a moment.

# %%
request = autotune.TuneRequest(problem="spring.py:make", listed=autotune.Listed(counts=(5, 14, 50)))
result = autotune.tune("spring.py:make", budget="400KiB", store="spring.db", request=request)

# %% [markdown]
# ## What it recommends
#
# A recommendation shows itself as a table, in which each figure says what it rests on.

# %%
recommendation = result.recommendations[0]
recommendation

# %% [markdown]
# And as a chart, with the front that it was chosen from. Point at a mark for its figures.

# %%
with open_store("spring.db") as store:
    profile = store.profile("spring:make")
recommendation.chart(profile)

# %% [markdown]
# ## Use it
#
# In a training script `autotune.auto_adjoint` reads the same store. A logger takes the choice as a flat dict.

# %%
adjoint = autotune.auto_adjoint("spring.py:make", budget="400KiB", store="spring.db")
autotune.summary(adjoint)
