"""From run folders to one tidy frame, and from the frame to tables and figures."""
