"""The document store on MongoDB, through Motor or PyMongo's own asynchronous driver."""
