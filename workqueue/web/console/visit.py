"""One request of a browser, with all that a page needs to answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from workqueue.web.console.admission import Role, Visitor
from workqueue.web.console.filters import number_of
from workqueue.web.console.rendering import rendered
from workqueue.web.console.sessions import Sessions
from workqueue.web.console.settings import ConsoleSettings
from workqueue.web.console.watched import Watched

__all__ = ["Visit"]


@dataclass(frozen=True, slots=True)
class Visit:
    """A request, who made it, and what the console is about.

    Args:
        request: as it came.
        visitor: who it is; None only where nobody need be known, as at the login.
        cookie: what this browser is known by.
        query: the values of the URL.
        form: the values that were posted, once it is known that a page of ours posted them.
        queues: all that can be looked at, by name.
        settings: what was decided at the start.
        sessions: what is remembered of browsers.
    """

    request: Request
    visitor: Visitor | None
    cookie: str
    query: Mapping[str, Sequence[str]]
    form: Mapping[str, Sequence[str]]
    queues: Mapping[str, Watched]
    settings: ConsoleSettings
    sessions: Sessions

    @property
    def root(self) -> str:
        """Where the console begins, as the browser sees it."""
        return str(self.request.scope.get("root_path", ""))

    @property
    def watched(self) -> Watched:
        """The queue that the URL names.

        Raises:
            KeyError: there is no such queue.
        """
        return self.queues[self.request.path_params["queue"]]

    @property
    def may_act(self) -> bool:
        """Whether this visitor may change anything here."""
        return not self.settings.read_only and self.visitor is not None and self.visitor.role is Role.OPERATOR

    @property
    def is_update(self) -> bool:
        """Whether the script of a page that is open already asks, to bring it up to date."""
        return "x-update" in self.request.headers

    @property
    def who(self) -> str:
        """The visitor's name, for the log."""
        return self.visitor.name if self.visitor is not None else "nobody"

    def asked(self, name: str) -> str:
        """A value of the URL, or ''."""
        return next(iter(self.query.get(name, ())), "")

    def posted(self, name: str) -> str:
        """A value of the form, or ''."""
        return next(iter(self.form.get(name, ())), "")

    def number(self, name: str, kind: type[Any] = int) -> Any:
        """A number of the form, or None where it was left empty.

        Raises:
            InvalidOptionsError: it is no number.
        """
        return number_of(name, self.posted(name), kind)

    def page(self, template: str, status: int = 200, **shown: Any) -> Response:
        """A page made of `template`."""
        # An open page that looks again while a form of its own is under way would take the notice of the next page.
        notice = "" if self.is_update else self.sessions.notices.take(self.cookie) or ""
        form_token = self.sessions.form_token(self.cookie)
        return rendered(template, status, visit=self, notice=notice, form_token=form_token, **shown)

    def back(self, path: str, notice: str = "") -> Response:
        """Send the browser to `path` within the console, which shows `notice` once."""
        if notice:
            self.sessions.notices.put(self.cookie, notice)
        return RedirectResponse(self.root + path, 303)
