"""The command `worker`: one Dask worker for one device."""

from typing import Annotated

import typer

from autotune.cli.common import Device, Platform, Quiet, TlsCa, TlsCert, TlsKey, guarded
from autotune.cli.screen import Screen
from autotune.errors import AutotuneError


@guarded
def worker(
    address: Annotated[str, typer.Argument(help="tls://HOST:8786, or tcp:// on 127.0.0.1.", metavar="ADDRESS")],
    platform: Platform = None,
    device: Device = 0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    wait: Annotated[float, typer.Option(help="Seconds without a scheduler after which to end.")] = 300.0,
    quiet: Quiet = False,
    of_a_study: Annotated[
        list[str] | None, typer.Option("--problem", "--store", "--idle", "--parent", "--search", hidden=True)
    ] = None,
) -> None:
    """Measure with one device for the tunes of a Dask scheduler. Those are started with `tune --cluster`."""
    from autotune.measuring.cluster import Certificates, WorkerRequest, run_worker

    if of_a_study or "://" not in address:
        raise AutotuneError(
            "workers join a Dask scheduler and no study any more: `ckpt-tune worker tls://HOST:8786` here, "
            "and `ckpt-tune tune … --cluster tls://HOST:8786` where you tune"
        )
    certificates = Certificates(ca=tls_ca or "", cert=tls_cert or "", key=tls_key or "")
    request = WorkerRequest(
        address=address, certificates=certificates, platform=platform, device=device, wait_seconds=wait
    )
    run_worker(request, Screen(quiet=quiet).say)
