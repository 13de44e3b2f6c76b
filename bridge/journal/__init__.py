"""The journal: all records on disk in one log, a cursor that reads them, a checkpoint."""
