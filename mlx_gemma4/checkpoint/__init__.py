"""The files of a checkpoint folder: found or downloaded, and read within bounds."""
