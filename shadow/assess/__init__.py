"""`shadow assess`: what will happen when a MongoDB database moves. Reads, and changes nothing.

    server     what the server says: collections, indexes, validators, counts, the profiler; documents in samples
    measure    one document after another through the real codec: sizes, types, keys, values that come often
    queries    recorded shapes through the real planner
    design     what the indexes become        validators   whether a validator refuses the version's field
    cost       units, money, time             written      the configuration file
    survey     all of it, one collection after another, to a `model.Assessment`
    text, page    the report

Values stay inside: what leaves is paths, types, counts and keyed hashes.
"""
