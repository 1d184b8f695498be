"""Answers from memory: those of the library at every budget, kept while a profile stays as it is."""

import json

import pytest

import autotune
from autotune.choosing.objective import Objective
from autotune.serving.answers import Answers, PlanQuestion, RecommendQuestion
from autotune.serving.catalogue import Catalogue
from profiles import open_store
from tests.profiles.makers import a_sweep


@pytest.fixture
def answers():
    """The answers about a store in memory."""
    with open_store("sqlite://") as store:
        store.put_all(a_sweep())
        catalogue = Catalogue(store, "store")
        catalogue.refresh()
        yield Answers(catalogue)


@pytest.mark.parametrize("horizon", [None, 150])
def test_answers_from_memory_are_those_of_the_library(answers: Answers, horizon: int | None) -> None:
    """From budgets in which nothing fits to those in which all does, up and down, the nearby ones too."""
    catalogue = answers.catalogue
    known = catalogue.recommender(catalogue.find("spirals:make"))
    budgets = [2**20, 5 * 2**20, 12 * 2**20, 37_000_001, 2**27, 3 * 2**30]
    for budget in [*budgets, *reversed(budgets)]:
        asked = RecommendQuestion(budget=str(budget), horizon=horizon, tolerance=1e-3)
        document = json.loads(answers.recommend(known, answers.request(known, asked)))
        step = 2**30 if budget >= 2**31 else budget // 4
        found = [document, *document["nearby_budgets"]]
        for one, bytes_ in zip(found, (budget, budget - step, budget + step), strict=True):
            wanted = autotune.recommend(known.profile, budget=bytes_, horizon=horizon, tolerance=1e-3)
            assert one["recommendations"] == [json.loads(json.dumps(choice.to_json())) for choice in wanted]
        assert [one["budget_bytes"] for one in document["nearby_budgets"]] == [budget - step, budget + step]


def test_another_question_is_not_answered_with_what_was_kept(answers: Answers) -> None:
    """An aim, a margin and a plan's limit each count."""
    summary = answers.catalogue.find("spirals:make")
    known = answers.catalogue.recommender(summary)

    def counts(**changes: object) -> list[int]:
        asked = RecommendQuestion(**{"budget": "40MiB", "tolerance": 1e-3, **changes})
        document = json.loads(answers.recommend(known, answers.request(known, asked)))
        return [one["checkpoints"] for one in document["recommendations"]]

    first = counts()
    assert counts(margin=0.5) != first
    assert counts(set_values={}, objective=Objective.MEMORY) == counts(objective=Objective.MEMORY)
    assert counts() == first
    plans = {answers.plan(summary, PlanQuestion(devices=("l4",), max_recompute=limit)) for limit in (2.0, 4.0, 2.0)}
    assert len(plans) == 2


def test_a_catalogue_lets_go_of_what_was_not_asked_about_for_longest(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rows in memory would be too many; what is asked about again is read again."""
    catalogue = answers.catalogue
    monkeypatch.setattr("autotune.serving.catalogue.MOST_ROWS", 50)
    catalogue.store.put_all(a_sweep(name="other:make"))
    catalogue.written(["other:make"])
    first, other = catalogue.find("spirals:make"), catalogue.find("other:make")
    assert catalogue.recommender(first) is catalogue.recommender(first)
    catalogue.recommender(other)
    assert catalogue.cached(first) is None
    assert catalogue.profile(first).measurements == catalogue.store.profile("spirals:make").measurements
