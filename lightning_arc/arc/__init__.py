"""The ground floor: grids, tasks, candidates and their files."""

from lightning_arc.arc.candidates import Candidate, CandidatePool, Pool, add_right_outputs
from lightning_arc.arc.grid import Grid, as_grid, same_grid
from lightning_arc.arc.io.candidate_files import (
    CandidateWarning,
    open_pool,
    read_candidates,
    read_pool,
    write_candidates,
)
from lightning_arc.arc.io.merged_pool import MergedPool
from lightning_arc.arc.io.pool_file import PoolFile, PoolWriter, write_pool
from lightning_arc.arc.io.submission import read_submission, write_submission
from lightning_arc.arc.io.tasks import read_tasks, write_tasks
from lightning_arc.arc.leave_one_out import leave_one_out
from lightning_arc.arc.task import Episode, LabeledCandidate, Pair, PairKey, Task, base_id

__all__ = [
    "Candidate",
    "CandidatePool",
    "CandidateWarning",
    "Episode",
    "Grid",
    "LabeledCandidate",
    "MergedPool",
    "Pair",
    "PairKey",
    "Pool",
    "PoolFile",
    "PoolWriter",
    "Task",
    "add_right_outputs",
    "as_grid",
    "base_id",
    "leave_one_out",
    "open_pool",
    "read_candidates",
    "read_pool",
    "read_submission",
    "read_tasks",
    "same_grid",
    "write_candidates",
    "write_pool",
    "write_submission",
    "write_tasks",
]
