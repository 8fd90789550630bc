"""`python -m serve`: the same as `scanline serve`."""

import sys

from scanline.cli import main

sys.exit(main(["serve", *sys.argv[1:]]))
