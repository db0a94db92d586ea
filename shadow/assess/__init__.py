"""`shadow assess`: what a migration of a MongoDB database will meet. Reads only, changes nothing.

    server     what the server reports: collections, indexes, validators, counts, the profiler; samples of documents
    measure    each document through the real codec: sizes, types, keys, frequent values
    queries    recorded shapes of queries through the real planner
    design     what the indexes become        validators   whether a validator refuses the version field
    cost       units, money, time             written      the suggested configuration file
    survey     all of it for each collection, as a `model.Assessment`
    text, page    the report

Values never leave this package: the report has paths, types, counts and keyed hashes.
"""
