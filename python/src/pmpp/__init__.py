"""Poor Man's Parallel Processing: many statements at once over many connections."""

__version__ = "2.0.0"
