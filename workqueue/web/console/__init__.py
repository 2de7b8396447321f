"""A queue in the browser: to see what it holds, and to operate it. Read `app` first, then `visit`.

It stands on the queue's public verbs alone, needs no JavaScript, and asks no other host for anything.
"""

from __future__ import annotations

from workqueue.extras import require

require("console", "the console")

from workqueue.web.console.admission import Admission, OIDCAdmission, Role, TokenAdmission, Visitor  # noqa: E402
from workqueue.web.console.app import Console  # noqa: E402
from workqueue.web.console.beside import Beside  # noqa: E402
from workqueue.web.console.login import OIDCLogin  # noqa: E402
from workqueue.web.console.settings import ConsoleSettings  # noqa: E402

__all__ = [
    "Admission",
    "Beside",
    "Console",
    "ConsoleSettings",
    "OIDCAdmission",
    "OIDCLogin",
    "Role",
    "TokenAdmission",
    "Visitor",
]
