"""Forward and backward by hand."""
