"""Hearing the exchange: WebSocket connections and REST."""
