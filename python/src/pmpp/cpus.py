"""Asking a remote for its number of CPUs."""

from __future__ import annotations

from . import errors
from .errors import PmppError
from .rows import Part
from .session import Session
from .waiting import Steps

MOST_CPUS = 65536  # a remote that claims more is not believed


def ask_cpus(session: Session) -> Steps[int]:
    """Return the number of CPUs of the remote machine, as pmpp says there.

    Args:
        session: a connection to it.

    Raises:
        PmppError: if pmpp is not there, may not be used, or gives no sensible answer.
    """
    problem = f"{session.where}: could not ask {session.label} for its number of CPUs"
    hint = (
        "Set num_workers, or install pmpp in the remote database and grant its role pmpp "
        "to the user who connects."
    )
    answers: list[Part] = []
    try:
        yield from session.run("select pmpp.num_cpus()", session.where, answers.append)
    except PmppError as ex:
        raise PmppError(f"{problem}: {ex.message}", sqlstate=ex.sqlstate, hint=hint) from None
    if [(part.row_count, part.result.nfields) for part in answers] == [(1, 1)]:
        value = answers[0].result.get_value(0, 0)
        if value and value.isdigit() and len(value) < 10 and 1 <= int(value) <= MOST_CPUS:
            return int(value)
    raise PmppError(
        f"{problem}: no usable answer from pmpp.num_cpus()",
        sqlstate=errors.CONNECTION_FAILURE,
        hint=hint,
    )
