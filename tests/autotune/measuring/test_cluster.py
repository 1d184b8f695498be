"""A Dask cluster in one process: who is spoken to, which workers are used, and what is said of the others."""

import dataclasses
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer.testing

from autotune.cli import app
from autotune.errors import AutotuneError, NobodyMeasuresError
from autotune.machine.device import DeviceInfo
from autotune.measuring import cluster as cluster_module
from autotune.measuring import cluster_machine, errands
from autotune.measuring.cluster import Certificates, check_address, check_peers, resources_of, security_of
from autotune.measuring.cluster_machine import ClusterMachine, ClusterRequest
from autotune.measuring.errands import Answer, Errand
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import RunSettings, Trial
from profiles import AdjointName, Measurement
from tests.autotune.fake_lab import lab

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
runner = typer.testing.CliRunner()


def trial(checkpoints: int, problem: str = "fake.mod:make", **changes: Any) -> Trial:
    """A trial of a pretended problem."""
    return Trial(study="s", problem=problem, adjoint=AdjointName.OURS, checkpoints=checkpoints, **changes)


# --- who is spoken to -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["tls://node7:8786", "tls://10.0.0.5:8786", "tcp://127.0.0.1:8786", "tcp://localhost:1", "tcp://[::1]:8786"],
)
def test_tls_and_loopback_are_spoken_to(address: str) -> None:
    """Certificates anywhere, and nothing on this host."""
    check_address(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://10.0.0.5:8786", "open to the network"),
        ("tcp://0.0.0.0:8786", "open to the network"),
        ("tcp://no-such-host.invalid:8786", "open to the network"),
        ("10.0.0.5:8786", "not the address of a Dask scheduler"),
        ("ws://127.0.0.1:8786", "not the address"),
        ("ucx://127.0.0.1:8786", "not the address"),
        ("tls://node7", "not the address"),
        ("tls://:8786", "not the address"),
        ("", "not the address"),
    ],
)
def test_whatever_else_is_refused_in_one_line(address: str, said: str) -> None:
    """By tuner and worker alike, before anything is connected to."""
    with pytest.raises(AutotuneError, match=said) as caught:
        check_address(address)
    assert "\n" not in str(caught.value)
    for words in (["tune", "fake.mod:make", "--cluster", address], ["worker", address]):
        done = runner.invoke(app.app, words)
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 1
        assert said in done.stderr or (words[0] == "worker" and "join a Dask scheduler" in done.stderr)


def test_tls_without_certificates_is_refused_and_names_the_options(tmp_path: Path) -> None:
    """None, or files that are none."""
    with pytest.raises(AutotuneError, match="needs certificates: --tls-ca, --tls-cert and --tls-key"):
        security_of("tls://node7:8786", Certificates())
    (tmp_path / "no.pem").write_text("no certificate")
    file = str(tmp_path / "no.pem")
    for given in (Certificates(ca="/no/such", cert="/no/such"), Certificates(ca=file, cert=file, key=file)):
        with pytest.raises(AutotuneError, match=r"the certificates for tls://node7:8786 cannot be used") as caught:
            security_of("tls://node7:8786", given)
        assert "\n" not in str(caught.value)


def test_a_cluster_that_listens_to_the_network_is_left() -> None:
    """However it was reached: scheduler or worker, the one that listens is named."""
    with distributed.LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="0.0.0.0", dashboard_address=None
    ) as open_one:
        port = open_one.scheduler_address.rpartition(":")[2]
        with pytest.raises(AutotuneError, match="listens without TLS"):
            cluster_module.connect(f"tcp://127.0.0.1:{port}", Certificates())
    check_peers(["tcp://127.0.0.1:1", "tls://10.0.0.5:1"])
    with pytest.raises(AutotuneError, match=r"tcp://10\.0\.0\.5:1 listens without TLS"):
        check_peers(["tls://10.0.0.5:1", "tcp://10.0.0.5:1"])


def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its address."""
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.5)
    with pytest.raises(NobodyMeasuresError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1: ") as caught:
        cluster_module.connect("tcp://127.0.0.1:1", Certificates())
    assert "\n" not in str(caught.value)


def test_without_dask_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In tune and worker."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    for words in (["tune", "fake.mod:make", "--cluster", "tls://h:1"], ["worker", "tls://h:1"]):
        done = runner.invoke(app.app, words)
        assert done.exit_code == 1
        assert done.stderr.endswith("which is not installed: pip install 'ckpt-tune[cluster]'\n")


@pytest.mark.parametrize("words", [["spirals-1234"], ["spirals-1234", "--problem", "p.py:make", "--store", "s.db"]])
def test_the_old_form_of_worker_names_the_new_one(words: list[str]) -> None:
    """In one line, with its old options too."""
    done = runner.invoke(app.app, ["worker", *words])
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "ckpt-tune worker tls://HOST:8786" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ship"], "are for a cluster"),
        (["--tls-ca", "ca.pem"], "are for a cluster"),
        (["--cluster", "tcp://127.0.0.1:1", "--workers", "2"], "leave --workers and --replay out"),
        (["--cluster", "tcp://127.0.0.1:1", "--replay", "x.db"], "leave --workers and --replay out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], said: str) -> None:
    """Before anything is opened."""
    done = runner.invoke(app.app, ["tune", "fake.mod:make", *words])
    assert done.exit_code == 1
    assert said in done.stderr


# --- which workers are used -------------------------------------------------------------------------------------------


class Here:
    """Workers in this process, each with the resources that a test gives it; errands are answered by arithmetic."""

    def __init__(self) -> None:
        self.scheduler: Any = None
        self.ran: list[tuple[str, Errand]] = []
        self.answers: dict[str, Answer] = {}
        self.notes: list[str] = []

    def machine(self, **options: Any) -> ClusterMachine:
        """Make a machine of these workers."""
        request = ClusterRequest(address=self.scheduler.scheduler_address, **{"wait_seconds": 1.0, **options})
        made = ClusterMachine(request, RunSettings(platform=None), problem="fake.mod:make", note=self.notes.append)
        made._compared = True
        return made

    def add(self, **resources: float) -> str:
        """Let a worker join, and return its address."""
        before = set(self.scheduler.scheduler.workers)
        self.scheduler.worker_spec[len(before)] = {
            "cls": distributed.Worker,
            "options": {"nthreads": 1, "resources": resources, "host": "127.0.0.1", "dashboard": False,
                        "dashboard_address": "127.0.0.1:0"},
        }  # fmt: skip
        self.scheduler.sync(self.scheduler._correct_state)
        (address,) = set(self.scheduler.scheduler.workers) - before
        return address

    def run(self, errand: Errand) -> Answer:
        """Answer an errand."""
        address = distributed.get_worker().address
        self.ran.append((address, errand))
        if address in self.answers:
            return self.answers[address]
        machine = lab()
        if errand.op == "device":
            return Answer(place="here", value=machine.device_info())
        if errand.op == "key":
            return Answer(place="here", value=machine.key)
        return Answer(place="here", value=machine.run(errand.trials))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """A scheduler in this process without workers."""
    made = Here()
    monkeypatch.setattr(cluster_module, "run_errand", made.run)
    monkeypatch.setattr(cluster_machine, "LOOK_SECONDS", 0.1)
    with distributed.LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    ) as made.scheduler:
        yield made


def has(device: DeviceInfo | None = None, **changes: str) -> dict[str, float]:
    """List the resources of a worker with the device of the arithmetic, and other versions where a test says so."""
    found = resources_of(device or lab().device_info())
    for name, version in changes.items():
        (old,) = (key for key in found if key.startswith(f"{name}="))
        found[f"{name}={version}"] = found.pop(old)
    return found


def test_trials_go_to_workers_with_the_device_and_the_versions_and_to_no_others(here: Here) -> None:
    """Another version of jax, another kind of device, and a worker that is none of ours stay idle."""
    here.add()
    here.add(**has(jax="0.0.1"))
    good = here.add(**has())
    machine = here.machine()
    assert machine.device_info().kind == "fake-cpu"
    here.add(**has(dataclasses.replace(lab().device_info(), kind="other-cpu")))
    futures = [machine.submit([trial(count)]) for count in (1, 2, 3)]
    while not all(future.done() for future in futures):
        machine.wait(futures)
    assert [machine.rows(future)[0].checkpoints for future in futures] == [1, 2, 3]
    assert {address for address, _ in here.ran} == {good}
    assert machine.size == 1
    machine.close()


def test_several_kinds_of_devices_are_not_mixed(here: Here) -> None:
    """The user names one; then only its workers are used."""
    here.add(**has())
    other = here.add(**has(dataclasses.replace(lab().device_info(), kind="other-cpu")))
    machine = here.machine()
    with pytest.raises(
        AutotuneError, match=r"several kinds of devices: fake-cpu \(1\), other-cpu \(1\); .*--cluster-kind"
    ):
        machine.device_info()
    machine.close()
    machine = here.machine(kind="other-cpu")
    machine.device_info()
    assert [address for address, _ in here.ran] == [other]
    machine.close()


def test_without_a_worker_that_can_measure_the_tune_ends_and_says_what_each_lacks(here: Here) -> None:
    """After the time that was asked for; a note says so at once."""
    empty = here.machine(wait_seconds=0.2)
    with pytest.raises(NobodyMeasuresError, match="there is none; start one with ckpt-tune worker"):
        empty.device_info()
    empty.close()
    plain, old = here.add(), here.add(**has(jax="0.0.1"))
    machine = here.machine(wait_seconds=0.2)
    with pytest.raises(NobodyMeasuresError) as caught:
        machine.device_info()
    machine.close()
    said = str(caught.value)
    assert f"{plain}: it is not one of ours" in said
    assert f"{old}: jax: the tune has" in said
    assert "the worker 0.0.1" in said
    assert "\n" not in said
    assert any(note.startswith("waiting for workers") for note in here.notes)


def test_a_worker_that_refuses_is_named_and_gets_nothing_more(here: Here) -> None:
    """What it refused is measured elsewhere; where nobody is left the tune ends with the reason."""
    bad, good = here.add(**has()), here.add(**has())
    machine = here.machine()
    machine.device_info()
    here.answers[bad] = Answer(place="node7", message="there is no /p.py here", refused=True)
    futures = [machine.submit([trial(count)]) for count in range(1, 7)]
    while not all(future.done() for future in futures):
        machine.wait(futures)
    assert [machine.rows(future)[0].checkpoints for future in futures] == [1, 2, 3, 4, 5, 6]
    assert next(note for note in here.notes if "left out" in note) == (
        f"the worker {bad} on node7 is left out: there is no /p.py here"
    )
    assert machine.size == 1
    here.answers[good] = Answer(place="node8", message="other source", refused=True)
    with pytest.raises(NobodyMeasuresError, match=f"{good}: other source"):
        machine.run([trial(9)])
    machine.close()


def test_an_error_of_the_users_is_the_tunes(here: Here) -> None:
    """With its frames, and no worker is blamed."""
    address = here.add(**has())
    machine = here.machine()
    here.answers[address] = Answer(place="node7", message="fake:make raised KeyError", frames=("  p.py:3 in make",))
    with pytest.raises(AutotuneError, match="fake:make raised KeyError") as caught:
        machine.problem_key(ProbeRequest(problem="fake.mod:make"))
    assert caught.value.frames == ("  p.py:3 in make",)
    machine.close()


def test_workers_measure_with_their_own_device(here: Here) -> None:
    """Platform and index of the tuner's command choose workers, and mean nothing on their hosts."""
    here.add(**has())
    request = ClusterRequest(address=here.scheduler.scheduler_address, wait_seconds=0.2)
    settings = RunSettings(platform="cpu", device=3, timeout_seconds=5.0)
    machine = ClusterMachine(request, settings, problem="fake.mod:make")
    machine.run([trial(1, settings=settings)])
    (_, errand) = here.ran[-1]
    assert errand.trials[0].settings == dataclasses.replace(settings, platform=None, device=0)
    machine.close()
    wrong = ClusterMachine(
        request, dataclasses.replace(settings, platform="cuda"), problem="fake.mod:make", note=here.notes.append
    )
    with pytest.raises(NobodyMeasuresError, match="it lacks platform=gpu"):
        wrong.device_info()
    wrong.close()


def test_closing_gives_up_what_is_under_way(here: Here) -> None:
    """A task that runs is told so, and one that waits is never begun."""
    here.add(**has())
    machine = here.machine()
    began, told = threading.Event(), threading.Event()

    def last(errand: Errand) -> Answer:
        gone = cluster_module.given_up_here()
        began.set()
        while not gone():
            threading.Event().wait(0.01)
        told.set()
        return Answer(place="here")

    here.run = last  # pyright: ignore[reportAttributeAccessIssue]
    cluster_module.run_errand = last
    machine.submit([trial(1)])
    machine.submit([trial(2)])
    assert began.wait(10)
    machine.close()
    assert told.wait(10)


# --- the problem ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A problem with a neighbour, a package, and data that is not sent."""
    folder = tmp_path / "mine"
    (folder / "parts").mkdir(parents=True)
    (folder / "model.py").write_text("import rate\n")
    (folder / "rate.py").write_text("RATE = 1\n")
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "deep.py").write_text("DEEP = 2\n")
    (folder / "data.csv").write_text("1,2\n")
    return folder


class Reads:
    """A machine that reads the problem's files as they are where it runs."""

    read: ClassVar[list[dict[str, str]]] = []
    paths: ClassVar[list[tuple[str, ...]]] = []

    def __init__(self, settings: RunSettings, search_path: Sequence[str]) -> None:
        self.search_path = tuple(search_path)

    def device_info(self) -> DeviceInfo:
        """Describe the fake device."""
        return lab().device_info()

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Read what lies beside the problem."""
        folder = Path(trials[0].problem.rpartition(":")[0]).parent
        self.read.append({path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.*")})
        self.paths.append(self.search_path)
        return lab().run(trials)

    def close(self) -> None:
        """Do nothing."""


def test_a_problem_is_shipped_with_the_python_files_beside_it(
    here: Here, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To workers that are there and to one that joins; two states of one file do not meet."""
    monkeypatch.setattr(cluster_module, "run_errand", errands.Benches().run)
    monkeypatch.setattr(errands, "WorkerMachine", Reads)
    here.add(**has())
    for text in ("RATE = 1\n", "RATE = 2\n"):
        (shipped / "rate.py").write_text(text)
        problem = f"{shipped}/model.py:make"
        request = ClusterRequest(address=here.scheduler.scheduler_address, wait_seconds=5.0, ship=True)
        machine = ClusterMachine(request, RunSettings(), problem=problem)
        machine.run([trial(1, problem)])
        assert Reads.read[-1] == {
            "model.py": "import rate\n", "rate.py": text, "parts/__init__.py": "", "parts/deep.py": "DEEP = 2\n",
        }  # fmt: skip
        assert str(shipped) not in str(Reads.paths[-1])
        joined = here.add(**has())
        machine._refused = {address: "" for address in here.scheduler.scheduler.workers if address != joined}
        machine.run([trial(2, problem)])
        assert Reads.read[-1]["rate.py"] == text
        machine.close()


def test_what_is_too_large_to_ship_is_refused(here: Here, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both sizes, and what to do."""
    monkeypatch.setattr(cluster_module, "LARGEST_PARCEL_BYTES", 10)
    request = ClusterRequest(address=here.scheduler.scheduler_address, ship=True)
    with pytest.raises(AutotuneError, match=r"would send \d+ bytes .* at most 10 are sent"):
        ClusterMachine(request, RunSettings(), problem=f"{shipped}/model.py:make")


def test_a_module_is_shipped_from_the_folder_in_which_it_is_found(shipped: Path) -> None:
    """By its top-level name."""
    found = cluster_module._parcel_of("parts.deep:make", ["/nowhere", str(shipped)])
    assert found["parts/deep.py"] == shipped / "parts" / "deep.py"
    with pytest.raises(AutotuneError, match="--ship found no nothing in /nowhere"):
        cluster_module._parcel_of("nothing:make", ["/nowhere"])
