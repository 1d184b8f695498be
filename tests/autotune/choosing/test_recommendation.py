"""What a notebook shows of a recommendation: each figure with what it rests on, and where it stands."""

import altair as alt
import pytest

from autotune import AutotuneError, Fit, Recommendation
from autotune.choosing.recommendation import Evidence
from profiles import Case, Profile, svg_text
from tests.profiles.figures.svg import Drawing
from tests.profiles.makers import a_sweep

MIB = 2**20
CASE = Case(100, 1e-3)


def a_recommendation(**changes) -> Recommendation:
    """Eight checkpoints in 19 MiB, as `a_sweep` has them."""
    known = {
        "case": CASE, "status": Fit.OK, "budget_bytes": 30 * MIB, "checkpoints": 8, "peak_bytes": 19 * MIB,
        "peak_low_bytes": 19 * MIB, "peak_high_bytes": 19 * MIB, "run_seconds": 0.5, "recompute_factor": 2.5,
        "peak_evidence": Evidence.MEASURED, "seconds_evidence": Evidence.INTERPOLATED, "evidence": Evidence.MEASURED,
    }  # fmt: skip
    return Recommendation(**known | changes)


def test_a_recommendation_is_a_table_of_figures_with_their_evidence():
    """Count, peak, budget and seconds stand in it, and what each rests on; a text of the store is text."""
    text = a_recommendation(message="<b>no</b>")._repr_html_()
    for said in ("8 checkpoints", "19 MiB (measured)", "30 MiB", "500 ms (interpolated)", "&lt;b&gt;no"):
        assert said in text
    nothing = a_recommendation(status=Fit.NOTHING_FITS, checkpoints=None, peak_bytes=None, smallest_bytes=40 * MIB)
    assert "nothing fits" in nothing._repr_html_()
    assert "40 MiB" in nothing._repr_html_()


def test_a_recommendation_alone_is_drawn_against_its_budget():
    """The bar ends at the peak, before the line of the budget."""
    chart = a_recommendation().chart()
    assert isinstance(chart, alt.LayerChart)
    assert chart.description == "horizon 100, tolerance 1e-3: 19 MiB of 30 MiB"
    assert len(Drawing(svg_text(chart)).marks("peaks")) == 1


def test_with_its_profile_a_recommendation_is_marked_on_the_front_of_its_case():
    """The diamond stands at the point that was measured; a profile without the case is refused in one line."""
    profile = Profile(name="spirals:make", measurements=tuple(a_sweep()))
    drawing = Drawing(svg_text(a_recommendation().chart(profile)))
    (point,) = drawing.points("recommended_seconds")
    assert point[0] == pytest.approx(19 * MIB, rel=2e-3)
    assert point in drawing.points("front_seconds")
    with pytest.raises(AutotuneError, match="was not measured at horizon 7"):
        a_recommendation(case=Case(7)).chart(profile)
