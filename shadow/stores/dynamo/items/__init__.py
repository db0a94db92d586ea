"""Documents as items: values, keys, expressions, unique claims."""
