"""What a run's network says of a person's own pictures."""
