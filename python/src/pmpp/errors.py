"""The one exception that pmpp raises on purpose.

Everything a user did wrong, and everything that a remote server answered with an error,
ends up as a `PmppError`: a message with the fields that PostgreSQL knows.
What is raised besides is a defect of pmpp.
"""

from __future__ import annotations

from collections.abc import Mapping

# The SQLSTATEs that pmpp gives to its own errors, by the names of the PostgreSQL manual.
INVALID_PARAMETER_VALUE = "22023"
NULL_VALUE_NOT_ALLOWED = "22004"
ARRAY_SUBSCRIPT_ERROR = "2202E"
CHARACTER_NOT_IN_REPERTOIRE = "22021"
UNTRANSLATABLE_CHARACTER = "22P05"
CONNECTION_FAILURE = "08006"
UNABLE_TO_CONNECT = "08001"
PROTOCOL_VIOLATION = "08P01"
PROHIBITED_STATEMENT = "2F003"
DATATYPE_MISMATCH = "42804"
INSUFFICIENT_PRIVILEGE = "42501"
UNDEFINED_OBJECT = "42704"
FEATURE_NOT_SUPPORTED = "0A000"
PROGRAM_LIMIT_EXCEEDED = "54000"
INVALID_BINARY_REPRESENTATION = "22P03"
TOO_MANY_CONNECTIONS = "53300"
OBJECT_NOT_IN_PREREQUISITE_STATE = "55000"
DEADLOCK_DETECTED = "40P01"
INTERNAL_ERROR = "XX000"

# The most characters of each text of an error that outlives its call.
KEPT_LENGTH = 8192

# What an error may name, by the arguments of plpy.error and the items of GET STACKED DIAGNOSTICS.
NAMES = ("schema_name", "table_name", "column_name", "datatype_name", "constraint_name")


def lines(*texts: str | None) -> str | None:
    """Return the texts that are not empty, each on lines of its own, or None if all are empty."""
    return "\n".join(filter(None, texts)) or None


def as_context(running: object) -> str:
    """Return the name of a query or command as a line of a CONTEXT."""
    text = str(running)
    return text[:1].upper() + text[1:]


class PmppError(Exception):
    """An error to be shown to the user.

    Args:
        message: what was wrong and where, in lower case and without a full stop.
        sqlstate: the five characters of the error's code.
        detail: more about it, in whole sentences, or None.
        hint: what may cure it, in whole sentences, or None.
        context: where it happened, as PostgreSQL's CONTEXT from the innermost line to the
            outermost, which names the query; or None.
        names: what it is about, by some of NAMES.
    """

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str = INTERNAL_ERROR,
        detail: str | None = None,
        hint: str | None = None,
        context: str | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.detail = detail or None
        self.hint = hint or None
        self.context = context or None
        self.names = {name: text for name, text in (names or {}).items() if text}

    @property
    def full_detail(self) -> str | None:
        """The detail and the context. PL/pgSQL and PL/Python can raise no context."""
        return lines(self.detail, self.context)

    def shortened(self) -> PmppError:
        """Return an error like this one to keep: no text of it is longer than KEPT_LENGTH.

        The new error has no traceback, which would keep the results of its query in memory.
        """
        detail, hint = (text and text[:KEPT_LENGTH] for text in (self.detail, self.hint))
        # The last line of the context names the query.
        inner, _, query = (self.context or "").rpartition("\n")
        query = query[:KEPT_LENGTH]
        return PmppError(
            self.message[:KEPT_LENGTH],
            sqlstate=self.sqlstate,
            detail=detail,
            hint=hint,
            context=lines(inner[: max(0, KEPT_LENGTH - len(query) - 1)], query),
            names={name: text[:KEPT_LENGTH] for name, text in self.names.items()},
        )


class ConnectError(PmppError):
    """A connection that could not be made.

    Attributes:
        sent_password: True if it failed after the remote server had been sent a password, so that
            trying again would be of no use and might lock the user out.
    """

    sent_password = False


def only_by_pmpp() -> PmppError:
    """Return the error for a function of SQL that a user has called by hand."""
    return PmppError(
        "this function can only be called by pmpp itself", sqlstate=INSUFFICIENT_PRIVILEGE
    )
