"""The states of a job."""

PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELED = "pending", "in_progress", "completed", "failed", "canceled"
UNFINISHED = (PENDING, IN_PROGRESS)
FINISHED = (COMPLETED, FAILED, CANCELED)
