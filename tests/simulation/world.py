"""Virtual time on one thread: fibers that take turns in an order that depends on the seed.

A fiber runs until it sleeps, waits or pauses. Then the world picks the next one at random. If no fiber can run, it
advances the clock until one can. A night takes milliseconds, and the same seed always produces the same order.
"""

from __future__ import annotations

import contextvars
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from greenlet import getcurrent, greenlet

# In the past, because threads of other tests in this process could not handle a clock that goes back later.
START = datetime(2026, 1, 5, 2, 0, tzinfo=timezone.utc)

# A longer history is stuck.
MAX_TIME = timedelta(days=21)
MAX_SWITCHES = 60_000


class Stuck(Exception):  # noqa: N818 - It names a state of the history.
    """No fiber can run any more, or the history does not end."""


class Killed(BaseException):
    """The process of a fiber was killed. The product's code does not catch this, and cleanup code has no effect."""


class Process:
    """A group of fibers that is killed or suspended together: those of a client, or those of the service."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.suspended_until = START
        self.fibers: list[Fiber] = []


class Fiber:
    """A function that takes turns with others."""

    def __init__(self, name: str, process: Process, run: Callable[[], object]) -> None:
        self.name = name
        self.process = process
        self.result: object = None
        self.error: BaseException | None = None
        self.is_done = False
        self.wakes_at: datetime | None = None
        self.waits_for: Callable[[], bool] | None = None
        self.on_resume: Callable[[], None] | None = None
        self._run = run
        self.greenlet = greenlet(self._main)
        self.greenlet.gr_context = contextvars.copy_context()

    def _main(self) -> None:
        try:
            self.result = self._run()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - The waiting fiber raises it.
            self.error = error
        self.is_done = True


class World:
    """The fibers, the clock and the random numbers of one history."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"world {seed}")
        self.now = START
        self.switches = 0
        self.trace: list[str] = []
        self._fibers: list[Fiber] = []
        self._current: Fiber | None = None
        self._loop = getcurrent()
        self._traveller: time_machine.Traveller | None = None
        self._thread = 0

    # Calls by fibers.

    @property
    def current(self) -> Fiber:
        """The running fiber."""
        if self._current is None:
            raise RuntimeError("no fiber runs")
        return self._current

    def spawn(self, name: str, process: Process, run: Callable[[], object]) -> Fiber:
        """Add a fiber, which runs when its turn comes."""
        if process.is_dead:
            raise Killed
        fiber = Fiber(name, process, run)
        # Every fiber switches back to the loop, whichever fiber started it.
        fiber.greenlet.parent = self._loop
        self._fibers.append(fiber)
        process.fibers.append(fiber)
        return fiber

    def pause(self) -> None:
        """Let the world pick the next fiber, which may be another one."""
        self._switch()

    def sleep(self, seconds: float) -> None:
        """Sleep for some seconds of virtual time."""
        self.current.wakes_at = self.now + _span(seconds)
        self._switch()

    def wait(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `condition` holds, or for `timeout` seconds; return whether it holds."""
        if not condition():
            fiber = self.current
            fiber.waits_for = condition
            fiber.wakes_at = None if timeout is None else self.now + _span(timeout)
            self._switch()
        return condition()

    def join(self, fiber: Fiber, timeout: float | None = None) -> bool:
        """Wait until a fiber has ended, and raise its error."""
        done = self.wait(lambda: fiber.is_done, timeout)
        if fiber.error is not None:
            raise fiber.error
        return done

    def kill(self, process: Process) -> None:
        """Kill a process, as SIGKILL does: none of its fibers runs any more."""
        process.is_dead = True
        if self._current is not None and self._current.process is process:
            raise Killed

    def note(self, text: str) -> None:
        """Add a line to the trace of the history."""
        self.trace.append(f"{(self.now - START).total_seconds():10.3f} {text}")

    # The loop.

    def run(self, main: Callable[[], object]) -> object:
        """Run a function as the first fiber until it ends; return its result or raise its error.

        Raises:
            Stuck: No fiber can run any more, or the history does not end.
        """
        self._loop = getcurrent()
        first = self.spawn("main", Process("main"), main)
        try:
            while not first.is_done:
                self._step()
        finally:
            for fiber in list(self._fibers):
                fiber.process.is_dead = True
            self._unwind_dead_fibers()
        if first.error is not None:
            raise first.error
        return first.result

    def _step(self) -> None:
        self._unwind_dead_fibers()
        ready = [fiber for fiber in self._fibers if self._is_ready(fiber)]
        if not ready:
            wakes = [
                max(fiber.wakes_at or self.now, fiber.process.suspended_until)
                for fiber in self._fibers
                if fiber.wakes_at is not None or fiber.process.suspended_until > self.now
            ]
            if not wakes:
                waiting = ", ".join(fiber.name for fiber in self._fibers)
                raise Stuck(f"no fiber can run any more; waiting: {waiting}")
            self._move_to(min(wakes))
            return
        self._resume(ready[self.random.randrange(len(ready))])

    def _is_ready(self, fiber: Fiber) -> bool:
        if fiber.process.suspended_until > self.now:
            return False
        if fiber.waits_for is not None and fiber.waits_for():
            return True
        if fiber.wakes_at is not None:
            return fiber.wakes_at <= self.now
        return fiber.waits_for is None

    def _resume(self, fiber: Fiber) -> None:
        self.switches += 1
        if self.switches > MAX_SWITCHES:
            raise Stuck("the history does not end")
        fiber.wakes_at = fiber.waits_for = None
        self._current = fiber
        try:
            fiber.greenlet.switch()
        finally:
            self._current = None
        if fiber.is_done:
            self._forget(fiber)

    def _switch(self) -> None:
        fiber = self.current
        if fiber.process.is_dead:
            raise Killed
        parent = fiber.greenlet.parent
        parent.switch()
        if fiber.process.is_dead:
            raise Killed
        if fiber.on_resume is not None:
            act, fiber.on_resume = fiber.on_resume, None
            act()

    def _unwind_dead_fibers(self) -> None:
        """Unwind the fibers of dead processes; calls to the world raise `Killed` again during cleanup."""
        for fiber in [fiber for fiber in self._fibers if fiber.process.is_dead]:
            self._current = fiber
            while fiber.greenlet:
                fiber.greenlet.throw(Killed)
            self._forget(fiber)
        self._current = None

    def _forget(self, fiber: Fiber) -> None:
        if fiber in self._fibers:
            self._fibers.remove(fiber)
        if fiber in fiber.process.fibers:
            fiber.process.fibers.remove(fiber)

    def _move_to(self, instant: datetime) -> None:
        if instant - START > MAX_TIME:
            raise Stuck(f"the history did not end within {MAX_TIME.days} days")
        self.now = max(self.now, instant)
        if self._traveller is not None:
            self._traveller.move_to(self.now, tick=False)

    # Replacements.

    @contextmanager
    def in_control(self, seed: int) -> Iterator[pytest.MonkeyPatch]:
        """Control time, waiting and randomness of this thread, the SDKs' included.

        Yields:
            A `MonkeyPatch` that is undone afterwards.
        """
        real_sleep, real_monotonic, real_urandom = time.sleep, time.monotonic, os.urandom
        self._thread = threading.get_ident()

        def is_ours() -> bool:
            return threading.get_ident() == self._thread and self._current is not None

        def sleep(seconds: float) -> None:
            self.sleep(seconds) if is_ours() else real_sleep(seconds)

        def monotonic() -> float:
            return (self.now - START).total_seconds() if is_ours() else real_monotonic()

        chance = random.Random(f"urandom {seed}")
        numbers = random.Random(f"random {seed}")

        def urandom(size: int) -> bytes:
            return chance.randbytes(size) if threading.get_ident() == self._thread else real_urandom(size)

        def in_this_thread(ours: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                return (ours if threading.get_ident() == self._thread else real)(*args, **options)

            return call

        with ExitStack() as stack:
            self._traveller = stack.enter_context(time_machine.travel(START, tick=False))
            patches = stack.enter_context(pytest.MonkeyPatch.context())
            patches.setattr(time, "sleep", sleep)
            patches.setattr(time, "monotonic", monotonic)
            patches.setattr(os, "urandom", urandom)
            patches.setattr(random, "_urandom", urandom)
            for name in dir(random):
                # The functions of the module are methods of one generator, which all threads of the process share.
                if getattr(real := getattr(random, name), "__self__", None) is random._inst:
                    patches.setattr(random, name, in_this_thread(getattr(numbers, name), real))
            yield patches
        self._traveller = None

    def threading(self) -> SimpleNamespace:
        """Return a replacement for `threading` with what the SDK's pollers and the flow use."""
        world = self

        class Event:
            def __init__(self) -> None:
                self._is_set = False

            def set(self) -> None:
                self._is_set = True

            def is_set(self) -> bool:
                return self._is_set

            def wait(self, timeout: float | None = None) -> bool:
                return world.wait(self.is_set, timeout)

        class Thread:
            def __init__(
                self,
                target: Callable[..., object],
                args: tuple[Any, ...] = (),
                name: str = "thread",
                daemon: bool = False,
            ) -> None:
                del daemon
                self.daemon = True
                self._run = lambda: target(*args)
                self._name = name
                self._fiber: Fiber | None = None

            def start(self) -> None:
                self._fiber = world.spawn(self._name, world.current.process, self._run)

            def join(self, timeout: float | None = None) -> None:
                fiber = self._fiber
                if fiber is not None:
                    world.wait(lambda: fiber.is_done, timeout)

            def is_alive(self) -> bool:
                return self._fiber is not None and not self._fiber.is_done

        return SimpleNamespace(Event=Event, Thread=Thread)


def _span(seconds: float) -> timedelta:
    """Round up to whole microseconds, because a shorter sleep would not advance the clock."""
    return timedelta(microseconds=math.ceil(max(seconds, 0.0) * 1e6))
