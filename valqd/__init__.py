"""A job queue that every Redis or Valkey client already speaks."""

__version__ = "0.1.0"
