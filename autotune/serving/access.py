"""The rights of a request: which token it shows, and whether that is enough."""

import dataclasses
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from autotune.serving.problems import Refusal
from autotune.serving.tokens import Right, Token, Tokens
from profiles import SCHEMA_VERSION

COOKIE = "ckpt-tune-session"
REPEATABLE = ("set", "xla_flags")
"""The parameters that may come more than once."""
_BEARER = HTTPBearer(auto_error=False, description="A token of `ckpt-tune serve token`.")
Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """Who may do what; `tokens` is None where everybody on this host may do everything."""

    tokens: Tokens | None

    def needs(self, right: Right) -> Any:
        """Make a dependency that lets a request through with this right at least."""
        if self.tokens is None:
            return Depends(check_form)

        def check(request: Request, shown: Shown) -> None:
            check_form(request)
            self.check(request, right, None if shown is None else shown.credentials)

        return Depends(check)

    def check(self, request: Request, right: Right, shown: str | None) -> None:
        """Let a request through with this right at least.

        Raises:
            Refusal: it shows no token that has it.
        """
        token = self.token_of(request, shown)
        if token is None:
            said = "this token is not in the service's file any more, or never was" if shown else "no token was shown"
            raise Refusal(
                401, "no-token", f"{said}; send `Authorization: Bearer TOKEN` ($CKPT_TUNE_TOKEN for ckpt-tune)",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        request.scope.setdefault("state", {})["token"] = token.name
        if token.right < right:
            raise Refusal(
                403, "not-allowed",
                f"the token {token.name} may {token.right.name.lower()}, this needs one that may {right.name.lower()}: "
                f"`ckpt-tune serve token --{right.name.lower()}` on the service's host makes one",
            )  # fmt: skip

    def token_of(self, request: Request, shown: str | None) -> Token | None:
        """Find the token of a request; a browser's session counts for reading only."""
        if self.tokens is None:
            return None
        if shown is not None:
            return self.tokens.find(shown)
        session = request.cookies.get(COOKIE)
        return self.tokens.of_session(session) if session and request.method in ("GET", "HEAD") else None


def check_form(request: Request) -> None:
    """Refuse a client whose rows mean something else, and parameters that are unknown or say two things.

    Raises:
        Refusal: its schema is another one; which side is older is said. Or a parameter is not known, or came twice.
    """
    asked = [name for name, _ in request.query_params.multi_items()]
    dependant = getattr(request.scope.get("route"), "dependant", None)
    known = None if dependant is None else {field.alias for field in dependant.query_params}
    unknown = [name for name in asked if known is not None and name not in known]
    if unknown:
        there = ", ".join(sorted(known or ())) or "none"
        raise Refusal(422, "bad-request", f"there is no parameter {unknown[0][:80]!r} here; there are {there}")
    names = [name for name in asked if name not in REPEATABLE]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Refusal(422, "bad-request", f"the parameter {twice[:80]!r} came {names.count(twice)} times: send it once")
    said = request.headers.get("ckpt-tune-schema")
    if said is None or said == str(SCHEMA_VERSION):
        return
    if not said.isascii() or not said.isdecimal():
        raise Refusal(400, "bad-request", f"the header Ckpt-Tune-Schema is a number, found {said[:40]!r}")
    older, newer = ("client", "service") if int(said) < SCHEMA_VERSION else ("service", "client")
    raise Refusal(
        426, "other-version",
        f"this client writes rows of schema {said[:40]}, the service of schema {SCHEMA_VERSION}: "
        f"the {older} is older than the {newer}, upgrade the {older}",
        headers={"upgrade": "ckpt-tune", "connection": "upgrade"},
    )  # fmt: skip
