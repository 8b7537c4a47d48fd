"""The pure core: bytes in, bytes and intentions out.  Imports no asyncio, no socket and no clock."""
