#!/usr/bin/env python3
"""Compares numbers with the released library's, over a grid of cases. See `--help`."""

import sys

from parity.command import main  # the package beside this file

if __name__ == "__main__":
    sys.exit(main())
