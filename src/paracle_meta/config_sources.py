"""Where settings come from: a YAML file, `.env`, the environment, arguments.

Each source is read into the same shape, setting name -> `Given`; `read_sources` lays one over the
other. What a value may be is decided in `config`, once, whatever its source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from paracle_meta.config import Config, DatabaseSettings, Given, nearest_name, shown_name
from paracle_meta.exceptions import ConfigurationError

FILE = Path(".parac", "config", "meta_agent.yaml")
PREFIX = "PARACLE_META_"

VARIABLES = {f"{PREFIX}DATABASE__{name.upper()}": name for name in DatabaseSettings.model_fields}
VARIABLES |= {f"{PREFIX}POSTGRES_URL": "postgres_url", f"{PREFIX}SQLITE_DIR": "sqlite_dir"}
"""Each environment variable and the setting it gives."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def read_sources(
    path: str | os.PathLike[str] | None, overrides: Mapping[str, object]
) -> dict[str, Given]:
    """Return what all sources together give, later ones over earlier ones.

    Raises:
        ConfigurationError: a source cannot be read or names something unknown.
    """
    here = Path.cwd()
    dotenv = _read_dotenv(here / ".env")
    environment = dict(os.environ)
    file = Path(path).expanduser() if path is not None else _find_file(here)
    return (
        _read_openai_key(dotenv, ".env", here)
        | _read_openai_key(environment, "environment", here)
        | (_read_file(file, dotenv | environment, here) if file else {})
        | _read_variables(dotenv, f"in {here / '.env'}", ".env", here)
        | _read_variables(environment, "in the environment", "environment", here)
        | _read_arguments(overrides, here)
    )


def _find_file(here: Path) -> Path | None:
    candidates = (folder / FILE for folder in (here, *here.parents))
    return next((file for file in candidates if file.is_file()), None)


def _read_file(file: Path, variables: Mapping[str, str], here: Path) -> dict[str, Given]:
    """Return what a YAML file gives, its `${NAME}` filled in."""
    # Here, because most commands run where there is no such file.
    from paracle_meta.config_file import parse

    data = _mapping(parse(file), f"The content of {file}")
    section = "database"
    if "meta_agent" in data:
        if "database" in data:
            raise ConfigurationError(
                f"{file} has both meta_agent and database at the top. Keep one: either the whole "
                "under meta_agent, or database alone."
            )
        _check_keys(data, ["meta_agent"], "", file)
        data = _mapping(data["meta_agent"], f"meta_agent in {file}")
        section = "meta_agent.database"
        _check_keys(data, ["database"], "meta_agent.", file)
    else:
        _check_keys(data, ["meta_agent", "database"], "", file)

    inside = next((parent for parent in file.absolute().parents if parent.name == ".parac"), None)
    folder = inside.parent if inside else here
    given = {}
    for key, value in _mapping(data.get("database"), f"{section} in {file}").items():
        place = f"{section}.{shown_name(key)} in {file}"
        filled = _expand(value, variables, place) if isinstance(value, str) else value
        given[str(key)] = Given(filled, place, str(file), folder)
    return given


def _mapping(value: object, what: str) -> Mapping[object, object]:
    if value is None:  # an empty file, or a section whose settings are all commented out
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{what} should be settings, each as name: value.")
    return value


def _check_keys(data: Mapping[object, object], known: list[str], above: str, file: Path) -> None:
    for key in data:
        if key not in known:
            hint = nearest_name(str(key), known) or " or ".join(known)
            raise ConfigurationError(
                f"{above}{shown_name(key)} in {file} is not a section; did you mean {hint}?"
            )


def _expand(text: str, variables: Mapping[str, str], place: str) -> str:
    def value_of(match: re.Match[str]) -> str:
        name, default = match.groups()
        value = variables.get(name)
        if default is not None and not value:  # as in a shell, also where it is set but empty
            return str(default)
        if value is None:
            raise ConfigurationError(
                f"{place} refers to ${{{name}}}, which is not set. Set the environment variable "
                f"{name}, or give a default: ${{{name}:-default}}."
            )
        return value

    return _REFERENCE.sub(value_of, text)


def _read_dotenv(file: Path) -> dict[str, str]:
    """Return the variables of a `.env` file; none if there is no such file."""
    if not file.is_file():
        return {}
    # Here, because most folders have no such file and this import costs 100 ms.
    from pydantic_settings import BaseSettings, DotEnvSettingsSource

    try:
        # utf-8-sig also reads the mark that Windows editors put at the start.
        source = DotEnvSettingsSource(
            BaseSettings, env_file=file, env_file_encoding="utf-8-sig", case_sensitive=True
        )
        return {name: value for name, value in source.env_vars.items() if value is not None}
    except OSError as exc:
        raise ConfigurationError(
            f"{file} cannot be read ({exc.strerror}). Check its permissions."
        ) from exc
    except UnicodeDecodeError:
        pass
    # Not "from exc": that error holds the whole file.
    raise ConfigurationError(f"{file} is not UTF-8 text. Save it as UTF-8.")


def _read_variables(
    variables: Mapping[str, str], where: str, origin: str, here: Path
) -> dict[str, Given]:
    """Return what variables named `PARACLE_META_...` give; their case does not matter."""
    given: dict[str, Given] = {}
    for variable, value in variables.items():
        if not variable.upper().startswith(PREFIX):
            continue
        place = f"{variable} {where}"
        setting = VARIABLES.get(variable.upper())
        if setting is None:
            raise ConfigurationError(f"{place} is not a setting; {_hint(variable)}")
        if setting in given and given[setting].value != value:
            raise ConfigurationError(
                f"{given[setting].place} and {variable} give different values for the same "
                "setting. Keep one of the two."
            )
        given[setting] = Given(value, place, origin, here)
    return given


def _hint(variable: str) -> str:
    # The setting's own name decides: the long common prefix would make all variables look alike.
    name = variable.upper().removeprefix(PREFIX).rpartition("__")[2]
    near = nearest_name(name, DatabaseSettings.model_fields)
    names = [known for known, setting in VARIABLES.items() if setting == near]
    if not names:
        return f"the settings are named {PREFIX}DATABASE__..., as `paracle meta config init` shows."
    return f"did you mean {min(names, key=len)}?"


def _read_openai_key(variables: Mapping[str, str], origin: str, here: Path) -> dict[str, Given]:
    """Return OpenAI's own variable, which stands below every other source."""
    # Stripped, as it is another program's variable: its stray line break must not stop this one.
    key = variables.get("OPENAI_API_KEY", "").strip()
    place = f"OPENAI_API_KEY in {'the environment' if origin == 'environment' else here / origin}"
    return {"openai_api_key": Given(key, place, origin, here)} if key else {}


def _read_arguments(overrides: Mapping[str, object], here: Path) -> dict[str, Given]:
    """Return what the caller of `load_config` gives."""
    for name in overrides:
        if name in DatabaseSettings.model_fields:
            raise ConfigurationError(
                f"{name} in the arguments belongs into its section: database={{{name!r}: ...}}."
            )
        if name not in Config.model_fields:
            raise ConfigurationError(
                f"{shown_name(name)} in the arguments is not a section; did you mean "
                f"{nearest_name(name, Config.model_fields) or 'database'}?"
            )
    section = _mapping(overrides.get("database"), "database in the arguments")
    return {
        str(name): Given(value, f"database.{shown_name(name)} in the arguments", "argument", here)
        for name, value in section.items()
    }
