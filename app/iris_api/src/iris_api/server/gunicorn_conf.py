"""How gunicorn runs an instance: its configuration, which `command` names."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn import Server
from uvicorn_worker import UvicornWorker

from iris_api.server.logs import configure, logging_config
from iris_api.server.notify import notify

# Imported here for the master and all its workers share its counter: see there.
from iris_api.server.replacement import replacements as _replacements  # noqa: F401
from iris_api.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

_EX_CONFIG = 78

configure("info")
try:
    _settings = Settings.from_environ(os.environ)
except SettingsError as error:
    logger.critical("Bad settings: %s", error)
    sys.exit(_EX_CONFIG)

# gunicorn's master would tell systemd that the service is ready before any worker has a model. Only a worker can know:
# these are kept from the master and given to the worker after the fork.
_systemd = {
    name: os.environ.pop(name) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID") if name in os.environ
}


# Seconds between the closing of the addresses of an instance that has several.
_PAUSE = 0.2


class AddressByAddress(Server):
    """A server that stops at its further addresses first, and at the first one a moment later.

    While addresses of instances change, an instance listens at several, and the gateway takes each for a server of its
    own. It may send a request just when a connection is closed, and sends it again to another server: that must not be
    the same instance, closing its other connections at that same moment.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, finish what was accepted, and close."""
        if sockets and len(sockets) > 1:
            host, port, *_ = sockets[0].getsockname()
            for server, listener in zip(self.servers[1:], sockets[1:], strict=True):
                server.close()
                listener.close()
            for connection in list(self.server_state.connections):
                if getattr(connection, "server", None) != (host, port):
                    connection.shutdown()
            await asyncio.sleep(_PAUSE)
        await super().shutdown(sockets)


class Worker(UvicornWorker):  # type: ignore[misc]  # its base comes without types
    """A uvicorn worker without access log (the gateway keeps one) that says where it stood when it is replaced."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        # By its name: the master has no use for it, and what it imports would be memory.
        "http": "iris_api.server.protocol:Protocol",
        "lifespan": "on",
        "access_log": False,
        "ws": "none",
        # Nothing here asks who the client is; the gateway logs it.
        "proxy_headers": False,
        "server_header": False,
        # Notify the master each second that the event loop turns; left alone it would be half the timeout.
        "timeout_notify": 0.5,
    }

    def run(self) -> None:
        """Serve; let the application stop listening when it replaces this worker."""
        self.wsgi.stop_listening = self.stop_listening
        for listener in self.sockets:
            # The last worker may have closed it; this one must not say that it is ready before it is open.
            listener.listen(self.cfg.backlog)
        super().run()

    async def _serve(self) -> None:
        # As the base does it, with a server of ours.
        self.config.app = self.wsgi
        server = AddressByAddress(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def stop_listening(self) -> None:
        """Stop listening: connections are refused until a worker listens again.

        To close the listener is not enough: the master has it open too, and the kernel would go on to take connections
        for a worker that is not there yet. Refused, the gateway goes to another instance at once.
        """
        for listener in self.sockets:
            listener.shutdown(socket.SHUT_RDWR)

    def init_signals(self) -> None:
        """Handle SIGABRT, which the master sends to a worker that stands still, by `worker_abort` below."""
        super().init_signals()
        signal.signal(signal.SIGABRT, self.handle_abort)


wsgi_app = "iris_api.server.app:create_app()"
worker_class = Worker
# One process to load, to watch and to scrape; more of them is what further instances are for.
workers = 1
bind = _settings.bind
proc_name = _settings.name
keepalive = _settings.keepalive
timeout = _settings.worker_timeout
graceful_timeout = _settings.graceful_timeout
# Instances of one user would collide on its path, and nothing here needs it.
control_socket_disable = True
# The worker proves by touching a file that it lives; on a disk that could take a while.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# One row at a time is no work for threads, and each of them would cost memory.
raw_env = ["OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1"]
logconfig_dict = logging_config(_settings.log_level)
loglevel = _settings.log_level


def pre_fork(server: Any, worker: Any) -> None:
    """Keep memory shared: a collection in the worker would write to each object that it has of the master."""
    gc.collect()
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    """Connect the worker to systemd, and let its event loop take turns with a long call."""
    os.environ.update(_systemd)
    # The longest that a call beside the event loop may keep Python's lock when the loop wants it. With the default,
    # 5 ms, an estimator written in Python makes the loop several times as late, and is itself no faster.
    sys.setswitchinterval(0.001)


def worker_abort(worker: Any) -> None:
    """Log what blocked the event loop, and end this process."""
    logger.critical("The event loop stood still; this worker is replaced", extra={"stack": traceback.format_stack()})
    os._exit(1)


def on_exit(server: Any) -> None:
    """Notify systemd that the service stops; a worker cannot know whether another takes its place."""
    os.environ.update(_systemd)
    notify("STOPPING=1")
