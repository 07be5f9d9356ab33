"""Commands for the settings."""

from pathlib import Path
from typing import Annotated

import typer

from paracle_meta.cli import output
from paracle_meta.cli.groups import command_group, examples
from paracle_meta.cli.options import Json
from paracle_meta.cli.running import load

app = command_group(
    "The settings: defaults, YAML file, .env, environment, arguments; later wins.",
    "config init",
    "config show",
    "config validate",
)


@app.command(epilog=examples("config show", "--config production.yaml config show --json"))
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Show every setting, its value and where it comes from.

    Secrets are masked.
    """
    config = load(ctx)
    origins = config.origins()
    settings = {
        name: {"value": value, "origin": origins[name]}
        for name, value in config.database.describe().items()
    }
    if as_json:
        output.print_json({"database": settings})
    else:
        output.print_rows(
            [[name, setting["value"], setting["origin"]] for name, setting in settings.items()],
            {"name": "setting", "value": "value", "origin": "from"},
        )


@app.command(epilog=examples("config validate", "--config production.yaml config validate"))
def validate(ctx: typer.Context) -> None:
    """Check the settings without opening the database."""
    config = load(ctx)
    files = sorted({origin for origin in config.origins().values() if Path(origin).is_file()})
    read = f" (read {', '.join(files)})" if files else ""
    output.note(f"The settings are valid{read}; the database is on {config.database.backend}.")


@app.command(epilog=examples("config init", "config init production.yaml"))
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path(
        ".parac/config/meta_agent.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a YAML file that explains every setting."""
    from paracle_meta.config import config_template
    from paracle_meta.exceptions import ConfigurationError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(config_template())
    except FileExistsError as exc:
        raise ConfigurationError(f"{file} exists; --force replaces it.") from exc
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be written ({exc.strerror}).") from exc
    output.print_line(str(file))
