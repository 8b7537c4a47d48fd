"""The I/O shell: sockets, the event loop, the clock and child processes.  The only package that imports asyncio."""
