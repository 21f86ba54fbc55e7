"""One torch thread a test process, also in the processes that tests start: several of them share few cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
