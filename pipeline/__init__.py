"""From a zip of fluorescence images to ``submission.csv`` and a cross-validated macro-F1 that can be believed."""

import os

__version__ = "0.1.0"

# Torch's threads wait for each other many times a step, by default spinning. Where another process wants the
# same core (a loader's worker, a browser), the spinning costs a factor of seven; asleep, they cost nothing.
# It must be set before torch is loaded, and this module is loaded before any that does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
