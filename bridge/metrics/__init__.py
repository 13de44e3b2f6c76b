"""Metrics and health checks of a process over HTTP, for monitors and supervisors."""
