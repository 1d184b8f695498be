"""Measure the service under load: requests a second, latencies, memory, and what a kill -9 in mid-load loses.

    .venv/bin/python scripts/bench_serve.py --out profiles/reference/serve.csv --postgresql postgresql://me@host/empty

For SQLite, and for a PostgreSQL database that is named (its tables of ckpt-tune are filled, and emptied afterwards), a
store is filled with made-up sweeps and served by a process of its own. As many clients as are asked for send one
request after the other, over connections that stay open: `recommend` with a profile and a budget drawn at random, then
pages of profiles that were shown before. At last writers send rows while the server is killed and started again; every
row that was acknowledged has to be there, once. Needs a checkout, whose tests make the sweeps.
"""

import argparse
import asyncio
import contextlib
import csv
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from profiles import StoreError, open_store  # noqa: E402 # the checkout's own tests are imported below
from tests.profiles.makers import a_measurement, a_sweep  # noqa: E402

PAGES = 20
"""Profiles whose pages are asked for again and again."""
KILLS = 3
WRITERS = 8


def fill(url: str, rows: int, profiles: int, seed: int) -> list[str]:
    """Fill a store with so many profiles of equal size, and return their names."""
    each, names, random_ = rows // profiles, [], random.Random(seed)
    with open_store(url) as store:
        for number in range(profiles):
            name = f"made_up_{number}:make"
            cases = {"horizons": (100, 200, 400, 800), "tolerances": (1e-3, 1e-6)}
            counts = tuple(range(2, 2 + max(1, each // 8)))
            state_bytes = random_.randrange(2**18, 2**22)
            store.put_all(a_sweep(name=name, checkpoints=counts, state_bytes=state_bytes, **cases))
            names.append(name)
    return names


@contextlib.contextmanager
def serving(url: str, port: int, said: Path) -> Iterator[tuple[subprocess.Popen, float]]:
    """Start the service in a process of its own; yields it and the seconds until it answered."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "autotune.cli", "serve", "--store", url, "--port", str(port), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(said.parent)}
    with said.open("a") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None:
                raise SystemExit(f"bench_serve: the service ended: {said.read_text()[-500:]}")
            time.sleep(0.01)
        yield process, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(60)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    """Send one request over an open connection, and read its answer to the end."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    await reader.readexactly(int(length.split(b":")[1]))
    return int(head[9:12])


async def load(port: int, paths: Sequence[str], clients: int, seconds: float) -> tuple[list[float], float]:
    """Let clients ask for paths at random for so long; returns the seconds of each answer, and of all."""
    taken: list[float] = []
    began = time.perf_counter()
    ends = began + seconds

    async def client(number: int) -> None:
        random_ = random.Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (start := time.perf_counter()) < ends:
            status = await ask(reader, writer, random_.choice(paths))
            if status != 200:
                raise SystemExit(f"bench_serve: an answer was {status}")
            taken.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return taken, time.perf_counter() - began


def figures(kind: str, taken: list[float], seconds: float) -> dict[str, object]:
    """Sum up one load."""
    ordered = sorted(taken)
    return {
        "what": kind,
        "requests": len(taken),
        "requests_a_second": round(len(taken) / seconds, 1),
        "p50_milliseconds": round(1000 * statistics.median(ordered), 2),
        "p99_milliseconds": round(1000 * ordered[int(0.99 * len(ordered))], 2),
        "most_milliseconds": round(1000 * ordered[-1], 2),
    }


def kill_in_mid_load(url: str, port: int, said: Path, seconds: float) -> dict[str, object]:
    """Write rows while the service is killed again and again; count what was acknowledged and what is there."""
    acknowledged: list[list[str]] = [[] for _ in range(WRITERS)]
    ended, opened = threading.Event(), threading.Barrier(WRITERS + 1)

    def write(number: int) -> None:
        with open_store(f"http://127.0.0.1:{port}") as store:
            opened.wait(120)
            for repeat in range(10**6):
                if ended.is_set():
                    return
                row = a_measurement(name="killed:make", study=f"writer {number}", repeat=repeat)
                with contextlib.suppress(StoreError):  # not acknowledged; it may be there all the same
                    store.put(row)
                    acknowledged[number].append(row.key)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    with contextlib.ExitStack() as stack:
        process, _ = stack.enter_context(serving(url, port, said))
        for thread in threads:
            thread.start()
        opened.wait(120)
        for _ in range(KILLS):
            time.sleep(seconds / (KILLS + 1))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process, _ = stack.enter_context(serving(url, port, said))
        time.sleep(seconds / (KILLS + 1))
        ended.set()
        for thread in threads:
            thread.join()
        with open_store(f"http://127.0.0.1:{port}"):
            pass  # delivers what waited for the service
    with open_store(url) as store:
        there = [row.key for row in store.measurements(problem_name="killed:make")]
    sent = [key for keys in acknowledged for key in keys]
    lost, double = len(set(sent) - set(there)), len(there) - len(set(there))
    return {"what": f"{KILLS} x kill -9", "requests": len(sent), "lost": lost, "double": double}


def measure(store: str, url: str, options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Measure one kind of store."""
    said = folder / "serve.log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    names = fill(url, options.rows, options.profiles, options.seed)
    random_ = random.Random(options.seed)
    asked = [
        "/api/v1/recommend?" + urlencode({"profile": random_.choice(names), "budget": random_.randrange(2**21, 2**28)})
        for _ in range(20 * len(names))
    ]
    pages = [f"/profiles/{quote(name)}" for name in names[:PAGES]]
    found = []
    with serving(url, port, said) as (process, started):
        memory = psutil.Process(process.pid).memory_info

        async def run() -> None:
            empty = memory().rss
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            cold = []
            for name in names:
                start = time.perf_counter()
                await ask(reader, writer, f"/api/v1/recommend?{urlencode({'profile': name, 'budget': '64MiB'})}")
                cold.append(time.perf_counter() - start)
            found.append(figures("recommend, first time", cold, sum(cold)) | {"rss_bytes": empty})
            found.append(figures("recommend", *await load(port, asked, options.clients, options.seconds)))
            found[-1] |= {"rss_bytes": memory().rss}
            cold = []
            for path in pages:
                start = time.perf_counter()
                await ask(reader, writer, path)
                cold.append(time.perf_counter() - start)
            found.append(figures("page, first time", cold, sum(cold)))
            found.append(figures("page", *await load(port, pages, options.clients, options.seconds)))
            found[-1] |= {"rss_bytes": memory().rss}
            writer.close()

        asyncio.run(run())
    found.append(kill_in_mid_load(url, port, said, options.seconds))
    same = {
        "store": store, "rows": options.rows, "profiles": options.profiles, "clients": options.clients,
        "start_seconds": round(started, 2), "seed": options.seed,
        "machine": f"{platform.machine()} {platform.system()}", "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1), "python": platform.python_version(),
        "fastapi": metadata.version("fastapi"), "uvicorn": metadata.version("uvicorn"),
    }  # fmt: skip
    return [same | one for one in found]


COLUMNS = (
    "store", "what", "requests", "requests_a_second", "p50_milliseconds", "p99_milliseconds", "most_milliseconds",
    "rss_bytes", "lost", "double", "start_seconds", "rows", "profiles", "clients", "seed", "machine", "cores", "load",
    "python", "fastapi", "uvicorn",
)  # fmt: skip


def main() -> int:
    """Measure each kind of store, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("serve.csv"), help="where the CSV goes")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the store")
    parser.add_argument("--profiles", type=int, default=500, help="profiles that they belong to")
    parser.add_argument("--clients", type=int, default=64, help="clients at once")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each load lasts")
    parser.add_argument("--seed", type=int, default=0, help="what is asked for, and in which order")
    parser.add_argument("--postgresql", default="", help="a database of PostgreSQL without rows, to be measured too")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder  # where rows wait for a service that is away
        found += measure("SQLite", str(Path(folder) / "profiles.db"), options, Path(folder))
        if options.postgresql:
            with open_store(options.postgresql) as store:
                if store.stamp() != "(0, None)":
                    raise SystemExit(f"bench_serve: {store.place} holds rows already; name a database that is empty")
            try:
                found += measure("PostgreSQL", options.postgresql, options, Path(folder))
            finally:
                with open_store(options.postgresql) as store:
                    store.delete(store.measurements())
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    for row in found:
        print("  ".join(f"{name}={row[name]}" for name in COLUMNS[:11] if name in row))
    return 0 if all(not row.get("lost") and not row.get("double") for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
