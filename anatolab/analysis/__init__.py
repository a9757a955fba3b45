"""What is looked at after training: variances of samplers, the room of class centers, and what a model attends to."""

from anatolab.analysis.centers import class_similarity, effective_rank, least_largest_cosine, welch_bound
from anatolab.analysis.sampling_variance import exact_variance

__all__ = ["class_similarity", "effective_rank", "exact_variance", "least_largest_cosine", "welch_bound"]
