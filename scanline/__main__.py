"""`python -m scanline`: the `scanline` command."""

import sys
from pathlib import Path

# `-m` looks in the working folder first, where a `train.py` or `serve.py` of somebody's would be taken for ours.
if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from scanline.cli import main

sys.exit(main())
