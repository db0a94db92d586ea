"""What stands in for the driver's database, collection and cursor."""
