"""Groups of commands that load a command only when it is needed."""

from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperGroup, TyperOption

if TYPE_CHECKING:
    from collections.abc import Mapping


class Group(TyperGroup):
    """A group whose own options cost no import of pydantic.

    typer converts every option by pydantic, which takes longer to import than all the rest of
    `--help`, even an absent flag whose default is None; only a flag that is a bool already is left
    alone.
    """

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, flags that were not given being false."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if isinstance(parameter, TyperOption) and parameter.is_bool_flag:
                parameter.default = parameter.default or False
        return parameters


class LazyGroup(Group):
    """A group that knows the names and summaries of its commands and imports the one that is run.

    Attributes:
        summaries: What each command does in a line, by name. The command stands in the module of
            this package that has its name, with an underscore behind a word of Python.
    """

    summaries: ClassVar["Mapping[str, str]"] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, in the order of `summaries`."""
        del ctx
        return list(self.summaries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name, or None."""
        if cmd_name not in self.summaries:
            return None
        if cmd_name not in self.commands:
            name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
            module = import_module(f"paracle_meta.cli.{name}")
            command = typer.main.get_command(module.app)
            command.name = cmd_name
            self.commands[cmd_name] = command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the names and summaries without importing the commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name, or fail with the nearest name."""
        if args and args[0] not in self.summaries and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.summaries, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.summaries)}"
            )
            ctx.fail(f"No such command {args[0]!r:.60}; {hint}")
        return super().resolve_command(ctx, args)


def command_group(summary: str, *lines: str) -> typer.Typer:
    """Return the app of a module with several commands.

    Args:
        summary: What they are about.
        lines: Examples, as `examples` takes them.
    """
    return typer.Typer(
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        help=summary,
        epilog=examples(*lines),
    )


def examples(*lines: str) -> str:
    r"""Return the end of a help page: command lines, each without its ``paracle meta``.

    The \b keeps them from being filled like a paragraph.
    """
    return "Examples:\n\n\b\n" + "\n".join(f"  paracle meta {line}" for line in lines)
