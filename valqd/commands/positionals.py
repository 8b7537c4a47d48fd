"""The arguments at fixed places that many commands have."""

from __future__ import annotations

from dataclasses import replace

from valqd.commands.spec import Positional
from valqd.commands.values import ID, QUEUE

QUEUE_ARGUMENT = Positional("queue", QUEUE, "the queue's name")

#: Of what a worker says of its deliveries.
RECEIPT_ARGUMENT = Positional(
    "id", ID, "which delivery, or which message: a worker sends the receipt that POP gave it", alternative="receipt"
)
RECEIPTS_ARGUMENT = replace(RECEIPT_ARGUMENT, repeated=True)

#: Of what anybody may ask of messages.
MESSAGE_ARGUMENT = Positional(
    "id", ID, "which message; a receipt only while that delivery holds the lease", alternative="receipt"
)
MESSAGES_ARGUMENT = replace(MESSAGE_ARGUMENT, repeated=True)
