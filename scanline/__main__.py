"""`python -m scanline`: the `scanline` command."""

import sys

from scanline.cli import main

sys.exit(main())
