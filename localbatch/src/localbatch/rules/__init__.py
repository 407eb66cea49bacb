"""The rules of the scheduler: what happens to pools, nodes, jobs and Batch tasks."""
