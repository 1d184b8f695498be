"""What the service answers: recommendations, plans, comparisons and profiles, from a catalogue in memory.

The words and figures are those of the commands, from the same functions. What was worked out for one state of a
profile is kept until rows come in.
"""

import dataclasses
import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import profiles
from autotune.choosing import documents
from autotune.choosing.objective import Objective
from autotune.choosing.recommend import Recommendation, Recommender, RecommendRequest
from autotune.machine.budget import learn_margin, resolve_budget
from autotune.machine.targets import memory_share
from autotune.serving.catalogue import Catalogue
from autotune.serving.problems import dumps
from autotune.tuning.lab import described_device
from profiles import DeviceKey, ProfileSummary, Scalar

if TYPE_CHECKING:
    from autotune.machine.device import DeviceInfo

GIB = 2**30
MOST_ANSWERS = 2000
"""Worked-out answers (plans, comparisons, pages) that are kept."""
MOST_BYTES = 128 * 2**20
"""What they may take together."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecommendQuestion:
    """One question of `recommend`, as a client asks it."""

    budget: str
    margin: float | None = None
    horizon: int | float | None = None
    tolerance: float | None = None
    set_values: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    objective: Objective = Objective.TIME
    allow_extrapolation: bool = False
    xla_flags: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanQuestion:
    """One question of `plan`, as a client asks it; no devices for all of the catalogue."""

    devices: tuple[str, ...] = ()
    horizons: tuple[float, ...] = ()
    tolerances: tuple[float, ...] = ()
    max_recompute: float = 2.0
    margin: float = 0.1
    host_bytes: int | None = None


class Answers:
    """The answers of one service. Safe to use from several threads."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Keep no answer yet."""
        self.catalogue = catalogue
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def kept(self, key: Hashable, of: Sequence[ProfileSummary], make: Callable[[], bytes]) -> bytes:
        """Return an answer that was given before about these profiles as they are now, or make it."""
        full = (key, tuple((one.id, one.rows, one.failed, one.newest_at, one.name) for one in of))
        found = self._kept.get(full)
        if found is None:
            found = make()
            with self._lock:
                self._bytes += len(found) - len(self._kept.get(full, b""))
                self._kept[full] = found
                while len(self._kept) > MOST_ANSWERS or (self._bytes > MOST_BYTES and len(self._kept) > 1):
                    _, gone = self._kept.popitem(last=False)
                    self._bytes -= len(gone)
        return found

    def list_profiles(self, problem: str | None, device: str | None, version: str | None) -> dict[str, Any]:
        """List profiles, those of a problem, of a kind of device, measured with a version (`jax 0.10.2`)."""
        found = [
            documents.summary_record(one)
            for one in self.catalogue.summaries
            if problem in (None, one.problem.name, one.name)
            and device in (None, one.device.kind, one.device.label)
            and (version is None or version in one.versions)
        ]
        return documents.profiles_document(found, self.catalogue.place)

    def profile(self, summary: ProfileSummary) -> bytes:
        """Show a profile: points, fronts, and the laws of bytes between its measured counts."""

        def make() -> bytes:
            from autotune.choosing.report import report_extras

            profile = self.catalogue.profile(summary)
            extras = report_extras(profile)
            laws = [
                {
                    "case": str(law.case), "checkpoints": list(law.checkpoints), "likely_bytes": list(law.likely_bytes),
                    "low_bytes": list(law.low_bytes), "high_bytes": list(law.high_bytes),
                }
                for law in extras.laws
            ]  # fmt: skip
            return dumps(documents.profile_document(profile) | {"laws": laws})

        return self.kept("profile", [summary], make)

    def request(self, known: Recommender, asked: RecommendQuestion) -> RecommendRequest:
        """Resolve the budget of a question on the profile's device, all of whose memory counts as free.

        Raises:
            AutotuneError: the budget cannot be read, or the device's memory is not known.
        """
        profile = known.profile
        margin = asked.margin
        if margin is None and _is_share(asked.budget):
            margin = learn_margin(profile.measurements)
        budget = resolve_budget(asked.budget, _described(profile.device), margin=margin)
        return RecommendRequest(
            budget_bytes=budget.bytes, margin_bytes=budget.margin_bytes, horizon=asked.horizon,
            tolerance=asked.tolerance, set_values=asked.set_values, objective=asked.objective,
            allow_extrapolation=asked.allow_extrapolation, xla_flags=asked.xla_flags,
        )  # fmt: skip

    def recommend(self, known: Recommender, request: RecommendRequest) -> bytes:
        """Recommend from a profile as it is, as `ckpt-tune recommend --force` does.

        Raises:
            AutotuneError: the profile says nothing about the question.
        """
        budget = request.budget_bytes
        step = GIB if budget >= 2 * GIB else budget // 4
        nearby = [dataclasses.replace(request, budget_bytes=budget + by) for by in (-step, step)]
        # The documents of `recommend --format json`, each recommendation of which is written once and used again.
        around = dumps(documents.recommend_document(known.profile, (), self.catalogue.place) | {"nearby_budgets": []})
        found = [dumps(documents.nearby_record((), one.budget_bytes)) for one in nearby]
        filled = [_filled(text, known.write(one, _written)) for text, one in zip(found, nearby, strict=True)]
        head, _, tail = around.rpartition(b"[]")
        return _filled(head, known.write(request, _written)) + b"[" + b", ".join(filled) + b"]" + tail

    def plan(self, summary: ProfileSummary, asked: PlanQuestion) -> bytes:
        """Plan for devices from what is stored, as `ckpt-tune plan` does without a problem's file.

        Raises:
            ProfilesError: a device is not in the catalogue, or the profile says nothing of it.
        """
        return self.kept(
            ("plan", asked), [summary], lambda: dumps(documents.plan_document([self._plan(summary, asked)]))
        )

    def _plan(self, summary: ProfileSummary, asked: PlanQuestion) -> profiles.Plan:
        from autotune.planning.devices import plan_device

        request = profiles.PlanRequest(
            memory_share=memory_share(os.environ), horizons=asked.horizons, tolerances=asked.tolerances,
            max_recompute=asked.max_recompute, margin=asked.margin, host_bytes=asked.host_bytes,
        )  # fmt: skip
        catalogue = profiles.load_devices()
        devices = profiles.find_devices(asked.devices or sorted(catalogue), catalogue)
        profile, others = self.catalogue.profile(summary), self.catalogue.siblings(summary)
        found = [plan_device(profile, device, request, others, None).plan for device in devices]
        return dataclasses.replace(
            found[0],
            profile=profile.qualified_name,
            rows=tuple(row for one in found for row in one.rows),
            longest=tuple(row for one in found for row in one.longest),
        )

    def compare(self, before: ProfileSummary, after: ProfileSummary) -> bytes:
        """Show two profiles side by side, as `ckpt-tune compare` does."""

        def make() -> bytes:
            both = (self.catalogue.profile(before), self.catalogue.profile(after))
            return dumps(documents.compare_document(profiles.compare(*both)))

        return self.kept("compare", [before, after], make)

    def study(self, summary: ProfileSummary) -> bytes:
        """Write a profile as an Optuna study, an SQLite file for `optuna-dashboard`."""
        import tempfile
        from pathlib import Path

        from autotune.measuring.rows import WHY_NOTE
        from autotune.tuning.prepare import study_name
        from autotune.tuning.study_view import StudyView, write_view

        profile = self.catalogue.profile(summary)
        name = study_name(profile.newest.problem, profile.device, profile.adjoint)
        view = StudyView(name=name, rows=profile.measurements, whys=self.catalogue.store.notes(WHY_NOTE))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "study.db"
            write_view(view, path)
            return path.read_bytes()


def _written(choice: Recommendation) -> str:
    return dumps(choice.to_json()).decode()


def _filled(document: bytes, recommendations: Sequence[str]) -> bytes:
    """Put recommendations into a document that has an empty list of them."""
    name = b'"recommendations": ['
    before, _, after = document.partition(name + b"]")
    return before + name + ", ".join(recommendations).encode("utf-8", "replace") + b"]" + after


def _is_share(budget: str) -> bool:
    return budget.strip().lower() == "auto" or "%" in budget


@functools.lru_cache(maxsize=1024)
def _described(device: DeviceKey) -> "DeviceInfo":
    """Describe a device once: this host's own memory, which is read for it, plays no part in an answer."""
    return described_device(device)
