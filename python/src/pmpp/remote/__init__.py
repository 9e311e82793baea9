"""One connection to a remote server: making it, sending queries, and reading what comes back.

Modules of this package do not wait: their generators yield what they wait for (`core.waiting`).
They do not know how many connections there are, nor that a server process may run them.
"""
