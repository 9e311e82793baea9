"""What a call is asked to do, and what it keeps in mind: no connections, no PostgreSQL.

Modules of this package import neither psycopg nor plpy, and can be tested without a server.
"""
