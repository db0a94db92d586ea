"""What the operators are made of: paths, predicates of one value, numbers, patterns, collations, errors."""
