"""The process that measures: `python -P -m autotune.measuring.worker`, one JSON line in, one JSON line out.

Its environment is set by whoever starts it, before jax does. Standard output belongs to the protocol alone: what the
user's code prints goes to standard error. So does standard input: the user's code finds an empty one. It ends itself
when its input ends or its parent is gone; where user code holds the interpreter, `autotune.machine.family` ends it.

Requests are `{"id", "op", …}`; replies `{"id", "ok": …, "resident_bytes"}` or `{"id", "error": {"message", "frames",
"trace", "changed"}}`, `trace` only for what is a bug here and not an error of the user's.

A problem is loaded once. Before anything is measured of it, its key is compared with that of the tune: the file may
have been edited since the tune began.
"""

import argparse
import dataclasses
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import IO, Any

_PARENT_POLL_SECONDS = 0.5


def main() -> None:
    """Read requests until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory-limit", type=int)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--platform")
    options = parser.parse_args()
    replies, requests = _take_stdout(), _take_stdin()
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    if options.memory_limit is not None:
        from autotune.machine.host import limit_address_space

        if complaint := limit_address_space(options.memory_limit):
            print(complaint, file=sys.stderr)
    answer = Worker(options.platform, options.device).answer
    for line in requests:
        request = json.loads(line)
        reply = {"id": request["id"], **_safely(answer, request)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _take_stdout() -> IO[str]:
    """Keep the real standard output for replies, and send everybody else's to standard error."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return private


def _take_stdin() -> IO[str]:
    """Keep the real standard input for requests, and give everybody else an empty one."""
    private = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (open as long as the process)
    return private


def _die_with(parent: int) -> None:
    # Beside what the supervisor does, for systems that have none, or where somebody has killed it.
    import psutil

    while os.getppid() == parent or (os.name == "nt" and psutil.pid_exists(parent)):
        time.sleep(_PARENT_POLL_SECONDS)
    os._exit(1)


def _safely(answer: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> dict[str, Any]:
    from autotune.errors import AutotuneError, ProblemChangedError, one_line
    from autotune.machine.host import resident_bytes

    try:
        return {"ok": answer(request), "resident_bytes": resident_bytes()}
    except AutotuneError as error:
        changed = isinstance(error, ProblemChangedError)
        return {"error": {"message": str(error), "frames": list(error.frames), "trace": None, "changed": changed}}
    except Exception as error:
        return {"error": {"message": one_line(error), "frames": [], "trace": traceback.format_exc()}}


class Worker:
    """What answers requests, with the problems that it has loaded and the trials that it has compiled."""

    def __init__(self, platform: str | None, device: int) -> None:
        """Remember which device to use; jax starts with the first request that needs it."""
        self._platform = platform
        self._device_index = device
        self._problems: dict[str, Any] = {}
        self._trials: dict[str, Any] = {}
        self._keys: dict[str, Any] = {}
        self._info: Any = None

    def answer(self, request: dict[str, Any]) -> Any:
        """Carry one request out."""
        sys.path.extend(folder for folder in request.get("search_path", ()) if folder not in sys.path)
        return getattr(self, f"_do_{request['op']}")(request)

    def _device(self) -> Any:
        from autotune.machine.device import device_info

        if self._info is None:
            self._info = device_info(self._platform, self._device_index)
            if self._device_index:
                import jax

                jax.config.update("jax_default_device", jax.local_devices(backend=self._platform)[self._device_index])
        return self._info

    def _problem(self, request: dict[str, Any]) -> Any:
        from autotune.problem.loading import load_problem

        self._device()
        spec = request["problem"]
        if spec not in self._problems:
            self._problems[spec] = load_problem(spec)
        return self._problems[spec].with_set(request["set_values"])

    def _key(self, request: dict[str, Any], horizon: Any, tolerance: Any) -> Any:
        """Fingerprint a loaded problem at a horizon and tolerance, once; from shapes where nothing will be run."""
        from autotune.problem.fingerprint import problem_key

        at = json.dumps([request["problem"], request["set_values"], repr(horizon), tolerance])
        if at not in self._keys:
            planned = request.get("shapes_only") or (request.get("settings") or {}).get("target") is not None
            self._keys[at] = problem_key(
                self._problem(request), horizon=horizon, tolerance=tolerance, shapes_only=bool(planned)
            )
        return self._keys[at]

    def _same_problem(self, request: dict[str, Any]) -> Any:
        """Load a problem, and refuse it where it is not the one whose key the request carries."""
        problem = self._problem(request)
        place = request["key_place"]
        if request["key"] is None or place is None:
            return problem
        here = self._key(request, place["horizon"], place["tolerance"])
        if dict(here.components) != dict(request["key"]["components"]):
            from autotune.errors import ProblemChangedError
            from autotune.measuring.wire import decode_problem_key
            from autotune.problem.differences import component_differences

            what = "; ".join(component_differences(decode_problem_key(request["key"]), here))
            raise ProblemChangedError(
                f"{here.name} was changed while it was tuned ({what}); what was measured before is stored and stays: "
                "run the same command again to tune it as it is now"
            )
        return problem

    def _do_hello(self, request: dict[str, Any]) -> Any:
        """Start jax and Diffrax, so that no later request pays for that."""
        from autotune.errors import AutotuneError, one_line

        try:
            import diffrax

            self._device()
        except (ImportError, RuntimeError) as error:
            if "Cannot allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            raise AutotuneError(f"jax could not start in a worker: {one_line(error)}") from error
        return diffrax.__version__

    def _do_device(self, request: dict[str, Any]) -> Any:
        from autotune.machine.device import device_info
        from autotune.measuring.wire import encode

        return encode(device_info(request["platform"], request["device"]))

    def _do_key(self, request: dict[str, Any]) -> Any:
        from autotune.measuring.wire import encode

        return encode(self._key(request, request["horizon"], request["tolerance"]))

    def _do_observe(self, request: dict[str, Any]) -> Any:
        from autotune.measuring.wire import encode

        problem = self._same_problem(request)
        from autotune.problem.probe import observe
        from profiles import AdjointName

        return encode(
            observe(
                problem, request["horizon"], request["tolerance"], repeats=request["repeats"],
                variations=request["variations"],
                adjoint=AdjointName(request["adjoint"]) if request["adjoint"] else None,
            )
        )  # fmt: skip

    def _do_costs(self, request: dict[str, Any]) -> Any:
        """Count what a step costs at least; nothing is compiled or run."""
        from autotune.problem.counting import step_costs

        found = step_costs(self._same_problem(request), request["horizon"], request["tolerance"])
        return None if found is None else dataclasses.asdict(found)

    def _do_transfer(self, request: dict[str, Any]) -> Any:
        """Time the transfers of a tier."""
        from adjoint import transfer_seconds
        from autotune.errors import AutotuneError, one_line

        self._device()
        try:
            return transfer_seconds(request["tier"], request["state_bytes"], directory=request["directory"])
        except (ValueError, RuntimeError) as error:
            raise AutotuneError(f"the tier {request['tier']} cannot be used: {one_line(error)}") from error

    def _do_compile(self, request: dict[str, Any]) -> Any:
        """Compile a trial; keep it under its name if it is to be run."""
        from autotune.measuring.wire import decode_trial, encode

        trial = decode_trial(request["trial"])
        problem = self._same_problem(request["trial"])
        from autotune.measuring.measure import compile_trial

        row, prepared = compile_trial(problem, trial, device=self._device())
        if prepared is not None:
            self._trials[request["name"]] = (row, prepared)
        return {"row": encode(row), "ready": prepared is not None}

    def _do_call(self, request: dict[str, Any]) -> Any:
        """Call a compiled trial for the first time, watching memory."""
        from autotune.measuring.measure import first_call
        from autotune.measuring.wire import encode

        row, prepared = self._trials[request["name"]]
        row, ready = first_call(row, prepared)
        if not ready:
            del self._trials[request["name"]]
        return {"row": encode(row), "ready": ready}

    def _do_time(self, request: dict[str, Any]) -> Any:
        """Take one timing sample of a trial that was called."""
        from autotune.measuring.measure import failure

        _, prepared = self._trials[request["name"]]
        try:
            return {"seconds": prepared.time_once()}
        except Exception as error:
            del self._trials[request["name"]]
            return {"failure": failure(error)}

    def _do_drop(self, request: dict[str, Any]) -> Any:
        """Forget all compiled trials."""
        import gc

        # What jax has traced stays: the next batch needs most of it again, and a worker that grows is replaced.
        self._trials.clear()
        gc.collect()
        return None


if __name__ == "__main__":
    main()
