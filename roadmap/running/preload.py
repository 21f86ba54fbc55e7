"""What the server of clean processes does before they are forked: slow imports, and noting which code that was."""

import roadmap.cost.tracing
import roadmap.data.shared
import roadmap.network.weights
import roadmap.running.work
import roadmap.training.fit  # noqa: F401
from roadmap.provenance import source

source()
