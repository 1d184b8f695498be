"""profiles: what was measured, where it is kept, and how it is shown. Never imports jax.

Names are loaded when they are first used: `import profiles` loads no pandas, SQLAlchemy or matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiles._compare import Change as Change
    from profiles._compare import ComparedPoint as ComparedPoint
    from profiles._compare import Comparison as Comparison
    from profiles._compare import compare as compare
    from profiles._compare import what_changed as what_changed
    from profiles._errors import AmbiguousProfile as AmbiguousProfile
    from profiles._errors import DeviceError as DeviceError
    from profiles._errors import NoSuchProfile as NoSuchProfile
    from profiles._errors import ProfilesError as ProfilesError
    from profiles._errors import RecordError as RecordError
    from profiles._errors import StoreError as StoreError
    from profiles._errors import StoreVersionError as StoreVersionError
    from profiles._errors import TableError as TableError
    from profiles._extras import BytesLaw as BytesLaw
    from profiles._extras import Optimum as Optimum
    from profiles._extras import Recommended as Recommended
    from profiles._extras import ReportExtras as ReportExtras
    from profiles._extras import Tree as Tree
    from profiles._extras import TreeBlock as TreeBlock
    from profiles._flat import COLUMNS as COLUMNS
    from profiles._flat import Column as Column
    from profiles._pareto import Objective as Objective
    from profiles._pareto import Point as Point
    from profiles._pareto import non_dominated as non_dominated
    from profiles._pareto import pareto_front as pareto_front
    from profiles._pareto import points as points
    from profiles._plan import LongestHorizon as LongestHorizon
    from profiles._plan import Plan as Plan
    from profiles._plan import PlanRequest as PlanRequest
    from profiles._plan import PlanRow as PlanRow
    from profiles._plan import plan as plan
    from profiles._records import AdjointName as AdjointName
    from profiles._records import Case as Case
    from profiles._records import DeviceKey as DeviceKey
    from profiles._records import Measurement as Measurement
    from profiles._records import PeakSource as PeakSource
    from profiles._records import ProblemKey as ProblemKey
    from profiles._records import Profile as Profile
    from profiles._records import Scalar as Scalar
    from profiles._records import Status as Status
    from profiles._records import Tier as Tier
    from profiles._report import report as report
    from profiles._store import ProfileStore as ProfileStore
    from profiles._store import open_store as open_store
    from profiles._units import format_bytes as format_bytes
    from profiles._units import format_seconds as format_seconds
    from profiles.devices import Device as Device
    from profiles.devices import find_devices as find_devices
    from profiles.devices import load_devices as load_devices
    from profiles.page import render_page as render_page
    from profiles.plots import bytes_figure as bytes_figure
    from profiles.plots import compare_figure as compare_figure
    from profiles.plots import front_figure as front_figure
    from profiles.plots import recompute_figure as recompute_figure
    from profiles.plots import save_figure as save_figure
    from profiles.plots import steps_figure as steps_figure
    from profiles.plots import tree_figure as tree_figure
    from profiles.tables import compare_table as compare_table
    from profiles.tables import export_table as export_table
    from profiles.tables import front_table as front_table
    from profiles.tables import import_table as import_table
    from profiles.tables import plan_table as plan_table
    from profiles.tables import render_table as render_table
    from profiles.tables import table as table

_HOME = {
    "AmbiguousProfile": "_errors",
    "DeviceError": "_errors",
    "NoSuchProfile": "_errors",
    "ProfilesError": "_errors",
    "RecordError": "_errors",
    "StoreError": "_errors",
    "StoreVersionError": "_errors",
    "TableError": "_errors",
    "Objective": "_pareto",
    "Point": "_pareto",
    "non_dominated": "_pareto",
    "pareto_front": "_pareto",
    "points": "_pareto",
    "AdjointName": "_records",
    "Case": "_records",
    "DeviceKey": "_records",
    "Measurement": "_records",
    "PeakSource": "_records",
    "ProblemKey": "_records",
    "Profile": "_records",
    "Scalar": "_records",
    "Status": "_records",
    "Tier": "_records",
    "ProfileStore": "_store",
    "open_store": "_store",
    "COLUMNS": "_flat",
    "Column": "_flat",
    "table": "tables",
    "front_table": "tables",
    "export_table": "tables",
    "import_table": "tables",
    "render_table": "tables",
    "format_bytes": "_units",
    "format_seconds": "_units",
    "BytesLaw": "_extras",
    "Optimum": "_extras",
    "Recommended": "_extras",
    "ReportExtras": "_extras",
    "Tree": "_extras",
    "TreeBlock": "_extras",
    "bytes_figure": "plots",
    "compare_figure": "plots",
    "front_figure": "plots",
    "recompute_figure": "plots",
    "save_figure": "plots",
    "steps_figure": "plots",
    "tree_figure": "plots",
    "report": "_report",
    "render_page": "page",
    "Change": "_compare",
    "ComparedPoint": "_compare",
    "Comparison": "_compare",
    "compare": "_compare",
    "what_changed": "_compare",
    "Plan": "_plan",
    "PlanRequest": "_plan",
    "PlanRow": "_plan",
    "LongestHorizon": "_plan",
    "plan": "_plan",
    "Device": "devices",
    "load_devices": "devices",
    "find_devices": "devices",
    "compare_table": "tables",
    "plan_table": "tables",
}

__all__ = [
    "COLUMNS",
    "AdjointName",
    "AmbiguousProfile",
    "BytesLaw",
    "Case",
    "Change",
    "Column",
    "ComparedPoint",
    "Comparison",
    "Device",
    "DeviceError",
    "DeviceKey",
    "LongestHorizon",
    "Measurement",
    "NoSuchProfile",
    "Objective",
    "Optimum",
    "PeakSource",
    "Plan",
    "PlanRequest",
    "PlanRow",
    "Point",
    "ProblemKey",
    "Profile",
    "ProfileStore",
    "ProfilesError",
    "Recommended",
    "RecordError",
    "ReportExtras",
    "Scalar",
    "Status",
    "StoreError",
    "StoreVersionError",
    "TableError",
    "Tier",
    "Tree",
    "TreeBlock",
    "bytes_figure",
    "compare",
    "compare_figure",
    "compare_table",
    "export_table",
    "find_devices",
    "format_bytes",
    "format_seconds",
    "front_figure",
    "front_table",
    "import_table",
    "load_devices",
    "non_dominated",
    "open_store",
    "pareto_front",
    "plan",
    "plan_table",
    "points",
    "recompute_figure",
    "render_page",
    "render_table",
    "report",
    "save_figure",
    "steps_figure",
    "table",
    "tree_figure",
    "what_changed",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'profiles' has no public name {name!r}")
    value = getattr(importlib.import_module(f"profiles.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(_HOME)
