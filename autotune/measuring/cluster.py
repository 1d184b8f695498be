"""A Dask cluster: who may be spoken to and how, and the worker that measures for it.

Dask runs whatever it is sent. So nothing here speaks to, or listens on, anything but loopback without TLS, in which
both sides show certificates of one authority.

`ckpt-tune worker` is a Dask worker with one thread for one device, whose resources say which device and which versions
it has, so that a tune's trials go only where they can be measured. A worker of Dask's own becomes one by
`--preload autotune.measuring.cluster` (with `--nthreads 1`). Trials run in processes of their own, so the worker itself
starts no jax.
"""

import asyncio
import contextlib
import dataclasses
import ipaddress
import logging
import os
import signal
import socket
import ssl
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import AutotuneError, NobodyMeasuresError, one_line
from autotune.machine.device import DeviceInfo
from autotune.measuring.errands import HERE, Answer, Errand, compared_versions, run_errand
from autotune.measuring.timing import WorkerMachine
from autotune.measuring.trial import RunSettings
from profiles import digest

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer."""
RETRY_SECONDS = 1.0
LARGEST_PARCEL_BYTES = 64 * 2**20
"""More than this is not shipped: data belongs where workers read it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files in PEM format: the authority's certificate, one's own, and its key; Dask's configuration where empty."""

    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRequest:
    """One worker: of which scheduler, on which device, and for how long to look for a scheduler that is gone."""

    address: str
    certificates: Certificates = dataclasses.field(default_factory=Certificates)
    platform: str | None = None
    device: int = 0
    wait_seconds: float = 300.0


def check_installed() -> None:
    """Say what to install where Dask is missing."""
    try:
        import distributed  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise AutotuneError(
            "a cluster needs Dask distributed, which is not installed: pip install 'ckpt-tune[cluster]'"
        ) from error


def check_address(address: str) -> None:
    """Refuse an address that is none, or over which anybody on the network could have their code run.

    Raises:
        AutotuneError: it is neither `tls://HOST:PORT` nor `tcp://` on loopback.
    """
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if scheme not in ("tls", "tcp") or not host or not port.isdigit():
        raise AutotuneError(
            f"{address!r} is not the address of a Dask scheduler; write tls://HOST:8786, or tcp://127.0.0.1:8786"
        )
    if scheme == "tcp" and not _is_loopback(host.strip("[]")):
        raise AutotuneError(
            f"{address} is open to the network, and Dask runs whatever it is sent; use tls:// with certificates "
            "(--tls-ca, --tls-cert, --tls-key), or tcp:// on 127.0.0.1 alone"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)


def check_peers(addresses: Iterable[str]) -> None:
    """Refuse a cluster of which a scheduler or worker listens to the network without TLS.

    Raises:
        AutotuneError: one does.
    """
    for address in addresses:
        try:
            check_address(address)
        except AutotuneError:
            raise AutotuneError(
                f"the cluster is open to the network: {address} listens without TLS, and Dask runs what it is sent; "
                "start scheduler and workers with --host 127.0.0.1, or with certificates"
            ) from None


def security_of(address: str, certificates: Certificates) -> Any:
    """Make Dask's security for an address that was checked.

    Raises:
        AutotuneError: TLS is asked for and the certificates are missing or cannot be read.
    """
    from distributed import Security

    given = {}
    if certificates.ca:
        given["tls_ca_file"] = certificates.ca
    for role in ("client", "worker"):
        given |= {f"tls_{role}_cert": certificates.cert} if certificates.cert else {}
        given |= {f"tls_{role}_key": certificates.key} if certificates.key else {}
    encrypted = address.startswith("tls://")
    try:
        made = Security(**given, **({"require_encryption": True} if encrypted else {}))
        ready = all(made.get_connection_args(role).get("ssl_context") for role in ("client", "worker"))
    except (OSError, ssl.SSLError, ValueError) as error:
        raise AutotuneError(f"the certificates for {address} cannot be used: {one_line(error)}") from error
    if encrypted and not ready:
        raise AutotuneError(
            f"{address} needs certificates: --tls-ca, --tls-cert and --tls-key, "
            "or distributed.comm.tls of Dask's own configuration"
        )
    return made


def connect(address: str, certificates: Certificates) -> Any:
    """Make a client of a scheduler, after looking whether its cluster keeps strangers out.

    Raises:
        AutotuneError: the address or the cluster is open to the network.
        NobodyMeasuresError: no scheduler answers.
    """
    check_installed()
    check_address(address)
    from distributed import Client

    security = security_of(address, certificates)
    quiet()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # versions are compared by us, and named
            client = Client(address, security=security, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise NobodyMeasuresError(f"no Dask scheduler answers at {address}: {one_line(error)}") from error
    try:
        info = client.scheduler_info()
        check_peers([info["address"], *info["workers"]])
    except BaseException:
        client.close()
        raise
    return client


def quiet() -> None:
    """Leave it to us to say what is wrong: Dask writes a traceback for every lost connection."""
    # Dask gives its first two levels of their own; what its lost tasks raise is told by the others.
    for name in ("distributed", "distributed.client", "asyncio", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def resources_of(device: DeviceInfo) -> dict[str, float]:
    """List the resources of a worker: its one device, the device's kind and platform, and the versions."""
    return {
        "device": 1.0,
        f"kind={device.kind}": 1.0,
        f"platform={device.platform}": 1.0,
        **{f"{name}={version}": 1.0 for name, version in compared_versions()},
    }


def packed(problem: str, search_path: Sequence[str], folder: Path) -> Path:
    """Put a problem's file, the Python files beside it, and the packages there, into an archive in a folder.

    Raises:
        AutotuneError: they are too large, or a module is not found.
    """
    files = _parcel_of(problem, search_path)
    size = sum(path.stat().st_size for path in files.values())
    if size > LARGEST_PARCEL_BYTES:
        raise AutotuneError(
            f"--ship would send {size} bytes of Python files beside {problem}, and at most "
            f"{LARGEST_PARCEL_BYTES} are sent; put the problem into a folder of its own"
        )
    # Its name is that of what it holds, so that two states of a problem do not meet on a worker.
    content = sorted((inside, path.read_bytes().hex()) for inside, path in files.items())
    archive = folder / f"ckpt-tune-{digest(content)[:16]}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for inside, path in files.items():
            made.write(path, inside)
    return archive


def _parcel_of(problem: str, search_path: Sequence[str]) -> dict[str, Path]:
    """List what is shipped, by its name in the archive."""
    place, _, _ = problem.rpartition(":")
    if place.endswith(".py"):
        folder = Path(place).parent
    else:
        top = place.partition(".")[0]
        found = [Path(path) for path in search_path]
        folder = next((path for path in found if (path / top).is_dir() or (path / f"{top}.py").is_file()), None)
        if folder is None:
            raise AutotuneError(f"--ship found no {top} in {', '.join(search_path)}; write FILE.py:factory")
    packages = [path.parent for path in folder.glob("*/__init__.py")]
    files = [*folder.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]
    return {path.relative_to(folder).as_posix(): path for path in sorted(files)}


# --- what runs on a worker --------------------------------------------------------------------------------------------


def run_on_worker(errand: Errand, topic: str, unit: str) -> tuple[str, Answer]:
    """Run an errand on a Dask worker, and tell the tuner where it begins and that it is over."""
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(topic, {"unit": unit, "worker": worker.address, "over": False})
    answer = run_errand(errand)
    worker.log_event(topic, {"unit": unit, "worker": worker.address, "over": True})
    return worker.address, answer


def given_up_here() -> Callable[[], bool]:
    """Make what tells whether Dask waits no more for the task that this thread runs, or ends its worker."""
    from distributed import get_worker

    try:
        worker = get_worker()
        key = worker.get_current_task()
    except ValueError:
        return lambda: False

    def given_up() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled" or worker.status.name in ("closing", "closed", "failed")

    return given_up


def unpacked(parcel: str) -> Path:
    """Return the folder of a parcel that was shipped to this worker."""
    from distributed import get_worker

    archive = Path(get_worker().local_directory) / parcel
    folder = archive.with_suffix("")
    if not folder.is_dir():
        if not archive.is_file():
            raise AutotuneError(f"the worker has no {parcel}, which the tune shipped; run the tune again")
        with tempfile.TemporaryDirectory(dir=archive.parent) as made:
            zipfile.ZipFile(archive).extractall(made)
            with contextlib.suppress(OSError):  # another thread was faster
                os.rename(made, folder)
            os.makedirs(made, exist_ok=True)  # for the context, which removes it
    return folder


async def dask_setup(worker: Any) -> None:
    """Make a worker of Dask's own one that measures: `dask worker --preload autotune.measuring.cluster`."""
    found = await asyncio.get_running_loop().run_in_executor(None, read_device, None, 0)
    for resources in (worker.state.total_resources, worker.state.available_resources):
        resources.update(resources_of(found))


def read_device(platform: str | None, index: int) -> DeviceInfo:
    """Read a device in a process that ends with that."""
    with WorkerMachine(RunSettings(platform=platform, device=index, own_environment=True)) as machine:
        return machine.device_info()


def run_worker(request: WorkerRequest, say: Callable[[str], None]) -> None:
    """Be a worker until somebody ends it, or its scheduler is gone for too long.

    Raises:
        AutotuneError: the address is open to the network, or certificates are missing.
        NobodyMeasuresError: there was no scheduler for as long as was asked for.
    """
    check_installed()
    check_address(request.address)
    security = security_of(request.address, request.certificates)
    quiet()
    device = read_device(request.platform, request.device)
    HERE.device = request.platform, request.device
    asyncio.run(_Serving(request, security, device, say).run())


class _Serving:
    """A worker that joins its scheduler, and again where that was restarted."""

    def __init__(self, request: WorkerRequest, security: Any, device: DeviceInfo, say: Callable[[str], None]) -> None:
        self._request = request
        self._security = security
        self._device = device
        self._say = say

    async def run(self) -> None:
        """Serve until it is over."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        joined_id, until = "", loop.time() + self._request.wait_seconds
        with _signals(loop, ended):
            while not ended.is_set():
                found_id = await self._scheduler_id(ended)
                if found_id is None or found_id == joined_id:
                    break  # told to end, or sent away by a scheduler that is still there
                try:
                    await self._serve(ended)
                    joined_id, until = found_id, loop.time() + self._request.wait_seconds
                except (OSError, RuntimeError) as error:  # it ended in between, or does not want this worker
                    if loop.time() > until:
                        address = self._request.address
                        raise NobodyMeasuresError(f"{address} cannot be joined: {one_line(error)}") from error
                    await asyncio.sleep(RETRY_SECONDS)
        self._say("ended")

    async def _scheduler_id(self, ended: asyncio.Event) -> str | None:
        """Wait for a scheduler and return what tells it from the one before; None when told to end."""
        from distributed import rpc

        until, why = asyncio.get_running_loop().time() + self._request.wait_seconds, "nothing answers"
        while not ended.is_set():
            try:
                arguments = self._security.get_connection_args("worker")
                async with asyncio.timeout(CONNECT_SECONDS):
                    async with rpc(self._request.address, connection_args=arguments) as scheduler:
                        info: Any = await scheduler.identity(n_workers=0)
                check_peers([info["address"]])
                return info["id"]
            except (OSError, RuntimeError) as error:  # a time-out is an OSError
                why = one_line(error)
            if asyncio.get_running_loop().time() > until:
                raise NobodyMeasuresError(
                    f"no Dask scheduler at {self._request.address} for {self._request.wait_seconds:.0f} s: {why}"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), RETRY_SECONDS)
        return None

    async def _serve(self, ended: asyncio.Event) -> None:
        """Be a worker of the scheduler that is there now, until either of both ends."""
        from distributed import Worker

        address = self._request.address
        encrypted = address.startswith("tls://")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            worker = await Worker(
                address,
                nthreads=1,
                resources=resources_of(self._device),
                security=self._security,
                protocol=address.partition("://")[0],
                host=None if encrypted else "127.0.0.1",
                dashboard=False,
                dashboard_address="127.0.0.1:0",
                death_timeout=CONNECT_SECONDS,
                memory_limit=0,
            )
        self._say(f"worker {worker.address} measures on {self._device.kind} for {address}")
        finished, told = asyncio.ensure_future(worker.finished()), asyncio.ensure_future(ended.wait())
        await asyncio.wait((finished, told), return_when=asyncio.FIRST_COMPLETED)
        HERE.close()
        await worker.close()
        told.cancel()
        await finished
        if not ended.is_set():
            self._say(f"left {address}")


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> Iterator[None]:
    """Let Ctrl-C and a batch system's request to end finish the worker in good order."""
    names = (signal.SIGINT, signal.SIGTERM)
    with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, and threads
        for name in names:
            loop.add_signal_handler(name, ended.set)
    yield
    with contextlib.suppress(NotImplementedError, RuntimeError):
        for name in names:
            loop.remove_signal_handler(name)
