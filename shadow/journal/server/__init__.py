"""The journal on a server, for hosts whose disk does not outlive them: in MongoDB, in DynamoDB.

`remote` is the journal: its threads, its order, its patience. `ledger` says what a server has to do for it, `mongo` and
`dynamo` do it, and `clock` is the one time that all processes go by.
"""
