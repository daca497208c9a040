"""From a suite's list of runs to one tidy frame, and from the frame to tables and figures."""
