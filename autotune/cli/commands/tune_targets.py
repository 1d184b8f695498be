"""The command `tune --target`: one tune for each device that is not here, shown together."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from autotune.choosing.recommend import Fit, Recommendation
from autotune.cli import tables
from autotune.cli.screen import Exit, Format, Screen, TuneScreen
from autotune.errors import AutotuneError
from autotune.machine.compilers import search_path
from autotune.machine.targets import Target, find_targets
from autotune.planning.targets import tune_target
from autotune.tuning.lab import make_machine
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import TuneResult
from profiles import format_bytes, format_seconds, open_store


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one target: the tune's result, or the line that says why there is none."""

    target: Target
    result: TuneResult | None = None
    message: str = ""
    frames: tuple[str, ...] = ()

    def records(self) -> list[dict[str, Any]]:
        """Give one entry for each case."""
        place = {"target": self.target.name, "device": self.target.kinds[0]}
        if self.result is None:
            return [place | {"status": str(Fit.FAILED), "message": self.message}]
        return [place | choice.to_json() for choice in self.result.recommendations]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """What belongs to `--target`: the devices, how many of each a call spans, and what only a device here can do.

    `elsewhere` maps options with which nothing can be compiled for another device to what was given.
    """

    names: tuple[str, ...]
    count: int
    elsewhere: Mapping[str, object]
    format: Format


def tune_targets_command(screen: Screen, request: TuneRequest, options: TargetOptions, store_url: str | None) -> Exit:
    """Tune for devices that are not here.

    Raises:
        AutotuneError: an option is for a device that is here, or no target could be compiled for at all.
    """
    for option, given in options.elsewhere.items():
        if given:
            raise AutotuneError(f"--target compiles for devices that are not here; {option} is for one that is")
    return TuneTargetsCommand(request, options, store_url).run(screen)


class TuneTargetsCommand:
    """One call of `ckpt-tune tune --target`."""

    def __init__(self, request: TuneRequest, options: TargetOptions, store_url: str | None) -> None:
        """Keep the request and the names of the devices."""
        # Steps are counted on the CPU unless another platform was named: no accelerator that is here is touched.
        platform = request.settings.platform or "cpu"
        settings = dataclasses.replace(request.settings, platform=platform)
        self._request = dataclasses.replace(request, settings=settings)
        names = [name.strip() for text in options.names for name in text.split(",")]
        self._targets = find_targets(names, count=options.count)
        self._store_url = store_url
        self._format = options.format

    def run(self, screen: Screen) -> Exit:
        """Tune for every target, and print the outcome.

        Raises:
            AutotuneError: no target could be compiled for at all, for one and the same reason.
        """
        _, folders = self._request.located()
        with open_store(self._store_url) as store, TuneScreen(screen) as shown:
            machine = make_machine(self._request.settings, search_path=folders)
            answers = []
            try:
                for target in self._targets:
                    try:
                        search_path(target.compilers)
                        shown.note(f"{target.name}: compiling for {target.kinds[0]}, which is not here")
                        found = tune_target(self._request, target, store=store, machine=machine, progress=shown)
                        answers.append(Answer(target=target, result=found))
                    except AutotuneError as error:
                        answers.append(Answer(target=target, message=str(error), frames=error.frames))
            finally:
                machine.close()
        reasons = {answer.message for answer in answers}
        if all(answer.result is None for answer in answers) and len(reasons) == 1:
            raise AutotuneError(reasons.pop(), frames=answers[0].frames)
        self._print(screen, answers)
        return self._exit(screen, answers)

    def _print(self, screen: Screen, answers: list[Answer]) -> None:
        records = [record for answer in answers for record in answer.records()]
        results = [answer.result for answer in answers if answer.result is not None]
        if self._format is Format.JSON:
            document = {
                "schema_version": 1,
                "problem": results[0].prepared.name if results else str(self._request.problem),
                "device": ", ".join(answer.target.name for answer in answers),
                "adjoint": str(self._request.adjoint),
                "store": results[0].store if results else None,
                "recommendations": records,
                "notes": {a.target.name: list(a.result.hints) for a in answers if a.result is not None},
            }
            screen.json(document)
            return
        if self._format is Format.CSV:
            screen.csv(records, ("target", "device", *tables.RECOMMENDATION_COLUMNS))
            return
        for answer in answers:
            self._print_one(screen, answer)

    def _print_one(self, screen: Screen, answer: Answer) -> None:
        if answer.result is None:
            screen.line(f"{answer.target.name}: failed")
            return
        result = answer.result
        budget = result.prepared.budget
        screen.line(
            f"{result.prepared.name} on {answer.target.name} ({answer.target.kinds[0]}), "
            f"adjoint {result.prepared.request.adjoint}, budget {format_bytes(budget.bytes)}"
            + (f", {format_bytes(budget.margin_bytes)} left alone as margin" if budget.margin_bytes else "")
        )
        tables.show_recommendations(screen, result.recommendations)
        fitting = [choice for choice in result.recommendations if choice.status is Fit.OK]
        if fitting:
            adjoint = result.prepared.request.adjoint
            for word, line in zip(("use", ""), tables.usage_lines(fitting[-1], adjoint), strict=True):
                screen.line(f"{word:12}{line}")
        bounds = [
            format_seconds(choice.least_seconds) + f" at {choice.case}" * (len(fitting) > 1)
            for choice in fitting
            if choice.least_seconds is not None
        ]
        if bounds:
            screen.line(f"at least    {', '.join(bounds)} a call: a bound by stated peak rates, not what it will take")
        screen.line(f"planned     {result.measured} compilations, {result.reused} of earlier; stored in {result.store}")
        for hint in result.hints:
            screen.line(f"hint        {hint}")
        screen.line()

    def _exit(self, screen: Screen, answers: list[Answer]) -> Exit:
        """Say what does not fit or failed, and choose the exit code."""
        worst = Exit.DONE
        failed = 0
        wanting = [(answer, choice) for answer in answers for choice in _not_fitting(answer)]
        for answer in answers:
            if answer.result is None:
                failed += 1
                screen.fail(f"{answer.target.name}: {answer.message}", answer.frames)
        for answer, choice in wanting:
            if choice.status is Fit.FAILED:
                failed += 1
                message, *frames = choice.message.splitlines() or [""]
                screen.fail(f"{answer.target.name}: {choice.case} could not be compiled: {message}", frames)
                continue
            least = tables.maybe_bytes(choice.smallest_bytes) or "an unknown number of bytes"
            worst = Exit.NOTHING_FITS
            screen.fail(
                f"{answer.target.name}: nothing fits {format_bytes(choice.budget_bytes)} at {choice.case}: "
                f"the smallest that was compiled needs {least}; raise --budget, or shrink state or batch"
            )
        return worst if worst is not Exit.DONE or not failed else Exit.USER_ERROR


def _not_fitting(answer: Answer) -> list[Recommendation]:
    choices = answer.result.recommendations if answer.result is not None else ()
    return [choice for choice in choices if choice.status is not Fit.OK]
