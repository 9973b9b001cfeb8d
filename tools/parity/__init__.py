"""Runs the released library and ours on the same problems, and compares the numbers.

`cases` says how a case is written, `families` holds them, `problem` is what they run on. `running`
runs one where either library is the `optax` that is there, `worker` many of them in a process of
their own. `comparing` judges, `coverage` looks for what no case runs, `recording` keeps results
of the released library for tests without it; `command` puts it together.
"""
