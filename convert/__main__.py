"""``python -m convert`` in a checkout: ``mlx_gemma4 convert``."""

import sys

from mlx_gemma4.cli import main

sys.exit(main(["convert", *sys.argv[1:]]))
