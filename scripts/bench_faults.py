"""Inject faults for real, at random moments, and print what became of each.

    python scripts/bench_faults.py --kills 200 --fuzz 2000 --files 200 [--out faults.csv]

Tunes by arithmetic (`tests/faults/injection.py`) are killed and started again until they end, processes with children
are killed from outside, the line to a PostgreSQL server (CKPT_TUNE_TEST_POSTGRESQL) is cut; each has an outer time-out.
Then command lines, files to import and damaged stores are drawn at random and handed to the command line. A row of the
table is a fault: how often it was injected, and how many rows were lost or doubled, how many runs hung, left processes
or files behind, or ended in a traceback. Everything but the first column of figures should be 0.
"""

import argparse
import csv
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import psutil
import sqlalchemy as sa
import typer.testing

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from autotune.cli import app
from profiles import Measurement, ProfilesError, Spool, export_table, open_store, parse_url
from tests.faults.fuzzing import damaged, garbled, words_of_a_command
from tests.faults.injection import Line, own, start_tune
from tests.faults.test_processes import HOLDS_THE_INTERPRETER, STARTS, TUNER, command, sleepers
from tests.profiles.makers import a_measurement

LONGEST_SECONDS = 120.0
COUNTS = (2, 3, 4, 6, 8, 12, 16, 24)


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What became of one kind of fault."""

    fault: str
    times: int = 0
    lost: int = 0
    doubled: int = 0
    hangs: int = 0
    processes: int = 0
    files: int = 0
    tracebacks: int = 0


def stored(url: str) -> list[Measurement]:
    """Read every row; none where there is no table yet."""
    try:
        with open_store(url, read_only=True) as opened:
            return opened.measurements()
    except ProfilesError:
        return []


def doubled(rows: Sequence[Measurement]) -> int:
    """Count the points that stand there more than once."""
    points = [(row.study, row.horizon, row.checkpoints, row.repeat, row.problem.name) for row in rows]
    return len(points) - len(set(points))


def killed_tunes(
    kills: int, chance: random.Random, folder: pathlib.Path, *, url: Callable[[], str], line: Line | None = None
) -> Outcome:
    """Kill tunes, or cut their line to the store, until they have ended often enough; each goes on from its store."""
    done = Outcome(fault="kill -9 of a tune, SQLite" if line is None else "a cut line to PostgreSQL, and kills")
    store, before = url(), {}
    while done.times < kills:
        tune = start_tune(store, COUNTS, folder, pause=0.05)
        try:
            tune.communicate(timeout=chance.uniform(0.5, 6.0))
        except subprocess.TimeoutExpired:
            done.times += 1
            if line is not None and chance.random() < 0.7:
                line.cut()
                time.sleep(chance.uniform(0.0, 1.0))
                line.mend()
            else:
                tune.kill()
            try:
                said, _ = tune.communicate(timeout=LONGEST_SECONDS)
                done.tracebacks += "Traceback" in said
            except subprocess.TimeoutExpired:
                done.hangs += 1
                tune.kill()
                tune.communicate()
        name = store if line is not None else str(parse_url(store).database)
        after = {row.key: row for row in (*Spool(name).rows(), *stored(store))}
        done.lost += sum(key not in after for key in before)
        done.doubled += doubled(list(after.values()))
        before = after
        if tune.returncode == 0:
            done.files += left_over(folder)
            store, before = url(), {}
    return done


def left_over(folder: pathlib.Path) -> int:
    """Count the files that no tune should leave: half studies, spools, unfinished files."""
    left = [*folder.rglob(".*.db.*"), *folder.rglob("*.partial"), *folder.rglob("*.jsonl")]
    for path in left:
        print("left:", path, file=sys.stderr)
    return len(left)


def killed_families(kills: int, chance: random.Random) -> Outcome:
    """Kill tuners, supervisors and workers whose problem started something; nothing of it may go on."""
    done = Outcome(fault="kill -9 of tuner or worker, with children")
    root = str(pathlib.Path(__file__).resolve().parents[1])
    for _ in range(kills):
        mark = f"4{os.getpid()}{chance.randrange(10**6):06d}"
        start = chance.choice(list(STARTS.values()))
        code = TUNER.format(root=root, command=command(mark, start, HOLDS_THE_INTERPRETER), fork=chance.random() < 0.3)
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as tuner:
            assert tuner.stdout is not None
            _, worker = map(int, tuner.stdout.readline().split())
            time.sleep(chance.uniform(0.0, 0.4))
            os.kill(chance.choice((tuner.pid, worker)), signal.SIGKILL)
            done.times += 1
            until = time.monotonic() + 20.0
            while (sleepers(mark) or psutil.pid_exists(worker)) and time.monotonic() < until:
                time.sleep(0.05)
            tuner.kill()
        left = sleepers(mark)
        done.processes += len(left) + psutil.pid_exists(worker)
        for process in left:
            process.kill()
    return done


def databases(folder: pathlib.Path) -> Iterator[str]:
    """Name one new SQLite file after the other."""
    while True:
        yield f"sqlite:///{folder / uuid.uuid4().hex[:8]}.db"


def call(words: Sequence[str]) -> tuple[int, str]:
    """Run the command line in this process."""
    ran = typer.testing.CliRunner().invoke(app.app, list(words))
    return ran.exit_code, ran.output + ran.stderr


def fuzzed(fault: str, times: int, one: Callable[[], tuple[int, str]]) -> Outcome:
    """Hand something random to the command line, many times."""
    done = Outcome(fault=fault)
    for _ in range(times):
        code, said = one()
        done.times += 1
        if "Traceback" in said or code not in (0, 1, 2, 3, 4):
            done.tracebacks += 1
            print(f"{fault}: exit {code}: {said[-2000:]}", file=sys.stderr)
    return done


def fuzz(options: argparse.Namespace, chance: random.Random, folder: pathlib.Path) -> Iterator[Outcome]:
    """Fuzz command lines, files to import and stores."""
    rows = [a_measurement(repeat=k, checkpoints=2 + k) for k in range(6)]
    store = folder / "fuzz.db"
    with open_store(str(store)) as opened:
        opened.put_all(rows)
    os.chdir(folder)

    def line() -> tuple[int, str]:
        return call([*words_of_a_command(chance), "--store", str(store)])

    yield fuzzed("a random command line", options.fuzz, line)
    with open_store(str(store)) as opened:
        there = {row.key for row in opened.measurements()}
    lost = sum(row.key not in there for row in rows)
    yield Outcome(fault="a row that was stored before all of them", times=len(rows), lost=lost)

    def file() -> tuple[int, str]:
        path = folder / f"rows.{chance.choice(('csv', 'json', 'parquet'))}"
        export_table(rows, path)
        path.write_bytes(garbled(path.read_bytes(), chance))
        return call(["profiles", "import", str(path), "--store", str(folder / "imported.db")])

    yield fuzzed("a garbled file to import", options.files, file)

    def broken() -> tuple[int, str]:
        path = folder / f"{uuid.uuid4().hex[:8]}.db"
        damaged(store, path, chance)
        name = chance.choice(
            (
                ["profiles", "list"],
                ["profiles", "show", "spirals:make"],
                ["recommend", "spirals:make", "--budget", "3MB", "--force"],
                ["plan", "spirals:make"],
            )
        )
        found = call([*name, "--store", str(path)])
        for left in folder.glob(f"{path.name}*"):
            left.unlink()
        return found

    yield fuzzed("a damaged store", options.files, broken)


def main() -> None:
    """Inject, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of tunes; as many of workers, half as many cut lines")
    parser.add_argument("--fuzz", type=int, default=200, help="random command lines")
    parser.add_argument("--files", type=int, default=20, help="garbled files, and damaged stores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="write the table as CSV too")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        os.environ |= own(folder, {})
        names = databases(folder)
        outcomes.append(killed_tunes(options.kills, chance, folder, url=lambda: next(names)))
        outcomes.append(killed_families(options.kills, chance))
        server = os.environ.get("CKPT_TUNE_TEST_POSTGRESQL")
        if server:
            outcomes.append(cut_lines(options.kills // 2, chance, folder, server))
        outcomes += fuzz(options, chance, folder)
        os.chdir("/")
    columns = [field.name for field in dataclasses.fields(Outcome)]
    print("  ".join(f"{column:>10}" if column != "fault" else f"{column:44}" for column in columns))
    for outcome in outcomes:
        record = dataclasses.asdict(outcome)
        print("  ".join(f"{record[c]:>10}" if c != "fault" else f"{record[c]:44}" for c in columns))
    if options.out is not None:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows([dataclasses.asdict(outcome) for outcome in outcomes])
    bad = [o for o in outcomes if any(v for k, v in dataclasses.asdict(o).items() if k not in ("fault", "times"))]
    sys.exit(f"{len(bad)} kinds of faults did harm: {json.dumps([o.fault for o in bad])}" if bad else 0)


def cut_lines(cuts: int, chance: random.Random, folder: pathlib.Path, server: str) -> Outcome:
    """Cut the line between tunes and a server, whose databases are made for that and dropped."""
    where = parse_url(server)
    line = Line(str(where.host), int(where.port or 5432))
    engine = sa.create_engine(where, isolation_level="AUTOCOMMIT")
    made: list[str] = []

    def new() -> str:
        made.append(f"faults_{uuid.uuid4().hex[:12]}")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {made[-1]}")
        behind = where.set(database=made[-1], host="127.0.0.1", port=line.port)
        return behind.render_as_string(hide_password=False)

    try:
        return killed_tunes(cuts, chance, folder, url=new, line=line)
    finally:
        line.close()
        with engine.connect() as connection:
            for name in made:
                connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()


if __name__ == "__main__":
    main()
