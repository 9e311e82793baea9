"""What runs only in a server process: all that uses plpy, or C functions of PostgreSQL.

Functions in PL/Python call `entry_points`, and nothing else of the package.
"""
