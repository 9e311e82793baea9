"""What more than one test module needs."""

from __future__ import annotations

import os

PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")

# The password of every role that tests create; it must never show.
PASSWORD = "s3cret-Passw0rd"
