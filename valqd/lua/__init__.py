"""The queue's logic, which runs in the backing Valkey as Functions: lib/*.lua helpers, functions/*.lua one a file."""

#: Library and functions carry the contract's version, so that old and new daemons share one Valkey during an upgrade.
LIBRARY_NAME = "valq1"
FUNCTION_PREFIX = f"{LIBRARY_NAME}_"
