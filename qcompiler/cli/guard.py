"""Every command ends with a documented exit code and clear words, never with a traceback.

0 done, 1 failed, 2 usage or configuration, 3 a gate not met, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import click

from qcompiler.errors import QCompilerError

__all__ = ["GuardedCommand", "NearChoice", "show_error", "traceback_option"]

INTERRUPTED = 130
_TERMINATED = 143


class GuardedCommand(click.Command):
    """A command whose errors become exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the module's list of exit codes."""
        with _terminable():
            return _guarded(ctx, lambda: super(GuardedCommand, self).invoke(ctx))


def _guarded(ctx: click.Context, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (click.exceptions.Exit, click.ClickException, click.Abort):
        raise
    except QCompilerError as error:
        show_error(str(error))
        _leave(ctx, error.exit_code)
    except KeyboardInterrupt:
        show_error("interrupted; no output was written")
        _leave(ctx, INTERRUPTED)
    except MemoryError:
        show_error("out of memory\n  hint: give fewer samples with --limit, or a smaller model")
        _leave(ctx, 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise  # the reader of our output has gone: click ends quietly
        show_error(_bug(error))
        _leave(ctx, 1)


def _leave(ctx: click.Context, code: int) -> NoReturn:
    """End with ``code``; with ``--traceback`` show first where the error was raised."""
    if ctx.params.get("traceback"):
        click.echo(traceback.format_exc(), err=True, nl=False)
    ctx.exit(code)


def _bug(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    lines = [f"{type(error).__name__}: {text}", "  this is a bug in qcompiler, not in your request"]
    lines += [f"  {note}" for note in getattr(error, "__notes__", ())]
    return "\n".join([*lines, "  hint: --traceback shows where it happened, --repro-dir DIR keeps what reproduces it"])


def show_error(text: str) -> None:
    """Write an error to standard error."""
    click.secho("error: ", fg="red", bold=True, err=True, nl=False)
    click.echo(text, err=True)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, with which build tools stop their jobs, unwind the stack so that temporary files go away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class NearChoice(click.ParamType):  # type: ignore[type-arg]
    """One of a few words; a wrong one is answered with the nearest.

    Args:
        words: The words.
    """

    name = "choice"

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The words, as help shows them."""
        del param, ctx
        return f"[{'|'.join(self.words)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word itself."""
        from qcompiler.errors import nearest

        if value in self.words:
            return str(value)
        hint = nearest(str(value), self.words) or f"one of {', '.join(self.words)}"
        raise click.BadParameter(f"'{value}' is not known; {hint}", ctx, param)


def traceback_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--traceback``: read by the guard, not by the command."""
    option = click.option("--traceback", is_flag=True, expose_value=True, help="Show where an error was raised.")
    return option(function)
