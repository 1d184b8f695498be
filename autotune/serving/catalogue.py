"""What a store holds, kept in memory: every profile summed up, and those that are asked about with their laws.

What comes in through this service is seen at once. What others write into the same store is seen within
`REFRESH_SECONDS`, or `PATIENCE` times as long as a look at the whole store takes. Of a profile of which others replaced
rows, while its count, its failures and its newest time all stayed the same, older answers are given until it changes.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable

from autotune.choosing.recommend import Recommender
from profiles import NoSuchProfile, Profile, ProfileStore, ProfileSummary, choose_profile, profile_id

REFRESH_SECONDS = 2.0
PATIENCE = 20
MOST_NAMES = 10_000
"""Names whose profiles are remembered."""
MOST_ROWS = 250_000
"""Rows of profiles that are kept in memory; beyond it those that were not asked about for longest are let go."""


class Catalogue:
    """The profiles of one store. Safe to use from several threads."""

    def __init__(self, store: ProfileStore, place: str) -> None:
        """Know nothing yet.

        Args:
            store: where the rows are.
            place: what the store is called in answers, which tell nobody where on a server it lies.
        """
        self.store = store
        self.place = place
        self._lock = threading.RLock()
        self._summaries: list[ProfileSummary] = []
        self._known: OrderedDict[str, Recommender] = OrderedDict()
        self._found: dict[str, ProfileSummary] = {}
        self._stamp: str | None = None
        self._next_look = 0.0

    @property
    def summaries(self) -> list[ProfileSummary]:
        """Every profile, by name, the newest first where names are equal."""
        return self._summaries

    def refresh(self) -> None:
        """Look whether others wrote into the store, unless that was done a moment ago.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._lock:
            if time.monotonic() < self._next_look:
                return
            began = time.monotonic()
            stamp = self.store.stamp()
            if stamp != self._stamp:
                self._take(self.store.summaries(), self._summaries)
                self._stamp = stamp
            took = time.monotonic() - began
            self._next_look = time.monotonic() + max(REFRESH_SECONDS, PATIENCE * took)

    def written(self, problem_names: Iterable[str], profiles: Iterable[str] = ()) -> None:
        """Take in what was written through this service.

        Args:
            problem_names: the problems whose rows were.
            profiles: the ids of their profiles.
        """
        with self._lock:
            for id_ in profiles:
                self._known.pop(id_, None)
            for name in dict.fromkeys(problem_names):
                before = [one for one in self._summaries if one.problem.name == name]
                self._take(self.store.summaries(name), before)

    def renamed(self) -> None:
        """Take in that profiles have other names."""
        with self._lock:
            self._take(self.store.summaries(), self._summaries)

    def _take(self, found: list[ProfileSummary], before: list[ProfileSummary]) -> None:
        """Put summaries in the place of others, and let go of what changed."""
        now = {one.id: one for one in found}
        for one in before:
            if now.get(one.id) != one:
                self._known.pop(one.id, None)
        gone = {one.id for one in before}
        kept = [one for one in self._summaries if one.id not in gone and one.id not in now]
        self._summaries = sorted([*kept, *found], key=lambda one: (one.name, -one.newest_at.timestamp()))
        self._found = {}

    def find(self, name: str) -> ProfileSummary:
        """Find a profile by what a person types; see `ProfileStore.profile`.

        Raises:
            NoSuchProfile: there is none.
            AmbiguousProfile: there are several.
        """
        found = self._found.get(name)
        if found is None:
            there, kept = self._summaries, self._found
            found = choose_profile(name, there, self.place)
            if len(kept) < MOST_NAMES:
                kept[name] = found
        return found

    def cached(self, summary: ProfileSummary) -> Recommender | None:
        """Return a profile with its laws where it is in memory."""
        with self._lock:
            found = self._known.get(summary.id)
            if found is not None:
                self._known.move_to_end(summary.id)
            return found

    def recommender(self, summary: ProfileSummary) -> Recommender:
        """Return a profile with its laws, read from the store where it is not in memory.

        Raises:
            NoSuchProfile: it was deleted meanwhile.
        """
        found = self.cached(summary)
        if found is not None:
            return found
        rows = self.store.measurements(problem_name=summary.problem.name)
        mine = tuple(row for row in rows if profile_id(row) == summary.id)
        if not mine:
            raise NoSuchProfile(f"the profile {summary.qualified_name} was deleted from {self.place} just now")
        made = Recommender(Profile(name=summary.name, measurements=mine))
        with self._lock:
            if summary in self._summaries:  # else rows came in while these were read
                self._known[summary.id] = made
                held = sum(len(one.profile.measurements) for one in self._known.values())
                while held > MOST_ROWS and len(self._known) > 1:
                    _, oldest = self._known.popitem(last=False)
                    held -= len(oldest.profile.measurements)
        return made

    def profile(self, summary: ProfileSummary) -> Profile:
        """Return a profile."""
        return self.recommender(summary).profile

    def siblings(self, summary: ProfileSummary) -> list[Profile]:
        """List the profiles of a profile's problem, itself among them."""
        return [self.profile(one) for one in self._summaries if one.problem.name == summary.problem.name]
