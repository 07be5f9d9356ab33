"""From an exception to a line on stderr and an exit code."""

import os
import sys
from typing import TYPE_CHECKING, Any

import typer
from typer import TyperException

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURE = 1
USAGE = 2
"""A usage error, a wrong configuration, or a value that is not allowed."""
EMBEDDING = 3
DATABASE = 4
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells count."""
BROKEN_PIPE = 141
"""128 and the number of SIGPIPE: the reader of the output went away."""


def say_error(message: str) -> None:
    """Write each line of a message to stderr as an error of its own."""
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)


def guarded(work: "Callable[[], Any]", *, verbose: "Callable[[], bool]") -> None:
    """Run a command; whatever goes wrong in it ends as one line on stderr and an exit code.

    Args:
        work: The command.
        verbose: Whether to show where an error came from; asked only when there is one.

    Raises:
        typer.Exit: Something went wrong; it carries the exit code.
    """
    try:
        work()
        sys.stdout.flush()
    except (TyperException, typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        say_error("interrupted.")
        # Not by sys.exit, which waits for the threads, and one may wait for a lock. A database
        # takes this like a crash: what was not committed is rolled back.
        os._exit(INTERRUPTED)
    except BrokenPipeError:
        _forget_output()
        raise typer.Exit(BROKEN_PIPE) from None
    except Exception as error:
        if verbose():
            import traceback

            traceback.print_exc()
        raise typer.Exit(_report(error)) from error


def _report(error: Exception) -> int:
    from paracle_meta.exceptions import (
        ConfigurationError,
        DatabaseError,
        EmbeddingError,
        InvalidValueError,
        ParacleMetaError,
    )

    if not isinstance(error, ParacleMetaError):
        # Its words are not ours and may hold anything, so only its name is shown.
        say_error(
            f"unexpected {type(error).__name__}; run `paracle meta --verbose ...` to see where it "
            "comes from, and report it."
        )
        return FAILURE
    say_error(str(error))
    codes: dict[type[ParacleMetaError], int] = {
        ConfigurationError: USAGE,
        InvalidValueError: USAGE,
        EmbeddingError: EMBEDDING,
        DatabaseError: DATABASE,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), FAILURE)


def _forget_output() -> None:
    # What is still buffered would be written when Python ends, and fail again, aloud.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def say_usage_error(error: TyperException) -> int:
    """Write what is wrong with the command line to stderr and return the exit code."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)
        return USAGE
    if message.startswith("No such option: ") and message.split()[3] in GLOBAL_OPTIONS:
        message += f" here; it stands right after meta: paracle meta {message.split()[3]}"
    elif context is not None and not message.endswith("?"):
        message += f"; see `{context.command_path} --help`"
    say_error(message if message.endswith("?") else f"{message}.")
    return error.exit_code


GLOBAL_OPTIONS = ("--config", "--url", "--verbose")
"""Options of `meta` itself, which people also try after a command."""
