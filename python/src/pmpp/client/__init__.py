"""`ParallelConnection`, for Python programs outside the server.

The modules of this package, each of which uses those below it:

    parallel_connection   the class, and the transactions of its connections
    parallel_cursor       its cursor
    result                what one statement returns on all connections
    row_stream            the rows of a result as one stream
    row_size              how much memory rows take
    call_group            calls on several connections that belong together
    worker_threads        the threads that run the calls
    cancel                how a running call is ended from another thread
    worker_connection     one connection, and the calls on it
    drivers               what each DB-API driver does in its own way
    errors                how the failures of several connections become one exception

These modules may import the standard library and `pmpp.errors`. They must not import `pmpp.core`,
`pmpp.remote`, `pmpp.scheduler`, `pmpp.plpython` or a driver. The server is not given this package.

The modules log to loggers of their own names. No worker thread logs, and no thread does while it
holds the lock of the worker threads. The garbage collector may close a cursor inside a logging
handler, which then waits for the worker threads and for their lock.
"""

import logging

# Without a handler of its own, a library prints its warnings in programs that set up no logging.
logging.getLogger("pmpp").addHandler(logging.NullHandler())
