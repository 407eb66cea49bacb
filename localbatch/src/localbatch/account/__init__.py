"""The data of a Batch account: records, their states, and the queues of tasks."""
