"""Poor Man's Parallel Processing: many statements at once over many connections."""

__version__ = "2.0.0"
__all__ = ["InterfaceError", "ParallelConnection", "ParallelCursor"]

# Type checkers take this name for true. The module typing need not be imported for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client.parallel_connection import InterfaceError, ParallelConnection, ParallelCursor
else:

    def __getattr__(name: str) -> object:
        # A server process has no use for the client and its threads.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .client import parallel_connection

        return getattr(parallel_connection, name)
