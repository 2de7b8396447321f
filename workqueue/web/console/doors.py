"""Coming in and going out: the form for a bearer token, the way to an issuer and back, and the end of a session."""

from __future__ import annotations

import logging

from starlette.responses import RedirectResponse, Response

from workqueue.access.tokens import TokenCheckUnavailableError, TokenRefusedError
from workqueue.web.console.admission import Admission, Visitor
from workqueue.web.console.guard import set_cookie
from workqueue.web.console.links import is_within
from workqueue.web.console.login import OIDCLogin
from workqueue.web.console.sessions import Session, fresh_secret
from workqueue.web.console.visit import Visit

__all__ = ["Doors"]

log = logging.getLogger(__name__)


class Doors:
    """The pages of the login.

    Args:
        admission: whose tokens are good; None = nobody needs one.
        login: by an issuer; None = there is none.
    """

    def __init__(self, admission: Admission | None, login: OIDCLogin | None) -> None:
        self._admission = admission
        self._login = login

    async def show(self, visit: Visit) -> Response:
        """The form for a token, and the link to the issuer."""
        if visit.visitor is not None:
            return visit.back(_wanted(visit.asked("next")))
        return self._page(visit, 200, visit.asked("next"))

    async def enter(self, visit: Visit) -> Response:
        """Turn a bearer token into a session."""
        token, then = visit.posted("token").strip(), visit.posted("next")
        if self._admission is None:
            return visit.back("/")
        try:
            visitor = await self._admission.admit(token)
        except TokenRefusedError as error:
            log.warning("a login was refused: %s", error)
            return self._page(visit, 401, then, str(error))
        except TokenCheckUnavailableError as error:
            return self._page(visit, 503, then, str(error))
        return _in(visit, visitor, Session(token), then)

    async def leave(self, visit: Visit) -> Response:
        """End the session."""
        visit.sessions.logins.take(visit.cookie)
        log.info("%s logged out", visit.who, extra={"who": visit.who})
        return visit.back("/login", "logged out")

    async def away(self, visit: Visit) -> Response:
        """To the issuer."""
        if self._login is None:
            raise KeyError("no issuer")
        try:
            where = await self._login.begin(visit.cookie, self._redirect(visit), visit.asked("next"))
        except TokenCheckUnavailableError as error:
            log.warning("nobody can log in: %s", error)
            return self._page(visit, 503, visit.asked("next"), str(error))
        return RedirectResponse(where, 303)

    async def returned(self, visit: Visit) -> Response:
        """Back from the issuer."""
        if self._login is None:
            raise KeyError("no issuer")
        try:
            visitor, then = await self._login.finish(visit.cookie, visit.asked("state"), visit.asked("code"))
        except TokenRefusedError as error:
            log.warning("a login was refused: %s", error)
            return self._page(visit, 401, "", str(error))
        except TokenCheckUnavailableError as error:
            return self._page(visit, 503, "", str(error))
        return _in(visit, visitor, Session(visitor=visitor), then)

    def _page(self, visit: Visit, status: int, then: str, trouble: str = "") -> Response:
        return visit.page("login.html", status, then=then, trouble=trouble, has_issuer=self._login is not None)

    def _redirect(self, visit: Visit) -> str:
        url = visit.request.url
        return f"{url.scheme}://{url.netloc}{visit.root}/login/callback"


def _wanted(then: str) -> str:
    return then if is_within(then) else "/"


def _in(visit: Visit, visitor: Visitor, session: Session, then: str) -> Response:
    """Begin a session under a new cookie: somebody may have seen to it that the browser had the old one."""
    cookie = fresh_secret()
    visit.sessions.logins.put(cookie, session)
    log.info("%s logged in as %s", visitor.name, visitor.role, extra={"who": visitor.name})
    answer = visit.back(_wanted(then))
    set_cookie(answer, visit.request, cookie)
    return answer
