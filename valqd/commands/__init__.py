"""The VALQ commands: one SPEC a command, and all that is made from it.  Pure: no asyncio, no socket, no clock."""
