"""What a child process is handed and what it hands back: descriptors that were opened before it
began.

A child runs code that nobody has looked at, so the parent opens no path that the child can replace.
The request is an unlinked file on the child's standard input; answer and log are pipes whose
reading ends only the parent has. Whatever the child does to them (links, FIFOs, sparse or endless
files have no place to be), the parent reads at most ``limit`` bytes of each, and waits for nobody:
a process that has left the child's session may hold a pipe open for ever.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import tempfile
import threading
from typing import IO

ANSWER_LIMIT = 64 * 2**20  # bytes; the answers of the largest models known are under one
LOG_LIMIT = 6000  # bytes of the end of a log that are kept
CHUNK = 2**16  # bytes a pipe holds on Linux
LAST_CHUNKS = 16  # read after the child is gone: a process that it left behind may write for ever


class Intake:
    """One pipe, of which the first or the last ``limit`` bytes are kept.

    Attributes:
        limit: How many bytes are kept.
        keep_last: They are the last, not the first.
        data: What was kept so far.
        writer: The descriptor for the child. The parent closes its own copy once the child has one.
        reader: The parent's end, which never blocks.
        overflowed: More came than was kept.
    """

    def __init__(self, limit: int, *, keep_last: bool) -> None:
        self.limit = limit
        self.keep_last = keep_last
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.data = bytearray()
        self.overflowed = False

    def read_once(self) -> bool:
        """Take what is there, a chunk at most. Returns False at the end of the pipe."""
        try:
            chunk = os.read(self.reader, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not chunk:
            return False
        if self.keep_last:
            self.data += chunk
            if len(self.data) > self.limit:
                self.overflowed = True
                del self.data[: -self.limit]
        else:
            room = self.limit - len(self.data)
            self.data += chunk[:room]
            self.overflowed = self.overflowed or len(chunk) > room
        return True

    def close_writer(self) -> None:
        """Close the parent's copy of the child's end, once."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Close both ends."""
        self.close_writer()
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def read_text(self) -> str:
        """Return what was kept as text, without control characters.

        It begins with a whole line where the beginning is lost.
        """
        data = bytes(self.data)
        if self.overflowed and self.keep_last:
            data = data.partition(b"\n")[2] or data
        text = data.decode("utf-8", "replace")
        return "".join(c for c in text if c in "\n\t" or c.isprintable()).strip()


class Collector:
    """A thread that reads intakes while their child runs, so that it never waits for a full pipe.

    Attributes:
        intakes: The pipes.
        woken: The end of a pipe on which the thread hears that it is to end.
        waker: Its other end.
        finished: The thread has ended.
        thread: The thread.
    """

    def __init__(self, *intakes: Intake) -> None:
        self.intakes = intakes
        self.woken, self.waker = os.pipe()
        self.finished = False
        self.thread = threading.Thread(target=self._collect, daemon=True)
        self.thread.start()

    def _collect(self) -> None:
        """Read until every pipe has ended, or the waker is closed."""
        with selectors.DefaultSelector() as poll:
            poll.register(self.woken, selectors.EVENT_READ, None)
            for intake in self.intakes:
                poll.register(intake.reader, selectors.EVENT_READ, intake)
            while len(poll.get_map()) > 1:
                for key, _ in poll.select():
                    if key.data is None:
                        return
                    if not key.data.read_once():
                        poll.unregister(key.fd)

    def finish(self) -> None:
        """Take what is in the pipes now and close them. Waits for nobody who still holds one."""
        if self.finished:
            return
        self.finished = True
        os.close(self.waker)
        self.thread.join()
        os.close(self.woken)
        for intake in self.intakes:
            for _ in range(LAST_CHUNKS):
                if not intake.read_once():
                    break
            intake.close()


class Exchange:
    """One request to a child process, with its answer and its log.

    Use it as a context manager around the child's whole life::

        with Exchange(request) as exchange:
            process = start(exchange)  # with its request, answer.writer and log.writer
            exchange.close_child_ends()
            process.wait()
            answer = exchange.read_answer()

    Attributes:
        request: An unlinked file with the request, at its beginning; the child's standard input.
        answer: The pipe for the answer.
        log: The pipe for all that is printed.
        collector: The thread that reads both pipes.
    """

    def __init__(self, request: bytes) -> None:
        # close_child_ends() closes it
        self.request: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.request.write(request)
        self.request.seek(0)
        self.answer = Intake(ANSWER_LIMIT, keep_last=False)
        self.log = Intake(LOG_LIMIT, keep_last=True)
        self.collector = Collector(self.answer, self.log)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def close_child_ends(self) -> None:
        """Close what only the child needs from now on."""
        self.request.close()
        self.answer.close_writer()
        self.log.close_writer()

    def finish(self) -> None:
        """Stop listening. Afterwards the answer and the log are what had come until now."""
        self.close_child_ends()
        self.collector.finish()

    def read_answer(self) -> bytes | None:
        """Return the answer of a child that is gone; None where it was larger than it may be."""
        self.finish()
        return None if self.answer.overflowed else bytes(self.answer.data)


def take_over_input(descriptor: int = 0) -> bytes:
    """Read the whole request from standard input, and leave an empty one in its place.

    The child does this.
    """
    with open(descriptor, "rb", closefd=False) as file:
        request = file.read()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, descriptor)
    os.close(null)
    return request


def write_answer(descriptor: int, answer: str) -> None:
    """Write the whole answer and close the pipe; a parent that is gone reads nothing more.

    The child does this.
    """
    with contextlib.suppress(BrokenPipeError), open(descriptor, "wb") as file:
        file.write(answer.encode("utf-8", "replace"))
