"""What the page says between its tables."""

from __future__ import annotations

HEAD = """
# Benchmarks

Every figure on this page was written by one command, `{command}`, on {date}. Where a section says
when it was measured, it was so by itself, by `python -m benchmarks --write` and its name.

{versions}, on {machine}. While it ran, {load:.1f} processes wanted to run on average: a machine that is
busy makes all times longer, and what sleeps and wakes most of all.

Compare figures of one table with each other, and not with those of another machine: what is compared was
run in turns, so that whatever else the machine did slowed all of it alike. Times are medians; in brackets,
the middle half of them.
"""

PRIMITIVES = """
Client and server share one core. The ratio is to the first row of each group: EVALSHA of an empty script
through redis-py's client, as often as a lock or a record is asked. This library uses that client's
connections by themselves, the others the client. The library has no circuit breaker, so there is nothing
to compare with pybreaker.
"""

OVERHEAD = """
One prefork worker with one process runs tasks that do nothing, acknowledged late, with Redis as broker and
result backend: {rounds} rounds of {tasks} tasks of each kind, in turns. CPU time is that of the worker's
parent and child together; in brackets, the least and the most of a round. What it is more than the bare
task's is the median over the rounds. Scripts and round trips are those to the library's store, the
publisher's included: one for the lock of a singleton, and one for a rate limit, whose calls pass the gate of
the waiting room. Five policies are dead letters, retries, idempotency, a singleton and a rate limit;
the sixth is a concurrency limit.
"""

IMPORTS = """
CPU time that an app on Redis, which has imported Celery, redis-py and kombu's transport, spends on importing
something of ours: in milliseconds, each in a fresh interpreter, and how many modules come on top.
"""

FAULTS = """
Tasks with a lock on one of their arguments, under one prefork worker. Settings are each library's defaults,
but for the two rows about a lock that runs out: there it lasts {short} s, and the body takes {long:g} s.
*Acknowledged late* is `acks_late` with `reject_on_worker_lost`. Times are counted from the call on.
"SET NX and DEL" is what people write themselves: a key with an end, deleted in a `finally`.
"""

GROWTH = """
Client and server share one core. Compare the rows of one kind with each other.
"""

LIMITS = """
What further limits add, what a bucket takes, and how many calls pass a limit of 100/s in its worst second,
with right clocks and with one that is half a second ahead.
"""

DRAIN = """
A backlog under a limit, on real workers. `wall` is the time until the last start in parts of the ideal;
`token` and `body` are the most grants and starts in any second, of which the limit allows `bound`; `jitter`
is from a grant to its body; `late` is how much later than in the ideal a start comes; `others` are
unrelated tasks on the same queue, from when the broker had them; all these in ms. `MB` is what the workers
hold more than before, and `elsewhere` how many processors something else has used. 2,000 tasks are sent at
once, 5,000 at 500/s; one worker of four processes unless the row says otherwise.
"""

PARKED = """
What it takes that many wait in the waiting room: what starts in a second under a limit of 200/s, what the
worker and its pump hold more in memory, and how long it takes to show the first of the line. Then two tenants
who share a limit by turns: when the small one's ten calls are through, alone and beside the big one's.
"""

HANDOVER = """
From the end of one body to the beginning of the next, for calls that wait for one key, or for a place; for
idempotency, until a duplicate has the first one's result. Then what many who wait for one key cost.
"""

CHORDS = """
A partial chord against Celery's own, in turns.
"""

DEAD_LETTERS = """
What an operator waits for, with as many entries as the first line says.
"""

ROUTER = """
`TaskRouter` against Celery's router with a dict of as many globs; microseconds for 50 calls.
"""
