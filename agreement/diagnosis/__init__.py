"""Which mistake did a learner make? Their gradients are set beside those of all known mistakes."""

from agreement.diagnosis.apart import Limits
from agreement.diagnosis.diagnosing import UnknownSubject, diagnose
from agreement.diagnosis.result import Candidate, Diagnosis, Part, Problem
from agreement.diagnosis.subjects import SUBJECTS

__all__ = ["SUBJECTS", "Candidate", "Diagnosis", "Limits", "Part", "Problem", "UnknownSubject", "diagnose"]
