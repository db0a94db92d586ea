"""The drivers' and ODMs' own test suites, and applications of our own on the ODMs, against the library."""
