"""The class for programs outside the server, which it does not need.

`ParallelConnection` is in parallel_connection.py; the other modules serve it.
"""
