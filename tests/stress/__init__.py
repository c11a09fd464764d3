"""Runs, records and files under fire: `python -m tests.stress`, or `make stress`. Not part of the tests; takes long.

A module of `kinds` is a kind of fault: ``WHAT`` says what is promised, ``SAMPLE`` how many of its cases a sample has,
``FULL`` how many a full run has, if not all, and ``cases(shared, chance)`` yields them: ``shared`` is a folder for what
several cases read, ``chance`` a generator of the seed. Cases of one name up to the colon are a row of the table, and
every choice, which follows the seed, has cases of every row.
"""

import sys
from pathlib import Path

HELPERS = Path(__file__).parents[1] / "helpers"
if str(HELPERS) not in sys.path:
    sys.path.insert(0, str(HELPERS))
