"""The command `tune`: run it, show it, say where everything lies and what to do next."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from autotune.choosing.recommend import Fit, Recommendation
from autotune.cli import tables
from autotune.cli.screen import Exit, Format, Screen, TuneScreen
from autotune.errors import AutotuneError
from autotune.measuring.cluster import Certificates
from autotune.measuring.cluster_machine import ClusterMachine, ClusterRequest
from autotune.tuning.dry_run import Planned, total_seconds
from autotune.tuning.lab import ReplayMachine, make_machine, make_machines, replay_rows
from autotune.tuning.largest import Largest, LargestRequest, describe_largest, find_largest
from autotune.tuning.prepare import Machine
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import TuneResult, foresee, run_tune
from profiles import (
    AdjointName,
    Measurement,
    ProfileStore,
    Scalar,
    Status,
    format_bytes,
    format_seconds,
    open_store,
    plain_value,
    read_value,
)

IN_MEMORY = "sqlite://"
"""Where a replay keeps its rows when no store is named: nowhere."""


def check_tiers(request: TuneRequest, tiers: str, largest: str | None) -> None:
    """Refuse tiers where they mean nothing.

    Raises:
        AutotuneError: the adjoint is Diffrax's, or the largest value of something is wanted.
    """
    if request.tiers and request.adjoint is AdjointName.DIFFRAX:
        raise AutotuneError(f"--tiers {tiers} is for our adjoint; Diffrax's holds its states on the device alone")
    if request.tiers and largest is not None:
        raise AutotuneError("--largest looks at the device alone; leave --tiers out, or tune at the value itself")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What a tune works with: a store and a machine."""

    store: ProfileStore
    machine: Machine


class TuneCommand:
    """One call of `ckpt-tune tune`."""

    def __init__(
        self,
        request: TuneRequest,
        *,
        cluster: ClusterRequest | None = None,
        store_url: str | None = None,
        replay_url: str | None = None,
        report_folder: Path | None = None,
        largest: LargestRequest | None = None,
        format: Format = Format.TABLE,
    ) -> None:
        """Keep the request and where things lie."""
        self._largest = largest
        self._request = request
        self._cluster = cluster
        self._store_url = store_url
        self._replay_url = replay_url
        self._report_folder = report_folder
        self._format = format

    def run(self, screen: Screen) -> Exit:
        """Tune, and print the outcome."""
        found = None
        with self._place(screen) as place, TuneScreen(screen) as shown:
            request = self._request
            if self._largest is not None:
                found, request = find_largest(
                    request, self._largest, store=place.store, machine=place.machine, progress=shown
                )
            result = run_tune(request, store=place.store, machine=place.machine, progress=shown)
        self._print(screen, result, found)
        if not result.everything_fits:
            self._say_what_does_not_fit(screen, result)
        self._write_report(screen, result, place.store)
        if result.everything_fits:
            return Exit.DONE
        missing = [choice for choice in result.recommendations if choice.status is not Fit.OK]
        broken = [c for c in missing if c.status is Fit.FAILED or _broken(result.rows, c) is not None]
        return Exit.USER_ERROR if len(broken) == len(missing) else Exit.NOTHING_FITS

    def dry_run(self, screen: Screen) -> Exit:
        """List the trials that are still to come, and how long they will take."""
        with self._place(screen) as place, TuneScreen(screen) as shown:
            planned = foresee(self._request, store=place.store, machine=place.machine, progress=shown)
        records = [_planned_record(one) for one in planned]
        if self._format is Format.JSON:
            swept = {key: [type(plain_value(v)).__name__ for v in listed] for key, listed in self._swept().items()}
            document = {"schema_version": 1, "trials": records, "seconds": total_seconds(planned), "set_types": swept}
            screen.json(document)
        elif self._format is Format.CSV:
            screen.csv(records)
        else:
            columns = ("checkpoints", "case", "rung", "time", "why")
            seconds = [tables.maybe_seconds(one.seconds) for one in planned]
            lines = [
                (r["checkpoints"], r["case"], r["rung"], time, r["why"])
                for r, time in zip(records, seconds, strict=True)
            ]
            for key, listed in self._swept().items():
                screen.line(
                    f"{key}: " + "; ".join(f"{value} ({type(plain_value(value)).__name__})" for value in listed)
                )
            screen.table(columns, lines)
            known = total_seconds(planned)
            said = "unknown until a trial of it was compiled" if known is None else f"about {format_seconds(known)}"
            screen.line(f"{len(planned)} trials, time {said}; what is measured may shorten or change the list")
        return Exit.DONE

    def _swept(self) -> dict[str, tuple[Scalar, ...]]:
        """Return the `--set` values, as the factory will get them."""
        return {key: tuple(map(read_value, listed)) for key, listed in self._request.listed.set_values.items()}

    @contextlib.contextmanager
    def _place(self, screen: Screen) -> Iterator[Workplace]:
        """Open store and machine, and end both."""
        if self._cluster is not None and (self._request.workers > 1 or self._replay_url is not None):
            raise AutotuneError("--cluster measures on its own workers: leave --workers and --replay out")
        if self._replay_url is None:
            with open_store(self._store_url) as store:
                machine = self._machine(screen)
                try:
                    yield Workplace(store=store, machine=machine)
                finally:
                    machine.close()
            return
        with open_store(self._replay_url, read_only=True) as recorded:
            rows = replay_rows(recorded.measurements(), str(self._request.problem))
            rows = [row for row in rows if row.adjoint is self._request.adjoint]
            machine = ReplayMachine(rows, recorded.place)
        with open_store(self._store_url or IN_MEMORY) as store:
            yield Workplace(store=store, machine=machine)

    def _machine(self, screen: Screen) -> Machine:
        """Make what measures: the workers of a cluster, several machines of this host, or one."""
        problem, search_path = self._request.located()
        settings, workers = self._request.settings, self._request.workers
        if self._cluster is not None:
            return ClusterMachine(
                self._cluster, settings, problem=problem, search_path=search_path, note=screen.say
            )  # fmt: skip
        if workers > 1:
            return make_machines(settings, search_path=search_path, size=workers)
        return make_machine(settings, search_path=search_path)

    def _print(self, screen: Screen, result: TuneResult, found: Largest | None) -> None:
        """Print the outcome in the chosen format."""
        if self._format is Format.JSON:
            screen.json(result.to_json() | ({"largest": dataclasses.asdict(found)} if found is not None else {}))
            return
        if self._format is Format.CSV:
            screen.csv([choice.to_json() for choice in result.recommendations], tables.RECOMMENDATION_COLUMNS)
            return
        self._print_for_people(screen, result)
        if found is not None and self._largest is not None:
            screen.line(f"answer      {describe_largest(found, self._largest, result.prepared.budget.bytes)}")

    def _print_for_people(self, screen: Screen, result: TuneResult) -> None:
        budget, adjoint = result.prepared.budget, result.prepared.request.adjoint
        margin = f", {format_bytes(budget.margin_bytes)} left alone as margin" if budget.margin_bytes else ""
        screen.line(
            f"{result.prepared.name} on {result.prepared.device.kind}, adjoint {adjoint}, "
            f"budget {format_bytes(budget.bytes)}{margin}"
        )
        for case in dict.fromkeys(row.case for row in result.rows):
            screen.line()
            title = "measured" if str(case) == "the only case" else f"measured at {case}"
            tables.show_front(screen, result.rows, case, title=title)
        screen.line()
        screen.line("recommended, each run under your own settings:")
        tables.show_recommendations(screen, result.recommendations)
        screen.line()
        fitting = [choice for choice in result.recommendations if choice.status is Fit.OK]
        if fitting:
            for word, line in zip(("use", ""), tables.usage_lines(fitting[-1], adjoint), strict=True):
                screen.line(f"{word:12}{line}")
            for word, line in zip(("sure", *[""] * 9), tables.sureness(fitting[-1]), strict=False):
                screen.line(f"{word:12}{line}")
        if result.spent is not None:
            screen.line(f"spent       {result.spent}")
        screen.line(f"stored in   {result.store}")
        if self._report_folder is None:
            screen.line(f"report      ckpt-tune report {result.prepared.name} --out DIR")
        for hint in result.hints:
            screen.line(f"hint        {hint}")
        if result.study_url is not None:
            screen.line(f"study       optuna-dashboard {shlex.quote(result.study_url)}")
            call = f"optuna.load_study(study_name={result.prepared.study!r}, storage={result.study_url!r})"
            screen.line(f"            {call}")

    def _say_what_does_not_fit(self, screen: Screen, result: TuneResult) -> None:
        for choice in result.recommendations:
            if choice.status is Fit.FAILED:
                failure = result.prepared.failures[choice.case]
                screen.fail(f"{choice.case} could not be measured: {failure.message}", failure.frames)
            if choice.status is not Fit.NOTHING_FITS:
                continue
            failed = _broken(result.rows, choice)
            if failed is not None:
                how = str(failed.status).replace("_", " ")
                screen.fail(
                    f"no run succeeded at {choice.case}, with any number of checkpoints: "
                    f"{how}{f' ({failed.message})' if failed.message else ''}; correct that first"
                )
            else:
                least = tables.maybe_bytes(choice.smallest_bytes) or "an unknown number of bytes"
                exact = f" ({choice.smallest_bytes} bytes)" if choice.smallest_bytes else ""
                screen.fail(
                    f"nothing fits {format_bytes(choice.budget_bytes)} at {choice.case}: "
                    f"the smallest that was found needs {least}{exact}; raise --budget, or shrink state or batch"
                )

    def _write_report(self, screen: Screen, result: TuneResult, store: ProfileStore) -> None:
        if self._report_folder is None:
            return
        from autotune.choosing.report import write_report

        rows = result.rows
        for path in write_report(_profile_of(store, rows), self._report_folder, result.recommendations):
            screen.say(f"wrote {path}")
        screen.line(f"report      {self._report_folder / 'report.html'}")


def read_cluster(
    address: str | None, tls: tuple[str | None, str | None, str | None], *, wait: float, kind: str | None, ship: bool
) -> ClusterRequest | None:
    """Make the request of a cluster from its options; None where there is none.

    Raises:
        AutotuneError: there is none, and an option that needs one.
    """
    ca, cert, key = tls
    if address is None:
        if ship or kind or any(tls):
            raise AutotuneError("--ship, --cluster-kind and --tls-… are for a cluster; name one with --cluster")
        return None
    certificates = Certificates(ca=ca or "", cert=cert or "", key=key or "")
    return ClusterRequest(address=address, certificates=certificates, wait_seconds=wait, ship=ship, kind=kind or "")


def _broken(rows: Sequence[Measurement], choice: Recommendation) -> Measurement | None:
    """Find a failed trial at a case where every trial that was run failed, and not by running out of memory."""
    here = [row for row in rows if row.case == choice.case]
    wrong = [row for row in here if row.status in (Status.FAILED, Status.NOT_FINITE, Status.TIMED_OUT)]
    ran = any(row.run_seconds or row.status is Status.OUT_OF_MEMORY for row in here if row not in wrong)
    return None if ran or not wrong else wrong[-1]


def _profile_of(store: ProfileStore, rows: Sequence):
    """Find the profile that the rows of a tune belong to."""
    from profiles import profile_id

    wanted = profile_id(rows[-1]) if rows else None
    found = next((profile for profile in store.profiles() if profile.id == wanted), None)
    if found is None:
        raise AutotuneError(f"the profile was deleted from {store.place} while it was tuned: no report was written")
    return found


def _planned_record(one: Planned) -> dict:
    asked = one.request
    return {
        "checkpoints": asked.checkpoints,
        "case": str(asked.cell),
        "set_values": {key: plain_value(value) for key, value in asked.cell.case.set_values},
        "rung": "final run" if one.final else str(asked.rung),
        "seconds": one.seconds,
        "why": asked.why,
    }
