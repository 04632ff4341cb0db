"""What the cache costs and what it saves, against a real PostgreSQL: ``python -m benchmarks`` (``make bench``).

One run, one report. Every contender does the same work in the same process, a little at a time and in turn, so that
whatever else the machine does meets all of them; what is compared is always two contenders of the same round.
:mod:`benchmarks.contenders` says who they are, :mod:`benchmarks.work` what they do.
"""
