"""The exercises: their texts (``lessons/exercises/``), and how a learner's file is graded."""
