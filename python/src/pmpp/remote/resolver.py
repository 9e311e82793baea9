"""Resolving host names without blocking, each name once.

getaddrinfo() of the C library blocks, and may take a minute if a name server does not answer. So a
thread calls it, and whoever needs the name waits for a pipe. These rules keep the thread apart from
PostgreSQL, whose server processes have one thread:

- It is started with all signals blocked, so that PostgreSQL's signals come to the main thread.
- Nobody waits for it: a call ends, and the process exits, while the thread still runs. It is then
  in getaddrinfo(), or waits for the interpreter, which the main thread never gives up at its end.
- Python collects no garbage while such a thread runs. Garbage may contain objects of PL/Python,
  which must be destroyed in the main thread only.
"""

from __future__ import annotations

import _thread
import gc
import os
import signal
import threading
import time

from ..core.target import addresses
from ..core.waiting import EVENT_READ, Steps, Wait, pause

MOST_THREADS = 100
# In bytes. The default, 8 MB, counts in full where memory is not overcommitted.
STACK_SIZE = 1 << 20
# Seconds for which a name is not looked up again.
KEPT_FOR = 10.0
# Seconds to wait for a free thread.
_PAUSE = 0.05

_lookups: dict[str, _Lookup] = {}
# Threads change what follows, and what a lookup has.
_lock = threading.Lock()
_running = 0
_collects_garbage = True


class NotResolvedError(Exception):
    """A name without an address; the text says why."""


def prepare(host: str) -> None:
    """Start to resolve a name, if a thread is free."""
    _lookup(host)


def resolve(host: str, deadline: float | None) -> Steps[list[str]]:
    """Return the addresses of a name, in the order in which to try them.

    Args:
        host: the name.
        deadline: until when to wait, on the clock of `time.monotonic`, or None.

    Raises:
        NotResolvedError: if the name has no address.
        TimeoutError: if the deadline has passed.
    """
    while (lookup := _lookup(host)) is None:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        yield from pause(_PAUSE)
    yield from lookup.wait(deadline)
    if not lookup.addresses:
        raise NotResolvedError(lookup.failure)
    return lookup.addresses


def forget(host: str) -> None:
    """Have a name looked up again when it is needed next, unless this is being done."""
    if (lookup := _lookups.get(host)) and lookup.done_at is not None:
        del _lookups[host]


def _lookup(host: str) -> _Lookup | None:
    """Return the lookup of a name, a new one if necessary; None if no thread is free."""
    now = time.monotonic()
    known = _lookups.get(host)
    if known and not known.is_outdated(now):
        return known
    if _running >= MOST_THREADS:
        return None
    for name in [name for name, lookup in _lookups.items() if lookup.is_outdated(now)]:
        del _lookups[name]
    new = _Lookup(host)
    new.start()
    _lookups[host] = new
    return new


class _Lookup:
    """A name that a thread looks up.

    Attributes:
        done_at: when it was done, on the clock of `time.monotonic`; None before.
        addresses: what was found.
        failure: why nothing was.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._waiting: list[int] = []  # descriptors to close when it is done
        self.done_at: float | None = None
        self.addresses: list[str] = []
        self.failure = ""

    def is_outdated(self, now: float) -> bool:
        """Return True if the name is to be looked up again."""
        done_at = self.done_at
        return done_at is not None and (not self.addresses or now > done_at + KEPT_FOR)

    def start(self) -> None:
        """Start the thread. The name has no address if the operating system permits no more."""
        global _running, _collects_garbage
        with _lock:
            if not _running:
                _collects_garbage = gc.isenabled()
                gc.disable()
            _running += 1
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        stack_size = _thread.stack_size(STACK_SIZE)
        try:
            # Not threading.Thread, whose start() waits for the thread.
            _thread.start_new_thread(self._run, ())
        except RuntimeError as ex:
            self.failure = str(ex)
            self.done_at = time.monotonic()
            _end()
        finally:
            _thread.stack_size(stack_size)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def wait(self, deadline: float | None) -> Steps[None]:
        """Wait until it is done.

        Raises:
            TimeoutError: if the deadline has passed.
        """
        # A pipe for everybody who waits: a selector takes each descriptor once.
        with _lock:
            if self.done_at is not None:
                return
            reader, writer = os.pipe()
            self._waiting.append(writer)
        try:
            yield Wait(reader, EVENT_READ, deadline)
        finally:
            os.close(reader)

    def _run(self) -> None:
        """Look the name up; this is what the thread does."""
        try:
            self.addresses = addresses(self._host)
        except OSError as ex:
            self.failure = ex.strerror or str(ex)
        finally:
            with _lock:
                self.done_at = time.monotonic()
                for writer in self._waiting:
                    os.close(writer)
            _end()


def _end() -> None:
    """Note that a thread does nothing more."""
    global _running
    with _lock:
        _running -= 1
        if not _running and _collects_garbage:
            gc.enable()
