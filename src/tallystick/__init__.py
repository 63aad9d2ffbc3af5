"""Tallystick: open, self-hosted, usage-based billing. `docs/architecture.md` shows the rooms.

Here, before anything else in every process: zone data comes from the tzdata wheel alone, so that a period begins at
the same instant on every host, whatever its system says of a zone. And numpy, which is here for bits and not for algebra,
begins no thread for each core.
"""

import os
import zoneinfo

zoneinfo.reset_tzpath(())
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
