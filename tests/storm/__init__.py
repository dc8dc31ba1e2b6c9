"""Kill storms: a daemon is killed at any instant, again and again, and its guest must notice nothing but pauses.

    python -m tests.storm [--kills N] [--seed N] [--skip CHECK]

A sim (:mod:`.sim`) runs a guest (:mod:`.guest`) whose vCPUs do whatever a driver may do, with a model of all that they
should find (:mod:`.memory`). Daemons are forked by a zygote and killed by the storm (:mod:`.storm`), which also sends
the commands of an operator. Between lives it compares everything with the models (:mod:`.checks`).
"""
