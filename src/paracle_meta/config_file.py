"""What a YAML file says; loaded only where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


class _DuplicateKeyError(yaml.MarkedYAMLError):
    """A key stands twice in one mapping, of which YAML readers keep either."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses keys that stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _DuplicateKeyError(problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(file: Path) -> object:
    """Return the content of a YAML file as it stands.

    Raises:
        ConfigurationError: it cannot be read or is no YAML.
    """
    try:
        with file.open("rb") as stream:
            loader = _Loader(stream)
            try:
                return loader.get_single_data()
            finally:
                loader.dispose()
    except OSError as exc:
        raise ConfigurationError(
            f"The configuration file {file} cannot be read ({exc.strerror}). Check its path."
        ) from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = exc.problem_mark if isinstance(exc, yaml.MarkedYAMLError) else None
        line = f", line {mark.line + 1}" if mark else ""
        what = (
            "a key stands twice in one section; keep one of the two."
            if isinstance(exc, _DuplicateKeyError)
            else "it is not valid YAML. Look for a missing quote, a tab or a wrong indentation; "
            "text with special characters belongs in quotes."
        )
    # Not "from exc": the YAML error quotes the line, which may hold a password.
    raise ConfigurationError(f"{file}{line}: {what}")
