from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import platformdirs
import platformdirs.macos
import platformdirs.unix
import platformdirs.windows
import pytest
import yaml
from pydantic import SecretStr

from paracle_meta.config import (
    Config,
    DatabaseSettings,
    config_template,
    load_config,
    nearest_name,
)
from paracle_meta.exceptions import ConfigurationError
from paracle_meta.urls import mask_url, resolve_url

if TYPE_CHECKING:
    from collections.abc import Callable

    WriteYaml = Callable[[str | bytes], Path]

SECRET = "hunter2secret"
URL = f"postgresql://paracle:{SECRET}@localhost:5432/paracle_meta"

GUIDE_NESTED = """\
# .parac/config/meta_agent.yaml
meta_agent:
  database:
    postgres_url: "postgresql://paracle:secret@localhost:5432/paracle_meta"
    pool_size: 10
    pool_recycle: 3600
    enable_vectors: true
"""
GUIDE_TOP_LEVEL = """\
database:
  enable_vectors: true
  embedding_provider: openai  # or "ollama"

  # OpenAI settings
  openai_model: text-embedding-3-small  # 1536 dimensions

  # Ollama settings (for local)
  ollama_model: nomic-embed-text  # 768 dimensions
  ollama_url: "http://localhost:11434"
"""
GUIDE_POOL = """\
database:
  postgres_url: "postgresql://..."
  pool_size: 10        # Max connections
  pool_recycle: 3600   # Recycle connections after 1 hour
  pool_pre_ping: true  # Check connection health
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an environment with none of our variables in it."""
    for name in list(os.environ):
        if name.upper().startswith("PARACLE_META_") or name.upper() == "OPENAI_API_KEY":
            monkeypatch.delenv(name)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def write_yaml(project: Path) -> WriteYaml:
    def write(content: str | bytes) -> Path:
        file = project / ".parac" / "config" / "meta_agent.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write


def error_of(call: Callable[[], object], *parts: str) -> str:
    """Return the message of the ConfigurationError, which has these parts and shows no secret."""
    with pytest.raises(ConfigurationError) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message
    printed = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for forbidden in (SECRET, "input_value", "ValidationError", "pydantic.dev"):
        assert forbidden not in printed
    # Nothing hangs on the error that would hold the value: logging tools print attributes.
    seen = caught.value.__context__
    while seen is not None:
        assert SECRET not in f"{seen!r}{seen.__dict__}"
        seen = seen.__context__
    return message


def secret(value: SecretStr | None) -> str:
    assert value is not None
    return value.get_secret_value()


# What a setting may be


def test_the_defaults_need_no_configuration() -> None:
    settings = DatabaseSettings()
    assert settings.backend == "sqlite"
    assert settings.describe() == {
        "postgres_url": None,
        "pool_size": 10,
        "pool_recycle": 3600.0,
        "pool_pre_ping": True,
        "pool_timeout": 30.0,
        "connect_timeout": 10.0,
        "statement_timeout": None,
        "postgres_schema": None,
        "migration_url": None,
        "transaction_pooling": False,
        "auto_migrate": True,
        "sqlite_dir": None,
        "journal_mode": "wal",
        "busy_timeout": 30.0,
        "content_limit": 8 * 1024 * 1024,
        "time_zone": "UTC",
        "enable_vectors": True,
        "vector_index": "hnsw",
        "hnsw_m": 16,
        "hnsw_ef_construction": 128,
        "hnsw_ef_search": 250,
        "ivfflat_lists": None,
        "ivfflat_probes": 20,
        "index_in_background": True,
        "embedding_provider": "local",
        "local_model": "wordllama",
        "openai_model": "text-embedding-3-small",
        "openai_api_key": None,
        "openai_base_url": None,
        "ollama_model": "nomic-embed-text",
        "ollama_url": "http://localhost:11434",
        "embedding_dimensions": None,
        "embedding_timeout": 30.0,
        "embedding_max_retries": 3,
        "embedding_batch_size": 64,
        "embedding_cache_size": 10_000,
        "promotion_min_ratings": 3,
        "promotion_min_average": 4.0,
        "promotion_min_quality": 8.0,
    }


def test_every_setting_is_described_in_words() -> None:
    for name, field in DatabaseSettings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("pool_size", 1, 1000),
        ("content_limit", 1, 256 * 1024 * 1024),
        ("embedding_dimensions", 1, 16_000),
        ("embedding_max_retries", 0, 10),
        ("embedding_batch_size", 1, 2048),
        ("embedding_cache_size", 0, 10_000_000),
        ("promotion_min_average", 1, 5),
        ("promotion_min_quality", 0, 10),
    ],
)
def test_numbers_have_limits(name: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(DatabaseSettings(**{name: value}), name) == value
    for value in (low - 1, high + 1):
        error_of(partial(DatabaseSettings, **{name: value}), name, "it should be")


@pytest.mark.parametrize(
    "name",
    [
        "pool_recycle",
        "pool_timeout",
        "connect_timeout",
        "statement_timeout",
        "busy_timeout",
        "embedding_timeout",
    ],
)
def test_times_are_positive_and_finite(name: str) -> None:
    assert getattr(DatabaseSettings(**{name: 0.5}), name) == 0.5
    # 0.0001 s would become 0 ms, which means "no limit"; 3e6 s overflows the databases' counter.
    for value in (0, -1, 0.0001, 3e6, float("inf"), float("nan"), "soon", True, None):
        if name != "statement_timeout" or value is not None:
            error_of(partial(DatabaseSettings, **{name: value}), name)


@pytest.mark.parametrize("name", ["promotion_min_average", "promotion_min_quality"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "good"])
def test_thresholds_are_finite_numbers(name: str, value: object) -> None:
    error_of(lambda: DatabaseSettings(**{name: value}), name)


def test_true_is_not_the_number_one() -> None:
    error_of(lambda: DatabaseSettings(pool_size=True), "pool_size", "true or false")
    assert DatabaseSettings(auto_migrate=False).auto_migrate is False


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("journal_mode", ["wal", "truncate"]),
        ("vector_index", ["hnsw", "ivfflat", "none"]),
        ("embedding_provider", ["local", "openai", "ollama"]),
        ("local_model", ["wordllama", "minilm"]),
    ],
)
def test_choices_are_named_in_the_error(name: str, values: list[str]) -> None:
    for value in values:
        assert getattr(DatabaseSettings(**{name: value}), name) == value
    error_of(lambda: DatabaseSettings(**{name: "other"}), name, *(f"'{value}'" for value in values))


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "postgres://localhost/db",
        "postgresql+asyncpg://me@localhost/db",
        "postgresql://me:env:DB_PASSWORD@localhost/db",
        "postgresql://me:p%40ss@one:5432,two:5433/db?target_session_attrs=read-write&sslmode=require",
        "postgresql:///db?host=/var/run/postgresql",
        "postgresql://[::1]:5432/db",
        "postgresql://%2Fvar%2Frun/db",
        "postgresql://...",
    ],
)
def test_postgres_urls_as_people_write_them(url: str) -> None:
    settings = DatabaseSettings(postgres_url=url, migration_url=url)
    assert secret(settings.postgres_url) == secret(settings.migration_url) == url
    assert settings.backend == "postgresql"


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://root:{SECRET}@localhost/db",
        f"sqlite:///{SECRET}",
        f"postgresql:/me:{SECRET}@localhost/db",
        f"localhost/{SECRET}",
        f"postgresql://me:{SECRET}/x@localhost/db",
        f"postgresql://me:{SECRET}#x@localhost/db",
        f"postgresql://me:{SECRET}?x@localhost/db",
        f"postgresql://me:1?{SECRET}@localhost/db",
        f"postgresql://me:1/{SECRET}@localhost/db",
        f"postgresql://me:{SECRET}@localhost/db\n",
        f"postgresql://me:{SECRET}@localhost:port/db",
        f"postgresql://me:{SECRET}@loc al/db",
        f"postgresql://me:{SECRET}@[::1/db",
        "postgresql://me:env:NOT-A-NAME@localhost/db",
        f"postgresql://me:{SECRET}\0@localhost/db",
    ],
)
@pytest.mark.parametrize("name", ["postgres_url", "migration_url"])
def test_a_bad_postgres_url_is_refused_without_showing_it(name: str, url: str) -> None:
    message = error_of(lambda: DatabaseSettings(**{name: url}), name)
    assert "localhost" not in message
    error_of(lambda: DatabaseSettings(**{name: SecretStr(url)}), name)


def test_a_wrong_scheme_names_the_right_ones() -> None:
    error_of(
        lambda: DatabaseSettings(postgres_url="mysql://localhost"),
        "postgres_url in the arguments of DatabaseSettings",
        "postgresql://",
        "postgres://",
        "postgresql+asyncpg://",
    )


@pytest.mark.parametrize(
    "name",
    ["postgres_url", "migration_url", "sqlite_dir", "openai_api_key", "openai_base_url"],
)
def test_empty_text_means_none(name: str) -> None:
    assert DatabaseSettings(**{name: ""}) == DatabaseSettings()


@pytest.mark.parametrize("name", ["openai_model", "ollama_model", "ollama_url", "time_zone"])
def test_empty_text_is_an_error_where_a_value_is_needed(name: str) -> None:
    error_of(lambda: DatabaseSettings(**{name: ""}), name)


@pytest.mark.parametrize(
    "name", ["sqlite_dir", "openai_model", "ollama_url", "openai_api_key", "time_zone"]
)
def test_nul_is_refused(name: str) -> None:
    error_of(lambda: DatabaseSettings(**{name: "a\0b"}), name, "NUL")


@pytest.mark.parametrize("schema", ["paracle", "_x1", "a" * 63])
def test_schema_names(schema: str) -> None:
    assert DatabaseSettings(postgres_schema=schema).postgres_schema == schema


@pytest.mark.parametrize("schema", ["Paracle", "1a", "a-b", 'a"b', "a" * 64, "pg_x", "a\n", "ä"])
def test_schema_names_that_would_need_quoting_are_refused(schema: str) -> None:
    error_of(lambda: DatabaseSettings(postgres_schema=schema), "postgres_schema", "lower-case")


@pytest.mark.parametrize("name", ["openai_base_url", "ollama_url"])
@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:11434",
        "http://",
        "http://host:port",
        f"http://me:{SECRET}@host",
        f"http://me:{SECRET}\N{ACCOUNT OF}@host",
        "http://host/?a=b",
        "http://host\n",
    ],
)
def test_a_bad_address_is_refused(name: str, url: str) -> None:
    error_of(lambda: DatabaseSettings(**{name: url}), name, "http://host:port")


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "https://a.example/v1/", "http://[::1]:8080"]
)
def test_good_addresses(url: str) -> None:
    settings = DatabaseSettings(openai_base_url=url, ollama_url=url)
    assert settings.openai_base_url == settings.ollama_url == url


def test_a_key_with_a_line_break_is_refused() -> None:
    error_of(lambda: DatabaseSettings(openai_api_key=f"{SECRET}\n"), "openai_api_key", "line break")


def test_time_zones() -> None:
    settings = DatabaseSettings(time_zone="Europe/Berlin")
    assert settings.zone == ZoneInfo("Europe/Berlin")
    error_of(lambda: DatabaseSettings(time_zone="Europe/Berln"), "the nearest is Europe/Berlin.")
    for bad in ("../../etc/passwd", "Europe", "/etc/localtime", "nowhere at all"):
        error_of(partial(DatabaseSettings, time_zone=bad), "not a known time zone")


def test_an_unknown_argument_names_the_nearest() -> None:
    error_of(
        lambda: DatabaseSettings(pool_sise=3),
        "pool_sise in the arguments of DatabaseSettings is not a setting",
        "did you mean pool_size?",
    )
    error_of(lambda: DatabaseSettings(zzz=3), "zzz", "config init")
    error_of(lambda: Config(databse={}), "databse", "did you mean database?")  # type: ignore[call-arg]


def test_a_value_in_the_place_of_a_key_is_not_shown() -> None:
    error_of(lambda: DatabaseSettings(**{URL: None}), "a key that is no name")


def test_all_problems_are_told_at_once() -> None:
    message = error_of(lambda: DatabaseSettings(pool_size=0, busy_timeout=-1, jornal_mode="wal"))
    assert len(message.splitlines()) == 3


def test_config_checks_its_section() -> None:
    assert Config() == Config(database=DatabaseSettings())
    assert Config.model_validate({"database": {"pool_size": 3}}).database.pool_size == 3
    error_of(lambda: Config.model_validate({"database": {"pool_size": 0}}), "pool_size")
    error_of(lambda: Config.model_validate({"database": SECRET}), "DatabaseSettings is made from")
    error_of(lambda: DatabaseSettings.model_validate({"postgres_url": SECRET}), "postgres_url")


def test_broken_json_is_not_shown() -> None:
    with pytest.raises(ValueError, match="Invalid JSON") as caught:
        DatabaseSettings.model_validate_json(f'{{"openai_api_key": "{SECRET}"')
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_settings_are_fixed_equal_and_hashable() -> None:
    one, same = DatabaseSettings(postgres_url=URL), DatabaseSettings(postgres_url=URL)
    other = DatabaseSettings(postgres_url=URL, pool_size=3)
    assert one == same
    assert {one: "database"}[same] == "database"
    assert one != other
    assert len({one, same, other}) == 2
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
    for name in ("postgres_url", "no_such"):
        error_of(partial(setattr, one, name, URL), name, "cannot be changed")
    assert one == same


def test_settings_from_different_sources_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARACLE_META_DATABASE__POOL_SIZE", "3")
    assert load_config().database == DatabaseSettings(pool_size=3)
    assert hash(load_config().database) == hash(DatabaseSettings(pool_size=3))


def test_made_directly_it_reads_no_environment(
    monkeypatch: pytest.MonkeyPatch, write_yaml: WriteYaml
) -> None:
    write_yaml("database: {pool_size: 5}")
    monkeypatch.setenv("PARACLE_META_POSTGRES_URL", URL)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert DatabaseSettings().describe()["postgres_url"] is None
    assert DatabaseSettings().openai_api_key is None
    assert DatabaseSettings().pool_size == 10


# Folders


def test_a_relative_folder_is_below_the_working_folder(project: Path) -> None:
    assert DatabaseSettings(sqlite_dir=".demo").sqlite_folder == project / ".demo"
    assert DatabaseSettings(sqlite_dir=Path("../x")).sqlite_folder == project.parent / "x"
    assert DatabaseSettings(sqlite_dir=".demo") == DatabaseSettings(sqlite_dir=project / ".demo")


def test_a_folder_may_start_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert DatabaseSettings(sqlite_dir="~/records").sqlite_folder == tmp_path / "records"
    error_of(lambda: DatabaseSettings(sqlite_dir="~no-such-user-here/x"), "sqlite_dir", "home")


def test_a_folder_as_url(project: Path, tmp_path: Path) -> None:
    assert DatabaseSettings(sqlite_dir="sqlite:///a/b").sqlite_folder == project / "a" / "b"
    absolute = DatabaseSettings(sqlite_dir=f"sqlite:///{tmp_path.as_posix()}/x")
    assert absolute.sqlite_folder == tmp_path / "x"


@pytest.mark.parametrize(
    "folder",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:x",
        "sqlite:///:memory:",
        ":memory:",
        "sqlite:///a?mode=ro",
        f"postgresql://me:{SECRET}@localhost/db",
        f"sqlite://me:{SECRET}@host/x",
    ],
)
def test_what_is_no_folder_is_refused(folder: str) -> None:
    error_of(lambda: DatabaseSettings(sqlite_dir=folder), "sqlite_dir", "sqlite:///relative/folder")


def test_a_number_is_no_folder() -> None:
    error_of(lambda: DatabaseSettings(sqlite_dir=5), "sqlite_dir", "it should be text")


@pytest.mark.parametrize(
    ("platform", "dirs", "expected"),
    [
        ("linux", platformdirs.unix.Unix, "{home}/.local/share/paracle/meta"),
        ("darwin", platformdirs.macos.MacOS, "{home}/Library/Application Support/Paracle/meta"),
        ("win32", platformdirs.windows.Windows, "{home}/AppData/Local/Paracle/meta"),
    ],
)
def test_the_platforms_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, dirs: Any, expected: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(platformdirs, "PlatformDirs", dirs)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WIN_PD_OVERRIDE_LOCAL_APPDATA", str(tmp_path / "AppData" / "Local"))
    monkeypatch.setattr(
        platformdirs.windows, "get_win_folder", lambda _: str(tmp_path / "AppData" / "Local")
    )
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert DatabaseSettings().sqlite_folder == Path(expected.format(home=tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no XDG folders")
def test_the_xdg_folder_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = DatabaseSettings().sqlite_folder
    assert folder.parent.parent == tmp_path / "data"
    assert not folder.exists()  # asking for the place makes nothing


# URLs and secrets


def test_from_url(project: Path) -> None:
    assert DatabaseSettings.from_url("sqlite:///data").sqlite_dir == project / "data"
    settings = DatabaseSettings.from_url(URL, pool_size=3)
    assert (settings.backend, settings.pool_size) == ("postgresql", 3)
    error_of(lambda: DatabaseSettings.from_url(f"mysql://{SECRET}"), "postgresql://", "sqlite_dir")
    error_of(lambda: DatabaseSettings.from_url(""), "empty")
    error_of(lambda: DatabaseSettings.from_url(URL, pool_sise=3), "did you mean pool_size?")


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:env:DB_PASSWORD@h/db?a=b", "postgresql://me:env%3ADB_PASSWORD@h/db?a=b"],
)
def test_a_password_from_the_environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    settings = DatabaseSettings(postgres_url=url)  # the variable is read when connecting only
    assert settings.postgres_url is not None
    error_of(lambda: resolve_url(SecretStr(url)), "DB_PASSWORD", "not set")
    monkeypatch.setenv("DB_PASSWORD", "p@ss/w?rd#%:")
    assert resolve_url(settings.postgres_url) == "postgresql://me:p%40ss%2Fw%3Frd%23%25%3A@h/db?a=b"
    monkeypatch.setenv("DB_PASSWORD", "changed")
    assert resolve_url(settings.postgres_url) == "postgresql://me:changed@h/db?a=b"


@pytest.mark.parametrize("url", [URL, "postgresql://me@host/db", "postgresql://h1,h2/db?a=b"])
def test_other_urls_are_left_as_they_are(url: str) -> None:
    assert resolve_url(SecretStr(url)) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "postgresql://paracle:**********@localhost:5432/paracle_meta"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:env:PW@host/db", "postgresql://me:env:PW@host/db"),
        (f"postgresql://me:{SECRET}@x@h/db", "postgresql://me:**********@h/db"),
        (
            f"postgresql://me:{SECRET}@h/db?sslmode=require&password={SECRET}&sslp%61ssword={SECRET}",
            "postgresql://me:**********@h/db"
            "?sslmode=require&password=**********&sslp%61ssword=**********",
        ),
        (f"postgresql:///db?PassWord={SECRET}", "postgresql:///db?PassWord=**********"),
        (f"http://{SECRET}", "**********"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_no_way_of_printing_shows_a_secret() -> None:
    settings = DatabaseSettings(
        postgres_url=f"{URL}?password={SECRET}", migration_url=URL, openai_api_key=SECRET
    )
    for holder in (settings, Config(database=settings)):
        printed = f"{holder!r} {holder!s} {holder.model_dump()} {holder.model_dump_json()}"
        assert SECRET not in printed
    described = settings.describe()
    assert SECRET not in json.dumps(described)
    assert described["postgres_url"] == (
        "postgresql://paracle:**********@localhost:5432/paracle_meta?password=**********"
    )
    assert described["openai_api_key"] == "**********"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("pool_sise", "pool_size"),
        ("POOL_SIZE", "pool_size"),
        ("Templates", "templates"),
        ("q", None),
    ],
)
def test_nearest_name(name: str, nearest: str | None) -> None:
    assert nearest_name(name, ["pool_size", "templates", "feedback"]) == nearest


# The YAML file


@pytest.mark.parametrize("content", [GUIDE_NESTED, GUIDE_TOP_LEVEL, GUIDE_POOL])
def test_the_guides_files_load(write_yaml: WriteYaml, content: str) -> None:
    write_yaml(content)
    settings = load_config().database
    data = yaml.safe_load(content)
    for name, value in data.get("meta_agent", data)["database"].items():
        got = getattr(settings, name)
        assert (got.get_secret_value() if isinstance(got, SecretStr) else got) == value


def test_no_file_is_needed() -> None:
    assert load_config() == Config()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# nothing\n",
        "database:\n",
        "meta_agent:\n",
        "meta_agent:\n  database:\n",
        "{}",
        "\ufeff",
    ],
)
def test_an_empty_file_is_fine(write_yaml: WriteYaml, content: str) -> None:
    write_yaml(content)
    assert load_config().database == DatabaseSettings()


def test_the_file_is_found_from_the_working_folder_upwards(
    write_yaml: WriteYaml, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml("database: {sqlite_dir: data, pool_size: 5}")
    below = project / "a" / "b"
    (below / ".parac").mkdir(parents=True)  # without a file in it, it does not end the search
    monkeypatch.chdir(below)
    settings = load_config().database
    assert settings.pool_size == 5
    assert settings.sqlite_folder == project / "data"


def test_the_nearest_file_wins(
    write_yaml: WriteYaml, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_yaml("database: {pool_size: 5}")
    nearer = project / "a" / ".parac" / "config" / "meta_agent.yaml"
    nearer.parent.mkdir(parents=True)
    nearer.write_text("database: {pool_timeout: 7}")
    monkeypatch.chdir(project / "a")
    assert load_config().database == DatabaseSettings(pool_timeout=7)
    assert load_config(file).database == DatabaseSettings(pool_size=5)


def test_a_named_file_must_exist(project: Path) -> None:
    missing = project / "no.yaml"
    error_of(lambda: load_config(missing), str(missing), "cannot be read")
    error_of(lambda: load_config(project), str(project), "cannot be read")


def test_a_relative_folder_in_a_file_elsewhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "elsewhere.yaml"
    file.write_text("database: {sqlite_dir: 'sqlite:///data'}")
    assert load_config(str(file)).database.sqlite_folder == project / "data"
    # Arguments and environment are relative to the working folder, whatever the file says.
    assert load_config(file, database={"sqlite_dir": "x"}).database.sqlite_dir == project / "x"
    monkeypatch.setenv("PARACLE_META_SQLITE_DIR", "y")
    assert load_config(file).database.sqlite_dir == project / "y"


def test_both_shapes_in_one_file_are_refused(write_yaml: WriteYaml) -> None:
    file = write_yaml("meta_agent: {database: {}}\ndatabase: {}\n")
    error_of(load_config, str(file), "both meta_agent and database")


@pytest.mark.parametrize(
    ("content", "place", "near"),
    [
        ("database: {pool_sise: 5}", "database.pool_sise in ", "did you mean pool_size?"),
        (
            "meta_agent: {database: {embeding_provider: local}}",
            "meta_agent.database.embeding_provider in ",
            "did you mean embedding_provider?",
        ),
        ("databse: {}", "databse in ", "did you mean database?"),
        ("metaagent: {}", "metaagent in ", "did you mean meta_agent?"),
        ("pool_size: 3", "pool_size in ", "did you mean meta_agent or database?"),
        ("meta_agent: {databases: {}}", "meta_agent.databases in ", "did you mean database?"),
        ("meta_agent: {}\nother: {}", "other in ", "did you mean meta_agent?"),
        (f"{URL}: {{}}", "(a key that is no name) in ", "did you mean"),
        (f"database: {{'{URL}': 1}}", "database.(a key that is no name) in ", "is not a setting"),
        ("database: {5: 1}", "database.(a key that is no name) in ", "is not a setting"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest(
    write_yaml: WriteYaml, content: str, place: str, near: str
) -> None:
    file = write_yaml(content)
    error_of(load_config, f"{place}{file}", near)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("database: {pool_size: many}", "database.pool_size in {file} cannot be used"),
        (
            "meta_agent: {database: {pool_size: 0}}",
            "meta_agent.database.pool_size in {file} cannot",
        ),
        (
            f"database: {{postgres_url: 'mysql://me:{SECRET}@h/db'}}",
            "database.postgres_url in {file}",
        ),
        (f"database: {{postgres_url: [{SECRET}]}}", "database.postgres_url in {file}"),
        (f"database: {SECRET}", "database in {file} should be"),
        (f"meta_agent: [{SECRET}]", "meta_agent in {file} should be"),
        (f"meta_agent: {{database: {SECRET}}}", "meta_agent.database in {file} should be"),
        (SECRET, "The content of {file} should be"),
    ],
)
def test_a_bad_value_names_its_place(write_yaml: WriteYaml, content: str, place: str) -> None:
    file = write_yaml(content)
    error_of(load_config, place.format(file=file))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"database:\n  postgres_url: *{SECRET}\n", 2),
        (f"database:\n  postgres_url: !{SECRET} x\n", 2),
        (f"database:\n  openai_api_key: {SECRET}: x\n", 2),
        (f'database:\n  openai_api_key: "{SECRET}\\p"\n', 2),
        (f"database:\n\topenai_api_key: {SECRET}\n", 2),
        (f"database: {{}}\n---\nother: {SECRET}\n", 2),
        (f"database: {{? [{SECRET}] : x}}", 1),
        (f"# {SECRET}\n{{[a]: b}}", 2),
    ],
)
def test_broken_yaml_names_the_line_and_shows_nothing(
    write_yaml: WriteYaml, content: str, line: int
) -> None:
    file = write_yaml(content)
    error_of(load_config, f"{file}, line {line}: it is not valid YAML")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\xfa", b"database: {time_zone: \x00}", b"[" * 5000, b"a: 2024-13-45"]
)
def test_bytes_that_are_no_yaml(write_yaml: WriteYaml, content: bytes) -> None:
    file = write_yaml(content)
    error_of(load_config, f"{file}", "not valid YAML")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"database:\n  openai_api_key: x\n  openai_api_key: {SECRET}\n", 3),
        ("database: {}\ndatabase: {}\n", 2),
    ],
)
def test_a_key_that_stands_twice_is_refused(write_yaml: WriteYaml, content: str, line: int) -> None:
    file = write_yaml(content)
    error_of(load_config, f"{file}, line {line}", "twice")


def test_a_merged_key_may_be_given_again(write_yaml: WriteYaml) -> None:
    write_yaml("database: {<<: {pool_size: 3, pool_timeout: 7}, pool_size: 4}")
    assert load_config().database == DatabaseSettings(pool_size=4, pool_timeout=7)


# ${NAME}


def test_names_are_filled_in_after_parsing(
    write_yaml: WriteYaml, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Spliced in before parsing, this would end the quotes and start a comment.
    awkward = "a\": 'b' #{}[]&*!|>%"
    monkeypatch.setenv("DB_KEY", awkward.replace(" ", ""))
    monkeypatch.setenv("SIZE", "7")
    write_yaml('database: {openai_api_key: "${DB_KEY}", pool_size: "${SIZE}"}')
    settings = load_config().database
    assert secret(settings.openai_api_key) == awkward.replace(" ", "")
    assert settings.pool_size == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("x${A}y${A}", "xoneyone"),
        ("${NONE:-default}", "default"),
        ("${A:-default}", "one"),
        ("${EMPTY:-default}", "default"),
        ("x${EMPTY}", "x"),
        ("x${NONE:-}", "x"),
        ("${NONE:-http://h:1}", "http://h:1"),
        ("${NESTED}", "${A}"),
        ("$A $$ ${} $${A}", "$A $$ ${} $one"),
    ],
)
def test_filling_in(
    write_yaml: WriteYaml,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    expected: str,
) -> None:
    for name, value in {"A": "one", "EMPTY": "", "NESTED": "${A}"}.items():
        monkeypatch.setenv(name, value)
    write_yaml(f"database: {{openai_model: '{text}'}}")
    assert load_config().database.openai_model == expected


def test_an_unknown_name_is_an_error(write_yaml: WriteYaml) -> None:
    file = write_yaml(f"database: {{postgres_url: 'postgresql://me:{SECRET}${{NO_SUCH}}@h/db'}}")
    error_of(load_config, f"database.postgres_url in {file}", "${NO_SUCH}", "${NO_SUCH:-default}")


def test_names_are_also_looked_up_in_dotenv(
    write_yaml: WriteYaml, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml("database: {openai_model: '${MODEL}'}")
    (project / ".env").write_text("MODEL=from-dotenv\n")
    assert load_config().database.openai_model == "from-dotenv"
    monkeypatch.setenv("MODEL", "from-environment")
    assert load_config().database.openai_model == "from-environment"


# .env, environment, arguments


def test_nested_and_short_variables(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setenv("PARACLE_META_POSTGRES_URL", URL)
    monkeypatch.setenv("PARACLE_META_SQLITE_DIR", "data")
    monkeypatch.setenv("PARACLE_META_DATABASE__POOL_SIZE", "5")
    monkeypatch.setenv("paracle_meta_database__auto_migrate", "false")
    settings = load_config().database
    assert secret(settings.postgres_url) == URL
    assert settings.sqlite_dir == project / "data"
    assert (settings.pool_size, settings.auto_migrate) == (5, False)


def test_every_setting_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in DatabaseSettings().describe().items():
        text = "" if value is None else str(value)
        monkeypatch.setenv(f"PARACLE_META_DATABASE__{name.upper()}", text)
    config = load_config()
    assert config.database == DatabaseSettings()
    assert set(config.origins().values()) == {"environment"}


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("PARACLE_META_POSTGRES_URI", "did you mean PARACLE_META_POSTGRES_URL?"),
        ("PARACLE_META_POOL_SIZE", "did you mean PARACLE_META_DATABASE__POOL_SIZE?"),
        ("PARACLE_META_DATABASE__POOL_SISE", "did you mean PARACLE_META_DATABASE__POOL_SIZE?"),
        ("PARACLE_META_DATABSE__SQLITE_DIR", "did you mean PARACLE_META_SQLITE_DIR?"),
        ("PARACLE_META_DATABASE", "PARACLE_META_DATABASE__"),
        ("PARACLE_META_ZZZ", "PARACLE_META_DATABASE__"),
    ],
)
def test_an_unknown_variable_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, project: Path, where: str, variable: str, near: str
) -> None:
    if where == ".env":
        (project / ".env").write_text(f"{variable}={SECRET}\n")
        place = f"{variable} in {project / '.env'} is not a setting"
    else:
        monkeypatch.setenv(variable, SECRET)
        place = f"{variable} in the environment is not a setting"
    error_of(load_config, place, near)


def test_a_bad_value_in_a_variable_names_its_place(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    (project / ".env").write_text(f"PARACLE_META_POSTGRES_URL=mysql://me:{SECRET}@h/db\n")
    error_of(load_config, f"PARACLE_META_POSTGRES_URL in {project / '.env'} cannot be used")
    (project / ".env").unlink()
    monkeypatch.setenv("PARACLE_META_DATABASE__POOL_SIZE", "many")
    error_of(load_config, "PARACLE_META_DATABASE__POOL_SIZE in the environment cannot be used")
    monkeypatch.setenv("PARACLE_META_DATABASE__POOL_SIZE", "")
    error_of(load_config, "PARACLE_META_DATABASE__POOL_SIZE in the environment cannot be used")


def test_both_forms_of_a_variable_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARACLE_META_POSTGRES_URL", URL)
    monkeypatch.setenv("PARACLE_META_DATABASE__POSTGRES_URL", URL)
    assert load_config().database.backend == "postgresql"
    monkeypatch.setenv("PARACLE_META_DATABASE__POSTGRES_URL", "")
    error_of(
        load_config,
        "PARACLE_META_POSTGRES_URL",
        "PARACLE_META_DATABASE__POSTGRES_URL",
        "different values",
    )


def test_an_empty_variable_turns_a_setting_off(
    monkeypatch: pytest.MonkeyPatch, write_yaml: WriteYaml
) -> None:
    write_yaml(GUIDE_NESTED)
    monkeypatch.setenv("PARACLE_META_POSTGRES_URL", "")
    assert load_config().database.backend == "sqlite"


def test_openais_own_variable_stands_below_everything(
    monkeypatch: pytest.MonkeyPatch, project: Path, write_yaml: WriteYaml
) -> None:
    (project / ".env").write_text("OPENAI_API_KEY=from-dotenv\n")
    assert secret(load_config().database.openai_api_key) == "from-dotenv"
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment\n")
    assert secret(load_config().database.openai_api_key) == "from-environment"
    write_yaml("database: {openai_api_key: from-yaml}")  # and so does every source above it
    assert secret(load_config().database.openai_api_key) == "from-yaml"
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET} x")
    assert secret(load_config().database.openai_api_key) == "from-yaml"
    write_yaml("")
    error_of(load_config, "OPENAI_API_KEY in the environment cannot be used")


def test_arguments_are_sections() -> None:
    assert load_config(database={"pool_size": 3}).database.pool_size == 3
    assert load_config(database={}).database == DatabaseSettings()
    error_of(lambda: load_config(database={"pool_size": 0}), "database.pool_size in the arguments")
    error_of(lambda: load_config(database={"pool_sise": 0}), "did you mean pool_size?")
    error_of(lambda: load_config(sqlite_dir="x"), "sqlite_dir", "database={'sqlite_dir': ...}")
    error_of(lambda: load_config(databse={}), "databse in the arguments", "did you mean database?")
    error_of(lambda: load_config(database=SECRET), "database in the arguments")


def test_later_sources_win(
    monkeypatch: pytest.MonkeyPatch, project: Path, write_yaml: WriteYaml
) -> None:
    """Each step adds one source with a new value; what it does not name stays as it was."""

    def pool_size_and_origin(**overrides: Any) -> tuple[int, str]:
        config = load_config(**overrides)
        return config.database.pool_size, config.origins()["pool_size"]

    assert pool_size_and_origin() == (10, "default")
    file = write_yaml("database: {pool_size: 11, ollama_model: kept}")
    assert pool_size_and_origin() == (11, str(file))
    (project / ".env").write_text("OTHER=1\nexport PARACLE_META_DATABASE__POOL_SIZE='12'\n")
    assert pool_size_and_origin() == (12, ".env")
    monkeypatch.setenv("PARACLE_META_DATABASE__POOL_SIZE", "13")
    assert pool_size_and_origin() == (13, "environment")
    assert pool_size_and_origin(database={"pool_size": 14}) == (14, "argument")
    config = load_config(database={"pool_size": 14})
    assert config.database.ollama_model == "kept"
    assert set(config.origins()) == set(DatabaseSettings.model_fields)


def test_an_argument_of_none_wins_too(write_yaml: WriteYaml) -> None:
    write_yaml(GUIDE_NESTED)
    assert load_config(database={"postgres_url": None}).database.backend == "sqlite"


def test_dotenv_is_read_in_the_working_folder_only(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".env").write_bytes(b"\xef\xbb\xbfPARACLE_META_DATABASE__POOL_SIZE=5\n")
    assert load_config().database.pool_size == 5  # with the mark of a Windows editor
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert load_config().database.pool_size == 10


def test_dotenv_may_be_a_folder_but_not_binary(project: Path) -> None:
    (project / ".env").mkdir()  # as `python -m venv .env` makes it
    assert load_config() == Config()
    (project / ".env").rmdir()
    (project / ".env").write_bytes(f"KEY={SECRET}".encode() + b"\xff")
    error_of(load_config, str(project / ".env"), "UTF-8")


# The template and what is loaded


def test_the_template_loads_and_changes_nothing(
    write_yaml: WriteYaml,
) -> None:
    write_yaml(config_template())
    assert load_config().database == DatabaseSettings()


def test_the_template_names_every_setting_with_its_default(
    write_yaml: WriteYaml,
) -> None:
    text = re.sub(r"(?m)^    # (?=[a-z_]+: )", "    ", config_template())
    assert list(yaml.safe_load(text)["meta_agent"]["database"]) == list(
        DatabaseSettings.model_fields
    )
    file = write_yaml(text)
    config = load_config()
    assert config.database == DatabaseSettings()
    assert set(config.origins().values()) == {str(file)}
    assert max(map(len, text.splitlines())) <= 100


def test_readers_are_loaded_only_when_needed(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("database:\n  pool_size: 3\n")
    code = (
        "import sys, paracle_meta.config as c\n"
        "heavy = lambda: sorted({'yaml', 'pydantic_settings', 'dotenv', 'platformdirs',"
        " 'sqlalchemy'} & set(sys.modules))\n"
        "assert heavy() == [], heavy()\n"
        "c.DatabaseSettings(sqlite_dir='x')\n"
        "assert heavy() == [], heavy()\n"
        "c.load_config()\n"
        "assert heavy() == [], heavy()\n"
        f"c.load_config({str(file)!r})\n"
        "assert heavy() == ['yaml'], heavy()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        # Where nothing configures anything.
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
