"""What a Batch account holds: records, their states, and the queues of tasks."""
