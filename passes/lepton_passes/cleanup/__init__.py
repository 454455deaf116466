"""Clean-up: the same mathematics with fewer nodes, in standard ops."""
