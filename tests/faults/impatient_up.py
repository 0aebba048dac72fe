"""`python -m app up` that restarts a child at once however often it died, so that a test that kills
for minutes does not mostly wait. All else is the product's own.
"""

import sys

from app import cli
from app.embedded import supervisor

RESTART_DELAY_MAX_S = supervisor.RESTART_DELAY_MIN_S
"""What a child that died once waits anyway."""

if __name__ == "__main__":
    supervisor.RESTART_DELAY_MAX_S = RESTART_DELAY_MAX_S  # type: ignore[misc]
    sys.exit(cli.main(sys.argv[1:]))
