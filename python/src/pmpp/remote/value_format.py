"""How remote servers write values: the settings that pmpp makes there, and the values it refuses.

A pooler may have a query run in another session than the one that pmpp has set up. So pmpp also
looks at what arrives.
"""

from __future__ import annotations

import re

from psycopg import sql
from psycopg.pq import abc

from .. import errors
from ..errors import PmppError
from .results import Part

# The oids of types, the same on every server: money and its array.
MONEY = frozenset([790, 791])
# date, timestamp, timestamp with time zone; their arrays; their ranges, and arrays of ranges; their
# multiranges, and arrays of multiranges
DATES = frozenset(
    [
        *(1082, 1114, 1184),
        *(1182, 1115, 1185),
        *(3912, 3908, 3910, 3913, 3909, 3911),
        *(4535, 4533, 4534, 6155, 6152, 6153),
    ]
)
_ISO_DATE = re.compile(rb"\d{4}-\d\d-\d\d", re.ASCII)
_DIGIT = re.compile(rb"\d", re.ASCII)


def has_iso_dates(pgconn: abc.PGconn) -> bool:
    """Return True if the remote server says that its DateStyle is ISO, or does not say."""
    return (pgconn.parameter_status(b"DateStyle") or b"ISO").startswith(b"ISO")


def settings(server_version: int, lc_monetary: str) -> list[str]:
    """Return the commands that set what a remote server of a version has.

    Behind a pooler these settings stay in a session that others get next. So pmpp sets none that
    is right already.

    Args:
        server_version: as libpq has it, 0 if the server is not PostgreSQL.
        lc_monetary: the setting of the local server.
    """
    commands = []
    if server_version >= 140000:
        # Without it, a query that nobody waits for runs until it next sends data.
        commands.append(_set_unless("client_connection_check_interval", "1s", "<>", "'0'"))
    if server_version >= 120000:
        commands.append(_set_unless("extra_float_digits", "1", "=", "any ('{1,2,3}')"))
    elif server_version >= 90000:
        commands.append(_set_unless("extra_float_digits", "3", "=", "'3'"))
    if server_version >= 90000:
        # A pooler may report the DateStyle of another session than the one that it hands out.
        commands.append(_set_unless("datestyle", "ISO", "~", "'^ISO'"))
        commands.append(_set_unless("lc_monetary", lc_monetary, "=", sql.quote(lc_monetary)))
    return commands


def _set_unless(name: str, value: str, operator: str, operand: str) -> str:
    """Return a statement that sets a parameter unless its value is right already.

    Args:
        name, value: of the parameter.
        operator, operand: the condition for a value that is right, without its left side.
    """
    return (
        f"select pg_catalog.set_config('{name}', {sql.quote(value)}, false) where not "
        f"pg_catalog.current_setting('{name}') operator(pg_catalog.{operator}) {operand}"
    )


def refuse_money(part: Part, display_name: str, lc_monetary: str) -> None:
    """Raise a PmppError if a result has amounts of money, whose format is unknown."""
    result = part.result
    if not MONEY.isdisjoint(map(result.ftype, range(result.nfields))):
        raise PmppError(
            f"{display_name} cannot write values of type money as they are read here",
            sqlstate=errors.FEATURE_NOT_SUPPORTED,
            hint=f"Its lc_monetary could not be set to {lc_monetary}, which it is here. Have the "
            "query cast the column to numeric.",
        )


def refuse_other_dates(part: Part, display_name: str) -> None:
    """Raise a PmppError if a result has dates that are not in ISO style."""
    result = part.result
    for column in range(result.nfields):
        if result.ftype(column) in DATES and has_other_dates(result, column):
            raise PmppError(
                f"{display_name} writes dates in another DateStyle than ISO",
                sqlstate=errors.FEATURE_NOT_SUPPORTED,
                hint="A pooler may have run the query in another session. Set datestyle to iso for "
                "the role or the database.",
            )


def has_other_dates(result: abc.PGresult, column: int) -> bool:
    """Return True if the first date in a column is not in ISO style. A session has one style."""
    values = (result.get_value(row, column) or b"" for row in range(result.ntuples))
    # Infinity, NULL and empty ranges have no digits; the bounds of an array end with "=".
    first = next((v for v in values if _DIGIT.search(v.rpartition(b"=")[2])), None)
    return first is not None and not _ISO_DATE.search(first)
