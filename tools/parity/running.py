"""Runs a case on whichever side this is."""

import jax
import numpy as np

from parity.cases import Case, Family, Values


def run_case(family: Family, case: Case, dtype: str) -> Values:
    """The arrays that a case gives, by path; float64 needs jax's x64 mode."""
    found = family.probe(case.call.bind(), dtype, **case.options)
    leaves = jax.tree_util.tree_leaves_with_path(found)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
