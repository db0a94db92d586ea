"""What goes to MongoDB's driver alone, and the ways around a configured collection."""
