"""The tour: real work, sent several times over, while worker processes are killed."""
