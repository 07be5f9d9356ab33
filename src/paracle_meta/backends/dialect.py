"""What differs between the databases, as far as statements are concerned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from paracle_meta.schema import Column


class Dialect(Protocol):
    """One spelling of SQL, and of the values in it."""

    vector_output: str
    """The vector column as a record's reader expects it."""

    dollars: str
    """The sum of the dollars in rows of ``cost_days``, as a float."""

    def parameter(self, position: int) -> str:
        """Return the placeholder of the parameter at this position, counted from 1."""

    def value(self, column: Column, position: int) -> str:
        """Return the placeholder of a parameter that is stored in or compared with a column."""

    def one_of(self, column: Column, position: int) -> str:
        """Return the comparison of a column with any of the values in one parameter."""

    def contains_all(self, column: Column, position: int) -> str:
        """Return the test that tags hold all the labels in one parameter."""

    def distinct(self, column: Column, position: int) -> str:
        """Return the test that a column differs from a parameter, a missing value included."""

    def encoder(self, column: Column) -> Callable[[Any], Any] | None:
        """Return what turns a value into the driver's form, or None where they are the same."""

    def encode_many(self, column: Column, values: list[Any]) -> Any:
        """Return several values as one parameter in the driver's form."""

    def decoder(self, column: Column) -> Callable[[Any], Any] | None:
        """Return what turns the driver's form into a value, or None where they are the same."""
