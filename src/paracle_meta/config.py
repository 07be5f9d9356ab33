"""Settings: what they are, what they may be, and `load_config`, which gathers them.

Later wins: defaults, YAML file, `.env`, environment, arguments. How each of these is read stands in
`config_sources`, which is loaded only when `load_config` runs.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import unquote
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from paracle_meta.exceptions import ConfigurationError
from paracle_meta.urls import ENV_PASSWORD, HTTP_URL, POSTGRES_URL, mask_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

# SQLite and PostgreSQL both keep time limits as whole milliseconds in 32 bits with a sign, and both
# read 0 as "no limit": a shorter or longer value would mean something else than it says.
Seconds = Annotated[float, Field(ge=0.001, le=2_147_483, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
_MIB = 1024 * 1024


class Given(NamedTuple):
    """A value that one source gives for a setting."""

    value: object
    place: str
    """For messages: "database.pool_size in /x/.parac/config/meta_agent.yaml"."""
    origin: str
    """For listings: "argument", "environment", ".env" or the path of the YAML file."""
    folder: Path
    """What a relative path in this source is relative to."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, regardless of case, or None if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def shown_name(key: object) -> str:
    """Return a key as it may stand in a message: a misplaced value, perhaps a secret, does not."""
    return key if isinstance(key, str) and key.isidentifier() else "(a key that is no name)"


class _Settings(BaseModel):
    """Fixed once made; everything wrong with it is a ConfigurationError that shows no value."""

    # Deferred, as a process makes settings of one of these classes, and not of all three.
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True
    )

    @model_validator(mode="wrap")
    @classmethod
    def _say_what_is_wrong(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            return handler(data)
        except ValidationError as exc:
            problems = [cls._problem(error, info.context or {}) for error in exc.errors()]
        # Not "from exc": pydantic's error holds the values themselves, secrets among them.
        raise ConfigurationError("\n".join(problems))

    @classmethod
    def _problem(cls, error: ErrorDetails, given: Mapping[str, Given]) -> str:
        if not error["loc"]:
            return f"{cls.__name__} is made from settings, each as name: value."
        name = str(error["loc"][0])
        if name in given:
            place = given[name].place
        else:
            place = f"{shown_name(name)} in the arguments of {cls.__name__}"
        if error["type"] == "extra_forbidden":
            near = nearest_name(name, cls.model_fields)
            hint = f"did you mean {near}?" if near else "`paracle meta config init` lists them all."
            return f"{place} is not a setting; {hint}"
        reason = error["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
        return f"{place} cannot be used: {reason}."

    def __setattr__(self, name: str, value: Any) -> None:
        # Before pydantic, whose error for a frozen model prints the value.
        if not name.startswith("_"):
            raise ConfigurationError(f"{name} cannot be changed: settings are fixed once made.")
        super().__setattr__(name, value)


class DatabaseSettings(_Settings):
    """Where and how the records are kept.

    Made directly, it takes arguments only and reads no file and no environment; `load_config` reads
    those. Equal settings are equal objects with one hash.

    Raises:
        ConfigurationError: a setting is unknown or cannot have this value.
    """

    if TYPE_CHECKING:
        # Plain text is accepted for secrets and paths, which pydantic's typed signature denies.
        def __init__(self, **settings: Any) -> None: ...

    postgres_url: SecretStr | None = Field(
        None,
        description="PostgreSQL database: postgresql://user:password@host:5432/database; several "
        "hosts and parameters such as sslmode= are allowed. Write the password as env:NAME to take "
        "it from the environment when connecting. Without a URL the records are kept in SQLite.",
    )
    pool_size: int = Field(
        10, ge=1, le=1000, description="Most PostgreSQL connections open at once, 1 to 1000."
    )
    pool_recycle: Seconds = Field(
        3600.0, description="Seconds after which a PostgreSQL connection is replaced by a new one."
    )
    pool_pre_ping: bool = Field(
        True,
        description="Check that a PostgreSQL connection which stood idle is alive before using it.",
    )
    pool_timeout: Seconds = Field(
        30.0, description="Seconds to wait for a free PostgreSQL connection."
    )
    connect_timeout: Seconds = Field(
        10.0, description="Seconds to wait for the PostgreSQL server to accept a connection."
    )
    statement_timeout: Seconds | None = Field(
        None, description="Seconds after which PostgreSQL ends a statement; null for no limit."
    )
    postgres_schema: str | None = Field(
        None,
        description="PostgreSQL schema that holds everything, one for each tenant; null for the "
        "role's own search path.",
    )
    migration_url: SecretStr | None = Field(
        None,
        description="Another PostgreSQL URL for migrations, where postgres_url leads through "
        "PgBouncer; null for postgres_url itself.",
    )
    transaction_pooling: bool = Field(
        False,
        description="Say that postgres_url leads through PgBouncer in transaction mode, or a "
        "pooler like it: nothing is kept on a connection, and migration_url is needed besides.",
    )
    auto_migrate: bool = Field(
        True, description="Bring the schema up to date when the database is first used."
    )
    sqlite_dir: Path | None = Field(
        None,
        description="Folder of the SQLite files, also as sqlite:///relative/folder or "
        "sqlite:////absolute/folder; null for the platform's data folder. In a file below .parac "
        "it is relative to the folder that holds .parac, elsewhere to the working folder.",
    )
    journal_mode: Literal["wal", "truncate"] = Field(
        "wal",
        description="SQLite journal: wal is fast and lets readers and a writer work at once; "
        "truncate makes a transaction over several of the files atomic.",
    )
    busy_timeout: Seconds = Field(
        30.0, description="Seconds to wait for another SQLite writer to finish."
    )
    # The upper end is a quarter of what one PostgreSQL value can hold, so that a record with all of
    # its texts and their escaping stays below that.
    content_limit: int = Field(
        8 * _MIB, ge=1, le=256 * _MIB, description="Most bytes of a record's content, as UTF-8."
    )
    time_zone: str = Field(
        "UTC", description="Time zone, such as Europe/Berlin, whose days costs are counted by."
    )
    enable_vectors: bool = Field(
        True, description="Store embeddings and search by them; false needs no pgvector."
    )
    vector_index: Literal["hnsw", "ivfflat", "none"] = Field(
        "hnsw",
        description="PostgreSQL index for vectors: hnsw, ivfflat (built once there are rows enough "
        "to train it) or none (exact search).",
    )
    hnsw_m: int = Field(
        16, ge=2, le=100, description="Edges a node of the PostgreSQL hnsw index, 2 to 100."
    )
    # pgvector refuses less than twice the edges.
    hnsw_ef_construction: int = Field(
        128,
        ge=4,
        le=1000,
        description="Candidates kept while the hnsw index is built, 4 to 1000 and at least twice "
        "hnsw_m.",
    )
    hnsw_ef_search: int = Field(
        250,
        ge=1,
        le=1000,
        description="Candidates kept while the hnsw index is searched, 1 to 1000: more find more.",
    )
    ivfflat_lists: int | None = Field(
        None,
        ge=1,
        le=32_768,
        description="Lists of the ivfflat index, 1 to 32768; null for a thousandth of the rows, "
        "made anew at opening when the rows have become four times as many.",
    )
    ivfflat_probes: int = Field(
        20, ge=1, le=32_768, description="Lists of the ivfflat index that a search looks at."
    )
    index_in_background: bool = Field(
        True,
        description="Let a process that searches many SQLite records make their vector index by "
        "itself, in the background; commands never do, see paracle meta index.",
    )
    # Nothing leaves the machine unless a remote provider is configured by name.
    embedding_provider: Literal["local", "openai", "ollama"] = Field(
        "local",
        description="What turns text into vectors: local (a small model inside the installation, "
        "no network), openai or ollama.",
    )
    local_model: Literal["wordllama", "minilm"] = Field(
        "wordllama",
        description="Local embedding model: wordllama takes less than 0.1 ms for a sentence; "
        "minilm is better at meaning, takes about 8 ms, and needs the extra `minilm`.",
    )
    openai_model: Name = Field("text-embedding-3-small", description="OpenAI embedding model.")
    openai_api_key: SecretStr | None = Field(
        None, description="OpenAI key; where it is not set, OPENAI_API_KEY is taken."
    )
    openai_base_url: str | None = Field(
        None, description="Address of an OpenAI-compatible server; null for OpenAI itself."
    )
    ollama_model: Name = Field("nomic-embed-text", description="Ollama embedding model.")
    ollama_url: str = Field("http://localhost:11434", description="Address of the Ollama server.")
    # 16,000 is the most that pgvector's vector type holds.
    embedding_dimensions: int | None = Field(
        None,
        ge=1,
        le=16_000,
        description="Length of the vectors, 1 to 16000; null for what the model gives.",
    )
    embedding_timeout: Seconds = Field(
        30.0, description="Seconds to wait for one answer of the embedding provider."
    )
    embedding_max_retries: int = Field(
        3, ge=0, le=10, description="Repeats of a failed embedding call, 0 to 10."
    )
    # 2,048 is the most that OpenAI takes in one call.
    embedding_batch_size: int = Field(
        64, ge=1, le=2048, description="Most texts in one embedding call, 1 to 2048."
    )
    # A vector of OpenAI takes 6 KB, so ten million would fill a disk of 60 GB.
    embedding_cache_size: int = Field(
        10_000,
        ge=0,
        le=10_000_000,
        description="Most vectors a collection that are kept to be used again for the same text, 0 "
        "to 10000000: the same text is then not paid for twice. The local model is faster without.",
    )
    promotion_min_ratings: int = Field(
        3, ge=1, description="Ratings that a generation needs before their average promotes it."
    )
    promotion_min_average: float = Field(
        4.0,
        ge=1,
        le=5,
        allow_inf_nan=False,
        description="Average rating, 1 to 5, from which a generation is promoted to a template.",
    )
    promotion_min_quality: float = Field(
        8.0,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Quality score, 0 to 10, from which a generation is promoted without ratings.",
    )

    @field_validator("hnsw_ef_construction")
    @classmethod
    def _enough_candidates(cls, value: int, info: ValidationInfo) -> int:
        if value < 2 * info.data.get("hnsw_m", 0):
            raise ValueError("it should be at least twice hnsw_m")
        return value

    @field_validator("postgres_url", "migration_url")
    @classmethod
    def _database_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        match = POSTGRES_URL.fullmatch(url.get_secret_value())
        if match is None:
            raise ValueError(
                "it should look like postgresql://user:password@host:5432/database (also with "
                "postgres:// or postgresql+asyncpg://), with characters such as @ / ? # in the "
                "password percent-encoded or the password given as env:NAME; a folder for SQLite "
                "goes into sqlite_dir"
            )
        password = unquote(match["password"] or "")
        if password.startswith("env:") and not ENV_PASSWORD.fullmatch(password):
            raise ValueError("after env: in its password should stand the name of a variable")
        return url

    @field_validator("postgres_schema")
    @classmethod
    def _identifier(cls, name: str | None) -> str | None:
        # 63 bytes is what PostgreSQL keeps of a name; names from pg_ on belong to the system.
        if name is not None and (
            not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name) or name.startswith("pg_")
        ):
            raise ValueError(
                "it should be up to 63 lower-case letters, digits and underscores, not starting "
                "with a digit or pg_"
            )
        return name

    @field_validator("sqlite_dir", mode="before")
    @classmethod
    def _folder(cls, value: object, info: ValidationInfo) -> object:
        given: Mapping[str, Given] = info.context or {}
        if value is None:
            return None
        if not isinstance(value, str | os.PathLike):
            raise ValueError("it should be text")  # noqa: TRY004 - pydantic takes no TypeError
        text = os.fsdecode(value)
        folder = text.removeprefix("sqlite:///")
        is_url = "://" in text or text.startswith("sqlite:")
        if folder in {"", ":memory:"} or (is_url and (folder == text or "?" in folder)):
            raise ValueError(
                "it should be a folder, also as sqlite:///relative/folder or "
                "sqlite:////absolute/folder; the records are always kept in files"
            )
        base = given["sqlite_dir"].folder if "sqlite_dir" in given else Path.cwd()
        try:
            return (base / Path(folder).expanduser()).resolve()
        except (OSError, RuntimeError) as exc:
            raise ValueError("it leads nowhere: a home folder or link cannot be followed") from exc

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as exc:
            near = nearest_name(name, available_timezones())
            hint = f"the nearest is {near}" if near else "write it like Europe/Berlin or UTC"
            raise ValueError(f"it is not a known time zone; {hint}") from exc
        return name

    @field_validator("openai_api_key")
    @classmethod
    def _no_spaces(cls, key: SecretStr | None) -> SecretStr | None:
        # A stray line break would reach the HTTP client, whose error prints the whole header.
        if key is not None and re.search(r"\s", key.get_secret_value()):
            raise ValueError("it contains a space or line break")
        return key

    @field_validator("openai_base_url", "ollama_url")
    @classmethod
    def _http_url(cls, url: str | None) -> str | None:
        if url is not None and not HTTP_URL.fullmatch(url):
            raise ValueError(
                "it should look like http://host:port or https://host/path, without a user name or "
                "password (addresses are shown in messages)"
            )
        return url

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: object, info: ValidationInfo) -> object:
        # Stands last and so runs first: pydantic calls "before" validators from the last one up.
        field = cls.model_fields[str(info.field_name)]
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str | os.PathLike) and "\0" in str(text):
            raise ValueError("it contains a NUL character")
        if isinstance(text, bool) and field.annotation is not bool:
            raise ValueError("it should not be true or false")  # Python would read it as 1 or 0
        # Shells and compose files have no other way to say "none".
        return None if text == "" and field.default is None else value

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """Return settings for the database at a URL.

        Args:
            url: `sqlite:///relative/folder`, `sqlite:////absolute/folder` or a PostgreSQL URL.
            settings: any of the other settings.

        Raises:
            ConfigurationError: the URL has another form, or a setting is wrong.
        """
        if url.startswith("sqlite:"):
            return cls(sqlite_dir=url, **settings)
        if not url:
            raise ConfigurationError("The database URL is empty. For the default, give no URL.")
        return cls(postgres_url=url, **settings)

    @property
    def backend(self) -> Literal["sqlite", "postgresql"]:
        """Which database these settings lead to."""
        return "sqlite" if self.postgres_url is None else "postgresql"

    @property
    def sqlite_folder(self) -> Path:
        """The folder of the SQLite files: `sqlite_dir`, or the platform's data folder."""
        if self.sqlite_dir is not None:
            return self.sqlite_dir
        import platformdirs

        # The platforms' habits: a capital where people see the folder, none where they type it.
        name = "Paracle" if sys.platform in {"darwin", "win32"} else "paracle"
        return platformdirs.user_data_path(name, appauthor=False) / "meta"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone whose days costs are counted by."""
        return ZoneInfo(self.time_zone)

    def describe(self) -> dict[str, object]:
        """Return every setting by name, as plain values with all secrets masked."""
        values = self.model_dump(mode="json")
        for name, value in self:
            if isinstance(value, SecretStr) and name.endswith("_url"):
                values[name] = mask_url(value.get_secret_value())
        return values


class Config(_Settings):
    """The whole configuration; `load_config` makes it.

    Raises:
        ConfigurationError: something in it is unknown or cannot have this value.
    """

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Mapping[str, Given] | None, /) -> None:
        """Keep where each setting came from."""
        self._origins = {name: given.origin for name, given in (context or {}).items()}

    def origins(self) -> dict[str, str]:
        """Return where each setting of `database` came from.

        Returns:
            By name: "default", the path of the YAML file, ".env", "environment" or "argument".
        """
        return {name: self._origins.get(name, "default") for name in DatabaseSettings.model_fields}


def load_config(path: str | os.PathLike[str] | None = None, **overrides: Any) -> Config:
    """Gather the configuration; later wins: defaults, YAML, `.env`, environment, arguments.

    Args:
        path: the YAML file; without it, `.parac/config/meta_agent.yaml` is looked for from the
            working folder upwards, and may be missing.
        overrides: sections, as in `load_config(database={"pool_size": 3})`.

    Returns:
        The settings, and by `origins()` where each came from.

    Raises:
        ConfigurationError: a file cannot be read, or a setting is unknown or cannot have this
            value; the message names the place.
    """
    from paracle_meta.config_sources import read_sources

    given = read_sources(path, overrides)
    values = {name: setting.value for name, setting in given.items()}
    return Config.model_validate({"database": values}, context=given)


def config_template() -> str:
    """Return a YAML file that names every setting with its meaning and default, commented out."""
    import json  # every JSON value is a YAML value

    lines = [
        "# Settings of paracle_meta. Each one stands here with its default: to change it, remove",
        '# the "# " before its name. ${NAME} and ${NAME:-default} take text from the environment.',
        "meta_agent:",
        "  database:",
    ]
    for name, field in DatabaseSettings.model_fields.items():
        lines += textwrap.wrap(
            field.description or "", 96, initial_indent="    ## ", subsequent_indent="    ## "
        )
        lines.append(f"    # {name}: {json.dumps(field.default)}")
    return "\n".join(lines) + "\n"
