"""Poor Man's Parallel Processing: many statements at once over many connections."""

__version__ = "2.0.0"
__all__ = ["InterfaceError", "ParallelConnection", "ParallelCursor"]

TYPE_CHECKING = False  # what type checkers take for true, without an import of typing
if TYPE_CHECKING:
    from .client.parallel_connection import InterfaceError, ParallelConnection, ParallelCursor
else:

    def __getattr__(name: str) -> object:
        # imported when asked for: a server process has no use for it and for threads
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .client import parallel_connection

        return getattr(parallel_connection, name)
