"""``python -m mlx_gemma4``: the command line."""

import sys

from mlx_gemma4.cli import main

sys.exit(main())
