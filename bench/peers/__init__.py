"""What a guarded call costs, beside every Python peer, in one run.

`candidate` says what is compared, `others`, `stacks` and `keyed` build the peers, `ours` builds the guard,
`timing` holds the stopwatch, `bars` and `tables` read the figures. Nothing here ships with the package.
"""
