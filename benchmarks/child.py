"""A process that does what it is told over pipes, a line at a time: both ends of it.

The parent's is :class:`Process`; in the child, :func:`serve` answers. A line is a command and its arguments between
tabs; the answer is ``ok`` and a text, or ``no`` and why not. Between two lines the child sleeps. This module must be
importable in any environment: another one's packages are not those of this checkout.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Any

PATIENCE = 120.0
"""Seconds that one command may take."""


class Unable(Exception):
    """What was asked cannot be done, or not as its name says; the text, which reports give, says why."""


class Ended(Exception):
    """The process ended, or did not answer."""


class Process:
    """A child, which may be shared by several who tell it what to do."""

    def __init__(self, name: str, command: Sequence[str], cwd: str | None = None) -> None:
        """``name`` is for errors; ``command`` is run in the folder ``cwd``."""
        self.name = name
        self._command = command
        self._cwd = cwd
        self._child: subprocess.Popen[str] | None = None
        self._said: IO[str] | None = None

    def start(self, *fields: str) -> None:
        """Start the child and tell it ``open`` with these arguments, unless it runs."""
        if self._child is not None:
            return
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed by stop()
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=self._cwd,
        )
        self._exchange("open", *fields)

    async def ask(self, *fields: str) -> str:
        """Send a command; return the answer. Raises :class:`Unable` or :class:`Ended`."""
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._exchange, *fields), PATIENCE)
        except asyncio.TimeoutError:
            self.stop()
            raise Ended(f"{self.name} did not answer to {fields} within {PATIENCE:g} s") from None

    def _exchange(self, *fields: str) -> str:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise Ended(f"{self.name} does not run")
        try:
            child.stdin.write("\t".join(fields) + "\n")
            child.stdin.flush()
            verdict, _, text = child.stdout.readline().rstrip("\n").partition("\t")
        except BrokenPipeError:
            verdict, text = "", ""
        if verdict == "no":
            raise Unable(text)
        if verdict != "ok":
            raise Ended(f"{self.name} ended at {fields}: {self._tail()}")
        return text

    def _tail(self) -> str:
        if self._said is None:
            return ""
        self._said.seek(0)
        return self._said.read()[-2000:]

    def stop(self) -> None:
        """End the child, if it runs."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()
        if self._said is not None:
            self._said.close()
            self._said = None


async def serve(child: Any) -> None:
    """Answer every line of standard input by the coroutine method of ``child`` that it names."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what somebody prints is no answer
    for line in iter(sys.stdin.readline, ""):
        command, *fields = line.rstrip("\n").split("\t")
        try:
            said = ("ok", await getattr(child, command)(*fields) or "")
        except Exception as error:  # told to the parent, which reports it
            why = str(error) if isinstance(error, Unable) else f"fails with {type(error).__name__}: {error}"
            said = ("no", " ".join(why.split()))
        answers.write("\t".join(said) + "\n")
        answers.flush()
