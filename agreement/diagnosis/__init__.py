"""Which mistake did a learner make? Their gradients are set beside those of all known mistakes."""

from agreement.diagnosis.result import Candidate, Diagnosis, Part, Problem

__all__ = ["Candidate", "Diagnosis", "Part", "Problem"]
