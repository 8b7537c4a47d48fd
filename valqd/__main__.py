"""The command line: ``valqd`` and ``python -m valqd``."""

from __future__ import annotations

import logging
import os
import sys

from valqd import config
from valqd.errors import StartError
from valqd.io.supervisor import serve


def _fill_standard_files() -> None:
    """Started without some of stdin, stdout and stderr (``<&- >&-``), the next files opened would take their place."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(file)


def main() -> None:
    """Run the daemon; a bad setting or start is one line on stderr and exit status 1."""
    _fill_standard_files()
    try:
        settings = config.load(sys.argv[1:])
        logging.basicConfig(
            stream=sys.stderr,
            level=settings.log_level.upper(),
            format="%(asctime)s %(process)d %(levelname)s %(message)s",
        )
        serve(settings)
    except StartError as error:
        print(f"valqd: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
