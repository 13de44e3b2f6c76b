"""Everything that happened, on disk: one log, a cursor that reads it again, a checkpoint."""
