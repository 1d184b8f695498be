"""A store behind a service (`ckpt-tune serve`): what `ProfileStore` does, over HTTP, without a database's credentials.

Every request may be sent again: rows are written by their keys, and what is no such write (swapping a note, deleting)
carries a key of its own, by which the service knows that it has done it. So a request that gets no answer, or one that
the service is too busy for, is repeated, with longer and longer pauses in between.

While the service is away a store that is open goes on with what it has (`profiles.store.absence`): rows wait in a file
of this machine, and are delivered when the service is back, or by the next command that writes to the same store.

The token comes from the address (`https://NAME:TOKEN@HOST:8787`), else from `$CKPT_TUNE_TOKEN`. It is sent over TLS, or
to this host, and nowhere else.
"""

import contextlib
import importlib.metadata
import ipaddress
import json
import os
import random
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from profiles.errors import (
    AmbiguousProfile,
    NoSuchProfile,
    RecordError,
    StoreAwayError,
    StoreError,
    StoreNameError,
    StoreVersionError,
)
from profiles.records.exchange import from_document, to_document
from profiles.records.flat import time_text
from profiles.records.records import Measurement, Profile, Status, profile_id
from profiles.records.summary import ProfileSummary, summary_of
from profiles.store.absence import Absence
from profiles.store.migrations import SCHEMA_VERSION
from profiles.store.names import choose_profile
from profiles.store.store import ProfileStore
from profiles.store.urls import hide_passwords, without_password
from profiles.store.writing import KEYS_AT_ONCE, note_row

if TYPE_CHECKING:
    import httpx

TOKEN_VARIABLE = "CKPT_TUNE_TOKEN"
"""The environment variable that holds the token where the address has none."""

WAIT_SECONDS = (0.1, 0.3, 1.0, 3.0, 6.0)
"""Pauses before a request is sent again; each is up to a half longer, by chance, so that clients spread."""

TIMEOUT_SECONDS = 60.0
CONNECT_SECONDS = 5.0
ROWS_AT_ONCE = 1000
"""Rows that are asked for, or sent, in one request."""

_BUSY = frozenset({429, 502, 503, 504})


class ServedStore(ProfileStore):
    """A store that a service keeps.

    Safe to use from several threads and processes. `put_all` writes up to `ROWS_AT_ONCE` rows in one transaction, more
    in several, each all or none. `measurements` reads in portions: what is written meanwhile may be in it or not.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Open the store and ask the service who it is.

        Raises:
            StoreError: the address is none, the service cannot be reached or refuses the token.
            StoreVersionError: the service is of another version, older or newer.
        """
        self._text = url.strip()
        self.place = without_password(self._text).rstrip("/")
        self.read_only = read_only
        self._base, self._token = _address(self._text, self.place)
        self._clients: dict[int, httpx.Client] = {}
        self._lock = threading.Lock()
        self._absence = Absence(self._base, self.place)
        try:
            self._ask("GET", "/store")
            if not read_only and self._absence.spool.path.exists():
                self._deliver()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The address with its token, where it has one, as another process needs it to open the same store."""
        return self._text

    def close(self) -> None:
        """Let go of every connection. The store may be used again; it then connects anew."""
        self._absence.say_what_waits()
        with self._lock:
            clients, self._clients = self._clients, {}
        for owner, client in clients.items():
            if owner == os.getpid():
                client.close()

    # --- measurements -----------------------------------------------------------------------------------------------

    def put_all(self, measurements: Iterable[Measurement]) -> int:
        """Store measurements; up to `ROWS_AT_ONCE` of them all or none. They wait in a spool where the service is away.

        Returns:
            How many rows were written.

        Raises:
            StoreError: they could not be stored.
        """
        rows = list({measurement.key: measurement for measurement in measurements}.values())
        self._check_writable()
        try:
            self._send(rows)
        except StoreAwayError:
            self._absence.keep_rows(rows)
        return len(rows)

    def get(self, key: str) -> Measurement | None:
        """Read the measurement of a key, None where there is none."""
        found = self._rows(self._ask("GET", "/rows", params={"key": key}))
        return found[0] if found else None

    def known_keys(self, keys: Iterable[str]) -> set[str]:
        """Return which of some keys are those of stored rows."""
        listed, found = list(keys), set()
        for start in range(0, len(listed), KEYS_AT_ONCE):
            body = {"keys": listed[start : start + KEYS_AT_ONCE]}
            found.update(self._ask("POST", "/rows/known", body=body)["known"])
        return found

    def measurements(
        self,
        *,
        study: str | None = None,
        problem_name: str | None = None,
        device: str | None = None,
        status: Status | str | None = None,
        cursor: str | None = None,
        at_most: int | None = None,
    ) -> list[Measurement]:
        """Read measurements, oldest first; every argument narrows them. See `ProfileStore.measurements`."""
        wanted = {"study": study, "problem": problem_name, "device": device, "status": status, "cursor": cursor}
        question = ("rows", *wanted.values(), at_most)
        try:
            return self._absence.remember(question, self._read(wanted, at_most))
        except StoreAwayError as error:
            rows = {row.key: row for row in self._absence.recall(question, error)}
            rows |= {row.key: row for row in self._absence.waiting_rows(wanted)}
            return sorted(rows.values(), key=lambda row: (row.measured_at, row.key))

    def delete(self, rows: "Profile | Iterable[str | Measurement]", *, label_of: str | None = None) -> int:
        """Delete a profile, or the rows of some keys, in one transaction; needs a token that may delete.

        Returns:
            How many rows were there and are gone.
        """
        members = rows.measurements if isinstance(rows, Profile) else rows
        keys = [row.key if isinstance(row, Measurement) else row for row in members]
        self._check_writable()
        body = {"keys": keys, "profile": rows.id if isinstance(rows, Profile) else label_of}
        return int(self._ask("POST", "/rows/delete", body=body)["deleted"])

    def check_writable(self) -> None:
        """Find out whether this store takes rows from whoever has this token; see `ProfileStore.check_writable`."""
        self._check_writable()
        self._ask("POST", "/rows", body=to_document([]))

    # --- profiles ---------------------------------------------------------------------------------------------------

    def profile(self, name: str) -> Profile:
        """Find one profile by name; see `ProfileStore.profile`."""
        found = choose_profile(name, self.summaries(), self.place)
        rows = [row for row in self.measurements(problem_name=found.problem.name) if profile_id(row) == found.id]
        if not rows:
            raise NoSuchProfile(f"the profile {found.qualified_name} was deleted from the store {self.place} just now")
        return Profile(name=found.name, measurements=tuple(rows))

    def summaries(self, problem_name: str | None = None) -> list[ProfileSummary]:
        """Sum up every profile (of a problem) without its rows, by name, the newest first where names are equal."""
        found = [summary_of(record) for record in self._ask("GET", "/store/profiles")["profiles"]]
        return [one for one in found if problem_name in (None, one.problem.name)]

    def stamp(self) -> str:
        """Return a text that is another one once rows were written, whoever wrote them."""
        return str(self._ask("GET", "/store")["stamp"])

    # --- notes ------------------------------------------------------------------------------------------------------

    def put_note(self, kind: str, key: str, value: Any) -> None:
        """Store a JSON document under a kind and a key; see `ProfileStore.put_note`."""
        note_row(kind, key, value)  # refuses what is not JSON
        self._check_writable()
        try:
            self._send_note(kind, key, value)
        except StoreAwayError:
            self._absence.keep_note(kind, key, value)
        self._absence.remember(("note", kind, key), value)

    def swap_note(self, kind: str, key: str, old: Any, new: Any) -> bool:
        """Put a document in the place of another one in one step; see `ProfileStore.swap_note`.

        Where the service was restarted in the middle of it, it may have been done although this says that it was not.
        """
        for value in (old, new):
            note_row(kind, key, value)  # refuses what is not JSON
        self._check_writable()
        body = {"kind": kind, "key": key, "old": old, "new": new}
        return bool(self._ask("POST", "/note/swap", body=body)["swapped"])

    def get_note(self, kind: str, key: str) -> Any:
        """Read a document, None where there is none."""
        question = ("note", kind, key)
        try:
            return self._absence.remember(
                question, self._ask("GET", "/note", params={"kind": kind, "key": key})["value"]
            )  # fmt: skip
        except StoreAwayError as error:
            return self._absence.recall(question, error)

    def notes(self, kind: str) -> dict[str, Any]:
        """Read every document of a kind, by key; keys of over 255 characters are shortened to their digest."""
        question = ("notes", kind)
        try:
            return self._absence.remember(question, self._ask("GET", "/notes", params={"kind": kind})["notes"])
        except StoreAwayError as error:
            return self._absence.recall(question, error)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _send(self, rows: Sequence[Measurement]) -> None:
        """Send rows in portions, each all or none."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            self._ask("POST", "/rows", body=to_document(rows[start : start + ROWS_AT_ONCE]))

    def _send_note(self, kind: str, key: str, value: Any) -> None:
        self._ask("PUT", "/note", body={"kind": kind, "key": key, "value": value})

    def _deliver(self) -> None:
        """Hand over what waited; where the service does not take it, it goes on waiting."""
        with contextlib.suppress(StoreError):
            self._absence.deliver(self._send, self._send_note)

    def _select(self, *conditions: Any, at_most: int | None = None) -> list[Measurement]:
        """Read every measurement, oldest first."""
        return self._read({}, at_most)

    def _read(self, wanted: Mapping[str, Any], at_most: int | None) -> list[Measurement]:
        """Read rows in portions until there are no more; the last of each key counts."""
        params = {name: str(value) for name, value in wanted.items() if value is not None}
        found: dict[str, Measurement] = {}
        while at_most is None or len(found) < at_most:
            room = ROWS_AT_ONCE if at_most is None else min(ROWS_AT_ONCE, at_most - len(found))
            document = self._ask("GET", "/rows", params={**params, "at_most": str(room)})
            rows = self._rows(document)
            found.update((row.key, row) for row in rows)
            if len(rows) < room:
                break
            params["cursor"] = f"{time_text(rows[-1].measured_at)} {rows[-1].key}"
        return sorted(found.values(), key=lambda row: (row.measured_at, row.key))

    def _rows(self, document: Any) -> list[Measurement]:
        try:
            return from_document(document)
        except RecordError as error:
            raise StoreError(f"the store {self.place} sent rows that cannot be read: {error}") from error

    def _check_writable(self) -> None:
        if self.read_only:
            raise StoreError(f"the store {self.place} is opened to read only: nothing was written")

    def _client(self) -> "httpx.Client":
        """Return this process's connections; a fork does not share its parent's."""
        with self._lock:
            client = self._clients.get(os.getpid())
            if client is None:
                httpx = _httpx()
                headers = {
                    "user-agent": f"ckpt-tune/{importlib.metadata.version('ckpt-tune')}",
                    "ckpt-tune-schema": str(SCHEMA_VERSION),
                    "content-type": "application/json",
                }
                if self._token:
                    headers["authorization"] = f"Bearer {self._token}"
                timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS)
                client = httpx.Client(base_url=f"{self._base}/api/v1", headers=headers, timeout=timeout)
                self._clients[os.getpid()] = client
        return client

    def _ask(self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Any = None) -> Any:
        """Send one request, again where no answer came or the service was busy, and read the answer.

        Raises:
            ProfilesError: the service refused it, or did not answer.
        """
        httpx = _httpx()
        content = None if body is None else json.dumps(body).encode()
        headers = {} if method == "GET" else {"idempotency-key": secrets.token_hex(16)}
        self._absence.check()
        waits = iter(() if self._absence.is_away else WAIT_SECONDS)
        while True:
            wait, said = next(waits, None), ""
            try:
                answer = self._client().request(method, path, params=params, content=content, headers=headers)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                said = f"{type(error).__name__}: {error}"
                if wait is None or isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
                    self._absence.left()
                    raise self._away(said) from None
            else:
                if answer.status_code not in _BUSY:
                    if self._absence.came_back():
                        self._deliver()
                        if method == "GET":
                            continue  # what was delivered may belong to the answer
                    return self._read_answer(answer)
                if wait is None:
                    self._absence.left()
                    raise self._away(f"it answers {answer.status_code}")
                wait = max(wait, _retry_after(answer))
            time.sleep(wait * random.uniform(1.0, 1.5))

    def _away(self, said: str) -> StoreAwayError:
        """Say that the service did not answer."""
        said = hide_passwords(" ".join(said.split()), [self._text]).replace(self._token or "\0", "***")
        return StoreAwayError(
            f"the store {self.place} did not answer ({said[:200]}); what was stored before is safe: see that the "
            "service runs and may be reached (SSL_CERT_FILE names an authority of your own), and run again"
        )

    def _read_answer(self, answer: "httpx.Response") -> Any:
        """Read an answer, or raise what the service says is wrong."""
        try:
            document = answer.json()
        except ValueError:
            document = None
        if answer.is_success and isinstance(document, dict):
            return document
        if not isinstance(document, dict) or "detail" not in document:
            raise StoreError(
                f"the store {self.place} is no service of ckpt-tune: it answered {answer.status_code} "
                f"({answer.headers.get('content-type', 'no type')}); name the address that `ckpt-tune serve` prints"
            )
        kind, detail = str(document.get("type", "")).rpartition(":")[2], str(document["detail"])
        if kind == "no-such-profile":
            raise NoSuchProfile(detail)
        if kind == "ambiguous-profile":
            raise AmbiguousProfile(detail, document.get("candidates", ()))
        if kind == "other-version":
            raise StoreVersionError(f"the store {self.place}: {detail}")
        raise StoreError(f"the store {self.place}: {detail}")


def _address(text: str, place: str) -> tuple[str, str]:
    """Split an address into where requests go and the token.

    Raises:
        StoreNameError: it is none.
        StoreError: a token would be sent in the clear to another host.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or parts.query or parts.fragment:
        raise StoreNameError(f"the store {place!r} is not the address of a service: write https://HOST:8787")
    token = unquote(parts.password or "") or os.environ.get(TOKEN_VARIABLE, "").strip()
    if token and parts.scheme.lower() == "http" and not is_loopback(host):
        raise StoreError(
            f"the store {place} is not encrypted, and the token for it would be read by anyone on the way: "
            "write https://, or reach it on 127.0.0.1 through a tunnel"
        )
    shown = f"[{host}]" if ":" in host else host
    base = f"{parts.scheme.lower()}://{shown}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
    return base, token


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address is this very host's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _retry_after(answer: "httpx.Response") -> float:
    """Read how many seconds a service wants to be left alone, at most ten."""
    try:
        return min(10.0, float(answer.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def _httpx() -> Any:
    """Load httpx, which a service's clients need and nothing else does."""
    try:
        import httpx
    except ImportError as error:
        raise StoreError("a store over HTTP needs httpx: pip install 'ckpt-tune[serve]'") from error
    return httpx
