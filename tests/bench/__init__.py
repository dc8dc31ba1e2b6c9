"""How fast it is, as ratios to what the same work costs without the project: ``python -m tests.bench``.

These are no tests: nothing fails because a machine is slow or busy. What came of them on one machine, and how, is in
docs/performance.md.
"""
