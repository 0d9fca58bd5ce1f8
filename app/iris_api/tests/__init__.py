"""Tests of the application, in rooms as its own; `instance` starts a real one."""

import os
import signal

# As in an instance, and before numpy is loaded: threads that wait for each other take the processor from other tests.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# Started in the background of a shell they would ignore Ctrl-C, and so would each program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
