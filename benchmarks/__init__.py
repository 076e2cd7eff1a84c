"""How fast the orchestrator is, beside others that do the same work on the same server in the same run.

``python -m benchmarks.run`` measures, ``python -m benchmarks.report`` writes docs/performance.md from what was found.
Only the command line is called: what is measured is what a user gets.
"""
