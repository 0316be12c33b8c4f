"""The IDX file format: read, write, inspect, map."""
