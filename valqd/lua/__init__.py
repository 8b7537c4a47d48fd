"""The queue's logic, which runs in the backing Valkey as Functions: lib/*.lua helpers, functions/*.lua one a file."""
