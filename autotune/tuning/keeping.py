"""The store of a tune, behind which a spool on this machine keeps what the store does not take now.

A measured row is in the store, or in the spool, before anything follows from it. For a server the spool comes first,
since the store may answer late or never; a file takes rows at once or says that it cannot. What waits is delivered as
soon as the store takes anything again, and at the beginning of the next tune.
"""

from collections.abc import Callable

from autotune.tuning.prepare import Store
from profiles import Measurement, ProfilesError, Spool, StoreError, file_of, parse_url


class Keeping:
    """A store that loses no row. Everything but rows is the store's own."""

    def __init__(self, store: Store, note: Callable[[str], None]) -> None:
        """Deliver what waits from before.

        Args:
            store: where rows belong.
            note: called with one line where rows have to wait, or have arrived.
        """
        url = parse_url(store.url)
        self._store = store
        self._note = note
        self._spool = None if url.get_backend_name() == "sqlite" and file_of(url) is None else Spool(_name(store.url))
        self._server = url.get_backend_name() != "sqlite"
        self._waiting: dict[str, Measurement] = {}
        self.place = store.place
        self.url = store.url
        # Documents are of use only while they can be shared, so they go to the store or nowhere.
        self.check_writable = store.check_writable
        self.put_all = store.put_all
        self.get_note = store.get_note
        self.put_note = store.put_note
        self.swap_note = store.swap_note
        self.notes = store.notes
        self._deliver()

    def put(self, measurement: Measurement) -> None:
        """Store one row, or keep it until it can be stored.

        Raises:
            StoreError: neither was possible.
        """
        if self._spool is None:
            self._store.put(measurement)
        elif self._server or self._waiting:
            self._spool.append([measurement])
            first = not self._waiting
            self._waiting[measurement.key] = measurement
            # Once a store is known to be away, rows are not kept waiting for each other: reads find out what it does.
            if first:
                self._try_to_deliver()
        else:
            try:
                self._store.put(measurement)
            except StoreError as error:
                self._spool.append([measurement])
                self._waiting[measurement.key] = measurement
                self._note(f"{error}; the row waits in {self._spool.path}")

    def measurements(self, *, problem_name: str | None = None, device: str | None = None) -> list[Measurement]:
        """Read the rows of a problem, or of a kind of device, those that wait included."""
        found = self._store.measurements(problem_name=problem_name, device=device)
        if waiting := list(self._waiting.values()):
            self._try_to_deliver(silent=True)
            there = {row.key: row for row in found}
            for row in waiting:
                if problem_name in (None, row.problem.name) and device in (None, row.device.kind):
                    there[row.key] = row
            found = sorted(there.values(), key=lambda row: (row.measured_at, row.key))
        return found

    def finish(self) -> None:
        """Deliver what waits, or say where it is."""
        if self._waiting and not self._try_to_deliver(silent=True):
            assert self._spool is not None
            self._note(
                f"{len(self._waiting)} measured rows wait in {self._spool.path}: "
                "the same command stores them when the store can be written again"
            )

    def _deliver(self) -> None:
        if self._spool is not None:
            count = self._spool.deliver(self._store.put_all)
            if count and not self._waiting:
                self._note(f"stored {count} rows that an earlier tune had to keep in {self._spool.path}")
            self._waiting.clear()

    def _try_to_deliver(self, *, silent: bool = False) -> bool:
        try:
            self._deliver()
        except ProfilesError as error:
            if not silent and self._spool is not None:
                self._note(f"{error}; rows wait in {self._spool.path} meanwhile")
            return False
        return True


def _name(url: str) -> str:
    file = file_of(parse_url(url))
    return url if file is None else str(file)
