"""Pages about sweeps: begin one over everything that matches a filter, see how far it is, stop it."""

from __future__ import annotations

from starlette.responses import Response

from workqueue.web.console.filters import FIELDS, filter_of, place_of
from workqueue.web.console.links import address
from workqueue.web.console.sweeps import Order, Sweep
from workqueue.web.console.verbs import verb_named
from workqueue.web.console.visit import Visit

__all__ = ["start", "stop", "sweep", "sweeps"]


async def sweeps(visit: Visit) -> Response:
    """Those that are remembered."""
    return visit.page("sweeps.html", watched=visit.watched)


async def start(visit: Visit) -> Response:
    """Begin one, or a dry run of it, and show it."""
    order = Order(
        verb_named(visit.posted("verb")),
        place_of(visit.posted("place")),
        filter_of(lambda field: next(iter(visit.form.get(field, ())), "")),
        visit.number("rate", float),
        visit.posted("dry_run") == "yes",
        visit.who,
    )
    begun = visit.watched.sweeps.start(order)
    return visit.back(address("q", visit.watched.name, "sweeps", begun.id))


async def sweep(visit: Visit) -> Response:
    """How far one is; a dry run offers to do it."""
    found = _found(visit)
    wanted = found.order.wanted
    older = "" if wanted.older_than is None else f"{wanted.older_than.total_seconds():g}s"
    priority = "" if wanted.priority is None else str(wanted.priority)
    given = dict(zip(FIELDS, (wanted.prefix, priority, str(wanted.min_attempts), older, wanted.error), strict=True))
    return visit.page("sweep.html", watched=visit.watched, sweep=found, given=given)


async def stop(visit: Visit) -> Response:
    """Stop one: what was done stays done."""
    _found(visit).stopping.set()
    return visit.back(
        address("q", visit.watched.name, "sweeps", visit.request.path_params["id"]), "it is being stopped"
    )


def _found(visit: Visit) -> Sweep:
    found = visit.watched.sweeps.get(visit.request.path_params["id"])
    if found is None:
        raise KeyError("no such sweep")
    return found
