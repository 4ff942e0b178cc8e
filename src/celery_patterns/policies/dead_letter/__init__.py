"""Dead letters: a task that will not run again is kept until a person has decided about it."""
