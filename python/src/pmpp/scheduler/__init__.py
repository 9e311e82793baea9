"""All connections of a call: which to open, which query runs where, what follows from a failure.

Modules of this package do not know that a server process may run them.
"""
