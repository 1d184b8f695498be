"""The OpenAPI document holds: whatever is sent, allowed or not, the answer is a documented one and never 5xx."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest
import schemathesis

from autotune.serving.tokens import Right
from profiles import open_store
from tests.autotune.serving.service import Service, service
from tests.profiles.makers import a_sweep


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with tokens of a store with two profiles."""
    folder = tmp_path_factory.mktemp("openapi")
    with open_store(str(folder / "profiles.db")) as store:
        store.put_all([*a_sweep(), *a_sweep(name="other:make", horizons=(None,))])
    with service(str(folder / "profiles.db"), folder) as found:
        yield found


SETTINGS = hypothesis.settings(deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True)


def try_everything(running: Service, path: str | None, examples: int) -> int:
    """Send what the document allows, and what it does not, to each operation; every check is made of each answer."""
    schema = schemathesis.openapi.from_url(f"{running.address}/api/v1/openapi.json")
    schema = schema.exclude(path="/api/v1/tunes/events")  # which does not end
    schema = schema if path is None else schema.include(path=path)
    headers = {"Authorization": f"Bearer {running.tokens[Right.DELETE]}"}
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:

            @hypothesis.settings(SETTINGS, max_examples=examples)
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def check(case: schemathesis.Case) -> None:
                case.call_and_validate(headers=headers)

            # An operation without parameters takes nothing that could be wrong.
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                check()
                tried += 1
    return tried


@pytest.mark.slow
def test_every_answer_is_a_documented_one(running: Service) -> None:
    """Every check of schemathesis: status codes, types, schemas and headers of answers, tokens that are missing."""
    assert try_everything(running, None, 25) >= 25


@pytest.mark.parametrize("path", ["/api/v1/recommend", "/api/v1/note"])
def test_answers_to_the_most_asked_are_documented_ones(path: str, running: Service) -> None:
    """The same for a few, with fewer examples, in every run of the tests."""
    assert try_everything(running, path, 10) >= 2


def test_the_document_lists_every_route_with_what_it_may_answer(running: Service) -> None:
    """Each operation says that it needs a token, and that it may refuse one; the pages are no part of it."""
    document = httpx.get(f"{running.address}/api/v1/openapi.json").json()
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 15
    for path, _, operation in operations:
        assert operation["description"]
        if path != "/healthz":
            assert path.startswith("/api/v1/")
            assert operation["security"]
            assert {"200", "401", "403", "422", "426", "503"} <= set(operation["responses"])
    assert not set(document["paths"]) & {"/", "/devices", "/sign-in", "/assets/{name}"}


def test_the_document_goes_with_the_service_as_it_is_open(tmp_path: Path) -> None:
    """Without tokens no operation asks for one."""
    with service(str(tmp_path / "profiles.db"), tmp_path, with_tokens=False) as found:
        document = httpx.get(f"{found.address}/api/v1/openapi.json").json()
    assert not any("security" in operation for path in document["paths"].values() for operation in path.values())
