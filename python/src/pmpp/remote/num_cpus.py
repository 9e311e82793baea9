"""Finding out the number of CPUs of a remote server.

The connection may have a superuser's rights in a database that belongs to somebody else. So
pmpp executes no function there only because it has the right name: it reads the number from the
body of the extension's own function.
"""

from __future__ import annotations

import re

from .. import errors
from ..core.waiting import Steps
from ..errors import PmppError
from .connection import Connection

# A remote server that claims to have more is not believed.
MOST_CPUS = 65536

# The body and the language of num_cpus(), if it is a member of the extension, and how to call it.
# No SQL calls a function by its oid, so one in C is called by its name. It and its schema must
# belong to superusers: other owners could rename them, and put something in their place.
_FUNCTION = """
select p.prosrc, l.lanname,
       pg_catalog.concat('select ', pg_catalog.quote_ident(n.nspname), '.num_cpus()'),
       r.rolsuper and o.rolsuper
  from pg_catalog.pg_extension e
  join pg_catalog.pg_depend d
    on d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
   and d.refobjid operator(pg_catalog.=) e.oid
   and d.classid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
   and d.deptype operator(pg_catalog.=) 'e'
  join pg_catalog.pg_proc p on p.oid operator(pg_catalog.=) d.objid
  join pg_catalog.pg_language l on l.oid operator(pg_catalog.=) p.prolang
  join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) p.pronamespace
  join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
  join pg_catalog.pg_roles o on o.oid operator(pg_catalog.=) p.proowner
 where e.extname operator(pg_catalog.=) 'pmpp'
   and p.proname operator(pg_catalog.=) 'num_cpus'
   and p.pronargs operator(pg_catalog.=) 0
"""

_CONSTANT = re.compile(rb"\s*select\s+(\d{1,9})\s*;?\s*", re.ASCII | re.IGNORECASE)


def ask_cpus(connection: Connection) -> Steps[int]:
    """Return the number of CPUs of the remote machine, as pmpp there has it.

    Args:
        connection: a connection to it.

    Raises:
        PmppError: if pmpp is not there, may not be used, or gives no sensible answer.
    """
    hint = "Set num_workers, or install pmpp in the remote database."
    try:
        return (yield from _cpus(connection))
    except PmppError as ex:
        raise PmppError(
            f"{connection.item_name}: could not ask {connection.display_name} for its number of "
            f"CPUs: {ex.message}",
            sqlstate=ex.sqlstate,
            hint=hint,
        ) from None


def _cpus(connection: Connection) -> Steps[int]:
    function = yield from connection.row(_FUNCTION)
    if function is None:
        raise PmppError(
            "the database has no function num_cpus() of an extension pmpp",
            sqlstate=errors.UNDEFINED_OBJECT,
        )
    body, language, call, is_safe = function
    value = None
    if language == b"sql":
        constant = _CONSTANT.fullmatch(body or b"")
        value = constant and constant[1]
    elif language == b"c" and is_safe == b"t":
        answer = yield from connection.row((call or b"").decode(connection.encoding()))
        value = answer and answer[0]
    if value and value.isdigit() and len(value) < 10 and 1 <= int(value) <= MOST_CPUS:
        return int(value)
    raise PmppError(
        "pmpp.num_cpus() of the extension there has no usable number",
        sqlstate=errors.CONNECTION_FAILURE,
    )
