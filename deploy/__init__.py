"""What a deployment needs beside the image: monitoring, and the demo's settings."""
