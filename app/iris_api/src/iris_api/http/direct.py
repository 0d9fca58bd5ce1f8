"""What an application offers to a server beside ASGI: to answer a request that has arrived as a whole by one call."""

from collections.abc import Callable
from typing import Protocol

from starlette.types import Scope

from iris_api.predict.reply import Headers

Reply = Callable[[int, Headers, bytes], None]
"""Takes status, headers and body of an answer."""
Handler = Callable[[Scope, bytes, Reply], Callable[[], object] | None]
"""Takes a request and its whole body, and calls the reply once: now or in a later turn of the loop. Raises nothing.

May return what is to be called if the client goes away meanwhile; then the reply need not be called."""


class Direct(Protocol):
    """What an application has as its attribute `direct`."""

    body_bytes: int
    """How many bytes a body may have; a longer one is for ASGI."""

    bytes_in_flight: int
    """How many bytes of bodies that do not come at once may be held at a time; one body always may."""

    def handler(self, scope: Scope) -> Handler | None:
        """Return what answers such a request, or None if it is for ASGI."""

    def refuse_beyond(self, scope: Scope, reply: Reply) -> None:
        """Answer a request whose body would be more than may be held."""

    def refuse_malformed(self, reply: Reply) -> None:
        """Answer what is no HTTP request."""
