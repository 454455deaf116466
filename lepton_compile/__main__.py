"""``python -m lepton_compile``: the command line."""

from __future__ import annotations

import sys

from lepton_compile.cli import main

if __name__ == "__main__":
    sys.exit(main())
