"""The journal on a server, for hosts whose disk does not outlive them: in MongoDB, in DynamoDB.

`remote` is the journal: its threads, its order, its patience. `ledger` is the logic, said once in the statements of a
`driver`; `mongo` and `dynamo` are the two drivers, `records` the values that pass between them, and `clock` is the one
time that all processes go by.
"""
