"""The chaos suite: real workers under faults, a history that they write themselves, and a checker of it.

    python -m tests.chaos --minutes 60 --seed 7

`plan` draws the faults from a seed, `faults` inflicts them, `load` publishes, `tasks` is what runs, and all
of them write down what happens (`story`). When all is quiet again, `aftermath` adds what is left in the
servers. Nothing is asserted meanwhile: the `guarantees` read the history afterwards, and decide.
"""
