"""The device and the numeric precision in which networks learn."""
