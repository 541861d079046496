"""Recordings to frames of raw samples, and which of them are speech."""
