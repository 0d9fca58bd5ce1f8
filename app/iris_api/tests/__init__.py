"""Tests of the application, in rooms as its own; `instance` starts a real one."""

import os

# As in an instance, and before numpy is loaded: threads that wait for each other take the processor from other tests.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
