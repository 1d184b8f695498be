"""What a notebook shows of records: a table, and a figure on request.

Tables and figures are made by rooms above this one, so they are asked for by the package's public names, when a
notebook calls.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt


class ShownProfile:
    """How a notebook shows a profile."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Show the points of every case as a table."""
        import profiles

        return profiles.profile_html(_own(self))

    def chart(self, *, budget_bytes: float | None = None) -> "alt.HConcatChart":
        """Draw the fronts of every case: bytes against seconds, and against recomputation.

        Args:
            budget_bytes: where to draw the line of a budget.
        """
        import profiles

        profile = _own(self)
        points, note = profiles.thin(profiles.points_table(profile))
        title = f"{profile.name}: Pareto front on {profile.device.kind}"
        return profiles.fronts_figure(points, budget_bytes=budget_bytes, title=title, note=note)


class ShownPlan:
    """How a notebook shows a plan."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Show what each device makes of each case as a table."""
        import profiles

        return profiles.plan_html(_own(self))

    def chart(self) -> "alt.LayerChart":
        """Draw the recompute factor that each device gives each case, with the limit of the request."""
        import profiles

        plan = _own(self)
        limit = plan.request.max_recompute
        return profiles.plan_figure(profiles.plan_table(plan), max_recompute=limit, title=plan.profile)


def _own(record: Any) -> Any:
    """Return a record as what it is besides being shown."""
    return record
