"""What a monitor or a supervisor asks a process over HTTP: metrics, and whether it is well."""
